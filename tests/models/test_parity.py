"""The released models' numbers: every array, loss and gradient norm of the parity files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deri
from deri.models import EcgTextModel, Output
from deri.models.checkpoint import our_name
from deri.objectives import PairBatch, PairObjective
from deri.recipes import Objective
from support import parity

LOSSES = {
    "alignment": "cma",
    "mixed_alignment": "cma_mix",
    "view_contrast": "uma",
    "ecg_reconstruction": "dec_ecg",
    "text_reconstruction": "dec_text",
}


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    if not (shared / "parity").is_dir():
        pytest.skip(f"no parity numbers in {shared}")
    return shared / "parity"


def run(folder: Path, name: str) -> tuple[EcgTextModel, Output, dict[str, np.ndarray]]:
    weights, expected = parity.load(folder, name)
    model = deri.import_checkpoint(weights, text_encoder=parity.text_config())
    ecg, ids, mask = parity.inputs()
    torch.manual_seed(0)
    return model, model(ecg, ids, mask), expected


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-4, rtol=1e-4)


def test_deri_resnet18_arrays_losses_and_gradients(folder: Path) -> None:
    model, out, expected = run(folder, "deri-resnet18")
    assert isinstance(model, deri.DERI)
    assert out.ecg_mixed is not None
    assert out.text_mixed is not None
    arrays = {
        "ecg_emb.0": out.ecg_views[0],
        "ecg_emb.1": out.ecg_views[1],
        "proj_ecg_emb.0": out.ecg_aligned,
        "proj_ecg_emb.1": out.ecg_mixed,
        "proj_text_emb.0": out.text_aligned,
        "proj_text_emb.1": out.text_mixed,
        "dec_emb.0": out.ecg_decoded,
        "dec_emb.1": out.text_decoded,
        "ori_emb.0": out.ecg_original,
        "ori_emb.1": out.text_original,
        "ext_ecg_emb": model.ecg_embedding(parity.inputs()[0]),
    }
    assert set(arrays) == {key for key in expected if not key.startswith(("loss.", "gradnorm."))}
    for name, array in arrays.items():
        close(array, expected[name])
    terms = PairObjective(Objective(duplicates="negative")).terms(out, PairBatch())
    for ours, theirs in LOSSES.items():
        close(terms[ours].reshape(1), expected[f"loss.{theirs}"])

    sum(term for name, term in terms.items() if name != "text_reconstruction").backward()  # type: ignore[union-attr]
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {key[len("gradnorm.") :]: value for key, value in expected.items() if key.startswith("gradnorm.")}
    assert len(norms) == 172
    assert len(ours) == 172
    for name, norm in norms.items():
        grad = ours[our_name(name, "deri", "resnet18")]
        assert float(grad.norm()) == pytest.approx(float(norm.reshape(-1)[0]), rel=1e-3), name


@pytest.mark.parametrize("name", ["merl-resnet18", "merl-vit_tiny"])
def test_merl_arrays(folder: Path, name: str) -> None:
    model, out, expected = run(folder, name)
    assert isinstance(model, deri.MERL)
    assert model.config.backbone == name.split("-")[1]
    arrays = {
        "ecg_emb.0": out.ecg_views[0],
        "ecg_emb.1": out.ecg_views[1],
        "proj_ecg_emb.0": out.ecg_aligned,
        "proj_text_emb.0": out.text_aligned,
        "ext_ecg_emb": model.ecg_embedding(parity.inputs()[0]),
    }
    assert set(arrays) == set(expected)
    for key, array in arrays.items():
        close(array, expected[key])


def test_without_a_text_encoder_given_one_is_built_to_fit(folder: Path) -> None:
    weights, expected = parity.load(folder, "merl-resnet18")
    model = deri.import_checkpoint({f"module.{name}": value for name, value in weights.items()})
    ecg, ids, mask = parity.inputs()
    close(model(ecg, ids, mask).text_aligned, expected["proj_text_emb.0"])
