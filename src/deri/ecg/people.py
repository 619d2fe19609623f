"""Names of people in the sentences that a device or a hospital writes beside an ECG: they are cut out."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ENGLISH = (
    "(?:re-?)?confirmed|(?:re-?)?reviewed|(?:over-?)?read|interpreted|signed|verified|approved|edited|referred|"
    "requested|ordered|validated|authori[sz]ed|performed|acquired|recorded|attested|finali[sz]ed|analy[sz]ed|reported|"
    "diagnosed|examined|released|checked|dictated|transcribed|seen"
)
_GERMAN = (
    "befundet|bestätigt|bestaetigt|validiert|freigegeben|vidiert|überprüft|ueberprueft|geprüft|geprueft|kontrolliert|"
    "gesehen|gelesen|signiert|unterschrieben|unterzeichnet|überwiesen|ueberwiesen|zugewiesen|eingewiesen|angefordert|"
    "angeordnet|bearbeitet|erstellt|aufgenommen|aufgezeichnet|abgeleitet|geschrieben|beurteilt|editiert|ausgewertet|"
    "geändert|geaendert|untersucht|erfasst"
)
_OTHERS = (
    r"confirmée?|validée?|signée?|relue?|interprétée?|adressée?|confirmad[oa]|revisad[oa]|firmad[oa]|validad[oa]|"
    r"solicitad[oa]|confermato|refertato|firmato|validato|richiesto|bevestigd|beoordeeld|gevalideerd|aangevraagd"
)
_ROLES = (
    "physician|doctor|md|cardiologist|technician|tech|technologist|operator|nurse|editor|overreader|reader|provider|"
    "practitioner|signature|arzt|ärztin|hausarzt|oberarzt|befunder(?:in)?|untersucher(?:in)?|überweiser(?:in)?|"
    "zuweiser(?:in)?|einsender(?:in)?|kardiolog(?:e|in)|mta|unterschrift|patient(?:in)?|"
    "(?:patient(?:en)?[ -]?|last|first|family|given|vor|nach)?name|médecin|médico|medico|arts"
)
_KINDS = "reading|referring|ordering|attending|requesting|confirming|interpreting|supervising"
# What a name follows: "confirmed by", "Referring MD:".
_PHRASE = (
    rf"(?:\b(?:(?:electronically|digitally|elektronisch)\s+)?(?:{_ENGLISH}|{_GERMAN}|{_OTHERS})\s+"
    r"(?:by|von|vom|durch|par|por|da|dal|door)\b"
    rf"|\b(?:(?:{_KINDS})\s+)?(?:{_ROLES})(?:'s)?(?:\s+(?:name|id))?\s*[:=])"
)
_TITLES = "dr|prof|med|dent|priv|doz|habil|univ|dipl|ing|mr|mrs|ms|st|jr|sr|hr|fr"
# Text up to the end of a sentence; the dot of a title, of an initial and within a number or a time is none.
_NAME = rf"[\s:=]*(?:(?!{_PHRASE})(?:\b(?:{_TITLES}|\w)\.|[^.;:]|[.:](?=\w)))*[.;:]?"
_WORD = r"[A-ZÄÖÜ][\w'’-]*\.?,?"
_PATTERNS = (
    re.compile(rf"\b(?:von|durch)\s+(?:[^\s.;:]+\.?\s+){{1,4}}(?:{_GERMAN})\b", re.IGNORECASE),
    re.compile(rf"{_PHRASE}{_NAME}", re.IGNORECASE),
    re.compile(
        r"\b(?:Dr|DR|Prof|PROF|Mr|Mrs|Herr|Frau)\b\.?(?:\s*(?:med|Dr|dent|habil|univ|h\.c)\b\.?)*"
        rf"(?:\s+{_WORD}){{1,3}}|\b(?:{_WORD}\s+){{1,2}}[A-ZÄÖÜ][\w'’-]*,\s*(?:MD|M\.D\.|DO|D\.O\.)(?!\w)"
    ),
)
_OPEN = re.compile(rf"{_PHRASE}$(?<![:=])", re.IGNORECASE)


def without_names(lines: Iterable[str]) -> list[str]:
    """Return the sentences without the names of people, and without those of which nothing else is left.

    From a phrase such as "Confirmed by", "Referred by:", "Technician:" or "befundet von" to the end of its sentence
    (a full stop, a semicolon or a colon) everything goes, with it a date that stands there. A name after a title
    ("Dr. Jane Roe") or before "MD" goes as well, and so does the line after one that ends with "confirmed by".
    """
    kept = []
    follows = False
    for line in lines:
        cut = text = " ".join(line.split())
        for pattern in _PATTERNS:
            cut = pattern.sub(" ", cut)
        if cut != text:
            cut = " ".join(cut.split()).lstrip(" ,;:-.)").rstrip(" ,;:-(")
        if not follows and re.search(r"\w", cut):
            kept.append(cut)
        follows = bool(_OPEN.search(text))
    return kept
