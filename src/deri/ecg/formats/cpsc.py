"""The original files of the CPSC 2018 challenge: a struct ``ECG`` with ``sex``, ``age`` and ``data`` (12, n)."""

from __future__ import annotations

from typing import Any

import numpy as np

from deri.ecg.formats.common import load, make_ecg, sex_of, years
from deri.ecg.formats.mat5 import load_mat5
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError

# Stated by the challenge, not by the files: 500 Hz, mV, and the order of the leads. The limb leads of real files obey
# Einthoven and Goldberger in this order and no other, and PhysioNet's copies of the same recordings say the same.
_FS = 500.0


def read_cpsc(path: str) -> ECG:
    """Read a CPSC 2018 struct file.

    Raises:
        ReadError: ``missing_header`` (a .mat that needs a WFDB header), ``unsupported_format``, ``unreadable_signal``,
            and those of ``make_ecg``.
    """
    variables = load_mat5(path, load(path))
    ecg = variables.get("ECG")
    if not isinstance(ecg, dict):
        if "val" in variables:
            raise ReadError(
                f"{path}: holds samples alone; its header (.hea), which tells leads, gain and rate, is missing",
                "missing_header",
            )
        listed = ", ".join(str(name)[:20] for name in list(variables)[:8]) or "nothing"
        raise ReadError(f"{path}: a MATLAB file without a struct ECG (it holds {listed})", "unsupported_format")
    data = ecg.get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[0] != len(LEADS):
        shape = data.shape if isinstance(data, np.ndarray) else "no array"
        raise ReadError(f"{path}: ECG.data is {shape}, not 12 x samples", "unsupported_format")
    about: dict[str, Any] = {"sex": sex_of(ecg["sex"]) if isinstance(ecg.get("sex"), str) else None, "age": None}
    age = ecg.get("age")
    if isinstance(age, np.ndarray) and age.size == 1:
        about["age"] = years(float(age.ravel()[0]))
    return make_ecg(path, "CPSC2018 MATLAB struct", list(data), LEADS, _FS, about)
