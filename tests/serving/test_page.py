"""The page in a browser: what people do with it, and that everyone can (axe).

With ``DERI_SCREENSHOTS=FOLDER`` the pictures of the docs are made, of the built-in model.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deri.evaluation.search import Index
from deri.models import EcgTextModel, load_model
from deri.serving import Service, create_app
from deri.serving.pages import example_csv
from serving.conftest import served
from serving.test_app import Writer

SCREENSHOTS = os.environ.get("DERI_SCREENSHOTS")
WAIT = 120_000  # ms, on a machine that has other work
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(model: EcgTextModel, index: Index) -> Iterator[str]:
    """A service of the tiny model with an index and a writer; of the built-in model alone for pictures."""
    shown, parts = (load_model("deri-open"), {}) if SCREENSHOTS else (model, {"index": index, "writer": Writer()})
    with served(create_app(Service(shown, "deri-open", **parts), log=lambda _: None)) as found:
        yield f"{found}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1180, "height": 900})
    page.set_default_timeout(WAIT)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(site)
    told(page, "#about", "Model")
    yield page
    page.close()
    assert [fault for fault in faults if "status of 415" not in fault] == []
    assert all(url.startswith((site, "data:", f"blob:{site}")) for url in asked), asked


def told(page: Any, selector: str, text: str) -> None:
    """Wait until an element says something. (The page's policy forbids what ``wait_for_function`` does.)"""
    page.locator(selector, has_text=text).first.wait_for(state="attached")


def drop(page: Any, *paths: Path) -> None:
    """Drop files on the page, as a hand with a mouse does."""
    contents = [[path.name, list(path.read_bytes())] for path in paths]
    transfer = page.evaluate_handle(
        """files => { const data = new DataTransfer();
        for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name)); return data; }""",
        contents,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    told(page, "#status", f"{paths[0].name} read")


def serious(page: Any) -> list[str]:
    """What axe finds of weight."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def picture(page: Any, name: str) -> None:
    if SCREENSHOTS:
        shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        shot.convert("RGB").quantize(128).save(Path(SCREENSHOTS) / f"page-{name}.png", optimize=True)


def test_clinical_files_findings_text_and_downloads(page: Any, ecg_real: Path, tmp_path: Path) -> None:
    header = ecg_real / "ptbxl" / "04482_hr.hea"
    dropped = [
        [ecg_real / "formats/dicom/anonymous_ecg.dcm"],
        [ecg_real / "formats/sierra-xml/129DYPRG.XML"],
        [header, header.with_suffix(".dat")],
    ]
    for paths in dropped:
        drop(page, *paths)
        assert page.locator("#findings li").count() == 12
        assert "/min" in page.locator("#measurements").inner_text()
    page.locator("#more").click()
    assert page.locator("#findings li").count() > 40
    page.locator("#text").fill("atrial fibrillation")
    told(page, "#answer", ": ")
    assert "atrial fibrillation: " in page.locator("#answer").inner_text()
    for button, suffix in (("#pdf", ".pdf"), ("#json", ".json"), ("#fhir", ".fhir.json")):
        with page.expect_download() as download:
            page.locator(button).click()
        path = tmp_path / f"saved{suffix}"
        download.value.save_as(path)
        assert download.value.suggested_filename == header.stem + suffix
        if suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
        else:
            assert json.loads(path.read_text()).get("resourceType", "Bundle") == "Bundle"


def test_what_speaks_for_a_finding_report_and_near_case(page: Any) -> None:
    page.locator("#example").select_option("afib")
    told(page, "#status", "afib.csv read")
    if not SCREENSHOTS:
        told(page, "#doubts .flag", "Doubt")
        told(page, "#cases button", "afib")
        assert "Doubt: the text says atrial fibrillation" in page.locator("#doubts").inner_text()
        page.locator("#cases button").first.press("Enter")
        told(page, "#case-title", "afib")
        assert serious(page) == []
        page.locator("#case button").press("Enter")
    page.locator("#findings button").first.press("Enter")
    told(page, "#salient", "rests most on")
    assert page.locator("#findings button").first.get_attribute("aria-pressed") == "true"
    picture(page, "findings")
    if not page.locator("#common").is_hidden():
        shown = page.locator("#findings button .value").first.inner_text()
        here = lambda: float(page.locator("#posterior").inner_text().split(": ")[-1].strip("<>% "))  # noqa: E731
        assert here() == pytest.approx(float(shown.strip("<>% ")), abs=1)
        usual = here()
        page.locator("#share").fill("0.1")
        assert here() < usual
        page.locator("#share").fill("100")
        assert "between 0 and 100" in page.locator("#posterior").inner_text()
    page.locator("#clear").press("Enter")
    assert page.locator("#findings [aria-pressed=true]").count() == 0


def test_calipers_measure_by_mouse_and_by_keyboard(page: Any) -> None:
    page.locator("#example").select_option("normal")
    told(page, "#status", "normal.csv read")
    page.locator("#layout").select_option("II")
    box = page.locator("#paper").bounding_box()
    mm = box["width"] / 260  # 10 s are 250 mm, and 5 mm on each side
    page.mouse.move(box["x"] + 30 * mm, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 55 * mm, box["y"] + 20)
    page.mouse.up()
    text = page.locator("#caliper").inner_text()
    assert text.startswith("II: ")
    assert int(text.split()[1]) == pytest.approx(1000, abs=15)
    page.locator("#from").fill("1000")
    page.locator("#to").fill("1400")
    assert page.locator("#caliper").inner_text().startswith("II: 400 ms (150/min), ")
    page.locator("#larger").press("Enter")
    assert page.locator("#paper").bounding_box()["width"] == pytest.approx(1.5 * box["width"], rel=0.01)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1180), ("dark", 1180), ("light", 390)])
def test_everyone_can_use_it(page: Any, scheme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.locator("#example").select_option("lbbb")
    told(page, "#status", "lbbb.csv read")
    page.locator("#text").fill("left bundle branch block")
    told(page, "#answer", ": ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    if (scheme, width) != ("light", 1180):
        picture(page, f"{scheme}-{width}")


def test_a_late_answer_does_not_stand_beside_another_recording(page: Any, tmp_path: Path) -> None:
    held: list[Any] = []
    page.route("**/v1/report", lambda route: held.append(route))

    def wait(number: int) -> None:
        for _ in range(200):
            if len(held) < number:
                page.wait_for_timeout(50)
        assert len(held) >= number

    def answer(number: int, text: str) -> None:
        wait(number + 1)
        told = {"recordings": [{"file": "x", "text": text, "finished": True, "findings": []}]}
        held[number].fulfill(json=told)

    for name in ("first, of two.csv", "second.csv"):
        (tmp_path / name).write_text(example_csv("normal"))
    page.locator("#files").set_input_files([tmp_path / "first, of two.csv", tmp_path / "second.csv"])
    told(page, "#status", "2 recordings read")
    wait(1)
    page.locator("#recording").select_option("1")
    answer(1, "report of the second")
    told(page, "#report", "of the second")
    answer(0, "report of the first")
    page.wait_for_timeout(300)
    assert page.locator("#report").inner_text() == "report of the second"


def test_one_lead_is_shown_alone_and_what_lacks_is_told(page: Any, tmp_path: Path) -> None:
    beat = [1000 if i % 240 == 0 else 0 for i in range(1500)]
    one = tmp_path / "watch.csv"
    one.write_text("Time (s),Lead I (uV)\n" + "\n".join(f"{i / 300:.6f},{value}" for i, value in enumerate(beat)))
    drop(page, one)
    assert page.locator("#layout").input_value() == "rows"
    assert page.locator("#notes .flag").inner_text().startswith("Without II, III, aVR")
    page.locator("#findings button").first.press("Enter")
    told(page, "#salient", "rests most on")
    assert "rests most on I, and" in page.locator("#salient").inner_text()


def test_a_file_that_is_none_is_told(page: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "letter.pdf"
    wrong.write_bytes(b"%PDF-1.7")
    page.locator("#files").set_input_files(wrong)
    told(page, "#status.bad", "letter.pdf")
    assert "letter.pdf: is a PDF" in page.locator("#status").inner_text()
    assert page.locator("#result").is_hidden()
