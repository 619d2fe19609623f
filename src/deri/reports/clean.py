"""Report cleaning of the paper (IJCAI 2025, data section), written so that it can run any number of times.

The rules: join the non-empty columns with ``". "``, EKG→ECG, strip rulers of asterisks and equals signs,
lower-case, single blanks, a full stop at the end. What those words leave open is decided here:

* *EKG* is replaced in any case and inside words ("Ruhe-EKG"): after lower-casing they are the same word.
* Every asterisk goes. Equals signs go in runs of two or more, blanks and hyphens between them included; a single
  one stays, since "qtc=450 ms" and "axis=-60" carry a value.
* Full stops that end up side by side ("Sinus rhythm." joined with "Normal ECG", or around a removed ruler) become
  one, and a blank before a full stop goes. Stops inside a token ("0.05", "i.v.") stay. One at the start goes.
* Other final punctuation keeps its place and is followed by the full stop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MIN_WORDS = 4
"""Reports with fewer words are left out of pre-training, as in the paper."""

_EQUALS = re.compile(r"[=-](?:\s*[=-])+")
# What a report says of itself, not of the ECG. Archives cut reports, so that a stamp may end within its words.
_STAMPS = re.compile(
    r"""\bedit:.*                                                # PTB-XL: codes and notes of its editors, to the end
      | \b4\.46\b(?:\s+unb\w*(?:\s+b\w*)?)?                    # PTB-XL: version of a device's program, unconfirmed
      | \b(?:unbest(?:ä|ae?)tigter\ bericht|unconfirmed\ (?:report|analysis|diagnosis|interpretation))\b
      | (?:^|(?<=\.)|(?<=\.\s)|\belectronically\ )(?:(?:re)?confirmed|signed|reviewed)\ by\b
        (?:[^.]|(?<=\b\w)\.|(?<=\bdr)\.)*                      # a sentence of its own, not "block confirmed by …"
      | \btrace\ only\ requested\b""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_STOPS = re.compile(r"(?:\s*\.)+(?=\s|$)")


def join_report(parts: Sequence[str | None]) -> str:
    """Join the non-empty parts of a report with ``". "``; None, NaN and blank parts are skipped.

    ``clean_report(join_report(parts)) == clean_report(parts)``: the raw text may be kept and cleaned later.
    """
    texts = []
    for part in parts:
        if part is None or (isinstance(part, float) and math.isnan(part)):
            continue
        if not isinstance(part, str):
            raise TypeError(f"a report part is {type(part).__name__}, expected str or None")
        if part.strip():
            texts.append(part.strip())
    return ". ".join(texts)


def clean_report(text_or_parts: str | Sequence[str | None]) -> str:
    """Return the cleaned report, or ``""`` if nothing is left.

    Takes one text, or the columns of one report in order (None and NaN for empty ones). Idempotent.
    """
    text = text_or_parts if isinstance(text_or_parts, str) else join_report(text_or_parts)
    text = text.lower().replace("ekg", "ecg").replace("*", " ")
    text = _EQUALS.sub(lambda run: " " if run[0].count("=") >= 2 else run[0], text)
    text = _STOPS.sub(".", " ".join(text.split())).removeprefix(". ")
    if text in ("", "."):
        return ""
    return text if text.endswith(".") else text + "."


def without_stamps(text: str) -> str:
    """The cleaned report without the stamps of devices and editors, or ``""`` if nothing is left. Idempotent.

    Taken out: "4.46 unbestätigter bericht" and other marks of an unconfirmed report, "edit: …" to the end, who
    confirmed, signed or reviewed it, and "trace only requested". The paper's cleaning keeps them, and so do stores and
    pre-training; report generation reads and compares reports without them.
    """
    return clean_report(_STAMPS.sub(" ", text))


def count_words(report: str) -> int:
    """Words of a cleaned report: its tokens between blanks (the full stop at the end is part of the last)."""
    return len(report.split())
