"""A format of another package: files that are read slowly, files that kill who reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deri.ecg.formats import FORMATS

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MODULE = """
import json, os, signal, time
from deri.ecg import ECG
from deri.ecg.formats import Format
from deri.errors import ReadError

def read(path, options):
    try:
        content = json.load(open(path))
    except ValueError:
        raise ReadError(f"{path}: is no JSON", "unreadable_file") from None
    if content["deadly"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(content["seconds"])
    return ECG.from_leads(content["leads"].values(), list(content["leads"]), 100, {"source_file": path})

SLOW = Format("slow JSON", lambda path, head: head.startswith(b'{"deadly"'), read)
"""


def install(site: Path, patch: pytest.MonkeyPatch) -> None:
    """A package below ``site``, which is on the path of Python while ``patch`` lasts."""
    patch.syspath_prepend(site)
    patch.setattr(FORMATS, "_rows", dict(FORMATS._rows))
    patch.setattr(FORMATS, "_entry_points_loaded", False)
    about = site / "slow_json-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "slow_json.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-json\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[deri.formats]\nslow = slow_json:SLOW\n")


def archive(
    folder: Path, records: int, *, corrupt: tuple[int, ...] = (), deadly: tuple[int, ...] = (), seconds: float = 0.0
) -> Path:
    """A folder of recordings with a table; those at some positions are no JSON, or deadly."""
    folder.mkdir(parents=True)
    rng, t = np.random.default_rng(0), np.arange(1000) / 100
    lines = ["file,subject,report,split"]
    for i in range(records):
        pulse = np.sin(2 * np.pi * rng.uniform(1, 2) * t) ** 9
        leads = {name: (pulse + 0.02 * rng.standard_normal(1000)).round(3).tolist() for name in LEADS}
        text = json.dumps({"deadly": i in deadly, "seconds": seconds, "leads": leads})
        (folder / f"r{i:03d}.json").write_text(text[: len(text) // 2] if i in corrupt else text)
        lines.append(f"r{i:03d}.json,p{i},sinus rhythm number {i % 7},test")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
