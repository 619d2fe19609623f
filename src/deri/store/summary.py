"""What a preparation read and refused, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deri.store.duplicates import sentences


@dataclass
class Summary:
    """Counts of one preparation.

    ``read + sum(rejected.values())`` is the number of recordings that the data set names, ``windows`` the number of
    stored rows, ``longer`` how many of the recordings have more than one window of 10 s. ``duplicates`` is
    :meth:`deri.store.duplicates.Found.to_dict` and ``dropped``, whether they were left out. When ``complete`` is
    False, other shards of the same preparation are still missing and the counts cover the finished chunks only.
    """

    dataset: str
    read: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    per_source: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    complete: bool = True
    chunks_done: int = 0
    chunks: int = 0
    windows: int = 0
    longer: int = 0
    duplicates: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def count(
        cls, dataset: str, read_sources: Mapping[str, int], rejects: Iterable[tuple[str, str]], **rest: Any
    ) -> Summary:
        """Sum up: stored recordings by source, and the (source, reason) of every refused one."""
        read = Counter(read_sources)
        refused = Counter(rejects)
        reasons: Counter[str] = Counter()
        by_source: dict[str, Counter[str]] = {source: Counter() for source in read}
        for (source, reason), n in refused.items():
            reasons[reason] += n
            by_source.setdefault(source, Counter())[reason] += n
        per_source = {
            source: {"read": read[source], "rejected": _ordered(by_source[source])} for source in sorted(by_source)
        }
        return cls(dataset, sum(read.values()), _ordered(reasons), per_source, **rest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return what ``deri prepare`` prints."""
        refused = sum(self.rejected.values())
        lines = [
            f"{self.dataset}: {self.read + refused:,} recordings, {self.read:,} stored, {refused:,} rejected",
        ]
        width = max((len(reason) for reason in self.rejected), default=0)
        lines += [f"  {reason:<{width}}  {n:>9,}" for reason, n in self.rejected.items()]
        if len(self.per_source) > 1:
            width = max(len("source"), *(len(source) for source in self.per_source))
            lines.append(f"{'source':<{width}}  {'stored':>9}  {'rejected':>9}")
            for source, counts in self.per_source.items():
                reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts["rejected"].items())
                n = sum(counts["rejected"].values())
                lines.append(f"{source:<{width}}  {counts['read']:>9,}  {n:>9,}" + (f"  {reasons}" if reasons else ""))
        lines.append("splits: " + ", ".join(f"{name} {n:,}" for name, n in self.splits.items()))
        lines.append(f"distinct reports: {self.reports:,}")
        if self.windows > self.read:
            lines.append(f"windows: {self.windows:,} of 10 s, of {self.longer:,} longer recordings more than one")
        elif self.longer:
            lines.append(
                f"{self.longer:,} recordings are longer than 10 s (by 2.5 s or more): the first 10 s are stored; "
                "--windows all keeps the rest"
            )
        lines += sentences(self.duplicates)
        if not self.complete:
            lines.append(
                f"not finished: {self.chunks_done} of {self.chunks} chunks are done; "
                "the store is complete when the last --shard is"
            )
        return "\n".join(lines)


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, then by name: the same order whatever the order of counting."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
