"""Simulated ECG studies: physiology, reports and the on-disk layouts of public data sets."""

from __future__ import annotations

from deri.simulate.findings import FINDINGS, Finding
from deri.simulate.noise import Noise
from deri.simulate.patient import Patient
from deri.simulate.tracing import Measurements, Tracing, draw_tracing, generate
from deri.simulate.write import LAYOUTS, SimulationSummary, simulate

__all__ = [
    "FINDINGS",
    "LAYOUTS",
    "Finding",
    "Measurements",
    "Noise",
    "Patient",
    "SimulationSummary",
    "Tracing",
    "draw_tracing",
    "generate",
    "simulate",
]
