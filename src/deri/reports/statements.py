"""Single statements of reports, and what a text says as a set of findings that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from deri.reports.labeller import asserted, known_findings, sentence_spans


def finding_bits(text: str) -> int:
    """The findings that ``text`` asserts, possible ones included, as bits in the order of the labeller's table."""
    return sum(1 << _positions()[code] for code in asserted(text))


@cache
def _positions() -> dict[str, int]:
    positions = {code: i for i, code in enumerate(known_findings())}
    assert len(positions) < 64, "findings of a text are kept in 64 bits"
    return positions


@dataclass(frozen=True)
class Statements:
    """The sentences of a list of reports that name a finding.

    Attributes:
        texts: the distinct sentences.
        bits: int64 (s,), `finding_bits` of each.
        report_bits: int64 (n,), of each whole report.
        starts: int64 (n + 1,); ``ids[starts[i]:starts[i + 1]]`` are the sentences of report i.
        ids: positions in ``texts``.
    """

    texts: list[str]
    bits: np.ndarray
    report_bits: np.ndarray
    starts: np.ndarray
    ids: np.ndarray

    def draw(self, reports: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One sentence for each report (b,), chosen by ``uniform`` (b,) in [0, 1); -1 where it has none."""
        first, count = self.starts[reports], np.diff(self.starts)[reports]
        position = first + np.minimum((uniform * count).astype(np.int64), np.maximum(count - 1, 0))
        chosen = self.ids[np.minimum(position, len(self.ids) - 1)] if len(self.ids) else np.zeros_like(first)
        return np.where(count > 0, chosen, -1)


def split_statements(reports: Sequence[str]) -> Statements:
    """Split reports into sentences, and read the findings of both."""
    bits: dict[str, int] = {}  # of every distinct sentence
    numbers: dict[str, int] = {}  # of those that name a finding
    starts, ids = [0], []
    for report in reports:
        for sentence in _sentences(report):
            if sentence not in bits:
                bits[sentence] = finding_bits(sentence)
            if bits[sentence]:
                ids.append(numbers.setdefault(sentence, len(numbers)))
        starts.append(len(ids))
    whole = [finding_bits(report) for report in reports]
    arrays = (np.array(values, dtype=np.int64) for values in ([bits[text] for text in numbers], whole, starts, ids))
    return Statements(list(numbers), *arrays)


def _sentences(report: str) -> list[str]:
    parts = [report[start:end].strip() for start, end in sentence_spans(report)]
    return [part if part.endswith(".") else f"{part}." for part in parts if part.strip(" .")]
