# The service in a container. CPU: docker build -t deri . — CUDA: docker build -t deri --build-arg TORCH=cu126 .
# docker run -p 8000:8000 -v ./token:/run/token:ro deri      (token: 16 characters or more; see docs/serve.md)
FROM python:3.12-slim

ARG TORCH=cpu
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/${TORCH}

WORKDIR /opt/deri
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-cache-dir ".[serve,formats,offline,report]" && useradd --create-home --uid 10001 deri

USER deri
WORKDIR /home/deri
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["deri", "serve", "--host", "0.0.0.0"]
CMD ["--token-file", "/run/token"]
