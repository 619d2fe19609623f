"""The application: endpoints, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from deri._version import __version__
from deri.ecg.read import given_options
from deri.errors import DeriError
from deri.evaluation.answers import read_priors
from deri.generation.review import CheckedFinding
from deri.serving import fhir
from deri.serving.drawing import microvolts
from deri.serving.gate import Access, Gate, log_line
from deri.serving.pages import router as pages
from deri.serving.problem import Problem, on_deri, on_http, on_validation
from deri.serving.schema import (
    Case,
    Classified,
    ClassifyAnswer,
    ClassifyForm,
    ClassifyQuery,
    Closed,
    Doubt,
    EmbedAnswer,
    Embedded,
    Files,
    Finding,
    Health,
    MeasureAnswer,
    Measured,
    Measurements,
    PlotForm,
    PlotQuery,
    ProblemDetail,
    Reading,
    ReportAnswer,
    Reported,
    SaliencyForm,
    Salient,
    SearchAnswer,
    SearchForm,
    Signal,
    SignalAnswer,
)
from deri.serving.service import SALIENCY_STEP_S, Service, parts_of
from deri.serving.uploads import Recording, Upload

Fields = TypeVar("Fields")
_MULTIPART = Form(media_type="multipart/form-data")
_PLOTS = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemDetail, "description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        400: "a body that is no multipart form",
        401: "no token, or a wrong one",
        404: "no such thing here",
        408: "the body came too slowly",
        413: "too much of something",
        415: "a file of no known format",
        421: "asked under a name that is not this service's",
        422: "a file that cannot be used, or a field that is wrong",
        429: "too many requests",
        503: "too busy; come again",
        504: "the work took too long",
    }.items()
}

router = APIRouter(responses=_PROBLEMS)


def service_of(request: Request) -> Service:
    """The service that answers."""
    found: Service = request.app.state.service
    return found


def no_query(_: Annotated[Closed, Query()]) -> None:
    """Refuses all parameters in the address."""


Serving = Annotated[Service, Depends(service_of)]
NoQuery = Depends(no_query)


async def _read(service: Service, form: Reading, files: list[UploadFile]) -> list[Recording]:
    """The recordings of a form's files."""
    if len(files) > service.limits.files:
        raise Problem(413, "too_many", f"{len(files)} files in one request; the limit is {service.limits.files}")
    options = given_options(form.fs, form.units, form.gain, form.leads)
    return await service.read([Upload(file.filename, file.file) for file in files], options)


async def _one(service: Service, form: Files) -> Recording:
    """The recording of a form that takes a single one."""
    recordings = await _read(service, form, form.file)
    if len(recordings) > 1:
        names = ", ".join(one.file for one in recordings[:3])
        raise Problem(422, "several_recordings", f"{len(recordings)} recordings ({names} …): send one at a time here")
    return recordings[0]


@router.post("/v1/classify", responses={200: {"content": {fhir.MEDIA_TYPE: {}}}})
async def classify(
    request: Request,
    service: Serving,
    form: Annotated[ClassifyForm, _MULTIPART],
    query: Annotated[ClassifyQuery, Query()],
) -> ClassifyAnswer:
    """Findings of recordings, with probabilities where the model is calibrated, and their intervals.

    Without labels all calibrated findings are given, the most probable first. As FHIR with format=fhir or
    Accept: application/fhir+json.
    """

    async def work() -> ClassifyAnswer:
        question = await service.question(form.labels or None, read_priors(form.prevalence))
        recordings = await _read(service, form, form.file)
        scores = question.of_windows(await service.embed(recordings))
        measured = await service.measure(recordings)
        told = [
            Classified(
                file=recording.file,
                findings=[Finding(**vars(finding)) for finding in question.findings(scores, i)],
                measurements=Measurements(**measurements),
                duration_s=round(recording.ecg.duration, 3),
                fs=recording.ecg.fs,
                missing_leads=list(recording.ecg.missing_leads),
                warnings=list(recording.ecg.metadata.get("warnings", {}).values()),
            )
            for i, (recording, measurements) in enumerate(zip(recordings, measured, strict=True))
        ]
        calibrated = any(finding.probability is not None for one in told for finding in one.findings)
        return ClassifyAnswer(model=service.name, notes=list(question.notes), calibrated=calibrated, recordings=told)

    answer = await service.limited(work())
    if query.format == "fhir" or fhir.MEDIA_TYPE in request.headers.get("accept", ""):
        return JSONResponse(fhir.bundle(answer), media_type=fhir.MEDIA_TYPE)  # type: ignore[return-value]
    return answer


@router.post("/v1/embed", dependencies=[NoQuery])
async def embed(service: Serving, form: Annotated[Files, _MULTIPART]) -> EmbedAnswer:
    """Embeddings of recordings, of unit length."""
    from deri.models.base import pool_windows

    async def work() -> EmbedAnswer:
        recordings = await _read(service, form, form.file)
        vectors = pool_windows(await service.embed(recordings))
        told = [Embedded(file=one.file, embedding=v.tolist()) for one, v in zip(recordings, vectors, strict=True)]
        return EmbedAnswer(model=service.name, recordings=told)

    return await service.limited(work())


@router.post("/v1/measure", dependencies=[NoQuery])
async def measure(service: Serving, form: Annotated[Files, _MULTIPART]) -> MeasureAnswer:
    """Rate, PR, QRS, QT, QTc and axis of recordings."""

    async def work() -> MeasureAnswer:
        recordings = await _read(service, form, form.file)
        found = zip(recordings, await service.measure(recordings), strict=True)
        told = [Measured(file=one.file, measurements=Measurements(**values)) for one, values in found]
        return MeasureAnswer(recordings=told)

    return await service.limited(work())


@router.post("/v1/report", dependencies=[NoQuery])
async def report(service: Serving, form: Annotated[Files, _MULTIPART]) -> ReportAnswer:
    """Drafts of reports; where the writer is calibrated, with the findings that the model doubts or misses."""

    async def work() -> ReportAnswer:
        recordings = await _read(service, form, form.file)
        told = []
        for recording, found in zip(recordings, await service.review(recordings), strict=True):
            known = service.writer is not None and service.writer.calibrated
            findings = _doubts(found.findings) if known else None
            left_out = _doubts(found.left_out) if known else None
            told.append(
                Reported(
                    file=recording.file,
                    text=found.text,
                    finished=found.finished,
                    findings=findings,
                    left_out=left_out,
                )
            )
        return ReportAnswer(recordings=told)

    return await service.limited(work())


def _doubts(found: list[CheckedFinding]) -> list[Doubt]:
    return [Doubt(**{name: getattr(one, name) for name in Doubt.model_fields}) for one in found]


@router.post("/v1/search", dependencies=[NoQuery])
async def search(service: Serving, form: Annotated[SearchForm, _MULTIPART]) -> SearchAnswer:
    """The recordings of the index that are nearest to a text, to recordings, or to the mean of both."""

    async def work() -> SearchAnswer:
        recordings = await _read(service, form, form.file) if form.file else []
        table, notes = await service.search(form.text, recordings, top=form.top, where=form.where)
        about = table.drop(columns="score").astype(object).to_dict("records")
        found = zip(table.index.tolist(), table["score"].tolist(), about, strict=True)
        cases = [Case(case=number, score=score, about=_known(row)) for number, score, row in found]
        return SearchAnswer(model=service.name, notes=notes, cases=cases)

    return await service.limited(work())


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """What is known of a case, without the place of its file on this machine."""
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
    return {name: value for name, value in plain.items() if name != "file" and value is not None and value == value}


@router.get("/v1/cases/{case}", dependencies=[NoQuery])
async def case(service: Serving, case: int) -> SignalAnswer:
    """The samples of a recording of the index, to be drawn."""

    async def work() -> SignalAnswer:
        return SignalAnswer(recordings=[_signal(await service.case(case))])

    return await service.limited(work())


@router.post("/v1/signal", dependencies=[NoQuery])
async def signal(service: Serving, form: Annotated[Files, _MULTIPART]) -> SignalAnswer:
    """The samples of recordings, to be drawn: the first 30 s of each."""

    async def work() -> SignalAnswer:
        return SignalAnswer(recordings=[_signal(one) for one in await _read(service, form, form.file)])

    return await service.limited(work())


def _signal(recording: Recording) -> Signal:
    ecg = recording.ecg
    return Signal(
        file=recording.file,
        fs=ecg.fs,
        duration_s=round(ecg.duration, 3),
        leads=microvolts(ecg),
        missing_leads=list(ecg.missing_leads),
    )


@router.post(
    "/v1/plot",
    response_class=Response,
    responses={200: {"description": "a drawing", "content": {kind: {} for kind in _PLOTS.values()}}},
)
async def plot(
    service: Serving, form: Annotated[PlotForm, _MULTIPART], query: Annotated[PlotQuery, Query()]
) -> Response:
    """A recording on ECG paper: 25 mm/s, 10 mm/mV."""

    async def work() -> bytes:
        return await service.plot(await _one(service, form), query.format, form.title, form.annotations)

    return Response(await service.limited(work()), media_type=_PLOTS[query.format])


@router.post("/v1/saliency", dependencies=[NoQuery])
async def saliency(service: Serving, form: Annotated[SaliencyForm, _MULTIPART]) -> Salient:
    """What the score of a label rests on, in the beginning of a recording: how far it falls when a part is hidden."""

    async def work() -> Salient:
        question = await service.question([form.label], {})
        recording = await _one(service, form)
        found = await service.saliency(recording, question)
        time, lead, lead_time = parts_of(found, service.model.config.signal.fs)
        return Salient(
            file=recording.file, label=form.label, score=found.score, step_s=SALIENCY_STEP_S,
            time=time, lead=lead, lead_time=lead_time,
        )  # fmt: skip

    return await service.limited(work())


@router.get("/healthz", dependencies=[NoQuery])
async def healthz(service: Serving) -> Health:
    """Whether the service is up, and what it has."""
    index = None if service.index is None else len(service.index)
    return Health(model=service.name, writer=service.writer is not None, index=index)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: Serving) -> Response:
    """Counts and times, for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def create_app(
    service: Service, access: Access | None = None, log: Callable[[dict[str, Any]], None] = log_line
) -> FastAPI:
    """The application of a service.

    Args:
        service: that answers; closed when the application ends.
        access: who may ask.
        log: takes what is told of each request.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="deri",
        version=__version__,
        description="ECGs in, findings out. For research; not a medical device, and nothing it says is a diagnosis.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(pages, include_in_schema=False)
    for kind, handler in (
        (HTTPException, on_http), (RequestValidationError, on_validation), (DeriError, on_deri),
    ):  # fmt: skip
        app.add_exception_handler(kind, handler)
    app.add_middleware(Gate, limits=service.limits, access=access or Access(), metrics=service.metrics, log=log)
    return app
