"""One table of several systems on the same test records, as JSON and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from deri._version import __version__
from deri.generation.efficacy import model_efficacy
from deri.generation.evaluate import evaluate_reports, kept_pairs, paired_difference
from deri.generation.flagged import flag_scores

if TYPE_CHECKING:
    from deri.models import EcgTextModel

FORMAT = "deri-report-comparison"
_COLUMNS = (
    ("BLEU-1", "bleu_1"), ("BLEU-2", "bleu_2"), ("BLEU-3", "bleu_3"), ("BLEU-4", "bleu_4"), ("ROUGE-L", "rouge_l"),
    ("METEOR", "meteor"), ("CIDEr-D", "cider_d"),
)  # fmt: skip


def evaluate_systems(
    systems: dict[str, pd.DataFrame],
    *,
    model: EcgTextModel | None = None,
    model_name: str = "",
    task: str | None = None,
    prompts: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The result of several systems on the same records: :func:`evaluate_table` of each, and ``differences``.

    ``differences`` holds, for each system but the first, how much better the first one is, with the interval of the
    difference (see :func:`deri.generation.paired_difference`).
    """
    efficacy: dict[str, Any] = {"model": model, "model_name": model_name, "task": task, "prompts": prompts}
    first, *others = systems
    return {
        "format": FORMAT,
        "version": 1,
        "deri_version": __version__,
        "systems": {name: evaluate_table(table, **efficacy, **options) for name, table in systems.items()},
        "differences": {
            f"{first} − {other}": paired_difference(
                list(systems[first]["reference"]),
                list(systems[first]["generated"]),
                list(systems[other]["generated"]),
                _subjects(systems[first]),
                **options,
            )
            for other in others
        },
    }


def evaluate_table(
    table: pd.DataFrame,
    *,
    model: EcgTextModel | None = None,
    model_name: str = "",
    task: str | None = None,
    prompts: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """:func:`deri.generation.evaluate_reports` of a table that :func:`deri.generation.read_pairs` read, and more.

    With a ``model`` also ``clinical_efficacy`` in its text space, with a column ``flags`` also ``flags``.
    """
    texts = list(table["reference"]), list(table["generated"])
    subjects = _subjects(table)
    result = evaluate_reports(*texts, subjects, **options)
    if model is not None:
        references, generated, groups = kept_pairs(*texts, subjects, clean=options.get("clean", True))
        result["clinical_efficacy"] = model_efficacy(
            model, references, generated, groups, model_name=model_name, task=task, prompts=prompts,
            draws=options.get("draws", 1000), seed=options.get("seed", 0),
        )  # fmt: skip
    if "flags" in table.columns:
        result["flags"] = flag_scores(*texts, list(table["flags"]))
    return result


def _subjects(table: pd.DataFrame) -> list[str] | None:
    return list(table["subject"]) if "subject" in table.columns else None


def markdown(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate_systems` as a Markdown table, and a table of the differences.

    Percentages, CIDEr-D as it is, 95 % intervals of BLEU-4 and finding-F1.
    """
    systems = result["systems"]
    efficacy = any("clinical_efficacy" in scores for scores in systems.values())
    heads = ["system", *(head for head, _ in _COLUMNS), "corpus BLEU", "finding F1 (macro)", "finding F1 (micro)"]
    heads += ["CE F1 (model)"] if efficacy else []
    lines = [" | ".join(heads), " | ".join(["---", *(["---:"] * (len(heads) - 1))])]
    for name, scores in systems.items():
        cells = [name.replace("|", "\\|")]
        for _, key in _COLUMNS:
            entry = scores["metrics"].get(key)
            if entry is None:
                cells.append("–")
            elif key == "cider_d":
                cells.append(f"{entry['value']:.2f}")
            else:
                cells.append(_percent(entry["value"], entry["ci"] if key == "bleu_4" else None))
        cells.append("–" if scores["corpus_bleu"] is None else f"{scores['corpus_bleu']:.1f}")
        findings = scores["findings"]
        cells.append(_percent(findings["macro"]["f1"], findings["macro"]["ci"]))
        cells.append(_percent(findings["micro"]["f1"], None))
        if efficacy:
            found = scores.get("clinical_efficacy")
            cells.append(_percent(found["f1"], found["ci"]) if found else "–")
        lines.append(" | ".join(cells))
    text = "".join(f"| {line} |\n" for line in lines)
    if not result["differences"]:
        return text
    lines = ["paired difference | BLEU-4 | finding F1 (macro)", "--- | ---: | ---:"]
    for name, entry in result["differences"].items():
        cells = [name.replace("|", "\\|"), *(_signed(**entry[key]) for key in ("bleu_4", "finding_f1"))]
        lines.append(" | ".join(cells))
    return text + "\n" + "".join(f"| {line} |\n" for line in lines)


def _signed(value: float | None, ci: list[float] | None, **_: Any) -> str:
    if value is None:
        return "–"
    return f"{100 * value:+.1f}" + (f" ({100 * ci[0]:+.1f} to {100 * ci[1]:+.1f})" if ci else "")


def _percent(value: float | None, ci: list[float] | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ({100 * ci[0]:.1f}–{100 * ci[1]:.1f})" if ci else "")
