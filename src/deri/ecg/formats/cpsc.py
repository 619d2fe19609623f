"""The original files of the CPSC 2018 challenge: a struct ``ECG`` with ``sex``, ``age`` and ``data`` (12, n)."""

from __future__ import annotations

from typing import Any

import numpy as np

from deri.ecg.formats.common import Format, make_ecg, sex_of, years
from deri.ecg.formats.matlab import is_level5, load_matlab
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
    variables = load_matlab(path)
    ecg = variables.get("ECG")
    if ecg is None or ecg.dtype.names is None or ecg.size != 1:
        if "val" in variables:
            raise ReadError(
                f"{path}: holds samples alone; its header (.hea), which tells leads, gain and rate, is missing",
                "missing_header",
            )
        listed = ", ".join(str(name)[:20] for name in list(variables)[:8]) or "nothing"
        raise ReadError(f"{path}: a MATLAB file without a struct ECG (it holds {listed})", "unsupported_format")
    fields = {name: np.asarray(ecg.ravel()[0][name]) for name in ecg.dtype.names}
    data = fields.get("data", np.empty(0))
    if data.dtype.kind not in "iuf" or data.ndim != 2 or data.shape[0] != len(LEADS):
        raise ReadError(f"{path}: ECG.data is {data.shape}, not 12 x samples", "unsupported_format")
    about: dict[str, Any] = {"sex": None, "age": None}
    sex, age = (fields.get(name, np.empty(0)) for name in ("sex", "age"))
    if sex.dtype.kind == "U" and sex.size == 1:
        about["sex"] = sex_of(str(sex.ravel()[0]))
    if age.dtype.kind in "iuf" and age.size == 1:
        about["age"] = years(float(age.ravel()[0]))
    return make_ecg(path, "CPSC2018 MATLAB struct", list(data), LEADS, _FS, about)


FORMAT = Format("CPSC2018 .mat", lambda path, head: is_level5(head), lambda path, options: read_cpsc(path))
