"""What `deri serve` does under load, beside `deri embed` on the same files. Prints one JSON object.

    python benchmarks/serve.py FOLDER [--clients 100] [--seconds 60] [--path /v1/embed] [--model deri-open] [--slow 5]

FOLDER holds WFDB records. Clients on this machine send one record after the other, each over its own connection; `slow`
more of them send one byte a second. `ratio` is the rate of answers over that of `deri embed` (its own function, without
start and loading) just before; both have the whole machine, but the clients take their share of it as well. `ratio_cpu`
is per second of processor time of the server, which clients and other programs do not change. Memory is that of the
server's process, before the load and after it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from deri.cli.inputs import Reading, embed_inputs
from deri.models import load_model
from deri.progress import SILENT

SIGNALS = (".dat", ".mat")


def records(folder: Path, most: int) -> list[list[Path]]:
    """Header and signal file of each WFDB record."""
    pairs = [[header, header.with_suffix(suffix)] for header in sorted(folder.rglob("*.hea")) for suffix in SIGNALS]
    return [pair for pair in pairs if pair[1].is_file()][:most]


def request(path: str, files: list[Path]) -> bytes:
    """A whole request of HTTP with the files of one record."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'.encode()
        + file.read_bytes()
        for file in files
    ]
    body = b"\r\n".join([*parts, f"--{mark}--\r\n".encode()])
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={mark}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def client(
    address: tuple[str, int], requests: list[bytes], end: float, times: list[float], bad: list[str]
) -> None:
    """Send requests until ``end``; collect seconds of each, and what was no 200."""
    reader, writer = await asyncio.open_connection(*address)
    at = int(np.random.default_rng().integers(len(requests)))
    while time.perf_counter() < end:
        start = time.perf_counter()
        writer.write(requests[at % len(requests)])
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        size = re.search(r"(?i)content-length: (\d+)", head)
        assert size is not None
        body = await reader.readexactly(int(size[1]))
        if " 200 " in head.splitlines()[0]:
            times.append(time.perf_counter() - start)
        else:
            bad.append(body.decode()[:200])
        at += 1
    writer.close()


async def slow_client(address: tuple[str, int], request: bytes, end: float) -> None:
    """Send a byte a second."""
    reader, writer = await asyncio.open_connection(*address)
    for byte in request:
        if time.perf_counter() > end or reader.at_eof():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(1)
    writer.close()


async def load(
    address: tuple[str, int], requests: list[bytes], clients: int, slow: int, seconds: float
) -> tuple[list[float], list[str], float]:
    """Seconds of each answer, what was refused, and how long it took."""
    times: list[float] = []
    bad: list[str] = []
    start = time.perf_counter()
    trickle = [asyncio.create_task(slow_client(address, requests[0], start + seconds)) for _ in range(slow)]
    await asyncio.gather(*(client(address, requests, start + seconds, times, bad) for _ in range(clients)))
    took = time.perf_counter() - start
    for task in trickle:
        task.cancel()
    return times, bad, took


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    return 0.0 if found is None else int(found[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def embed_rate(model: str, files: list[list[Path]]) -> tuple[float, float]:
    """Recordings per second of `deri embed`, by the clock and by processor time."""
    loaded = load_model(model, device=None)
    names = [str(pair[0]) for pair in files]
    embed_inputs(lambda: loaded, names[:8], Reading({}), None, SILENT)
    start, used = time.perf_counter(), time.process_time()
    embed_inputs(lambda: loaded, names, Reading({}), None, SILENT)
    return len(names) / (time.perf_counter() - start), len(names) / (time.process_time() - used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--path", default="/v1/embed")
    parser.add_argument("--model", default="deri-open")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--slow", type=int, default=5)
    options = parser.parse_args()
    files = records(options.folder, options.files)
    rate, rate_cpu = embed_rate(options.model, files)
    command = [sys.executable, "-m", "deri", "serve", "--model", options.model, "--port", "0", "--queue", "1000"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        url = urlsplit(
            next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line))).rstrip(";")
        )
        address = (url.hostname or "", url.port or 0)
        log = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        requests = [request(options.path, pair) for pair in files]
        asyncio.run(load(address, requests, options.clients, 0, 5))  # until batches have their full size
        before, used = megabytes(server.pid), cpu_seconds(server.pid)
        times, bad, took = asyncio.run(load(address, requests, options.clients, options.slow, options.seconds))
        after, used = megabytes(server.pid), cpu_seconds(server.pid) - used
    finally:
        server.terminate()
        server.wait()
    log.wait()
    result = {
        "path": options.path,
        "model": options.model,
        "files": len(files),
        "clients": options.clients,
        "slow_clients": options.slow,
        "seconds": round(took, 2),
        "requests": len(times) + len(bad),
        "errors": len(bad),
        "error": bad[0] if bad else None,
        "samples_per_s": round(len(times) / took, 2),
        "embed_samples_per_s": round(rate, 2),
        "ratio": round(len(times) / took / rate, 3),
        "ratio_cpu": round(len(times) / used / rate_cpu, 3),
        "p50_s": round(float(np.percentile(times, 50)), 3) if times else None,
        "p99_s": round(float(np.percentile(times, 99)), 3) if times else None,
        "memory_mb": {"before": round(before, 1), "after": round(after, 1)},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
