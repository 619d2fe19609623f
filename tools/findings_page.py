"""The page of findings, one picture on ECG paper each: ``python tools/findings_page.py [DOCS]``.

Writes ``findings.md`` and ``pictures/*.png`` into DOCS (``docs``), of simulated recordings drawn from a fixed seed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

from deri.ecg import ECG
from deri.ecg.plot import plot_ecg
from deri.files import atomic_path, write_text
from deri.simulate.findings import CATALOGUE, FINDINGS, Finding
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
        image = Image.open(buffer).convert("RGB")
        image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(aside, "PNG", optimize=True)


def _entry(finding: Finding) -> str:
    scp = "SCP statement" if finding.scp else "no SCP statement"
    lines = [f"**{finding.code}**, {finding.name} ({scp}). Sign: {finding.sign}. Source: {finding.source}."]
    if finding.excludes:
        lines.append(f"Not together with {', '.join(c for c in FINDINGS if c in finding.excludes)}.")
    return " ".join(lines) + f"\n\n![{finding.name}](pictures/{file_name(finding.code)})\n"


def page() -> str:
    """The text of ``findings.md``."""
    parts = [
        "# Findings of the simulator\n\n"
        f"{len(FINDINGS)} findings, each with its sign, the source of its limits (in full at the head of\n"
        "`src/deri/simulate/data/findings.yaml`) and a simulated recording of little noise with its true\n"
        "measurements. The sign of each is measured in the noise-free signal by `tests/simulate/test_findings.py`\n"
        "and `test_more_findings.py`. Of a section at most one is present. Made by\n"
        "`python tools/findings_page.py`. See also [simulated studies](simulate.md).\n"
    ]
    for group, title in CATALOGUE.groups.items():
        parts.append(f"\n## {title}\n")
        parts += [f"\n{_entry(finding)}" for finding in FINDINGS.values() if finding.group == group]
    return "".join(parts)


def main(docs: Path) -> None:
    """Write the page and its pictures into ``docs``."""
    pictures = docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for code in FINDINGS:
        draw(code, pictures / file_name(code))
    write_text(docs / "findings.md", page())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
