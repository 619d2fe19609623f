"""Which language a report is written in, by words that the others do not have."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, get_args

Language = Literal["en", "de", "sv"]

LANGUAGES: tuple[Language, ...] = get_args(Language)

# Endings and beginnings stand for all words that have them: "-ung" for "senkung", "vorhof-" for "vorhofflimmern".
_WORDS: dict[Language, str] = {
    "en": r"""the of is are and with or to be may this these not no but cannot otherwise non rh?ythm waves? segments?
        complex(?:es)? leads? axis deviation bundle branch premature contractions? beats? atrial ventricular
        infarct(?:ion)? myocardial \w+cardia fibrillation flutter pacemaker left right low high old isch(?:a?e)mi(?:a|c)
        pathology voltages? prolonged short interval changes? depression elevation enlargement hypertrophy delay
        findings arrhythmia minor marked suggest(?:s|ing)? degree""",
    "de": r"""\w*rh?yth?mus \w*infarkte?s? \w*infarzierung \w+typ \w+ung(?:en)? \w*schenkelblock \w*hemiblock
        \w+[kc]ardie \w*arrh?ythmie \w*systolen? isch(?:ä|ae?)mie \w*hypertrophie vorhof\w* kammer\w* und oder mit bei
        nicht keine?r? kein nach für im der die das des auf von sonst normales normale abnorm(?:es|ales)? wahrscheinlich
        m(?:ö|oe)glich(?:erweise)? m(?:ö|oe)gl verdacht alte?s? alter unbest links rechts \w*myokardschaden
        schrittmacher \w*(?:befund|zeichen) flaches? \w*patholog(?:isch\w*)? unspezifische\w* periphere\w*
        (?:un)?vollst(?:ä|ae)ndige\w* intermittierend\w* \w*hebung(?:en)? \w*senkung(?:en)? \w*aktion \w*leitung
        sinistrocardiale verbreitert slt llt rlt mlt (?:ü|ue)be?r\w*""",
    "sv": r"""\w*rytm normalt v(?:ä|a)nster\w* h(?:ö|o)ger\w* el-axel avvikande f(?:ö|o)rlopp s(?:å|a)som vid eller och
        ospecifikt? \w*f(?:ö|o)r(?:ä|a)ndring(?:ar)? \w*s(?:ä|a)nkning sk(?:ä|a)nkelblock\w* (?:å|a)lder ej b(?:ö|o)r
        \w*extrasystoli f(?:ö|o)rmaks\w* kammar\w* eljest \w+kardi f(?:ö|o)rl(?:ä|a)ngd \w*hypertrofi \w*isk?c?hemi
        myokard(?:skada|affektion) misst(?:ä|a)nkt l(?:å|a)ga med och inte kan m(?:ö|o)jligen sannolikt""",
}


@cache
def _patterns() -> dict[Language, re.Pattern[str]]:
    return {
        language: re.compile(rf"(?<!\w)(?:{'|'.join(words.split())})(?!\w)", re.IGNORECASE)
        for language, words in _WORDS.items()
    }


def report_language(text: str) -> Language | None:
    """The language that most of the telling words of ``text`` belong to; None where it has none, or as many of two."""
    counts = {language: len(pattern.findall(text)) for language, pattern in _patterns().items()}
    best = max(LANGUAGES, key=lambda language: counts[language])
    return best if list(counts.values()).count(counts[best]) == 1 else None
