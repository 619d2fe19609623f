"""``ECG``: one 12-lead recording in millivolts, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.ecg.leads import LEADS, arrange, lead_plan
from deri.errors import DeriError, ReadError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ABOUT = ("age", "sex", "date", "device", "interpretation")
"""Metadata that a store keeps.

``age``: years or None. ``sex``: "female", "male" or None. ``date``: day and, where known, local time of the recording,
ISO 8601, or None. ``device``: maker and model, or None. ``interpretation``: the sentences of the device or of who read
the ECG, without names of people (:func:`deri.ecg.people.without_names`).
"""


@dataclass(frozen=True, eq=False)
class ECG:
    """A 12-lead recording.

    Attributes:
        signal: float32 (12, n) in mV, rows in the order of ``LEADS``. A lead that was neither recorded nor derivable
            is a row of NaN; single NaN are gaps of the recording.
        fs: sampling rate in Hz.
        metadata: what the file says besides. ``source_file``, ``format``, ``derived_leads`` (lead -> formula),
            ``dropped_leads`` (channels that are none of the twelve), ``warnings`` (code -> sentence), ``comments``,
            ``filters`` (of the stored samples, as the file states them);
            ``dx`` (tuple of codes or texts) and those of ``ABOUT`` only where the file has such a field.
        leads: always ``LEADS``.
    """

    signal: np.ndarray
    fs: float
    metadata: dict[str, Any] = field(default_factory=dict)
    leads: tuple[str, ...] = LEADS

    def __post_init__(self) -> None:
        if self.leads != LEADS:
            raise DeriError(f"an ECG has the leads {LEADS} in this order; use ECG.from_leads for other names or orders")
        signal = self.signal
        if signal.ndim != 2 or signal.shape[0] != len(LEADS):
            raise DeriError(
                f"an ECG signal has shape (12, samples), not {tuple(signal.shape)}; use ECG.from_leads for other leads"
            )
        if signal.dtype != np.float32:
            object.__setattr__(self, "signal", signal.astype(np.float32))
        if not 0 < self.fs < float("inf"):
            raise DeriError(f"the sampling rate of an ECG is a positive number of Hz, not {self.fs}")

    @classmethod
    def from_leads(
        cls,
        signal: np.ndarray | Sequence[np.ndarray],
        names: Sequence[str],
        fs: float,
        metadata: Mapping[str, Any] | None = None,
    ) -> ECG:
        """Build an ECG from channels in any order and under any usual name.

        Args:
            signal: (k, n) in mV, or k arrays of n samples.
            names: the k channel names; aliases as in :func:`deri.ecg.canonical_lead`.
            fs: sampling rate in Hz.
            metadata: kept as is; ``derived_leads`` and ``dropped_leads`` are added.

        Limb leads that were not given are derived when two of I, II and III exist; a given lead is never overwritten.

        Raises:
            ReadError: ``unequal_lead_lengths``, ``lead_count_mismatch``, ``duplicate_lead``, ``unknown_leads``.
        """
        if len(signal) != len(names):
            raise ReadError(f"{len(signal)} signals but {len(names)} lead names", "lead_count_mismatch")
        channels = [np.asarray(channel) for channel in signal]
        lengths = {channel.shape for channel in channels}
        if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
            listed = ", ".join(f"{name}: {channel.size}" for name, channel in zip(names, channels, strict=True))
            raise ReadError(f"the leads differ in length ({listed} samples)", "unequal_lead_lengths")
        plan = lead_plan(tuple(names))
        merged = dict(metadata or {})
        merged["derived_leads"] = {LEADS[d.lead]: d.formula for d in plan.derivations}
        merged["dropped_leads"] = list(plan.dropped)
        return cls(arrange(channels, plan), float(fs), merged)

    @property
    def n_samples(self) -> int:
        """Samples per lead."""
        return int(self.signal.shape[1])

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.fs

    @property
    def missing_leads(self) -> tuple[str, ...]:
        """Leads without a single finite sample."""
        begun = np.isfinite(self.signal[:, :64]).any(axis=1)
        # Row by row: of a day-long recording not one more array of its size.
        rest = zip(LEADS, begun, self.signal[:, 64:], strict=True)
        return tuple(lead for lead, there, row in rest if not there and not np.isfinite(row).any())

    @property
    def partial_leads(self) -> tuple[str, ...]:
        """Leads that are there, but lack more than 1 s of the recording."""
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is as suspect as NaN
            suspects = np.flatnonzero(np.isnan(np.add.reduce(self.signal, axis=1)))
        lacking = {LEADS[row]: np.isnan(self.signal[row]).sum() for row in suspects}
        return tuple(lead for lead, n in lacking.items() if self.fs < n < self.n_samples)

    def plot(
        self,
        path: str | Path | None = None,
        *,
        title: str | None = None,
        annotations: Sequence[str] | None = None,
    ) -> Figure:
        """Draw on ECG paper, see :func:`deri.ecg.plot_ecg`."""
        from deri.ecg.plot import plot_ecg

        return plot_ecg(self, path, title=title, annotations=annotations)

    def to_dataframe(self) -> pd.DataFrame:
        """The signal as a table: a column a lead in mV, a row a sample, by time in s."""
        import pandas as pd

        time = pd.Index(np.arange(self.n_samples) / self.fs, name="seconds")
        return pd.DataFrame(self.signal.T, index=time, columns=list(LEADS))

    def _repr_html_(self) -> str:
        """What a notebook shows: the recording on paper above what the file says of it."""
        import base64
        from html import escape

        from deri.ecg.plot import ecg_png

        about = {
            "recording": f"{self.duration:g} s at {self.fs:g} Hz",
            "missing leads": ", ".join(self.missing_leads),
            **{name: self.metadata.get(name) for name in ("source_file", "format", "age", "sex", "date", "device")},
            "interpretation": "; ".join(self.metadata.get("interpretation") or ()),
            "warnings": "; ".join((self.metadata.get("warnings") or {}).values()),
        }
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name.replace('_', ' '))}</th>"
            f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
            for name, value in about.items()
            if value not in (None, "")
        )
        picture = base64.b64encode(ecg_png(self, width=1100)).decode()
        return (
            f"<img alt='ECG on paper, 25 mm/s, 10 mm/mV' style='max-width:100%' src='data:image/png;base64,{picture}'>"
            f"<table>{rows}</table>"
        )

    def __repr__(self) -> str:
        missing = f", missing {' '.join(self.missing_leads)}" if self.missing_leads else ""
        source = f", {self.metadata['source_file']}" if self.metadata.get("source_file") else ""
        return f"ECG({self.duration:g} s at {self.fs:g} Hz, {self.n_samples} samples{missing}{source})"
