from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deri.cli.main import main
from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.evaluation import benchmark, classical, features, figures, result, zero_shot
from deri.evaluation import probe as probing
from deri.evaluation.benchmark import Scope, run_benchmark
from deri.evaluation.features import Features
from deri.evaluation.intervals import METHOD
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import probe_task
from deri.evaluation.zero_shot import zero_shot_task
from deri.models import EcgTextModel, build_model, load_model
from deri.models.calibration import encoder_digest
from deri.simulate import simulate
from deri.store import Store, prepare
from support import tiny

OPTIONS = EvalOptions(fractions=(20.0, 100.0), seeds=2, draws=40)
TASKS = ("ptbxl-super", "ptbxl-rhythm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    simulate("ptb-xl", 160, folder / "source", seed=2)
    prepare(open_dataset("ptb-xl", folder / "source"), folder / "store")
    for seed in (4, 5):
        tiny.model(pooling="mean", seed=seed).save_pretrained(folder / f"m{seed}")
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def model(folder: Path) -> EcgTextModel:
    return load_model(folder / "m4")


@pytest.fixture(autouse=True, scope="module")
def few_trees() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classical.BOOSTING, "max_iter", 4)
        yield


def run(folder: Path, out: Path, options: EvalOptions = OPTIONS, **more: Any) -> dict[str, Any]:
    models = [f"four={folder / 'm4'}", str(folder / "m5")]
    more = {"tasks": TASKS, "figures": False} | more
    return run_benchmark(models, [folder / "store"], out, options, Scope(**more))


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return run(folder, folder / "out")


def one(results: dict[str, Any], model: str, task: str, fraction: float | None) -> dict[str, Any]:
    (found,) = [c for c in results["cells"] if (c["model"], c["task"], c["fraction"]) == (model, task, fraction)]
    return found


def test_every_cell_is_there(results: dict[str, Any], folder: Path) -> None:
    kinds = [about["kind"] for about in results["models"]]
    assert kinds == ["model", "model", "random", "classical"]  # both models are of one architecture
    assert len(results["cells"]) == 2 * (3 * 3 + 2)
    assert results["missing"] == []
    assert json.loads((folder / "out" / "results.json").read_text()) == results
    assert all((folder / "out" / cell["file"]).is_file() for cell in results["cells"])


def test_zero_shot_cells_are_those_of_zeroshot(results: dict[str, Any], store: Store, model: EcgTextModel) -> None:
    expected = zero_shot_task(Features(model, store), "ptbxl-rhythm", EvalOptions(draws=40), model_name="four")
    found = one(results, "four", "ptbxl-rhythm", None)
    for key in ("n", "n_patients", "n_classes_scored", "macro_f1", "accuracy", "notes", "store", "recipe"):
        assert found[key] == expected[key], key
    assert found["macro_auroc"]["value"] == pytest.approx(expected["macro_auroc"]["value"], abs=1e-9)
    assert found["macro_auroc"]["ci"] == pytest.approx(expected["macro_auroc"]["ci"], abs=1e-9)
    without = [name for name, c in expected["classes"].items() if c["auroc"] is None]
    assert without  # nobody of so few has each of the twelve rhythms
    assert all(found["classes"][name]["auroc"] is None for name in without)


def test_probe_cells_are_those_of_probe(results: dict[str, Any], store: Store, model: EcgTextModel) -> None:
    expected = probe_task(Features(model, store), "ptbxl-super", OPTIONS, model_name="four")
    for fraction in (20.0, 100.0):
        found, wanted = one(results, "four", "ptbxl-super", fraction), expected["fractions"][f"{fraction:g}"]
        assert found["n_train"] == wanted["n_train"]
        for key in ("macro_auroc", "macro_f1", "accuracy", "classes", "calibration"):
            assert found[key] == wanted[key], key
        assert [s["macro_auroc"] for s in found["seeds"]] == [s["macro_auroc"] for s in wanted["seeds"]]


def test_published_protocol_reaches_both_parts(folder: Path, store: Store, model: EcgTextModel, tmp_path: Path) -> None:
    options = EvalOptions(fractions=(10.0,), protocol="published", draws=0)
    found = run(folder, tmp_path / "out", options, tasks=["ptbxl-super"])
    own = Features(model, store)
    probe = probe_task(own, "ptbxl-super", options, model_name="")
    assert one(found, "four", "ptbxl-super", 10.0)["macro_auroc"]["value"] == probe["macro_auroc"]["value"]
    shot = zero_shot_task(own, "ptbxl-super", options, model_name="")
    assert one(found, "four", "ptbxl-super", None)["macro_f1"] == pytest.approx(shot["macro_f1"])


def test_random_row_is_the_same_network_untrained(results: dict[str, Any], model: EcgTextModel) -> None:
    (about,) = [about for about in results["models"] if about["kind"] == "random"]
    random = build_model(model.config, seed=0, text_encoder=model.text_encoder)
    assert about["digest"] == encoder_digest(random) != encoder_digest(model)
    assert {n: v.shape for n, v in random.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}


def test_paired_tests_are_on_the_cells_records(results: dict[str, Any], store: Store, folder: Path) -> None:
    names = [about["name"] for about in results["models"]]
    probes = {(c["a"], c["b"]) for c in results["comparisons"] if c["mode"] == "probe"}
    assert probes == {(a, b) for i, a in enumerate(names[:2]) for b in names[i + 1 :]}
    assert not any(c["b"] == names[3] for c in results["comparisons"] if c["mode"] == "zero-shot")
    (test,) = [
        c
        for c in results["comparisons"]
        if (c["a"], c["b"], c["task"], c["fraction"]) == (names[0], names[3], "ptbxl-super", 20.0)
    ]
    rows = store.task_rows("ptbxl-super", "test")
    classes, labels = store.labels("ptbxl-super", rows)
    scores = []
    for name in (names[0], names[3]):
        file = folder / "out" / one(results, name, "ptbxl-super", 20.0)["file"]
        scores.append(np.load(file.with_suffix(".npz"))["scores"][0])  # of the first seed
    defined = np.flatnonzero((labels.sum(axis=0) > 1) & (labels.sum(axis=0) < len(rows) - 1))
    values = {
        c: [roc_auc_score(labels[:, c], s[:, c]) for s in scores] for c in range(len(classes)) if labels[:, c].any()
    }
    assert test["n"] == len(rows)
    a, b = np.mean(list(values.values()), axis=0)
    assert test["macro"]["difference"] == pytest.approx(a - b)
    assert test["macro"]["ci"][0] < a - b < test["macro"]["ci"][1]
    assert 0 < test["macro"]["p"] <= 1
    assert len(defined) > 1
    for c in defined:
        name = classes[c]
        assert test["classes"][name]["few_positives"] == (labels[:, c].sum() < 10)
        assert test["classes"][name]["a"] == pytest.approx(values[c][0])
        assert test["classes"][name]["b"] == pytest.approx(values[c][1])


def test_nothing_is_computed_twice(folder: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((features, "embed_store"), (probing, "fit_probe"), (probing, "evaluate")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("computed again"))
    monkeypatch.setattr(features, "measure_store", lambda *_, **__: pytest.fail("computed again"))
    monkeypatch.setattr(benchmark, "paired_differences", lambda *_, **__: pytest.fail("computed again"))
    assert run(folder, folder / "out") == results


def test_an_interrupted_benchmark_continues(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], result.evaluate
    options = EvalOptions(fractions=(20.0,), draws=5)

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    for module in (probing, zero_shot):
        monkeypatch.setattr(module, "evaluate", failing)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "out", options, tasks=["ptbxl-super"])
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 4
    continued = run(folder, tmp_path / "out", options, tasks=["ptbxl-super"])
    assert len(calls) == 5 + 7 - 4
    assert continued == run(folder, tmp_path / "undisturbed", options, tasks=["ptbxl-super"])


def test_what_decides_the_numbers_decides_the_cell(folder: Path, results: dict[str, Any]) -> None:
    before = {cell["file"] for cell in results["cells"]}
    for cell in results["cells"]:
        key = json.loads((folder / "out" / cell["file"]).read_text(encoding="utf-8"))["key"]
        assert key["ci_method"] == METHOD
        whole = {"weights", "config", "text_encoder", "recipe"} if cell["kind"] != "classical" else {"scikit-learn"}
        assert whole <= set(key["candidate"])
    other = run(
        folder, folder / "out", EvalOptions(fractions=(20.0,), seeds=2, draws=40, seed=7), tasks=["ptbxl-super"]
    )
    assert not before & {cell["file"] for cell in other["cells"]}
    renamed = run_benchmark(
        [f"new={folder / 'm4'}"], [folder / "store"], folder / "out", OPTIONS,
        Scope(tasks=["ptbxl-super"], figures=False),
    )  # fmt: skip
    assert [c["model"] for c in renamed["cells"]][:3] == ["new"] * 3
    assert {c["file"] for c in renamed["cells"]} <= before


def test_models_of_equal_weights_and_other_configuration_are_told_apart(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    """Both in what is scored and kept in one run, and between runs of one folder."""
    switches = {"mixed": [], "aligned": ["model.inference.text=aligned"], "minmax": ["model.signal.normalise=minmax"]}
    own = {}
    for name, overrides in switches.items():
        own[name] = tiny.model(*overrides, pooling="mean", seed=4)
        own[name].save_pretrained(tmp_path / name)
    assert len({encoder_digest(one) for one in own.values()}) == 1
    options = EvalOptions(fractions=(100.0,), draws=0)
    found = run_benchmark(
        [f"{name}={tmp_path / name}" for name in switches], [store.path], tmp_path / "out", options,
        Scope(tasks=["ptbxl-super"], figures=False),
    )  # fmt: skip
    for name, model in own.items():
        alone = Features(model, store)
        shot = zero_shot_task(alone, "ptbxl-super", EvalOptions(draws=0), model_name=name)
        assert one(found, name, "ptbxl-super", None)["macro_auroc"] == shot["macro_auroc"]
        linear = probe_task(alone, "ptbxl-super", options, model_name=name)
        assert one(found, name, "ptbxl-super", 100.0)["macro_auroc"] == linear["macro_auroc"]
    zero_shots = {one(found, name, "ptbxl-super", None)["macro_auroc"]["value"] for name in switches}
    assert len(zero_shots) == 3
    kinds = [about["kind"] for about in found["models"]]
    assert kinds == ["model"] * 3 + ["random"] * 3 + ["classical"]
    assert len({about["name"] for about in found["models"]}) == 7
    assert len(found["cells"]) == 2 * 6 + 1
    assert len({cell["file"] for cell in found["cells"]}) == 13


def test_missing_splits_leave_nulls_and_a_reason(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset("ptb-xl", folder / "source")
    dataset.examples["split"] = dataset.examples["split"].replace("val", "train")
    prepare(dataset, tmp_path / "store")
    found = run_benchmark(
        [str(folder / "m4")], [tmp_path / "store"], tmp_path / "out", EvalOptions(fractions=(100.0,), draws=0),
        Scope(tasks=["ptbxl-super"], figures=False),
    )  # fmt: skip
    assert {c["mode"] for c in found["cells"]} == {"zero-shot"}
    assert found["cells"][0]["macro_f1"] is None  # no records to choose thresholds on
    assert {m["reason"] for m in found["missing"]} == {f"no val records in {tmp_path / 'store'}"}
    assert "no val records" in (tmp_path / "out" / "table.md").read_text()


def test_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_FEWEST_POINTS", 4)
    common = ["--model", f"four={folder / 'm4'}", "--data", str(folder / "store"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as done:
        main(["benchmark", *common, "--tasks", "ptbxl-super", "--fraction", "100", "--draws", "20", "--saliency", "1"])
    assert done.value.code == 0
    assert "5 cells" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (tmp_path / "out" / "table.tex").read_text().startswith("\\begin{table}")
    assert len(content["saliency"]) == 1
    names = {Path(file).stem for file in content["figures"]}
    assert {"ptbxl-super-auroc", "ptbxl-super-reliability", "ptbxl-super-tsne"} <= names
    assert all((tmp_path / "out" / file).stat().st_size > 1000 for file in content["figures"])


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--tasks", "cpsc2018"], "--tasks cpsc2018"),
        (["--fraction", "0"], "--fraction 0"),
        (["--model", "four=random:demo"], "called four"),
        (["--transfer", "ptbxl-super"], "--transfer ptbxl-super"),
        (["--mapping", "x.yaml"], "--mapping x.yaml"),
    ],
)
def test_errors_name_the_option(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], named: str
) -> None:
    common = ["--model", f"four={folder / 'm4'}", "--data", str(folder / "store"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as failed:
        main(["benchmark", *common, *more])
    assert failed.value.code == 2
    assert named in capsys.readouterr().err


def test_a_store_without_tasks_is_refused(folder: Path, mimic_store: Path, tmp_path: Path) -> None:
    if Store.open(mimic_store).tasks:
        pytest.skip("this store has tasks")
    with pytest.raises(DeriError, match="none of the stores has a task"):
        run_benchmark([str(folder / "m4")], [mimic_store], tmp_path / "out")
