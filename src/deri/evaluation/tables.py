"""The tables of a benchmark, in Markdown and LaTeX: macro AUROC in percent with 95 % intervals, published rows beside.

Both are made from ``results.json`` alone. A cell that does not exist, or an average over nothing, is a dash; never 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from deri.evaluation.options import way_name, ways_to_score
from deri.evaluation.published import TASKS, TEST_RECORDS, TITLES, published_rows

DASH = "–"
_KINDS = {"model": "", "random": " (random weights)", "classical": " (no network)"}

Cell = dict[str, Any]
"""What ``results.json`` says of a model on a task in one way."""


def with_interval(
    value: float | None, ci: Any, *, style: str = ".3f", scale: float = 1, to: str = "–", before: str = ""
) -> str:
    """``0.742 (0.701–0.780)``: a figure with its interval, if it has one; a dash where there is no figure.

    Args:
        value: the figure.
        ci: its limits, or None.
        style: of the numbers, as ``format`` takes it.
        scale: what they are multiplied by; 100 for percent.
        to: what stands between the limits.
        before: what stands before them, within the brackets.
    """
    if value is None:
        return DASH
    limits = ci and to.join(f"{scale * limit:{style}}" for limit in ci)
    return f"{scale * value:{style}}" + (f" ({before}{limits})" if limits else "")


_percent = partial(with_interval, style=".1f", scale=100)


def markdown_table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    """The lines of a Markdown table; all its columns but the first are numbers."""
    head, *lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in (heads, *rows)]
    return [head, "|---" + "|---:" * (len(heads) - 1) + "|", *lines]


@dataclass(frozen=True)
class Row:
    """A row: name, one entry per task, and the mean over the six tasks of the field (None where not all are there)."""

    name: str
    figures: list[str]
    mean: float | None
    published: bool = False


@dataclass(frozen=True)
class Part:
    """The rows that were scored in one way."""

    title: str
    rows: list[Row]


def parts(results: dict[str, Any]) -> list[Part]:
    """The parts of the table: zero-shot, then the probes by fraction; published rows last in each."""
    cells = {(c["model"], c["task"], c["mode"], c["fraction"]): c for c in results["cells"]}
    tasks = results["tasks"]
    shown = []
    for mode, fraction in ways_to_score(sorted(results["options"]["fractions"])):
        rows = []
        for about in results["models"]:
            if mode == "zero-shot" and about["kind"] == "classical":
                continue
            own = {task: cells.get((about["name"], task, mode, fraction)) for task in tasks}
            six = [100 * value for task in TASKS if (value := _value(own.get(task))) is not None]
            mean = sum(six) / len(six) if len(six) == len(TASKS) else None
            kind = "" if about["kind"] == "random" and about["name"].startswith("random") else _KINDS[about["kind"]]
            rows.append(Row(about["name"] + kind, [_macro_auroc(cell) for cell in own.values()], mean))
        for row in published_rows(mode, fraction):
            if any(task in row.values for task in tasks):
                figures = [with_interval(row.values.get(task), None, style=".1f") for task in tasks]
                rows.append(Row(row.model, figures, row.mean, published=True))
        shown.append(Part("Zero-shot" if fraction is None else f"Linear probe, {fraction:g} % of the labels", rows))
    return shown


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else cell["macro_auroc"]["value"]


def _macro_auroc(cell: Cell | None) -> str:
    return DASH if cell is None else _percent(_value(cell), cell["macro_auroc"]["ci"])


def _main_table(results: dict[str, Any], mean: str) -> tuple[list[list[str]], list[tuple[str, list[list[str]]]]]:
    """Texts of the main table: column titles and what stands below them, and title and rows of each part.

    The last column, titled ``mean``, is there where there are published rows, with which it compares.
    """
    tasks, shown = results["tasks"], parts(results)
    published = _has_published(shown)
    other = _other_records(results) if published else {}
    one = _cell_of_task(results)

    def row(name: str, texts: list[str], last: str) -> list[str]:
        return [name, *texts, *([last] if published else [])]

    def below(name: str, make: Callable[[Cell], str]) -> list[str]:
        return row(name, [make(one[task]) if task in one else DASH for task in tasks], "")

    def positives(cell: Cell) -> str:
        counts = sorted(c["n_pos"] for c in cell["classes"].values())
        return f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"

    head = [
        row("", [TITLES.get(task, task) + " ‡" * (task in other) for task in tasks], mean),
        below("test records (patients)", lambda c: f"{c['n']:,} ({c['n_patients']:,})"),
        below("classes scored of all", lambda c: f"{c['n_classes_scored']} of {c['n_classes']}"),
        below("positives of a class: least / middle / most", positives),
    ]
    return head, [
        (
            part.title,
            [row(r.name + " †" * r.published, r.figures, with_interval(r.mean, None, style=".1f")) for r in part.rows],
        )
        for part in shown
    ]


def _cell_of_task(results: dict[str, Any]) -> dict[str, Cell]:
    """Any cell of each task: all have the same test records."""
    return {cell["task"]: cell for cell in reversed(results["cells"])}


def _has_published(shown: list[Part]) -> bool:
    return any(row.published for part in shown for row in part.rows)


def notes(results: dict[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    options = results["options"]
    samples = "5 samples below 100 %" if options["seeds"] is None else f"{options['seeds']} samples"
    seeds = "" if options["seeds"] == 1 else f", mean over {samples}"
    folds = options.get("folds")
    where = f"on all records, each scored by a probe of {folds} folds by patient" if folds else "on test"
    found = [
        f"Macro AUROC × 100 {where}, with 95 % intervals by patient; "
        f"protocol {options['protocol']}{seeds}. Classes without positives or without negatives have no AUROC and are "
        f"left out of the mean. deri {results['deri_version']}.",
        "The random rows are the same network, untrained. The row without a network is gradient boosting on intervals, "
        "amplitudes and spectra of the recordings.",
    ]
    if _has_published(parts(results)):
        found.append(
            "† published figures, on the real data sets in full; zero-shot: " + _protocol("zero-shot", None)
            + "; probe: " + _protocol("probe", 100.0) + ". A mean is over the six tasks of the field, all of them."
        )  # fmt: skip
        other = [
            f"{TITLES[task]} {cell['n']:,} instead of {TEST_RECORDS[task]:,}"
            for task, cell in _other_records(results).items()
        ]
        if other:
            found.append(
                "‡ not the test records of the published figures, with which these columns do not compare: "
                f"{', '.join(other)}."
            )
    if results["missing"]:
        reasons: dict[str, list[str]] = {}
        for one_missing in results["missing"]:
            reasons.setdefault(one_missing["reason"], []).append(one_missing["task"])
        found += [f"{DASH} {', '.join(dict.fromkeys(tasks))}: {reason}." for reason, tasks in reasons.items()]
    return found


def _protocol(mode: str, fraction: float | None) -> str:
    return published_rows(mode, fraction)[-1].protocol


def _other_records(results: dict[str, Any]) -> dict[str, Cell]:
    """A cell of each task of the field whose test records are not the published ones."""
    one = _cell_of_task(results)
    return {task: one[task] for task in TASKS if task in one and one[task]["n"] != TEST_RECORDS[task]}


def markdown(results: dict[str, Any]) -> str:
    """The content of ``table.md``: the table, per-class tables, paired tests, transfers."""
    (titles, *below), shown = _main_table(results, "mean of six")
    for title, rows in shown:
        below += [[f"**{title}**", *[""] * (len(titles) - 1)], *rows]
    lines = ["# Benchmark", "", *markdown_table(titles, below), ""]
    lines += [line for note in notes(results) for line in (note, "")]
    lines += _md_comparisons(results) + _md_transfers(results) + _md_classes(results)
    return "\n".join(lines).rstrip() + "\n"


def _md_comparisons(results: dict[str, Any]) -> list[str]:
    if not results["comparisons"]:
        return []
    rows = []
    for one in results["comparisons"]:
        test = one["macro"]
        ci = DASH if test["ci"] is None else " to ".join(f"{100 * limit:+.1f}" for limit in test["ci"])
        difference = with_interval(test["difference"], None, style="+.1f", scale=100)
        p = DASH if test["p"] is None else "≤ 0.001" if test["p"] <= 0.001 else f"{test['p']:.3f}"
        way = way_name(one["mode"], one["fraction"])
        rows.append([f"{one['a']} against {one['b']}", one["task"], way, difference, ci, p])
    seeded = any(one["training_seed"] is not None for one in results["comparisons"])
    seed = f" Probes are those of seed {results['options']['seed']}." if seeded else ""
    return [
        "## Paired tests on the same test records",
        "",
        *markdown_table(["a against b", "task", "scored by", "a − b", "95 % interval", "p"], rows),
        "",
        "Difference of macro AUROC × 100, tested by patient. The test of every class is in results.json, marked where "
        f"positives are few. p is not corrected for the number of tests.{seed}",
        "",
    ]


def _md_transfers(results: dict[str, Any]) -> list[str]:
    if not results["transfers"]:
        return []
    rows = []
    for cell in results["transfers"]:
        classes = f"{cell['n_classes_scored']} of {cell['n_classes']}"
        figures = [_macro_auroc(one) for one in (cell, cell["in_domain"])]
        rows.append([cell["task"], cell["model"], f"{cell['fraction']:g} %", classes, *figures])
    return [
        "## Transfer: probe trained on one task, tested on another",
        "",
        *markdown_table(["trained:tested", "model", "labels", "shared classes", "there", "at home"], rows),
        "",
        "At home: the same probes on the test records of the task they were trained on.",
        "",
    ]


def _md_classes(results: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for task in results["tasks"]:
        cells = [cell for cell in results["cells"] if cell["task"] == task]
        largest = max((c["fraction"] for c in cells if c["fraction"] is not None), default=None)
        shown = [c for c in cells if c["fraction"] in (None, largest)]
        if not shown:
            continue
        names = [f"{c['model']}, {way_name(c['mode'], c['fraction'])}" for c in shown]
        rows = []
        for name, about in shown[0]["classes"].items():
            entries = [_percent(c["classes"][name]["auroc"], c["classes"][name]["ci"]) for c in shown]
            rows.append([name + " *" * about["few_positives"], str(about["n_pos"]), *entries])
        lines += [f"## {TITLES.get(task, task)}: every class", "", *markdown_table(["", "positives", *names], rows), ""]
        marked = f"\\* fewer than {results['options']['min_pos']} positives: one record more or less moves the figure."
        lines += [marked, ""] if any(about["few_positives"] for about in shown[0]["classes"].values()) else []
    return lines


def latex(results: dict[str, Any]) -> str:
    """The content of ``table.tex``: a ``table`` for a paper; it needs the package booktabs."""
    head, shown = _main_table(results, "Mean")
    width = len(head[0])
    lines = [r"\begin{table}", r"\centering\small", rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
    lines += [_tex_row(head[0]), r"\midrule", *map(_tex_row, head[1:])]
    for title, rows in shown:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(title)}}}}} \\"]
        lines += [_tex_row([row[0]], [_small_interval(_tex(text)) for text in row[1:]]) for row in rows]
    caption = " ".join(_tex(note) for note in notes(results))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}", ""])


_TEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$", "†": r"$^\dagger$",
    "‡": r"$^\ddagger$", "−": "$-$", "≤": r"$\leq$",
})  # fmt: skip


def _tex(text: str) -> str:
    return re.sub(" (?=[†‡])", "", text).translate(_TEX)


def _tex_row(texts: list[str], figures: Sequence[str] = ()) -> str:
    return " & ".join([*map(_tex, texts), *figures]) + r" \\"


def _small_interval(figure: str) -> str:
    value, bracket, interval = figure.partition(" (")
    return rf"{value} {{\scriptsize ({interval}}}" if bracket else value
