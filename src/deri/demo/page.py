"""One self-contained HTML page of a run: losses, retrieval, AUROC per class, and ECGs on paper. No scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deri.demo.reports import NAMES, DemoReports
from deri.ecg import plot_ecg
from deri.evaluation.tables import with_interval
from deri.files import write_text
from deri.html import inline_svg, render
from deri.reports import class_names
from deri.training.log import read_metrics

_INK, _GREY, _BROWN, _LINE = "#14756b", "#9aa5b1", "#8a4b2d", "#dfe4ea"


def write_page(
    path: Path,
    run: Path,
    results: dict[str, dict[str, Any]],
    probes: dict[str, dict[str, Any]],
    headline: dict[str, Any],
    examples: list[dict[str, Any]],
    reports: DemoReports,
) -> None:
    """Write the demo's page.

    Args:
        path: the HTML file.
        run: run directory, for its metrics.
        results: zero-shot results by ``MODEL/TASK`` with models ``deri`` and ``random``.
        probes: linear probes by ``MODEL/TASK``, then by percentage of the training records.
        headline: what :func:`deri.demo.steps.run_demo` found.
        examples: recordings (``ecg``) with ``title``, ``report``, ``truth`` and scored ``texts``.
        reports: generated reports beside the true ones.
    """
    metrics = read_metrics(run)
    main, random = results["deri/labels"], results["random/labels"]
    val = [line for line in metrics if line["split"] == "val"]
    gain = headline["macro_auroc"] - headline["macro_auroc_random"]
    tasks = [key.partition("/")[2] for key in results if key.startswith("deri/")]
    fractions = list(probes["deri/labels"])
    html = render(
        "demo/page.html",
        "DERI demo",
        main=main,
        headlines=[
            (f"{headline['macro_auroc']:.3f}", f"zero-shot macro AUROC over {headline['findings']} findings"),
            (f"{headline['macro_auroc_random']:.3f}", "the same network with random weights"),
            (f"{gain:+.3f}", "what pre-training gave"),
            (_of_best(val, "text_to_ecg_r5"), "R@5, report → ECG, held-out patients"),
        ],
        losses=inline_svg(_losses(metrics), "losses"),
        retrieval=inline_svg(_retrieval(val), "retrieval"),
        bars=inline_svg(_bars(main, random, headline["scored"]), "bars"),
        min_positives=headline["min_positives"],
        findings=headline["findings"],
        tasks=[_task_row(task, results[f"deri/{task}"], results[f"random/{task}"]) for task in tasks],
        probe_heads=["task", *(head for f in fractions for head in (f"{f} %", f"{f} %, random weights"))],
        probes=[
            (task, *(_macro(probes[f"{of}/{task}"][f]) for f in fractions for of in ("deri", "random")))
            for task in tasks
        ],
        examples=[
            {**e, "drawing": inline_svg(plot_ecg(e["ecg"], title=f"{e['title']}, record {e['record']}"), f"ecg{i}")}
            for i, e in enumerate(examples)
        ],
        reports=reports,
        macro=reports.systems["writer"]["findings"]["macro"],
        systems=[_system_row(name, result) for name, result in reports.systems.items()],
        margin=_margin(reports),
        flag_words=_flag_words(reports.systems["writer"]["flags"]),
    )
    write_text(path, html)


def finding_name(code: str) -> str:
    """The clinical name of a statement code of PTB-XL, outer underscores aside; the code where there is none."""
    known = class_names("labels")
    return known.get(code, known.get(code.strip("_"), code))


def _of_best(val: list[dict[str, Any]], key: str) -> str:
    """The figure of the epoch whose weights were kept: the lowest held-out loss."""
    known = [line for line in val if line["loss"] is not None]
    return f"{min(known, key=lambda line: float(line['loss']))[key]:.0%}" if known else "none"


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _losses(metrics: list[dict[str, Any]]) -> Any:
    figure, axes = _axes(5.6, 3.2)
    for split, label, colour, marker in (("train", "training", _GREY, ""), ("val", "held-out patients", _INK, "o")):
        lines = [line for line in metrics if line["split"] == split and line["loss"] is not None]
        axes.plot([x["step"] for x in lines], [x["loss"] for x in lines], marker + "-", color=colour, label=label, ms=4)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def _retrieval(val: list[dict[str, Any]]) -> Any:
    figure, axes = _axes(5.6, 3.2)
    for way, label, colour in (("ecg_to_text", "ECG → report", _INK), ("text_to_ecg", "report → ECG", _BROWN)):
        for k, style in ((1, "--"), (5, "-")):
            recall = [x[f"{way}_r{k}"] for x in val]
            axes.plot([x["step"] for x in val], recall, style, color=colour, label=f"{label} R@{k}")
    axes.set(xlabel="step", ylabel="recall", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return figure


def _bars(main: dict[str, Any], random: dict[str, Any], scored: list[str]) -> Any:
    classes = {name: c for name, c in main["classes"].items() if c["auroc"] is not None}
    order = sorted(classes, key=lambda name: classes[name]["auroc"])
    figure, axes = _axes(10, 0.26 * len(order) + 0.8)
    for y, name in enumerate(order):
        c, alpha = classes[name], 1.0 if name in scored else 0.35
        if c["ci"]:  # a class of very few patients has none
            axes.plot(c["ci"], [y, y], "-", color=_INK, lw=4, alpha=0.35 * alpha, solid_capstyle="butt")
        axes.plot(c["auroc"], y, "o", color=_INK, alpha=alpha)
        axes.plot(random["classes"][name]["auroc"], y, "o", mfc="none", color=_GREY, alpha=alpha)
    axes.axvline(0.5, color=_LINE, zorder=0)
    ticks = [f"{finding_name(code)} ({code}, n={classes[code]['n_pos']})" for code in order]
    axes.set_yticks(range(len(order)), ticks, fontsize=8)
    axes.set(xlim=(0, 1.01), xlabel="AUROC", ylim=(-0.7, len(order) - 0.3))
    return figure


def _task_row(task: str, result: dict[str, Any], random: dict[str, Any]) -> tuple[str | int, ...]:
    classes = f"{result['n_classes_scored']} of {result['n_classes']}"
    return task, result["n"], classes, _macro(result), _macro(random)


def _macro(result: dict[str, Any]) -> str:
    macro = result["macro_auroc"]
    return "none" if macro["value"] is None else with_interval(macro["value"], macro["ci"])


def _system_row(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    metrics, findings = result["metrics"], result["findings"]
    bleu, rouge = (
        with_interval(metrics[m]["value"], metrics[m]["ci"]) if m in metrics else "–" for m in ("bleu_4", "rouge_l")
    )
    f1 = with_interval(findings["macro"]["f1"], findings["macro"]["ci"])
    return NAMES[name], bleu, rouge, f1, f"{findings['micro']['f1']:.3f}"


def _margin(reports: DemoReports) -> str:
    """The writer against the baseline with the highest finding-F1, on the same draws of patients."""
    scores = reports.scores()
    best = max((name for name in scores if name != "writer"), key=lambda name: scores[name]["finding_f1"])
    found = reports.differences[f"writer − {best}"]
    parts = []
    for label, key in (("BLEU-4", "bleu_4"), ("finding F1", "finding_f1")):
        value, ci = found[key]["value"], found[key]["ci"]
        parts.append(f"{label} {with_interval(value, ci, style='+.3f', to=' to ', before='95 % CI ')}")
    return f"Report writer less {NAMES[best]}, paired by patient: {', '.join(parts)}."


def _flag_words(flags: dict[str, Any]) -> str:
    """How often flagged and other assertions are in the true report, in words."""
    shares = {of: flags[f"precision_{of}"] for of in ("flagged", "unflagged")}
    return "; ".join(
        f"of {flags[of]} {of} assertions " + ("none can be judged" if share is None else f"{share:.0%} are true")
        for of, share in shares.items()
    )
