"""The parts that CONTRIBUTING.md adds from a package outside this one work in the commands, from reading to scoring."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from support import forked

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
RECIPE = (
    "model.backbone=patches model.text.encoder=small-bert model.base_width=8 model.dim=32 model.signal.samples=1000 "
    "model.decoder.hidden=16 model.decoder.head_dim=8 objective.terms.token_norm=0.5 train.epochs=1 train.batch_size=8 "
    "train.log_steps=1"
).split()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def install(site: Path) -> None:
    """The module of the page and the metadata that an installer would write for it."""
    about = site / "my_ecg_tools-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "my_ecg_tools.py").write_text("\n\n".join(blocks("python")), encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-ecg-tools\nVersion: 1.0\n")
    rows = re.findall(r'^"(deri\.\w+)" = \{ (\S+) = "(\S+)" \}$', blocks("toml")[0], re.MULTILINE)
    assert len(rows) == 6
    (about / "entry_points.txt").write_text("".join(f"[{group}]\n{name} = {row}\n" for group, name, row in rows))


def hospital(folder: Path, records: int = 48) -> None:
    """Recordings as JSON: fast irregular and slow regular pulses, a report and a label each."""
    rng = np.random.default_rng(0)
    lines = ["file,subject_id,report,labels,split"]
    t = np.arange(1000) / 100
    for i in range(records):
        fast = i % 2
        pulse = np.sin(2 * np.pi * (2.5 if fast else 1.0) * t + rng.uniform(0, 6)) ** 9
        leads = {name: (pulse + 0.02 * rng.standard_normal(1000)).round(4).tolist() for name in ("I", "II", "V1")}
        (folder / f"r{i}.json").write_text(json.dumps({"fs": 100, "leads": leads}))
        split = ("train", "train", "train", "train", "val", "test")[i // 2 % 6]
        report = "atrial fibrillation with rapid rate" if fast else "normal sinus rhythm at rest"
        lines.append(f"r{i}.json,p{i},{report},{'AFIB' if fast else 'SR'},{split}")
    (folder / "my_hospital.csv").write_text("\n".join(lines) + "\n")


def test_a_part_is_ten_lines() -> None:
    for block in blocks("python"):
        assert len([line for line in block.splitlines() if line and not line.startswith(("import", "from"))]) <= 10


@pytest.mark.slow
def test_the_parts_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, source = tmp_path / "site", tmp_path / "hospital"
    install(site)
    source.mkdir()
    hospital(source)
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)

    def deri(*arguments: object) -> str:
        process = forked.start(tmp_path / "printed", *arguments)
        process.join(300)
        printed = (tmp_path / "printed").read_text()
        assert process.exitcode == 0, f"{arguments}: {printed}"
        return printed

    assert "100 Hz" in deri("info", source / "r0.json")
    deri("prepare", "my-hospital", source, "--out", "store")
    deri("pretrain", "--data", "store", "--out", "run", "--recipe", "deri", *RECIPE)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(step["token_norm"]) for step in steps if step["split"] == "train")
    deri("probe", "--model", "run", "--data", "store", "--task", "labels", "--out", "probe.json")
    result = json.loads((tmp_path / "probe.json").read_text())
    assert 0 <= result["classes"]["AFIB"]["brier"] <= 1
    assert result["macro_brier"] == pytest.approx(np.mean([c["brier"] for c in result["classes"].values()]))
