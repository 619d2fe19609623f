"""Reports for simulated studies: the statements of an electrocardiograph, and short German or English texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from deri.simulate.findings import CATALOGUE, FINDINGS, NORMAL_RHYTHMS, clash
from deri.simulate.phrases import phrases
from deri.simulate.tracing import Tracing

T = TypeVar("T")

COLUMNS = 18  # report_0 ... report_17
HEDGED = 0.3  # share of the statements about which a cart can hedge that it does hedge about

_NORMAL = NORMAL_RHYTHMS | {"NORM"}
_BORDERLINE = frozenset(code for code, finding in FINDINGS.items() if finding.borderline)
_ORDER = {group: i for i, group in enumerate(CATALOGUE.groups)}
_VOICES = ("cart",) * 12 + ("verbose",) * 3 + ("terse",) * 3 + ("capitals",) * 2


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of ``options``, all equally likely (`Generator.choice` takes ten times as long)."""
    return options[int(rng.integers(len(options)))]


def _phrase(rng: np.random.Generator, use: str) -> str:
    return pick(rng, phrases().general[use])


def in_report_order(codes: Sequence[str]) -> list[str]:
    """``codes`` without NORM, rhythm first."""
    return sorted((code for code in codes if code != "NORM"), key=lambda code: _ORDER[FINDINGS[code].group])


def draw_certainty(codes: Sequence[str], rng: np.random.Generator) -> dict[str, bool]:
    """For every code whether its statement is plain (True) or hedged."""
    return {code: not (phrases().findings[code].nouns and rng.random() < HEDGED) for code in codes}


def reported(findings: Sequence[str], rng: np.random.Generator, label_noise: float) -> tuple[str, ...]:
    """What a reader sees of ``findings``: with probability ``label_noise`` each is missed, and one not there is seen.

    A missed rhythm is read as sinus rhythm.
    """
    if not label_noise:
        return tuple(findings)
    codes = set()
    for code in findings:
        if code == "NORM" or rng.random() >= label_noise:
            codes.add(code)
        elif FINDINGS[code].group == "rhythm":
            codes.add("SR")
    if rng.random() < label_noise:
        wrong = pick(rng, [code for code in FINDINGS if FINDINGS[code].group not in ("rhythm", "summary")])
        if not any(clash(wrong, code) for code in codes):
            codes.add(wrong)
    if "NORM" in codes and not codes <= _NORMAL:
        codes.remove("NORM")
    return tuple(code for code in FINDINGS if code in codes)


def _statement(code: str, sure: bool, rng: np.random.Generator, voice: str = "cart") -> str:
    if voice == "verbose" and code != "SR":
        text = _phrase(rng, "verbose" if sure else "verbose_doubt").format(FINDINGS[code].name)
        return text[0].upper() + text[1:].rstrip(".")
    if not sure:
        return _phrase(rng, "hedges").format(pick(rng, phrases().findings[code].nouns))
    return pick(rng, phrases().findings[code].cart)


def _response(code: str, line: str, rr: float) -> str:
    """Fibrillation and flutter with the ventricles' answer where it is fast or slow."""
    if code not in ("AFIB", "AFLT") or "response" in line or "block" in line or "present" in line:
        return line
    general = phrases().general
    return line + (general["rapid"][0] if rr < 60_000 / 110 else general["slow"][0] if rr > 1000 else "")


def _company(tracing: Tracing, codes: set[str], rng: np.random.Generator) -> list[str]:
    """Statements on the axis and on secondary changes, from the measurements."""
    axis, lines = tracing.measurements.qrs_axis, []
    if {"PACE", "DPACE"} & codes:
        return []
    if not {"LAD", "RAD"} & codes:
        if axis < -30 and rng.random() < 0.8:
            lines.append(_phrase(rng, "axis_left"))
        elif -30 <= axis < -10 and rng.random() < 0.4:
            lines.append(_phrase(rng, "axis_leftward"))
        elif axis > 95 and rng.random() < 0.8:
            lines.append(_phrase(rng, "axis_right"))
    if "LVHST" in codes and rng.random() < 0.4:
        lines.append(_phrase(rng, "strain"))
    if "CLBBB" in codes and rng.random() < 0.3:
        lines.append(_phrase(rng, "block_repolarisation"))
    if tracing.device is not None and tracing.device.arms_swapped and rng.random() < 0.7:
        lines.append(_phrase(rng, "arms_swapped"))
    return lines


def _summary(codes: set[str], rng: np.random.Generator) -> str:
    if codes <= _NORMAL:
        text = _phrase(rng, "normal" if "SR" in codes else "otherwise_normal")
    elif codes <= _BORDERLINE | _NORMAL:
        text = _phrase(rng, "borderline" if rng.random() < 0.8 else "abnormal")
    else:
        text = _phrase(rng, "abnormal")
    return text.replace("ECG", "EKG") if rng.random() < 0.08 else text


def _lines(tracing: Tracing, codes: tuple[str, ...], voice: str, rng: np.random.Generator) -> list[str]:
    """The statements of a study but for the overall judgement, rhythm first."""
    certainty = draw_certainty(codes, rng)
    if voice == "terse":
        short = [phrases().findings[code].terse or FINDINGS[code].name for code in in_report_order(codes)]
        doubt = ["?" if not certainty[code] else "" for code in in_report_order(codes)]
        short[0] += f" {60_000 / tracing.measurements.rr:.0f} bpm"
        return [", ".join(f"{mark}{word}" for mark, word in zip(doubt, short, strict=True))]
    lines = [
        _response(code, _statement(code, certainty[code], rng, voice), tracing.measurements.rr)
        for code in in_report_order(codes)
    ]
    company = _company(tracing, set(codes), rng)
    lines[1:1] = company if rng.random() < 0.5 else []
    return lines + [line for line in company if line not in lines]


def machine_report(tracing: Tracing, rng: np.random.Generator, label_noise: float = 0.0) -> list[str]:
    """The 18 report columns of one study, empty strings between and after the statements.

    One statement a column, the rhythm first and the overall judgement last; gaps, asterisk and equals-sign
    rulers and the spelling EKG occur as they do in archives, so that a cleaning step has something to do. Three in
    five speak as carts do, the rest as physicians, at length or in shorthand, or in capitals. ``label_noise``: see
    `reported`.
    """
    codes, voice = reported(tracing.findings, rng, label_noise), pick(rng, _VOICES)
    lines = _lines(tracing, codes, voice, rng)
    if tracing.noise is not None and tracing.noise.quality not in ("clean", "light") and rng.random() < 0.5:
        remark = _phrase(rng, "poor_quality")
        lines.insert(0, f"*** {remark} ***" if rng.random() < 0.5 else remark)
    if rng.random() < 0.03:
        lines.append(pick(rng, ["**************", "=============="]))
    summary = _summary(set(codes), rng)
    if rng.random() < 0.03:
        summary = f"== {summary} =="
    columns, column = [""] * COLUMNS, 0
    tail = [summary, phrases().general["unconfirmed"][0]] if rng.random() < 0.05 else [summary]
    for line in lines:
        columns[column] = line
        column += 2 if rng.random() < 0.12 and column + 2 + len(lines) + len(tail) < COLUMNS else 1
    column += int(rng.random() < 0.6)
    for line in tail:
        columns[column] = line
        column += 1
    return [line.upper() for line in columns] if voice == "capitals" else columns


def heart_axis(degrees: float) -> str:
    """PTB-XL's axis classes, by the usual 30-degree sectors."""
    if degrees < -30:
        return "ALAD"
    if degrees < 30:
        return "LAD"
    if degrees <= 75:
        return "MID"
    return "RAD" if degrees <= 100 else "ARAD"


def clinical_report(
    tracing: Tracing, certainty: dict[str, bool], rng: np.random.Generator, label_noise: float = 0.0
) -> str:
    """A short lower-case report, three in five German and the rest English."""
    codes = reported(tracing.findings, rng, label_noise)
    german = bool(rng.random() < 0.6)
    words = {code: (word.german if german else word.english) for code, word in phrases().findings.items()}
    parts: list[str] = []
    for code in in_report_order(codes):
        text = pick(rng, words[code])
        if not certainty.get(code, True):
            text = _phrase(rng, "german_hedges").format(text) if german else f"possible {text}"
        parts.append(text)
    if "NORM" in codes:
        parts.append(pick(rng, words["NORM"]))
    if german and not {"PACE", "DPACE", "LAD", "RAD"} & set(codes) and rng.random() < 0.5:
        parts.insert(1, phrases().german_axis[heart_axis(tracing.measurements.qrs_axis)])
    text = " ".join(parts)
    if german and rng.random() < 0.2:
        text += " 4.46                          unbestÄtigter bericht"
    return text
