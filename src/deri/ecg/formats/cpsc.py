"""MATLAB files without a header: those of the CPSC 2018 challenge, and arrays of 12 leads.

The challenge's hold a struct ``ECG`` with ``sex``, ``age`` and ``data`` (12, n).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deri.ecg.formats.arrays import SIGNAL_NAMES, array_ecg, only_recording
from deri.ecg.formats.common import Format, Options, make_ecg, refuse_options, sex_of, years
from deri.ecg.formats.matlab import is_level5, load_matlab
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError

# Stated by the challenge, not by the files: 500 Hz, mV, and the order of the leads. The limb leads of real files obey
# Einthoven and Goldberger in this order and no other, and PhysioNet's copies of the same recordings say the same.
_FS = 500.0


def read_mat(path: str, options: Options) -> ECG:
    """Read a CPSC 2018 struct file, or an array ``ecg`` (``signal``, ``data``, ``val``, ``tracings``).

    Raises:
        ReadError: ``missing_header`` (a .mat that needs a WFDB header), ``unsupported_format``, ``unreadable_signal``,
            ``several_recordings``, and those of ``array_ecg``.
    """
    variables = load_matlab(path)
    ecg = variables.get("ECG")
    if ecg is None or ecg.dtype.names is None or ecg.size != 1:
        return _read_array(path, variables, options)
    refuse_options(path, "is of CPSC 2018, whose rate and unit are known", options, "fs", "units", "gain", "leads")
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


def _read_array(path: str, variables: dict[str, Any], options: Options) -> ECG:
    name = next((name for name in SIGNAL_NAMES if name in variables), None)
    if name is None:
        listed = ", ".join(str(name)[:20] for name in list(variables)[:8]) or "nothing"
        raise ReadError(
            f"{path}: a MATLAB file without a struct ECG or an array {', '.join(SIGNAL_NAMES)} (it holds {listed})",
            "unsupported_format",
        )
    if name == "val" and options.units is None and options.gain is None:
        raise ReadError(
            f"{path}: holds samples alone; its header (.hea), which tells leads, gain and rate, is missing",
            "missing_header",
        )
    values = np.asarray(variables[name])
    if values.dtype.kind not in "iuf":
        raise ReadError(f"{path}: {name} is no array of numbers", "unsupported_format")
    what = f"the array {name}"
    return array_ecg(path, "MATLAB", what, only_recording(path, what, values), options)


FORMAT = Format("MATLAB (.mat)", lambda path, head: is_level5(head), read_mat, takes=("fs", "units", "gain"))
