"""deri: learn ECG representations from clinical reports.

Research software, not a medical device: nothing it computes is a diagnosis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deri._version import __version__

if TYPE_CHECKING:
    import deri.objectives as losses
    from deri.ecg import ECG as ECG
    from deri.ecg import read_ecg as read_ecg
    from deri.errors import DeriError as DeriError
    from deri.evaluation.score import probe as probe
    from deri.evaluation.score import zero_shot as zero_shot
    from deri.evaluation.search import Index as Index
    from deri.generation.writer import ReportWriter as ReportWriter
    from deri.models import DERI as DERI
    from deri.models import MERL as MERL
    from deri.models import import_checkpoint as import_checkpoint
    from deri.models.export import load_encoder as load_encoder
    from deri.store import Store as Store
    from deri.store import StoreDataset as StoreDataset

# Torch and transformers take seconds to import; `deri --help` and reading a file should not wait for them.
_LAZY = {
    "ECG": "deri.ecg",
    "read_ecg": "deri.ecg",
    "DeriError": "deri.errors",
    "DERI": "deri.models",
    "MERL": "deri.models",
    "import_checkpoint": "deri.models",
    "load_encoder": "deri.models.export",
    "ReportWriter": "deri.generation.writer",
    "Store": "deri.store",
    "Index": "deri.evaluation.search",
    "StoreDataset": "deri.store",
    "probe": "deri.evaluation.score",
    "zero_shot": "deri.evaluation.score",
}

__all__ = [
    "DERI",
    "ECG",
    "MERL",
    "DeriError",
    "Index",
    "ReportWriter",
    "Store",
    "StoreDataset",
    "__version__",
    "import_checkpoint",
    "load_encoder",
    "losses",
    "probe",
    "read_ecg",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name == "losses":  # deri.losses.info_nce and its like
        return import_module("deri.objectives")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'deri' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
