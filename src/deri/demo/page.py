"""One self-contained HTML page of a run: losses, retrieval, AUROC per class, and ECGs on paper. No scripts."""

from __future__ import annotations

import io
import re
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from deri._version import __version__
from deri.demo.reports import NAMES, DemoReports, flag_words
from deri.ecg import plot_ecg
from deri.files import write_text
from deri.training.log import read_metrics

_STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --good: #14756b; --plain: #9aa5b1; --bad: #a33a2a; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
p.soft, td.soft, figcaption { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.7rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .9rem; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1.2rem; }
figure { margin: 0 0 1.4rem; } figure svg { width: 100%; height: auto; display: block; }
table { margin-bottom: 2rem; border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } td.hit, span.true { color: var(--good); font-weight: 600; }
span.false { color: var(--bad); } td small { color: var(--soft); display: block; }
"""


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
        examples: recordings (``ecg``) with ``report``, ``truth`` and scored ``texts``.
        reports: generated reports beside the true ones.
    """
    metrics = read_metrics(run)
    main, random = results["deri/labels"], results["random/labels"]
    val = [line for line in metrics if line["split"] == "val"]
    gain = headline["macro_auroc"] - headline["macro_auroc_random"]
    tiles = [
        (f"{headline['macro_auroc']:.3f}", f"zero-shot macro AUROC over {headline['findings']} findings"),
        (f"{headline['macro_auroc_random']:.3f}", "the same network with random weights"),
        (f"{gain:+.3f}", "what pre-training gave"),
        (_of_best(val, "text_to_ecg_r5"), "R@5, report → ECG, held-out patients"),
    ]
    body = [
        "<h1>DERI on simulated data</h1>",
        "<p class=soft>Pre-trained on simulated ECG–report pairs in the layout of MIMIC-IV-ECG; scored without any "
        f"training on {main['n']} recordings of {main['n_patients']} other simulated patients in the layout of PTB-XL. "
        f"deri {__version__}. For research; not a medical device.</p>",
        "<div class=tiles>",
        *(f"<div class=tile><b>{value}</b><span>{escape(text)}</span></div>" for value, text in tiles),
        "</div>",
        "<h2>Training</h2><div class=row>",
        _figure(
            _losses(metrics), "The sum of the terms on training batches, and on held-out patients after each epoch."
        ),
        _figure(_retrieval(val), "Share of held-out pairs whose partner is among the k nearest; equal reports count."),
        "</div>",
        f"<h2>Zero-shot AUROC per finding</h2><p class=soft>Bars: 95 % interval by patient. Findings with fewer than "
        f"{headline['min_positives']} positives are pale and not in the average.</p>",
        _figure(_bars(main, random, headline["scored"]), "Dark: pre-trained. Grey ring: random weights."),
        _task_table(results),
        "<h2>Linear probe</h2><p class=soft>A logistic regression on the frozen encoder's embedding, trained on a "
        "share of folds 1–8 and scored on fold 10, which is small here: mind the intervals.</p>",
        _probe_table(probes),
        "<h2>Three recordings and the texts that score highest</h2><p class=soft>The first recording of each of three "
        "findings. Bold: true of the recording. Scores are cosines; they rank, they are not probabilities.</p>",
        *(_example(example) for example in examples),
        *_reports(reports),
    ]
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>DERI demo</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    write_text(path, html)


def _of_best(val: list[dict[str, Any]], key: str) -> str:
    """The figure of the epoch whose weights were kept: the lowest held-out loss."""
    known = [line for line in val if line["loss"] is not None]
    return f"{min(known, key=lambda line: float(line['loss']))[key]:.0%}" if known else "none"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure as an inline SVG; ids are made unique to the page, since SVGs in one page share their ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue())


_counter = 0


def _inline(svg: str) -> str:
    global _counter
    _counter += 1
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="g{_counter}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#g{_counter}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#g{_counter}-\1)", svg)


def _losses(metrics: list[dict[str, Any]]) -> str:
    figure, axes = _axes(5.6, 3.2)
    for split, colour, marker in (("train", "#9aa5b1", ""), ("val", "#14756b", "o")):
        lines = [line for line in metrics if line["split"] == split and line["loss"] is not None]
        label = "training" if split == "train" else "held-out patients"
        axes.plot([x["step"] for x in lines], [x["loss"] for x in lines], marker + "-", color=colour, label=label, ms=4)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.legend(frameon=False)
    return _svg(figure)


def _retrieval(val: list[dict[str, Any]]) -> str:
    figure, axes = _axes(5.6, 3.2)
    for key, colour, style in (
        ("ecg_to_text_r1", "#14756b", "--"), ("ecg_to_text_r5", "#14756b", "-"),
        ("text_to_ecg_r1", "#8a4b2d", "--"), ("text_to_ecg_r5", "#8a4b2d", "-"),
    ):  # fmt: skip
        direction, _, k = key.rpartition("_r")
        label = f"{direction.replace('_to_', ' → ').replace('ecg', 'ECG').replace('text', 'report')} R@{k}"
        axes.plot([x["step"] for x in val], [x[key] for x in val], style, color=colour, label=label)
    axes.set(xlabel="step", ylabel="recall", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _bars(main: dict[str, Any], random: dict[str, Any], scored: list[str]) -> str:
    classes = {name: c for name, c in main["classes"].items() if c["auroc"] is not None}
    order = sorted(classes, key=lambda name: classes[name]["auroc"])
    figure, axes = _axes(10, 0.26 * len(order) + 0.8)
    for y, name in enumerate(order):
        c, alpha = classes[name], 1.0 if name in scored else 0.35
        axes.plot(c["ci"], [y, y], "-", color="#14756b", lw=4, alpha=0.35 * alpha, solid_capstyle="butt")
        axes.plot(c["auroc"], y, "o", color="#14756b", alpha=alpha)
        axes.plot(random["classes"][name]["auroc"], y, "o", mfc="none", color="#9aa5b1", alpha=alpha)
    axes.axvline(0.5, color="#dfe4ea", zorder=0)
    axes.set_yticks(range(len(order)), [f"{name}  (n={classes[name]['n_pos']})" for name in order], fontsize=8)
    axes.set(xlim=(0, 1.01), xlabel="AUROC", ylim=(-0.7, len(order) - 0.3))
    return _svg(figure)


def _task_table(results: dict[str, dict[str, Any]]) -> str:
    rows = []
    for key, result in results.items():
        which, _, task = key.partition("/")
        if which != "deri":
            continue
        rows.append(
            f"<tr><td>{escape(task)}</td><td class=n>{result['n']}</td>"
            f"<td class=n>{result['n_classes_scored']} of {result['n_classes']}</td>"
            f"<td class=n>{_macro(result)}</td><td class=n>{_macro(results[f'random/{task}'])}</td></tr>"
        )
    head = "<tr><th>task</th><th class=n>records</th><th class=n>classes</th><th class=n>macro AUROC (95 % CI)</th>"
    return f"<table>{head}<th class=n>random weights</th></tr>{''.join(rows)}</table>"


def _probe_table(probes: dict[str, dict[str, Any]]) -> str:
    fractions = list(next(iter(probes.values())))
    heads = "".join(f"<th class=n>{f} %</th><th class=n>{f} %, random weights</th>" for f in fractions)
    rows = []
    for key in probes:
        which, _, task = key.partition("/")
        if which == "deri":
            cells = [_macro(probes[f"{of}/{task}"][f]) for f in fractions for of in ("deri", "random")]
            rows.append(f"<tr><td>{escape(task)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th>task</th>{heads}</tr>{''.join(rows)}</table>"


def _macro(result: dict[str, Any]) -> str:
    macro = result["macro_auroc"]
    if macro["value"] is None:
        return "none"
    return f"{macro['value']:.3f}" + (f" ({macro['ci'][0]:.3f}–{macro['ci'][1]:.3f})" if macro["ci"] else "")


def _example(example: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ecg.svg"
        plot_ecg(example["ecg"], path)
        svg = _inline(path.read_text(encoding="utf-8"))
    rows = "".join(
        f"<tr><td class='{'hit' if true else ''}'>{escape(name)}</td><td class=soft>{escape(text)}</td>"
        f"<td class=n>{score:.3f}</td></tr>"
        for name, text, score, true in example["texts"]
    )
    caption = f"Record {example['record']}. True findings: {', '.join(example['truth'])}. Report: {example['report']}"
    return f"{_figure(svg, caption)}<table>{rows}</table>"


def _reports(reports: DemoReports) -> list[str]:
    writer = reports.systems["writer"]
    macro = writer["findings"]["macro"]
    return [
        "<h2>Generated reports</h2><p class=soft>A small writer, trained from scratch on "
        f"{reports.trained} reports and the frozen encoder's tokens, wrote the reports of {reports.n} ECGs of patients "
        "that neither it nor the encoder has seen. Findings are read by a rule-based labeller, independent of the "
        f"model; F1 is the mean over the {macro['findings']} findings that at least {macro['min_count']} of the true "
        "reports assert.</p>",
        _system_table(reports),
        f"<p class=soft>{escape(_margin(reports))}</p>",
        "<p class=soft>The first test ECG of each of a few findings. Green: the true report asserts it too; red: it "
        "does not. A flag marks a finding that the text asserts and the ECG model scores low: "
        f"{escape(flag_words(writer['flags']))}. Drafts for research, no diagnosis.</p>",
        _report_table(reports.examples),
    ]


def _margin(reports: DemoReports) -> str:
    """The writer against the baseline with the highest finding-F1, on the same draws of patients."""
    best = max(
        (name for name in reports.systems if name != "writer"), key=lambda name: reports.scores()[name]["finding_f1"]
    )
    found = reports.differences[f"writer − {best}"]
    parts = []
    for label, key in (("BLEU-4", "bleu_4"), ("finding F1", "finding_f1")):
        value, ci = found[key]["value"], found[key]["ci"]
        parts.append(f"{label} {value:+.3f}" + (f" (95 % CI {ci[0]:+.3f} to {ci[1]:+.3f})" if ci else ""))
    return f"Report writer less {NAMES[best]}, paired by patient: {', '.join(parts)}."


def _system_table(reports: DemoReports) -> str:
    rows = []
    for name, result in reports.systems.items():
        metrics, macro = result["metrics"], result["findings"]["macro"]
        cells = [_score(metrics["bleu_4"]), _score(metrics["rouge_l"]) if "rouge_l" in metrics else "–"]
        cells += [_score({"value": macro["f1"], "ci": macro["ci"]}), f"{result['findings']['micro']['f1']:.3f}"]
        rows.append(f"<tr><td>{escape(NAMES[name])}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    heads = ("BLEU-4 (95 % CI)", "ROUGE-L (95 % CI)", "finding F1 (95 % CI)", "micro F1")
    head = "".join(f"<th class=n>{text}</th>" for text in heads)
    return f"<table><tr><th>system</th>{head}</tr>{''.join(rows)}</table>"


def _score(entry: dict[str, Any]) -> str:
    ci = f" ({entry['ci'][0]:.3f}–{entry['ci'][1]:.3f})" if entry["ci"] else ""
    return f"{entry['value']:.3f}{ci}"


def _report_table(examples: list[dict[str, Any]]) -> str:
    rows = []
    for example in examples:
        text = " ".join(f"<span class={part['kind']}>{escape(part['text'])}</span>" for part in example["sentences"])
        notes = [("flagged", example["flags"]), ("missed", example["missed"])]
        text += "".join(f"<small>{what}: {escape(', '.join(items))}</small>" for what, items in notes if items)
        rows.append(
            f"<tr><td class=soft>{escape(str(example['record']))}</td><td>{escape(example['reference'])}</td>"
            f"<td>{text or '(empty)'}</td></tr>"
        )
    return f"<table><tr><th>record</th><th>true report</th><th>generated report</th></tr>{''.join(rows)}</table>"
