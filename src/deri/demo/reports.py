"""The demo's report writer: trained on the frozen encoder, scored beside the baselines, with examples for the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deri.evaluation.features import Features
from deri.files import write_json, write_text
from deri.generation.baselines import KINDS, baseline_reports
from deri.generation.comparison import evaluate_systems, markdown
from deri.generation.confidence import calibrate_directory
from deri.generation.config import load_config
from deri.generation.data import generated_table, rows_with_report, sentences, store_columns
from deri.generation.pairs import write_table
from deri.generation.train import train_writer
from deri.generation.writer import ReportWriter
from deri.models import EcgTextModel
from deri.reports.labeller import asserted, known_findings
from deri.store import Store

SHOWN = ("AFIB", "CLBBB", "PVC", "LVH", "IMI", "NORM")
MIN_COUNT = 5
"""Test reports that must assert a finding for it to count in the macro average: the demo's test set is small."""

NAMES = {
    "writer": "report writer",
    "frequent": "most frequent report",
    "neighbour": "report of the nearest training ECG",
    "template": "sentence of each finding that zero-shot calls",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoReports:
    """What came out.

    Attributes:
        systems: results of :func:`deri.generation.comparison.evaluate_systems` by system, the writer first.
        differences: the writer less each baseline, see :func:`deri.generation.paired_difference`.
        examples: for the page, see :func:`_examples`.
        trained: records that the writer was trained on.
    """

    systems: dict[str, dict[str, Any]]
    differences: dict[str, dict[str, Any]]
    examples: list[dict[str, Any]]
    trained: int

    @property
    def n(self) -> int:
        """Test records."""
        return int(self.systems["writer"]["pairs"])

    def scores(self) -> dict[str, dict[str, float]]:
        """The headline figures of every system."""
        return {
            name: {
                "bleu_4": result["metrics"]["bleu_4"]["value"],
                "finding_f1": result["findings"]["macro"]["f1"],
                "finding_f1_micro": result["findings"]["micro"]["f1"],
            }
            for name, result in self.systems.items()
        }


def write_reports(
    out: Path,
    model: EcgTextModel,
    store: Store,
    *,
    model_name: str,
    seed: int,
    overrides: tuple[str, ...] = (),
    say: Say = print,
) -> DemoReports:
    """Train a writer into ``out/report``, write the test split's reports, score them and the baselines.

    Args:
        out: folder of the demo.
        model: the encoder; it stays as it is.
        store: with reports in all three splits.
        model_name: for the provenance.
        seed: of the writer.
        overrides: ``KEY=VALUE`` of its config.
        say: receives lines for people.
    """
    run = out / "report"
    config = load_config(["epochs=7", "network.width=128", f"seed={seed}", *overrides])
    train_writer(model, store, run, config, model_name=model_name, device="cpu", say=say)
    calibrate_directory(run / "writer", store)
    writer = ReportWriter.from_pretrained(run / "writer")
    rows, _ = rows_with_report(store, "test")
    features = Features(model, store)
    found = writer.generate_store(store, rows)
    texts = {"writer": found.texts, **baseline_reports(model, store, rows, KINDS, features=features)}
    columns = store_columns(store, rows)
    tables = {name: generated_table(columns, text) for name, text in texts.items()}
    tables["writer"]["flags"] = writer.confidence.flags(features.rows(rows), found.texts)
    for name, table in tables.items():
        write_table(table, out / "results" / f"reports-{name}.parquet")
    result = evaluate_systems(tables, min_count=MIN_COUNT, draws=300, seed=seed)
    write_json(out / "results" / "reports.json", result)
    write_text(out / "results" / "reports.md", markdown(result))
    trained = len(rows_with_report(store, "train")[0])
    return DemoReports(result["systems"], result["differences"], _examples(tables["writer"]), trained)


def _examples(table: Any) -> list[dict[str, Any]]:
    """The first test record whose report asserts each of a few findings: chosen before any generated text is seen.

    Each with ``record``, ``reference``, ``sentences`` of the generated report (``text`` and ``kind``: ``true`` where
    the reference asserts all that the sentence names, ``false`` where it does not, ``none`` where it names nothing),
    ``flags`` in words, and ``missed``, the findings that only the reference asserts.
    """
    names = known_findings()
    truth = [asserted(text) for text in table["reference"]]
    shown: list[int] = []
    for code in SHOWN:
        first = next((i for i, found in enumerate(truth) if code in found and i not in shown), None)
        if first is not None:
            shown.append(first)
    examples = []
    for i in shown:
        row = table.iloc[i]
        parts = sentences(row["generated"])
        said = asserted(row["generated"])
        examples.append(
            {
                "record": row["record_id"],
                "reference": row["reference"],
                "sentences": [
                    {
                        "text": part["text"],
                        "kind": "none" if not part["findings"] else str(set(part["findings"]) <= truth[i]).lower(),
                    }
                    for part in parts
                ],
                "flags": [
                    f"{item['name']} (score {item['score']:.2f}, threshold {item['threshold']:.2f})"
                    for item in row["flags"]
                ],
                "missed": [names[code].name for code in known_findings() if code in truth[i] - said],
            }
        )
    return examples


def flag_words(flags: dict[str, Any]) -> str:
    """How often flagged and other assertions are in the true report, in words."""
    shares = {of: flags[f"precision_{of}"] for of in ("flagged", "unflagged")}
    return "; ".join(
        f"of {flags[of]} {of} assertions " + ("none can be judged" if share is None else f"{share:.0%} are true")
        for of, share in shares.items()
    )
