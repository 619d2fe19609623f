from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from deri.cli.main import main
from deri.errors import DeriError
from deri.progress import Progress
from deri.store import Store
from deri.training.ablation import Target, compare_rows, load_ablation, run_ablation
from support.stores import simulated_store


class Said(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


TINY = [
    "model.base_width=4", "model.dim=32", "model.decoder.hidden=16", "model.decoder.head_dim=8",
    "model.signal.fs=100", "model.signal.samples=1000", "model.token_stride=2",
    "train.batch_size=16", "train.epochs=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def labelled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_store(tmp_path_factory.mktemp("ablation"), 160, 2).path


def plan(store: Path, **changes: object) -> dict[str, object]:
    return {
        "train": str(store),
        "targets": [{"store": str(store), "task": "labels", "split": "all", "min_pos": 3}],
        "base": "demo",
        "rows": {
            "demo": {"recipe": "demo"},
            "plain": {
                "recipe": "demo",
                "overrides": ["objective.duplicates=negative", "objective.shared=text", "train.statements=0"],
            },
        },
        "common": TINY,
        "seeds": [0, 1],
        "draws": 50,
        **changes,
    }


def written(tmp_path: Path, content: dict[str, object]) -> Path:
    path = tmp_path / "ablation.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_macro_and_paired_difference_equal_sklearn(labelled_store: Path) -> None:
    store = Store.open(labelled_store)
    rows = store.task_rows("labels", "all")
    names, labels = store.labels("labels", rows)
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=labels.shape) for _ in range(4)]
    scores = {"a": [labels + noise[0], labels + noise[1]], "b": [labels + 2 * noise[2], labels + 2 * noise[3]]}
    target = Target(store=labelled_store, task="labels", split="all", min_pos=3)
    result = compare_rows(store, target, scores, "a", 200)
    chosen = [names.index(name) for name in result["classes"]]
    expected = {
        row: [np.mean([roc_auc_score(labels[:, c], array[:, c]) for c in chosen]) for array in arrays]
        for row, arrays in scores.items()
    }
    for row, values in expected.items():
        assert result["rows"][row]["seeds"] == pytest.approx(values)
        assert result["rows"][row]["macro_auroc"]["value"] == pytest.approx(np.mean(values))
    gap = result["rows"]["b"]["difference"]
    assert gap["value"] == pytest.approx(np.mean(expected["b"]) - np.mean(expected["a"]))
    assert gap["ci"][0] < gap["value"] < gap["ci"][1] < 0  # twice the noise is clearly worse
    assert result["rows"]["a"]["difference"] is None


def test_few_positives_that_rank_first_leave_an_interval(labelled_store: Path) -> None:
    """A perfect AUROC of a class with few positives is uncertain; with one seed the interval is for that seed."""
    store = Store.open(labelled_store)
    names, labels = store.labels("labels", store.task_rows("labels", "all"))
    counts = labels.sum(axis=0)
    rare = names[int(np.argmin(np.where(counts >= 2, counts, 10**6)))]
    target = Target(store=labelled_store, task="labels", split="all", min_pos=1, classes=(rare,))
    row = compare_rows(store, target, {"a": [labels.astype(float)]}, "a", 200)["rows"]["a"]["macro_auroc"]
    assert row["value"] == 1.0
    assert 0.3 < row["ci"][0] < 1.0 == row["ci"][1]
    assert compare_rows(store, target, {"a": [labels.astype(float)]}, "a", 0)["rows"]["a"]["macro_auroc"]["ci"] is None


def test_every_row_and_seed_is_trained_once_and_an_interrupted_table_continues(
    labelled_store: Path, tmp_path: Path
) -> None:
    path, out = written(tmp_path, plan(labelled_store)), tmp_path / "out"
    said = Said()
    result = run_ablation(path, out, device="cpu", progress=said)
    assert len(said.lines) == 4
    assert {run.name for run in (out / "runs").iterdir()} == {"demo-0", "demo-1", "plain-0", "plain-1"}
    (target,) = result["targets"].values()
    assert set(target["rows"]) == {"demo", "plain", "random"}
    weights = {p.parent.name: p.stat().st_mtime_ns for p in out.glob("runs/*/model/../model/model.safetensors")}
    table = (out / "ablation.md").read_text()
    again = run_ablation(path, out, device="cpu", progress=said)
    assert json.dumps(again) == json.dumps(result)
    assert (out / "ablation.md").read_text() == table
    assert weights == {p.parent.name: p.stat().st_mtime_ns for p in out.glob("runs/*/model/../model/model.safetensors")}
    changed = plan(labelled_store, common=[*TINY, "train.lr=1e-4"])
    with pytest.raises(DeriError, match="train.lr was 0.002 and is 0.0001"):
        run_ablation(written(tmp_path, changed), out, device="cpu", progress=said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nothing"}, "is no row"),
        ({"seed": 3}, "unknown key 'seed'; did you mean 'seeds'"),
        ({"rows": {"demo": {"recipe": "demo"}, "b": {"recipe": "demo", "overrides": ["train.epochs=2"]}}}, "same step"),
        ({"rows": {"demo": {"recipe": "nowhere"}}}, "unknown recipe 'nowhere'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(
    changes: dict[str, object], message: str, labelled_store: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeriError, match=message):
        load_ablation(written(tmp_path, plan(labelled_store, **changes)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--ablation FILE"),
        (["--model", "m", "--ablation", "x.yaml"], "leave --model"),
        (["--ablation", "nowhere.yaml"], "cannot be read"),
    ],
)
def test_command_takes_an_ablation_or_models(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "--out", str(tmp_path / "out"), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
