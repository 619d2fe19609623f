"""One table of several systems on the same test records, as JSON and as Markdown."""

from __future__ import annotations

from typing import Any

import pandas as pd

from deri._version import __version__
from deri.evaluation.tables import DASH, markdown_table, with_interval
from deri.generation.efficacy import TextSpace
from deri.generation.evaluate import evaluate_reports, paired_difference
from deri.generation.metrics import METRICS
from deri.generation.review import flag_scores

FORMAT = "deri-report-comparison"
_HEADS = {
    "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4", "rouge_l": "ROUGE-L",
    "meteor": "METEOR", "cider_d": "CIDEr-D",
}  # fmt: skip


def evaluate_systems(
    systems: dict[str, pd.DataFrame], space: TextSpace | None = None, **options: Any
) -> dict[str, Any]:
    """The result of several systems on the same records: :func:`evaluate_table` of each, and ``differences``.

    ``differences`` holds, for each system but the first, how much better the first one is, with the interval of the
    difference (see :func:`deri.generation.paired_difference`).
    """
    first, *others = systems
    references, texts, subjects = _columns(systems[first])
    return {
        "format": FORMAT,
        "version": 1,
        "deri_version": __version__,
        "systems": {name: evaluate_table(table, space, **options) for name, table in systems.items()},
        "differences": {
            f"{first} − {other}": paired_difference(
                references, texts, list(systems[other]["generated"]), subjects, **options
            )
            for other in others
        },
    }


def evaluate_table(table: pd.DataFrame, space: TextSpace | None = None, **options: Any) -> dict[str, Any]:
    """:func:`deri.generation.evaluate_reports` of a table of :func:`deri.generation.read_pairs`, and of its flags."""
    references, generated, subjects = _columns(table)
    result = evaluate_reports(references, generated, subjects, space, **options)
    if "flags" in table.columns:
        result["flags"] = flag_scores(references, generated, list(table["flags"]))
    return result


def _columns(table: pd.DataFrame) -> tuple[list[str], list[str], list[str] | None]:
    subjects = list(table["subject"]) if "subject" in table.columns else None
    return list(table["reference"]), list(table["generated"]), subjects


def markdown(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate_systems` as a Markdown table, and a table of the differences.

    Percentages, CIDEr-D as it is, 95 % intervals of BLEU-4 and finding-F1.
    """
    systems = result["systems"]
    efficacy = any("clinical_efficacy" in scores for scores in systems.values())
    heads = ["system", *(_HEADS.get(name, name) for name in METRICS), "corpus BLEU"]
    heads += ["finding F1 (macro)", "finding F1 (micro)", *(["CE F1 (model)"] if efficacy else [])]
    rows = [
        [name, *_cells(scores), *([_percent_of(scores.get("clinical_efficacy"), "f1")] if efficacy else [])]
        for name, scores in systems.items()
    ]
    lines = markdown_table(heads, rows)
    if result["differences"]:
        rows = [
            [name, *(_signed(entry[key]) for key in ("bleu_4", "finding_f1"))]
            for name, entry in result["differences"].items()
        ]
        lines += ["", *markdown_table(["paired difference", "BLEU-4", "finding F1 (macro)"], rows)]
    return "\n".join([*lines, ""])


def _cells(scores: dict[str, Any]) -> list[str]:
    """The cells of one system."""
    cells = []
    for name in METRICS:
        entry = scores["metrics"].get(name)
        if entry is not None and name == "cider_d":
            cells.append(f"{entry['value']:.2f}")
        else:
            cells.append(_percent_of(entry, "value", ci=name == "bleu_4"))
    findings = scores["findings"]
    return [
        *cells,
        with_interval(scores["corpus_bleu"], None, style=".1f"),
        _percent_of(findings["macro"], "f1"),
        _percent_of(findings["micro"], "f1", ci=False),
    ]


def _percent_of(entry: dict[str, Any] | None, key: str, *, ci: bool = True) -> str:
    return DASH if entry is None else with_interval(entry[key], entry["ci"] if ci else None, style=".1f", scale=100)


def _signed(entry: dict[str, Any]) -> str:
    return with_interval(entry["value"], entry["ci"], style="+.1f", scale=100, to=" to ")
