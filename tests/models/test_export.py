"""Exported encoders compute what their model does, say what they expect, and show damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import deri
from deri.errors import DeriError
from deri.models import EcgTextModel
from deri.models import export as exporting
from deri.models.export import Deviation, export_model, load_encoder
from deri.simulate import simulate
from support import tiny
from support.command import run

onnxruntime = pytest.importorskip("onnxruntime")
SMALL = ("model.signal.fs=100", "model.signal.samples=1000")


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return tiny.model("model.backbone=beat_resnet18", "model.token_stride=1", *SMALL)


@pytest.fixture(scope="module")
def file(model: EcgTextModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "encoder.onnx"
    assert export_model(model, path).largest < 1e-5
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    simulate("mimic-iv-ecg", 3, folder)
    found = sorted(folder.rglob("*.hea"))
    assert len(found) == 3
    return found


def test_onnx_with_nothing_but_onnxruntime(model: EcgTextModel, file: Path) -> None:
    """As docs/models.md says: own preprocessing in NumPy by what the file tells."""
    session = onnxruntime.InferenceSession(file)
    told = json.loads(session.get_modelmeta().custom_metadata_map["deri"])["preprocessing"]
    assert (told["fs"], told["samples"], told["unit"]) == (100, 1000, "mV")
    assert told["leads"] == "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split()
    signal = 0.5 * np.random.default_rng(0).standard_normal((1, 12, 700), np.float32) + 0.2
    ecg = np.zeros((1, 12, 1000), np.float32)
    ecg[..., :700] = np.clip(signal - signal.mean(axis=2, keepdims=True), -10, 10)
    (found,) = session.run(["embedding"], {"ecg": ecg, "valid_samples": np.array([700])})
    found /= np.linalg.norm(found)
    np.testing.assert_allclose(found, model.encode_ecg(signal, fs=100), atol=1e-5)


def test_onnx_file_takes_the_place_of_its_model(model: EcgTextModel, file: Path, recordings: list[Path]) -> None:
    exported = deri.load_encoder(file)
    np.testing.assert_allclose(exported.encode_ecg(recordings), model.encode_ecg(recordings), atol=1e-5)


def test_embed_takes_the_file(file: Path, recordings: list[Path], tmp_path: Path) -> None:
    assert run("embed", *recordings, "--model", file, "--out", tmp_path / "out.parquet") == 0
    found = np.stack(pd.read_parquet(tmp_path / "out.parquet")["embedding"])
    np.testing.assert_allclose(found, load_encoder(file).encode_ecg(recordings), atol=1e-6)


def test_vision_transformer_without_masked_padding(tmp_path: Path) -> None:
    model = tiny.model("model.backbone=vit_tiny", "model.mask_padding=false", *SMALL)
    assert export_model(model, tmp_path / "x.onnx").largest < 1e-5


def test_int8_is_smaller_and_states_its_deviation(model: EcgTextModel, file: Path, tmp_path: Path) -> None:
    found: Deviation = export_model(model, tmp_path / "x.onnx", int8=True)
    assert 0.98 < found.median < 1
    assert found.cosine <= found.median
    about = load_encoder(tmp_path / "x.onnx").about  # type: ignore[attr-defined]
    assert about["precision"] == "int8"
    assert about["weights"] == load_encoder(file).about["weights"]  # type: ignore[attr-defined]


def test_torch_export(tmp_path: Path) -> None:
    model = tiny.model("model.backbone=resnet18", *SMALL)
    export_model(model, tmp_path / "x.pt2")
    told = {"deri.json": ""}
    program = torch.export.load(tmp_path / "x.pt2", extra_files=told).module()
    assert json.loads(told["deri.json"])["preprocessing"]["fs"] == 100
    ecg, valid = torch.randn(3, 12, 1000), torch.tensor([1000, 400, 1000])
    with torch.no_grad():
        torch.testing.assert_close(program(ecg, valid), model.ecg_embedding(ecg, valid), atol=1e-5, rtol=0)
    with pytest.raises(DeriError, match="deri reads .onnx"):
        load_encoder(tmp_path / "x.pt2")


def test_file_that_deviates_is_not_left(model: EcgTextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(exporting.ExportedEncoder):
        def ecg_embedding(self, *batch: torch.Tensor) -> torch.Tensor:
            return super().ecg_embedding(*batch).roll(1, 0)

    monkeypatch.setattr(exporting, "ExportedEncoder", Other)
    with pytest.raises(DeriError, match="x.onnx is not written: its embeddings differ"):
        export_model(model, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_damage_and_files_of_others(file: Path, tmp_path: Path) -> None:
    content, bad = bytearray(file.read_bytes()), tmp_path / "bad.onnx"
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    with pytest.raises(DeriError, match="bad.onnx is damaged"):
        load_encoder(bad)
    import onnx

    other = onnx.load(file)
    del other.metadata_props[:]
    onnx.save(other, bad)
    with pytest.raises(DeriError, match="not made by deri export"):
        load_encoder(bad)
    with pytest.raises(DeriError, match="--precision bf16: an exported file has its own"):
        load_encoder(file).compute_in("bf16")
    with pytest.raises(DeriError, match="gone.onnx cannot be read"):
        load_encoder(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--out", "x.pth"), "ends in .onnx or .pt2"), (("--out", "x.pt2", "--int8"), "int8 is made by ONNX Runtime")],
)
def test_names_that_cannot_be(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--model", "deri-sim", *arguments) == 2
    assert message in capsys.readouterr().err


def test_info_and_other_commands_know_what_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", file) == 0
    printed = capsys.readouterr().out
    assert "ECG encoder of deri export" in printed
    assert "fs: 100.0, samples: 1000" in printed
    assert run("classify", file, "--model", file, "--labels", "AFIB") == 2
    assert "is an exported encoder, which deri embed takes, not a model" in capsys.readouterr().err
