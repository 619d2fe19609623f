"""Published figures that stand beside ours in a benchmark table: macro AUROC on test, in percent.

They are of the full real data sets with the published splits, so that a column of ours compares with them only where
the store holds the same test records; :data:`TEST_RECORDS` is how many those are.
"""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ("ptbxl-super", "ptbxl-sub", "ptbxl-form", "ptbxl-rhythm", "cpsc2018", "csn")
"""The six tasks of the field's tables, in their order."""

TITLES = dict(zip(TASKS, ("Super", "Sub", "Form", "Rhythm", "CPSC2018", "CSN"), strict=True))

TEST_RECORDS = dict(zip(TASKS, (2158, 2158, 880, 2098, 1376, 4620), strict=True))

ZERO_SHOT = "class texts enhanced by a language model (CKEPE), no training on labels; macro AUROC needs no threshold"
PROBE = (
    "AdamW, learning rate 0.01, batches of 16, 100 epochs, one random sample (seed 42); test "
    "at the epoch best on validation, recomputed from the released logs"
)


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table.

    ``fraction``: percent of the training records, None for zero-shot. ``values``: by task, percent. ``mean``: as it
    was published, over the six tasks.
    """

    model: str
    mode: str
    fraction: float | None
    values: dict[str, float]
    mean: float
    protocol: str
    source: str


def _row(
    model: str, fraction: float | None, values: tuple[float, ...], mean: float, protocol: str, source: str
) -> PublishedRow:
    mode = "zero-shot" if fraction is None else "probe"
    return PublishedRow(model, mode, fraction, dict(zip(TASKS, values, strict=True)), mean, protocol, source)


_MERL, _DBETA, _DERI = "MERL, ICML 2024", "D-BETA", "DERI, IJCAI 2025"

ROWS = (
    _row("MERL", None, (74.2, 75.7, 65.9, 78.5, 82.8, 74.4), 75.3, ZERO_SHOT, _MERL),
    _row("D-BETA", None, (76.2, 75.9, 66.1, 88.6, 80.1, 76.3), 77.1, ZERO_SHOT, _DBETA),
    _row("DERI", 1.0, (85.9, 70.8, 62.4, 59.8, 78.5, 74.8), 72.0, PROBE, _DERI),
    _row("DERI", 10.0, (89.5, 77.5, 72.4, 81.2, 89.4, 87.4), 82.9, PROBE, _DERI),
    _row("DERI", 100.0, (90.2, 83.9, 83.6, 90.1, 92.6, 91.4), 88.6, PROBE, _DERI),
)
"""The published rows, zero-shot first."""


def published_rows(mode: str, fraction: float | None) -> list[PublishedRow]:
    """The published rows of a part of the table: ``zero-shot``, or ``probe`` at a percentage."""
    return [row for row in ROWS if row.mode == mode and row.fraction == fraction]
