"""Directories say which kind they are, wherever the wrong one is given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deri.cli.main import main
from deri.errors import DeriError
from deri.generation.writer import ReportWriter
from deri.models import build_model, load_model
from deri.models.builtin import builtin_directory
from deri.models.directory import load_weights, weights_of
from deri.models.head import Head, read_head
from deri.recipes import load_recipe
from support import tiny

LOADERS: dict[str, Callable[[Path], object]] = {
    "model": load_model,
    "report writer": ReportWriter.from_pretrained,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A path of each kind, by what it must be called."""
    root = tmp_path_factory.mktemp("places")
    manifests = {
        "a store": ("store.json", "deri-store"),
        "a run of deri pretrain": ("run.json", "deri-run"),
        "a run of deri report train": ("run.json", "deri-report-run"),
        "a report writer": ("config.json", "deri-report-writer"),
        "a fine-tuned model": ("classes.json", "deri-head"),
        "a search index": ("index.json", "deri-index"),
    }
    found = {}
    for i, (what, (file, kind)) in enumerate(manifests.items()):
        found[what] = root / str(i)
        found[what].mkdir()
        (found[what] / file).write_text(json.dumps({"format": kind, "version": 0}))
    found["a model"] = root / "model"
    tiny.model().save_pretrained(found["a model"])
    found["a model of transformers"] = root / "bert"
    tiny.text_encoder().model.save_pretrained(found["a model of transformers"])
    found["a directory without store.json"] = root / "empty"
    found["a directory without store.json"].mkdir()
    found["a file"] = root / "file"
    found["a file"].touch()
    return found


@pytest.mark.parametrize("wanted", LOADERS)
def test_the_wrong_kind_is_named(wanted: str, places: dict[str, Path]) -> None:
    for what, path in places.items():
        if what == f"a {wanted}" or (wanted == "model" and what == "a fine-tuned model"):
            continue
        with pytest.raises(DeriError) as error:
            LOADERS[wanted](path)
        assert str(path) in str(error.value)
        assert f"is {what}" in str(error.value), what
        assert len(str(error.value).splitlines()) == 1


def test_a_run_lends_its_model(places: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": "deri-run"}')
    with pytest.raises(DeriError, match="without a model"):
        load_model(tmp_path)
    places["a model"].rename(tmp_path / "model")
    assert load_model(tmp_path).config.dim == 32
    (tmp_path / "model").rename(places["a model"])


def test_info_says_what_a_head_is(places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.model()
    model.save_pretrained(tmp_path / "model")
    head = Head(np.ones((2, 32), np.float32), np.zeros(2, np.float32), "ptbxl-super", ["MI", "NORM"], [0.5, None])
    head.save(tmp_path / "model")
    with pytest.raises(SystemExit) as stop:
        main(["info", str(tmp_path), "--json"])
    assert not stop.value.code
    about = json.loads(capsys.readouterr().out)
    assert (about["what"], about["task"], about["classes"]) == ("fine-tuned model", "ptbxl-super", ["MI", "NORM"])
    assert load_model(tmp_path).config == model.config
    with pytest.raises(SystemExit):
        main(["info", str(places["a model of transformers"])])
    assert "is a model of transformers" in capsys.readouterr().err


def test_another_version_is_told(places: dict[str, Path]) -> None:
    with pytest.raises(DeriError, match=r"format 0, this deri .* reads 1; use the deri version"):
        read_head(places["a fine-tuned model"], 32)
    with pytest.raises(DeriError, match=r"report writer format 0, this deri .* reads 2"):
        ReportWriter.from_pretrained(places["a report writer"])


def test_tied_weights_are_written_once_and_come_back() -> None:
    def net(seed: int) -> torch.nn.Sequential:
        torch.manual_seed(seed)
        a, b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        b.weight = a.weight
        return torch.nn.Sequential(a, b)

    one, other = net(0), net(1)
    weights = weights_of(one)
    assert set(weights) == {"0.weight", "0.bias", "1.bias"}
    load_weights(other, weights, "x")
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    with pytest.raises(DeriError, match=r"missing tensors 0\.bias"):
        load_weights(other, {name: weights[name] for name in ("0.weight", "1.bias")}, "x")


def test_no_file_of_a_saved_model_names_a_path_of_the_machine(tmp_path: Path) -> None:
    text = tiny.text_encoder()
    for part in (text.model, text.tokenizer):
        part.save_pretrained(tmp_path / "home" / "my-bert")
    source = str(tmp_path / "home" / "my-bert")
    recipe = load_recipe("demo", [f"model.text.encoder={source}", "model.text.pooling=mean"])
    model = build_model(recipe.model)
    model.save_pretrained(tmp_path / "out" / "m")
    for path in (tmp_path / "out" / "m").rglob("*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    loaded = load_model(tmp_path / "out" / "m")
    assert loaded.config.text.encoder == "my-bert"
    np.testing.assert_array_equal(loaded.encode_text(["sinus"]), model.encode_text(["sinus"]))


def test_the_files_of_a_model_do_not_depend_on_what_it_was_asked_before(tmp_path: Path) -> None:
    """A tokenizer keeps how its last call cut and padded, and would write it."""
    model = tiny.model()
    model.save_pretrained(tmp_path / "one")
    model.encode_text(["sinus rhythm", "a"])
    model.text_encoder.tokenizer(["a b c"], truncation=True, max_length=5, padding="max_length")
    model.save_pretrained(tmp_path / "other")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_the_model_in_the_package_names_no_path() -> None:
    folder = builtin_directory("deri-sim")
    assert folder is not None
    for path in folder.glob("*.json"):
        if path.name != "tokenizer.json":  # a vocabulary
            assert not re.search(r'"(/|[A-Z]:\\)', path.read_text(encoding="utf-8")), path.name
