"""What ``deri classify`` shows: scores and probabilities as columns of a table, or the findings of a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from deri.evaluation.answers import Question, Scores

_SHOWN = 10  # findings of each of several recordings
_UNITS = {"rate_bpm": "/min", "axis_deg": "°"}


def with_scores(table: pd.DataFrame, question: Question, scores: Scores) -> tuple[pd.DataFrame, list[str]]:
    """The table with the columns of all labels, and their names.

    ``LABEL`` (``score: LABEL`` where the table has such a column) and, where known, ``probability: LABEL`` and
    ``likelihood_ratio: LABEL``.
    """
    import numpy as np
    import pandas as pd

    new: dict[str, np.ndarray] = {}
    for k, label in enumerate(question.labels):
        new[f"score: {label}" if label in table else label] = scores.score[:, k]
        for name, values in (("probability", scores.probability), ("likelihood_ratio", scores.likelihood_ratio)):
            if not np.isnan(values[:, k]).all():
                new[f"{name}: {label}"] = values[:, k]
    return pd.concat([table, pd.DataFrame(new, index=table.index)], axis="columns"), list(new)


def print_table(table: pd.DataFrame, columns: list[str], *, per_window: bool) -> None:
    """A row per recording or window, with ``columns``."""
    shown = table[[*(c for c in ("file", "start_s") if c in table), *columns]]
    if table["file"].duplicated().any() and not per_window:  # of a store
        shown.insert(1, "record_id", table["record_id"])
    formats: dict[Any, Any] = {c: _ratio if c.startswith("likelihood_ratio: ") else "{:.3f}".format for c in columns}
    print(shown.to_string(index=False, formatters={**formats, "start_s": "{:g}".format}))


def print_findings(table: pd.DataFrame, question: Question, scores: Scores) -> None:
    """A block per recording or window: its intervals, and its findings in order."""
    from deri.ecg.intervals import INTERVALS

    for i, row in enumerate(table.to_dict("records")):
        name = row["file"] if "start_s" not in row or row["start_s"] != row["start_s"] else _at(row)
        store = table["file"].duplicated().any() and "start_s" not in table
        print(f"{name} {row['record_id']}" if store else name)
        values = [(key, row.get(key)) for key in INTERVALS]
        print("  " + ", ".join(_interval(key, value) for key, value in values if value is not None and value == value))
        found = question.findings(scores, i)
        shown = found if len(table) == 1 else found[:_SHOWN]
        width = max(len(one.label) for one in shown)
        print(f"  {'finding':<{width}}  probability  likelihood ratio   score")
        for one in shown:
            known = "cosine, for ranking only".center(29)
            if one.probability is not None:
                ratio = "" if one.likelihood_ratio is None else _ratio(one.likelihood_ratio)
                known = f"{one.probability:>11.3f}  {ratio:>16}"
            print(f"  {one.label:<{width}}  {known}  {one.score:>6.3f}")
        if len(shown) < len(found):
            print(f"  … {len(found) - len(shown)} more: --json, --out FILE, or one recording at a time")


def _at(row: dict[Any, Any]) -> str:
    return f"{row['file']} from {row['start_s']:g} s"


def _ratio(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _interval(key: str, value: float) -> str:
    name, _, unit = key.rpartition("_")
    shown = {"rate": "rate", "axis": "axis", "qtc": "QTc"}.get(name, name.upper())
    return f"{shown} {value:.0f}{_UNITS.get(key, f' {unit}')}"
