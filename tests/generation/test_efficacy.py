"""Clinical efficacy in a model's text space, against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from deri.cli.main import main
from deri.evaluation.bootstrap import Bootstrap
from deri.evaluation.zero_shot import class_weights
from deri.generation.efficacy import TextSpace, model_efficacy, text_classes
from deri.models import load_model
from deri.reports import load_prompts

TEXTS = [
    "sinus rhythm. normal ecg.", "atrial fibrillation.", "left bundle branch block.", "st depression.", "pacemaker.",
    "sinus bradycardia.", "inferior infarct, age undetermined.", "right bundle branch block.",
]  # fmt: skip


@pytest.mark.parametrize("task", ["ptbxl-super", None])
def test_as_scikit_learn_has_it(task: str | None) -> None:
    model = load_model("random:demo")
    rng = np.random.default_rng(0)
    references, generated = (list(rng.choice(TEXTS, 60)) for _ in range(2))
    generated[:30] = references[:30]
    generated[0] = " "
    result = model_efficacy(
        TextSpace(model, "m", task), references, generated, Bootstrap(np.arange(60) // 2, draws=100, seed=0)
    )
    prompts = load_prompts(task or "labels")
    weights = class_weights(model, prompts)
    # Texts one by one, by the definition: the prompt with the highest cosine.
    class_of = {text: int(np.argmax(model.encode_text([text])[0] @ weights.T)) for text in TEXTS} | {" ": -1}
    classes, said = [class_of[text] for text in references], [class_of[text] for text in generated]
    labels = sorted((set(classes) | set(said)) - {-1})
    expected = precision_recall_fscore_support(classes, said, labels=labels, average="macro", zero_division=0)[:3]
    assert (result["precision"], result["recall"], result["f1"]) == pytest.approx(expected)
    assert result["classes"] == len(labels)
    assert result["accuracy"] == pytest.approx(np.mean(np.array(classes) == said))
    low, high = result["ci"]
    assert low < result["f1"] < high + 0.1


def test_equal_texts_are_of_one_class() -> None:
    model = load_model("random:demo")
    weights = class_weights(model, load_prompts("ptbxl-super"))
    assert (
        text_classes(model, ["sinus rhythm."] * 3 + ["lbbb."], weights).tolist()[:3]
        == [text_classes(model, ["sinus rhythm."], weights)[0]] * 3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--task", "ptbxl-super"], "give --model too"), (["--model", "m", "--task", "a", "--prompts", "b"], "not both")],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["report", "evaluate", "x.csv", "--out", str(tmp_path / "o.json"), *options])
    assert message in capsys.readouterr().err
