"""Options that several commands have, each with its type and help in one place.

A command names them as the types of its parameters: ``def probe(model: Model, data: Data, …)``.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from deri.errors import DeriError


class SplitName(str, Enum):
    """Which records are taken."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


class PrecisionName(str, Enum):
    """Number format of an encoder."""

    fp32 = "fp32"
    bf16 = "bf16"
    auto = "auto"


class FeaturesName(str, Enum):
    """What a probe is trained on."""

    embedding = "embedding"
    intervals = "intervals"
    both = "both"


class ProtocolName(str, Enum):
    """As the papers did, or without their flaws (docs/evaluation.md)."""

    corrected = "corrected"
    published = "published"


class SamplingName(str, Enum):
    """What a fraction of the training split is made of."""

    random = "random"
    patient = "patient"


class EngineName(str, Enum):
    """Where the workers are: on this machine, or on the nodes of a Ray cluster."""

    local = "local"
    ray = "ray"


MODEL = "directory, run, address (s3://…), hub id or built-in name; untrained: random:RECIPE"
Model = Annotated[str, typer.Option(help=MODEL)]
Data = Annotated[str, typer.Option(help="store made by deri prepare, or its address (s3://…)")]
DataWithReports = Annotated[str, typer.Option(help="store made by deri prepare, with reports")]
Task = Annotated[str, typer.Option(help="e.g. ptbxl-super, ptbxl-rhythm, labels")]
Prompts = Annotated[Path | None, typer.Option(help="class texts: YAML, or JSON of class → text")]
ResultFile = Annotated[Path, typer.Option(help="result file, JSON")]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="of stores: read all first, leave damaged recordings out, count them")
]
Split = Annotated[SplitName, typer.Option(help="which records")]
Protocol = Annotated[ProtocolName, typer.Option(help="as the papers did, or without their flaws")]
Sampling = Annotated[SamplingName, typer.Option(help="of a fraction: records, or whole patients")]
Fraction = Annotated[str, typer.Option(help="percent of the training records; several: 1,10,100")]
FirstSeed = Annotated[int, typer.Option(min=0, help="the first seed")]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="how many seeds; figures are means over them [default: 5 below 100 %, else 1]"),
]
BootstrapSeed = Annotated[int, typer.Option(min=0, help="of the bootstrap")]
Draws = Annotated[int, typer.Option(min=0, help="0: no intervals; else bootstrap samples, where an interval is drawn")]
Device = Annotated[str | None, typer.Option(help="cpu | cuda | cuda:N [default: the GPU where there is one]")]
Precision = Annotated[
    PrecisionName,
    typer.Option(help="of the encoder; auto: bf16 where the device is fast in it, digits differ a little"),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="e.g. train.epochs=10")]


def fractions_of(text: str) -> tuple[float, ...]:
    """``1,10,100`` as percentages, ascending."""
    try:
        values = sorted(float(part) for part in text.split(","))
    except ValueError:
        raise DeriError(f"--fraction {text}: give percentages such as 100 or 1,10,100") from None
    if any(not 0 < value <= 100 for value in values) or len(set(values)) < len(values):
        raise DeriError(f"--fraction {text}: give different percentages above 0 and up to 100")
    return tuple(values)


Inputs = Annotated[list[str], typer.Argument(metavar="INPUT…", help="ECG files, folders of them, or stores")]
SamplingRate = Annotated[float | None, typer.Option("--fs", min=0.1, help="Hz, for files that do not say")]
Units = Annotated[str | None, typer.Option(help="mV | uV | nV | V, for files that do not say")]
Gain = Annotated[float | None, typer.Option(help="counts per mV, instead of --units")]
LeadNames = Annotated[
    str | None, typer.Option("--leads", help='names in the file of leads: "MLII=II", several with commas')
]
Strict = Annotated[bool, typer.Option("--strict", help="stop at the first file that cannot be used")]
Anonymous = Annotated[
    Path | None, typer.Option(metavar="KEY", help="hash file names and ids with the key in this file; made if missing")
]
Windows = Annotated[
    str, typer.Option(help="N | all: windows of a long recording to take, spread evenly; their mean counts")
]
Engine = Annotated[EngineName, typer.Option(help="where the workers are: this machine, or a Ray cluster")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="how many [default: local: 1, this process; ray: one per processor, or GPU, there]"),
]
