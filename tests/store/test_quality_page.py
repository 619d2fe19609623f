"""The page of a store: every count, every code with its sentence, and pictures of what it speaks of."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deri.datasets import open_dataset
from deri.ecg import ECG, LEADS, read_ecg
from deri.store import Store, prepare
from deri.store.codes import NOTES, REJECTS, SUSPICIONS, meaning
from deri.store.overview import Flags
from deri.store.page import write_quality_page

FS = 500


def heart(size: float = 1.0, seed: int = 0, seconds: float = 10) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * FS)) / FS
    beat = np.exp(-(((time % 0.8 - 0.3) / 0.017) ** 2)) + 0.2 * np.exp(-(((time % 0.8 - 0.55) / 0.06) ** 2))
    signal = size * (np.linspace(0.6, 1.4, 12)[:, None] * beat + rng.normal(0, 0.01, (12, len(time))))
    signal[2] = signal[1] - signal[0]
    signal[3:6] = [-(signal[0] + signal[1]) / 2, (signal[0] - signal[2]) / 2, (signal[1] + signal[2]) / 2]
    return signal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings that deserve what their names say."""
    root = tmp_path_factory.mktemp("page") / "source"
    root.mkdir()

    def write(name: str, signal: np.ndarray) -> None:
        np.savez(root / f"{name}.npz", signal=signal.astype(np.float32), fs=FS, units="mV", leads=LEADS)

    for i in range(4):
        write(f"good{i}", heart(seed=i))
    shutil.copy(root / "good0.npz", root / "twice.npz")
    clipped, saturated, flat = heart(seed=5), heart(seed=6), heart(seed=7)
    clipped[8] = np.minimum(clipped[8], 0.5 * clipped[8].max())
    saturated[6, 2000:2200] = 4
    flat[3] = 0
    for name, signal in (("clipped", clipped), ("saturated", saturated), ("flat", flat)):
        write(name, signal)
    write("nothing", np.full((12, 5000), 0.1))
    write("micro<volt>", heart(1000))
    write("long", heart(seconds=35))
    (root / "junk.npz").write_bytes(b"junk" * 50)
    single = heart(seed=8)
    single[[i for i in range(12) if i != 1]] = np.nan
    write("single", single)
    return root


@pytest.fixture(scope="module")
def store(root: Path) -> Store:
    prepare(open_dataset("folder", root), root.parent / "store", windows=None)
    return Store.open(root.parent / "store")


class Page(HTMLParser):
    """Text, table rows and pictures of a page; asks that every element is closed and nothing is fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.pictures: dict[str, bytes] = {}
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        assert tag not in ("script", "link", "iframe")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            kind, data = found["src"].split(",", 1)
            assert kind == "data:image/png;base64"
            self.pictures[found["alt"]] = base64.b64decode(data)
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data


def page_of(store: Store, path: Path, **options) -> Page:
    write_quality_page(store, path, **options)
    return Page(path.read_text(encoding="utf-8"))


def test_counts_are_of_recordings(store: Store) -> None:
    flags = Flags.of(store)
    assert flags.counts == {
        "clipped": 1, "cropped": 1, "duplicate": 1, "flat_lead": 1, "missing_lead": 1, "padded": 1, "saturated": 1,
    }  # fmt: skip  # cropped: four windows of one recording; missing: eleven leads of one
    assert list(flags.suspicions) == ["clipped", "duplicate", "flat_lead", "missing_lead", "saturated"]
    assert flags.by_detail("missing_lead") == {lead: 1 for lead in sorted(LEADS) if lead != "II"}
    assert flags.by_detail("clipped") == {"V3": 1}
    names = store.index["record_id"]
    assert [names[row] for code in ("clipped", "cropped") for row in flags.rows_of(code)] == ["clipped", "long"]
    assert len(flags.suspicious()) == 5


def test_the_page_shows_counts_meanings_and_pictures(store: Store, root: Path, tmp_path: Path) -> None:
    page = page_of(store, tmp_path / "page.html", source=root, examples=1)
    lines = {row[0]: row[1:] for row in page.rows}
    for code, count in Flags.of(store).counts.items():
        assert lines[code] == [str(count), "", meaning(code)]
    for code, count in {"flat_record": 1, "wrong_unit": 1, "unsupported_format": 1}.items():
        assert lines[code] == [str(count), "", REJECTS[code]]
    assert lines["10 s at 500 Hz"] == ["9"]
    assert lines["35 s at 500 Hz"] == ["1"]
    assert "micro<volt>.npz" in page.text
    captions = "\n".join(page.pictures)
    for words in ("clipped.npz): clipped:V3", "duplicate:good0", "saturated:V1", "flat_lead:aVR", "missing_lead:V6"):
        assert words in captions
    assert "Drawn as if the values were µV" in captions
    assert "nothing: " in captions  # the flat record is drawn, the file of junk cannot be
    assert "junk.npz:" not in captions
    assert "For comparison: 1 of the 5 recordings" in page.text
    for picture in page.pictures.values():
        image = Image.open(io.BytesIO(picture))
        assert image.size[0] == 1400
        dark = np.asarray(image.convert("L")) < 60
        assert 0.002 < dark.mean() < 0.1  # ink: a trace, and no blot
    without = page_of(store, tmp_path / "without.html", examples=0)
    assert "--root FOLDER draws them" in without.text
    assert len(page.pictures) == 5 + 2 + 1


def test_what_a_reader_fails_with_and_what_lies_outside_are_not_drawn(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("good0", "good1"):
        shutil.copy(root / f"{name}.npz", source)
    shutil.copy(root / "good2.npz", tmp_path)
    data = open_dataset("folder", source)
    data.rejects = data.examples.head(1).assign(
        file="../good2.npz", record_id="elsewhere", reason="bad_path", detail="names no path below the root"
    )
    failing = "good1.npz"

    def read(path: str | Path, **options: object) -> ECG:
        if Path(path).name == failing:
            raise ZeroDivisionError("a defect")
        return read_ecg(path, **options)

    monkeypatch.setattr("deri.ecg.read_ecg", read)
    monkeypatch.setattr("deri.store.page.read_ecg", read)
    prepare(data, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert sorted(store.rejects["reason"]) == ["bad_path", "reader_error"]
    page = page_of(store, tmp_path / "page.html", source=source)
    assert "ZeroDivisionError: a defect" in page.text
    assert len(page.pictures) == 1  # the good one
    failing = ""
    assert len(page_of(store, tmp_path / "page.html", source=source).pictures) == 2


def test_the_same_store_gives_the_same_page(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_quality_page(store, tmp_path / name, examples=1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not page_of(store, tmp_path / "none.html", examples=0).pictures


def test_a_store_without_any_finding(small, tmp_path: Path) -> None:
    small.rejects = small.rejects.iloc[:0]
    prepare(small, tmp_path / "s")
    page = page_of(Store.open(tmp_path / "s"), tmp_path / "page.html", examples=1)
    assert "no recording has any flag" in page.text
    assert "every recording that the data set names is stored" in page.text
    assert len(page.pictures) == 1


def test_every_code_in_the_sources_has_a_sentence() -> None:
    """Reasons and flags as the modules spell them; a new one must be explained on the page."""
    import deri

    package = Path(deri.__file__).parent
    sources = "\n".join(
        path.read_text() for part in ("ecg", "datasets", "store") for path in sorted((package / part).rglob("*.py"))
    )
    reasons = set(re.findall(r'refuse\([^"]*?"([a-z]+(?:_[a-z]+)+)"', sources))
    reasons |= set(re.findall(r'reason="([a-z]+(?:_[a-z]+)+)"', sources))
    reasons |= set(re.findall(r'return None, "([a-z]+(?:_[a-z]+)+)"', sources))
    assert len(reasons) > 10
    columns = {"ecg_id", "study_id"}
    assert reasons - columns <= set(REJECTS), reasons - set(REJECTS)
    flags = set(re.findall(r'(?:notes|warnings)(?:"\])?\["([a-z_]+)"\]', sources))
    assert len(flags) > 10
    assert flags <= {*SUSPICIONS, *NOTES}, flags - {*SUSPICIONS, *NOTES}
    spelled = sources.replace((package / "store" / "codes.py").read_text(), "")
    assert [code for code in (*REJECTS, *SUSPICIONS, *NOTES) if code not in spelled] == []  # none that is set no more
    assert not set(SUSPICIONS) & set(NOTES)
