"""What an ECG is: recordings, leads, reading, standardising, normalising, drawing on paper."""

from __future__ import annotations

from deri.ecg.given import recordings
from deri.ecg.leads import LEADS, MIMIC_LEADS, canonical_lead
from deri.ecg.normalise import normalise
from deri.ecg.plot import plot_ecg
from deri.ecg.read import read_ecg, recordings_in
from deri.ecg.recording import ECG
from deri.ecg.standardise import Standardised, standardise, standardise_windows

__all__ = [
    "ECG",
    "LEADS",
    "MIMIC_LEADS",
    "Standardised",
    "canonical_lead",
    "normalise",
    "plot_ecg",
    "read_ecg",
    "recordings",
    "recordings_in",
    "standardise",
    "standardise_windows",
]
