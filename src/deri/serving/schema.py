"""What the service takes and gives, typed; OpenAPI is made of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from deri._version import __version__
from deri.serving.limits import MAX_LABEL_CHARACTERS, MAX_LABELS

NOTICE = "Research use, not a diagnosis."
TEXT_EXAMPLE = "atrial fibrillation"

Text = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS, pattern=r"\S")]
Number = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Closed(BaseModel):
    """A form or query that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid")


class Reading(Closed):
    """How files are read that do not say it themselves."""

    fs: Number | None = Field(None, description="sampling rate in Hz, of files that do not state it")
    units: Literal["mV", "uV", "nV", "V"] | None = Field(None, description="unit, of files that do not state it")
    gain: Number | None = Field(None, description="counts per mV, in place of units")
    leads: Annotated[str, Field(max_length=2000)] | None = Field(
        None, description="names in the file of leads", examples=["MLII=II,ecg=I"]
    )


class Files(Reading):
    """Files of one request."""

    file: list[UploadFile] = Field(
        min_length=1, description="ECG files of any format; repeat it for files that belong together (.hea and .dat)"
    )


class ClassifyForm(Files):
    """What is asked of recordings."""

    labels: list[Text] = Field(
        [],
        max_length=MAX_LABELS,
        description="texts or codes; none: all calibrated findings",
        examples=[[TEXT_EXAMPLE]],
    )
    prevalence: list[Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS + 30)]] = Field(
        [],
        max_length=MAX_LABELS,
        description="how frequent findings are where the recording comes from: a share, or LABEL=SHARE for one of them",
        examples=[["atrial fibrillation=0.02"]],
    )


class PlotForm(Files):
    """A recording and what is written over it."""

    title: Annotated[str, Field(max_length=200)] | None = Field(None, description="headline; else the name of the file")
    annotations: list[Annotated[str, Field(max_length=200)]] = Field([], max_length=10, description="lines under it")


class SaliencyForm(Files):
    """A recording and the finding that is asked about."""

    label: Text = Field(examples=[TEXT_EXAMPLE])


class SearchForm(Reading):
    """A text, recordings, or both."""

    text: list[Text] = Field([], max_length=MAX_LABELS, examples=[[TEXT_EXAMPLE]])
    file: list[UploadFile] = []
    top: int = Field(10, ge=1, le=1000, description="cases at most")
    where: Annotated[str, Field(max_length=2000)] | None = Field(None, examples=['age > 60 and sex == "female"'])


class ClassifyQuery(Closed):
    """The form of the answer."""

    format: Literal["json", "fhir"] = Field("json", description="fhir: a Bundle of a DiagnosticReport, R4")


class PlotQuery(Closed):
    """The form of the drawing."""

    format: Literal["png", "svg", "pdf"] = "png"


class Finding(BaseModel):
    """One finding of a recording."""

    label: str = Field(examples=[TEXT_EXAMPLE])
    score: float = Field(
        description="cosine in [-1, 1]; it ranks recordings for one label; of a fine-tuned model its own probability",
        examples=[0.31],
    )
    probability: float | None = Field(description="null where the model is not calibrated for it", examples=[0.83])
    likelihood_ratio: float | None = Field(
        description="how many times as often recordings with the finding score so as those without", examples=[45.2]
    )


class Measurements(BaseModel):
    """Intervals as an ECG machine measures them; null where one cannot be measured."""

    rate_bpm: float | None = Field(examples=[72.0])
    pr_ms: float | None = Field(examples=[160.0])
    qrs_ms: float | None = Field(examples=[92.0])
    qt_ms: float | None = Field(examples=[390.0])
    qtc_ms: float | None = Field(examples=[412.0])
    axis_deg: float | None = Field(examples=[45.0])


class Told(BaseModel):
    """A recording of a request."""

    file: str = Field(description="as the client called it, without folders", examples=["ecg.dcm"])


class Measured(Told):
    """Its intervals."""

    measurements: Measurements


class Classified(Measured):
    """Its findings."""

    findings: list[Finding]
    duration_s: float = Field(examples=[10.0])
    fs: float = Field(description="sampling rate in Hz", examples=[500.0])
    missing_leads: list[str] = Field(
        description="leads that are not there; expect less, above all of what only they show", examples=[[]]
    )
    warnings: list[str] = Field(description="what the reader of the file found wrong with it", examples=[[]])


class Embedded(Told):
    """Its embedding."""

    embedding: list[float] = Field(description="of unit length")


class Doubt(BaseModel):
    """A finding that a report asserts or leaves out, held against the model's own score of the recording."""

    finding: str = Field(examples=["AFIB"])
    name: str = Field(examples=[TEXT_EXAMPLE])
    score: float
    probability: float | None
    threshold: float | None
    flag: bool = Field(description="the text says it, the model does not see it")


class Reported(Told):
    """A draft of its report."""

    text: str
    finished: bool = Field(description="false: the longest length came before the end")
    findings: list[Doubt] | None = Field(description="that the text asserts; null where the writer is not calibrated")
    left_out: list[Doubt] | None = Field(description="that the model sees and the text does not name; null likewise")


class Salient(Told):
    """What a score rests on: how far it falls when a part is hidden (docs/serve.md)."""

    label: str
    score: float
    step_s: float = Field(description="length of a part")
    time: list[float] = Field(description="per part, hidden in all leads at once")
    lead: dict[str, float] = Field(description="per lead, hidden as a whole")
    lead_time: dict[str, list[float]] = Field(description="per lead and part")


class Signal(Told):
    """The samples of a recording, for drawing."""

    fs: float
    duration_s: float
    leads: dict[str, list[int | None]] = Field(description="µV, from the beginning on; null in gaps")
    missing_leads: list[str]


class Case(BaseModel):
    """A recording of the index."""

    case: int = Field(description="its number, for /v1/cases/{case}")
    score: float = Field(description="cosine with what was asked")
    about: dict[str, Any] = Field(description="what the index knows of it", examples=[{"age": 61, "sex": "female"}])


class Answer(BaseModel):
    """What all answers say."""

    notice: str = NOTICE
    version: str = __version__


class OfModel(Answer):
    """Of a model."""

    model: str = Field(examples=["deri-open"])
    notes: list[str] = Field([], description="what is not as it seems: a denied label, words that name no finding …")


class ClassifyAnswer(OfModel):
    """Findings and intervals."""

    calibrated: bool = Field(description="whether findings have probabilities; else scores are for ranking only")
    recordings: list[Classified]


class EmbedAnswer(OfModel):
    """Embeddings."""

    recordings: list[Embedded]


class MeasureAnswer(Answer):
    """Intervals."""

    recordings: list[Measured]


class ReportAnswer(Answer):
    """Drafts of reports."""

    recordings: list[Reported]


class SearchAnswer(OfModel):
    """Cases, nearest first."""

    cases: list[Case]


class SignalAnswer(Answer):
    """Samples."""

    recordings: list[Signal]


class Health(BaseModel):
    """What the service is."""

    status: Literal["ok"] = "ok"
    version: str = __version__
    model: str = Field(examples=["deri-open"])
    writer: bool = Field(description="whether /v1/report answers")
    index: int | None = Field(description="recordings that /v1/search looks through; null: none")


class ProblemDetail(BaseModel):
    """An error, as RFC 9457 has it."""

    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["ecg.dcm: is a PDF; supported are: …"])
    reason: str = Field(description="a short stable code", examples=["unsupported_format"])
