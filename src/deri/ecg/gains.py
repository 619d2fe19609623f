"""Headers whose gains scale every lead on its own, undone where the samples prove it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG

UNITS_PER_MV = 1000.0
"""Digital units per mV that all leads get: 1 µV, the step of the archives in which such headers were seen."""


def with_common_gain(ecg: ECG) -> ECG:
    """Return the recording with all leads at one gain, if its reader proved that the header's gains cannot be true.

    In LUDB each lead's gain is its own peak-to-peak, so that every lead spans 1 mV: the proportions between leads are
    lost, and with them axis, R wave progression and voltages. The digital samples of I, II and III obey I + III = II
    exactly, which they could not if their units differed; so the leads share one unit. Its size is stated nowhere;
    1 µV gives the amplitudes that other archives have (docs/ecg.md has the figures).

    The reader leaves the header's values alone and notes its gains in ``metadata["header_gains"]`` (lead → units per
    mV). A recording without such a note, or of which a lead was derived, is returned as it is.
    """
    gains = ecg.metadata.get("header_gains")
    if not gains or set(gains) != set(LEADS):
        return ecg
    factors = np.array([gains[lead] / UNITS_PER_MV for lead in LEADS], dtype=np.float32)
    metadata = {key: value for key, value in ecg.metadata.items() if key != "header_gains"}
    metadata["warnings"] = metadata["warnings"] | {
        "common_gain": f"all leads at {UNITS_PER_MV:g} units/mV instead of the header's contradicting gains"
    }
    return replace(ecg, signal=ecg.signal * factors[:, None], metadata=metadata)
