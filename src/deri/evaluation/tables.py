"""The tables of a benchmark, in Markdown and LaTeX: macro AUROC in percent with 95 % intervals, published rows beside.

Both are made from ``results.json`` alone. A cell that does not exist, or an average over nothing, is a dash; never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deri.evaluation.published import TASKS, TEST_RECORDS, TITLES, published_rows

DASH = "–"
_KINDS = {"model": "", "random": " (random weights)", "classical": " (no network)"}


@dataclass(frozen=True)
class Figure:
    """One entry of the table: percent, with its interval."""

    value: float | None
    ci: tuple[float, float] | None = None

    def text(self) -> str:
        """``74.2 (70.1–78.0)``, or a dash."""
        if self.value is None:
            return DASH
        return f"{self.value:.1f}" + (f" ({self.ci[0]:.1f}–{self.ci[1]:.1f})" if self.ci else "")


@dataclass(frozen=True)
class Row:
    """A row: name, one entry per task, and the mean over the six tasks of the field (None where not all are there)."""

    name: str
    figures: list[Figure]
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
    fractions = results["options"]["fractions"]
    for mode, fraction in [("zero-shot", None), *(("probe", fraction) for fraction in sorted(fractions))]:
        rows = []
        for about in results["models"]:
            if mode == "zero-shot" and about["kind"] == "classical":
                continue
            own = [cells.get((about["name"], task, mode, fraction)) for task in tasks]
            figures = [_figure(cell) for cell in own]
            by_task = {task: figure.value for task, figure in zip(tasks, figures, strict=True)}
            six = [value for task in TASKS if (value := by_task.get(task)) is not None]
            mean = sum(six) / len(six) if len(six) == len(TASKS) else None
            kind = "" if about["kind"] == "random" and about["name"].startswith("random") else _KINDS[about["kind"]]
            rows.append(Row(about["name"] + kind, figures, mean))
        for row in published_rows(mode, fraction):
            if any(task in row.values for task in tasks):
                figures = [Figure(row.values.get(task)) for task in tasks]
                rows.append(Row(row.model, figures, row.mean, published=True))
        shown.append(Part("Zero-shot" if fraction is None else f"Linear probe, {fraction:g} % of the labels", rows))
    return shown


def _figure(cell: dict[str, Any] | None) -> Figure:
    if cell is None or cell["macro_auroc"]["value"] is None:
        return Figure(None)
    ci = cell["macro_auroc"]["ci"]
    return Figure(100 * cell["macro_auroc"]["value"], ci and (100 * ci[0], 100 * ci[1]))


def _heads(results: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """What stands above the figures: test records, classes and positives of each task."""
    one = _cell_of_task(results)
    tasks = results["tasks"]

    def each(make: Any) -> list[str]:
        return [make(one[task]) if task in one else DASH for task in tasks]

    def positives(cell: dict[str, Any]) -> str:
        counts = sorted(c["n_pos"] for c in cell["classes"].values())
        return f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"

    return [
        ("test records (patients)", each(lambda c: f"{c['n']:,} ({c['n_patients']:,})")),
        ("classes scored of all", each(lambda c: f"{c['n_classes_scored']} of {c['n_classes']}")),
        ("positives of a class: least / middle / most", each(positives)),
    ]


def _cell_of_task(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Any cell of each task: all have the same test records."""
    return {cell["task"]: cell for cell in reversed(results["cells"])}


def _has_published(results: dict[str, Any]) -> bool:
    return any(row.published for part in parts(results) for row in part.rows)


def notes(results: dict[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    options = results["options"]
    seeds = f", mean over {options['seeds']} samples" if options["seeds"] > 1 else ""
    folds = options.get("folds")
    where = f"on all records, each scored by a probe of {folds} folds by patient" if folds else "on test"
    found = [
        f"Macro AUROC × 100 {where}, with 95 % intervals by patient; "
        f"protocol {options['protocol']}{seeds}. Classes without positives or without negatives have no AUROC and are "
        f"left out of the mean. deri {results['deri_version']}.",
        "The random rows are the same network, untrained. The row without a network is gradient boosting on intervals, "
        "amplitudes and spectra of the recordings.",
    ]
    if _has_published(results):
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


def _other_records(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A cell of each task of the field whose test records are not the published ones."""
    one = _cell_of_task(results)
    return {task: one[task] for task in TASKS if task in one and one[task]["n"] != TEST_RECORDS[task]}


def markdown(results: dict[str, Any]) -> str:
    """The content of ``table.md``: the table, per-class tables, paired tests, transfers."""
    published = _has_published(results)
    other = _other_records(results) if published else {}
    titles = [f"{TITLES.get(task, task)}{' ‡' if task in other else ''}" for task in results["tasks"]]
    columns = ["", *titles, *(["mean of six"] if published else [])]
    lines = ["# Benchmark", "", *_md_row(columns, head=True)]
    pad = [""] * (1 if published else 0)
    for name, texts in _heads(results):
        lines += _md_row([name, *texts, *pad])
    for part in parts(results):
        lines += _md_row([f"**{part.title}**", *[""] * len(titles), *pad])
        for row in part.rows:
            mean = [Figure(row.mean).text()] if published else []
            lines += _md_row([row.name + (" †" if row.published else ""), *(f.text() for f in row.figures), *mean])
    lines += ["", *(line for note in notes(results) for line in (note, ""))]
    lines += _md_comparisons(results) + _md_transfers(results) + _md_classes(results)
    return "\n".join(lines).rstrip() + "\n"


def _md_row(cells: list[str], *, head: bool = False) -> list[str]:
    row = "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
    return [row, "|---" + "|---:" * (len(cells) - 1) + "|"] if head else [row]


def _md_comparisons(results: dict[str, Any]) -> list[str]:
    if not results["comparisons"]:
        return []
    lines = ["## Paired tests on the same test records", ""]
    lines += _md_row(["a against b", "task", "scored by", "a − b", "95 % interval", "p"], head=True)
    for one in results["comparisons"]:
        test = one["macro"]
        ci = DASH if test["ci"] is None else f"{100 * test['ci'][0]:+.1f} to {100 * test['ci'][1]:+.1f}"
        difference = DASH if test["difference"] is None else f"{100 * test['difference']:+.1f}"
        p = DASH if test["p"] is None else "≤ 0.001" if test["p"] <= 0.001 else f"{test['p']:.3f}"
        lines += _md_row(
            [f"{one['a']} against {one['b']}", one["task"], _way(one["mode"], one["fraction"]), difference, ci, p]
        )
    seeded = any(one["training_seed"] is not None for one in results["comparisons"])
    seed = f" Probes are those of seed {results['options']['seed']}." if seeded else ""
    return [
        *lines,
        "",
        "Difference of macro AUROC × 100, tested by patient. The test of every class is in results.json, marked where "
        f"positives are few. p is not corrected for the number of tests.{seed}",
        "",
    ]


def _md_transfers(results: dict[str, Any]) -> list[str]:
    if not results["transfers"]:
        return []
    lines = ["## Transfer: probe trained on one task, tested on another", ""]
    lines += _md_row(["trained:tested", "model", "labels", "shared classes", "there", "at home"], head=True)
    for cell in results["transfers"]:
        home = cell["in_domain"]
        lines += _md_row(
            [
                cell["task"],
                cell["model"],
                f"{cell['fraction']:g} %",
                f"{cell['n_classes_scored']} of {cell['n_classes']}",
                _figure(cell).text(),
                _figure(home).text(),
            ]
        )
    return [*lines, "", "At home: the same probes on the test records of the task they were trained on.", ""]


def _md_classes(results: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for task in results["tasks"]:
        cells = [cell for cell in results["cells"] if cell["task"] == task]
        largest = max((c["fraction"] for c in cells if c["fraction"] is not None), default=None)
        shown = [c for c in cells if c["fraction"] in (None, largest)]
        if not shown:
            continue
        names = [f"{c['model']}, {_way(c['mode'], c['fraction'])}" for c in shown]
        lines += [f"## {TITLES.get(task, task)}: every class", "", *_md_row(["", "positives", *names], head=True)]
        few = False
        for name, about in shown[0]["classes"].items():
            few = few or about["few_positives"]
            entries = [_class_figure(c["classes"][name]).text() for c in shown]
            lines += _md_row([name + (" *" if about["few_positives"] else ""), str(about["n_pos"]), *entries])
        marked = f"\\* fewer than {results['options']['min_pos']} positives: one record more or less moves the figure."
        lines += ["", *([marked, ""] if few else [])]
    return lines


def _class_figure(entry: dict[str, Any]) -> Figure:
    ci = entry["ci"]
    return Figure(entry["auroc"] and 100 * entry["auroc"], ci and (100 * ci[0], 100 * ci[1]))


def _way(mode: str, fraction: float | None) -> str:
    return mode if fraction is None else f"{mode} {fraction:g} %"


def latex(results: dict[str, Any]) -> str:
    """The content of ``table.tex``: a ``table`` for a paper; it needs the package booktabs."""
    published = _has_published(results)
    other = _other_records(results) if published else {}
    titles = [_tex(TITLES.get(task, task)) + (r"$^\ddagger$" if task in other else "") for task in results["tasks"]]
    width = len(titles) + 1 + published
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        " & ".join(["", *titles, *(["Mean"] if published else [])]) + r" \\",
        r"\midrule",
    ]
    for name, texts in _heads(results):
        lines.append(" & ".join([name, *map(_tex, texts), *([""] if published else [])]) + r" \\")
    for part in parts(results):
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(part.title)}}}}} \\"]
        for row in part.rows:
            mean = [_tex(Figure(row.mean).text())] if published else []
            name = _tex(row.name) + (r"$^\dagger$" if row.published else "")
            lines.append(" & ".join([name, *(_tex_figure(f) for f in row.figures), *mean]) + r" \\")
    caption = " ".join(_tex(note) for note in notes(results))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}", ""])


def _tex_figure(figure: Figure) -> str:
    if figure.value is None or figure.ci is None:
        return _tex(figure.text())
    return f"{figure.value:.1f} {{\\scriptsize ({figure.ci[0]:.1f}--{figure.ci[1]:.1f})}}"


_TEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$", "†": r"$^\dagger$",
    "‡": r"$^\ddagger$", "−": "$-$", "≤": r"$\leq$",
})  # fmt: skip


def _tex(text: str) -> str:
    return text.translate(_TEX)
