"""How far the rule-based labeller agrees with the SCP statements of PTB-XL. Prints one JSON object.

python benchmarks/labeller.py ptbxl_database.csv [--half development|held-out] [--min-rows 50]

Rows are halved by patient (CRC-32 of the patient id, even: development). The rules were written on the development
half. A finding counts as named if the report asserts it or holds it possible, and as coded if any of its statements
is there, whatever its likelihood; ``macro_f1`` is the mean over findings coded in at least ``--min-rows`` rows.

What the figure can be compared with, so that one sees where the disagreement is:

* ``by_report``: rows whose text a person wrote, or a machine; rows in English, or in German and Swedish;
* ``by_likelihood``: statements below a likelihood do not count (0, "not given", always does), with and without the
  findings that a text only holds possible;
* ``superclass``: the five superclasses of PTB-XL, named by any finding that has a statement of that class;
* ``trained``: a text classifier (tf-idf of 1- to 3-grams, logistic regression) trained on the other half, which may
  learn the habits of the coding: ``fixed`` at 0.5, ``best`` with the threshold of highest F1 on the scored half itself;
* ``same_text``: rows whose text, digits and signs aside, occurs at least five times in the half, and the largest
  macro-F1 that a decision for each distinct text can reach there, chosen knowing the statements. Chance helps it.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
import zlib
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from deri.datasets.ptbxl import read_statements
from deri.reports.labeller import known_findings, label_report

HALVES = ("development", "held-out")
ENGLISH = re.compile(r"\b(?:rhythm|ecg|fibrillation|trac(?:e|ing)|waves?|bradycardia|tachycardia|arrhythmia)\b", re.I)
OFTEN = 5
THRESHOLDS = np.linspace(0.05, 0.95, 19)


def read_half(path: Path, half: str) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="") as handle:
        rows: list[dict[str, Any]] = list(csv.DictReader(handle))
    wanted = HALVES.index(half)
    rows = [r for r in rows if zlib.crc32(str(int(float(r["patient_id"]))).encode()) % 2 == wanted]
    for row in rows:
        row["codes"] = ast.literal_eval(row["scp_codes"])
    return rows


def coded(row: dict[str, Any], groups: dict[str, set[str]], least: float = 0) -> set[str]:
    codes = {code for code, likelihood in row["codes"].items() if likelihood == 0 or likelihood >= least}
    return {group for group, members in groups.items() if codes & members}


def named(row: dict[str, Any], groups: dict[str, set[str]], uncertain: bool = True) -> set[str]:
    known = known_findings()
    said = [f for f, c in label_report(row["report"]).items() if c == "present" or (uncertain and c == "uncertain")]
    return {group for group, members in groups.items() if any(members & set(known[f].scp) for f in said)}


def agreement(truth: list[set[str]], said: list[set[str]], least: int) -> dict[str, Any]:
    """F1 by finding with at least ``least`` coded rows, and their mean."""
    positives, calls, hits = (Counter(x for found in sets for x in found) for sets in (truth, said, []))
    for a, b in zip(truth, said, strict=True):
        hits.update(a & b)
    table = {
        code: {
            "coded": n,
            "named": calls[code],
            "precision": round(hits[code] / calls[code], 3) if calls[code] else 0.0,
            "recall": round(hits[code] / n, 3),
            "f1": round(2 * hits[code] / (n + calls[code]), 3),
        }
        for code, n in sorted(positives.items())
        if n >= least
    }
    return {
        "rows": len(truth),
        "findings": len(table),
        "macro_f1": round(float(np.mean([2 * hits[c] / (positives[c] + calls[c]) for c in table])), 4)
        if table
        else None,
        "per_finding": table,
    }


def summary(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("rows", "findings", "macro_f1")}


def f1(truth: np.ndarray, called: np.ndarray) -> float:
    return float(2 * (truth & called).sum() / max(1, truth.sum() + called.sum()))


def trained(rows: list[dict[str, Any]], other: list[dict[str, Any]], groups: dict[str, set[str]]) -> dict[str, Any]:
    vectorizer = TfidfVectorizer(ngram_range=(1, 3), min_df=3, sublinear_tf=True)
    train = vectorizer.fit_transform([row["report"].lower() for row in other])
    test = vectorizer.transform([row["report"].lower() for row in rows])
    fixed, best = {}, {}
    for code, members in groups.items():
        y = np.array([bool(set(row["codes"]) & members) for row in other])
        truth = np.array([bool(set(row["codes"]) & members) for row in rows])
        scores = LogisticRegression(C=10, max_iter=300).fit(train, y).predict_proba(test)[:, 1]
        fixed[code] = f1(truth, scores >= 0.5)
        best[code] = max(f1(truth, scores >= t) for t in THRESHOLDS)
    return {
        "fixed": round(float(np.mean(list(fixed.values()))), 4),
        "best": round(float(np.mean(list(best.values()))), 4),
        "per_finding": {code: [round(fixed[code], 3), round(best[code], 3)] for code in groups},
    }


def same_text(rows: list[dict[str, Any]], groups: dict[str, set[str]], least: int) -> dict[str, Any]:
    keys = [" ".join(re.sub(r"[\W\d_]+", " ", row["report"].lower()).split()) for row in rows]
    counts = Counter(keys)
    kept = [i for i, key in enumerate(keys) if counts[key] >= OFTEN]
    figures = {}
    for code, members in groups.items():
        positives: dict[str, int] = defaultdict(int)
        for i in kept:
            positives[keys[i]] += bool(set(rows[i]["codes"]) & members)
        total = sum(positives.values())
        if total < least:
            continue
        # The best decision calls the texts with the largest shares of coded rows, down to some share.
        best, hits, called = 0.0, 0, 0
        for key in sorted(positives, key=lambda k: -positives[k] / counts[k]):
            hits, called = hits + positives[key], called + counts[key]
            best = max(best, 2 * hits / (called + total))
        figures[code] = {"coded": total, "f1": round(best, 3)}
    mean = round(float(np.mean([x["f1"] for x in figures.values()])), 4) if figures else None
    return {"rows": len(kept), "texts": len({keys[i] for i in kept}), "macro_f1": mean, "per_finding": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path, help="ptbxl_database.csv")
    parser.add_argument("--half", choices=HALVES, default="development")
    parser.add_argument("--min-rows", type=int, default=50)
    options = parser.parse_args()
    rows = read_half(options.database, options.half)
    groups = {code: set(finding.scp) for code, finding in known_findings().items() if finding.scp}
    truth, said = [coded(row, groups) for row in rows], [named(row, groups) for row in rows]
    overall = agreement(truth, said, options.min_rows)
    frequent = {code: groups[code] for code in overall["per_finding"]}

    def of(kept: list[int]) -> dict[str, Any]:
        return summary(agreement([truth[i] for i in kept], [said[i] for i in kept], options.min_rows))

    machine = [row["initial_autogenerated_report"] == "True" for row in rows]
    english = [bool(ENGLISH.search(row["report"])) for row in rows]
    with resources.as_file(resources.files("deri.datasets").joinpath("data/scp_statements.csv")) as path:
        classes = read_statements(path)
    supers: dict[str, set[str]] = defaultdict(set)
    for code, tasks in classes.items():
        if tasks["ptbxl-super"]:
            supers[tasks["ptbxl-super"]].add(code)
    likelihood = {}
    for least in (0, 50, 100):
        for uncertain in (True, False):
            calls = [named(row, groups, uncertain) for row in rows]
            found = agreement([coded(row, groups, least) for row in rows], calls, options.min_rows)
            likelihood[f"{least}{'' if uncertain else ', present only'}"] = summary(found)
    other = read_half(options.database, HALVES[1 - HALVES.index(options.half)])
    wide = agreement([coded(r, supers) for r in rows], [named(r, supers) for r in rows], options.min_rows)
    result = {
        "half": options.half,
        "patients": len({row["patient_id"] for row in rows}),
        **overall,
        "by_report": {
            "written by a person": of([i for i, m in enumerate(machine) if not m]),
            "written by a machine": of([i for i, m in enumerate(machine) if m]),
            "English": of([i for i, e in enumerate(english) if e]),
            "German or Swedish": of([i for i, e in enumerate(english) if not e]),
        },
        "by_likelihood": likelihood,
        "superclass": {**summary(wide), "f1": {name: x["f1"] for name, x in wide["per_finding"].items()}},
        "trained": trained(rows, other, frequent),
        "same_text": same_text(rows, frequent, OFTEN),
    }
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
