"""One picture on ECG paper of each finding: ``python -m deri.simulate.gallery FOLDER``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

from deri.ecg import ECG
from deri.ecg.plot import plot_ecg
from deri.files import atomic_path
from deri.simulate.findings import FINDINGS
from deri.simulate.noise import Noise
from deri.simulate.patient import Patient
from deri.simulate.tracing import draw_tracing

_SEED = 5
_DPI = 72
_QUIET = Noise(0.012, 0.003, 0.0005, contact=0.002)


def file_name(code: str) -> str:
    """``LAO/LAE`` -> ``lao-lae.png``."""
    return code.strip("_").lower().replace("/", "-") + ".png"


def draw(code: str, path: Path, seed: int = _SEED) -> None:
    """Write a small PNG of a recording with the finding ``code``, of a patient drawn from ``seed``."""
    from PIL import Image

    finding = FINDINGS[code]
    rng = np.random.default_rng([seed, list(FINDINGS).index(code)])
    tracing = draw_tracing([code], Patient.draw(rng), rng, noise=_QUIET)
    m = tracing.measurements
    text = (
        f"{60_000 / m.rr:.0f}/min, QRS {m.qrs:.0f} ms, QTc {m.qt / np.sqrt(m.rr / 1000):.0f} ms, axis {m.qrs_axis:.0f}"
    )
    if m.pr is not None:
        text += f", PR {m.pr:.0f} ms"
    ecg = ECG(tracing.signal, tracing.fs)
    figure = plot_ecg(ecg, title=f"Simulated: {code}, {finding.name}", annotations=[f"{finding.sign}. Here: {text}"])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    with atomic_path(path) as aside:
        Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(aside, "PNG", optimize=True)


def main(folder: Path) -> None:
    """Draw all findings into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for code in FINDINGS:
        draw(code, folder / file_name(code))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/simulator-findings"))
