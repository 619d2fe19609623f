"""The catalogue of findings: what each leaves in the signal, with what it cannot stand, how often it is drawn.

Codes are SCP statements as PTB-XL has them, where there is one; `OWN` are the others. `morphology` and `rhythm` turn
a set of codes into waves and beats; tests measure the sign of each.

Sources, by short name: *AHA III* Surawicz et al. 2009 (conduction), *AHA IV* Rautaharju et al. 2009 (ST, T,
QT), *AHA V* Hancock et al. 2009 (hypertrophy), *AHA VI* Wagner et al. 2009 (ischaemia), the AHA/ACCF/HRS
recommendations for the standardization and interpretation of the electrocardiogram; *UDMI* fourth universal
definition of myocardial infarction (Thygesen et al. 2018); *ACC 2018* guideline on bradycardia and conduction
delay (Kusumoto et al.); *ESC 2020* guideline on atrial fibrillation (Hindricks et al.); *ESC 2019* guideline
on supraventricular tachycardia (Brugada et al.); *ESC 2015* guideline on pericardial diseases (Adler et al.); *ESC
2021* guideline on pacing (Glikson et al.); *ESC 2022* guideline on ventricular arrhythmias (Zeppenfeld et al.);
*ERP 2015* consensus on the early repolarization pattern (Macfarlane et al., JACC 2015;66:470-477); *Chou* Surawicz
and Knilans, Chou's Electrocardiography in Clinical Practice, 6th ed. 2008; *HRV* Task Force on heart rate
variability, Circulation 1996;93:1043-1065.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One finding.

    ``group``: of a group at most one is present; ``cards``: patients of a deck with it as
    theme.
    """

    code: str
    name: str
    group: str
    cards: int
    persists: float  # probability that a later study of the same patient still shows it
    sign: str  # what it leaves in the signal
    source: str
    excludes: frozenset[str] = frozenset()
    implies: tuple[str, ...] = ()  # descriptive SCP statements that hold whenever this finding does


_PACED = "PACE APACE DPACE"
_FAST = "STACH SVTAC AT"
_ATRIAL = "AFIB AFLT SVTAC AT JR APACE"
NOT_SINUS = f"{_ATRIAL} PACE DPACE"
_VENTRICLE = "PACE DPACE CLBBB WPW"  # beats whose shape hides most others
_WIDE = f"{_VENTRICLE} CRBBB"
_ST = f"{_WIDE} LVH LVHST RVH AFLT"  # secondary ST-T changes, or waves that look like them


def _make(
    code: str,
    name: str,
    group: str,
    cards: int,
    persists: float,
    sign: str,
    source: str,
    excludes: str = "",
    implies: str = "",
) -> Finding:
    return Finding(
        code, name, group, cards, persists, sign, source, frozenset(excludes.split()) - {code}, tuple(implies.split())
    )


ALL = [
    _make("NORM", "normal ECG", "summary", 48, 1, "none of the abnormal findings", "Rijnbeek et al. 2014"),
    # --- rhythm: exactly one
    _make("SR", "sinus rhythm", "rhythm", 0, 1, "P before each QRS, 60-100/min, RR varies little", "Chou"),
    _make("SBRAD", "sinus bradycardia", "rhythm", 9, 0.8, "sinus P, 38-59/min", "ACC 2018"),
    _make("STACH", "sinus tachycardia", "rhythm", 9, 0.6, "sinus P, 101-160/min", "Chou"),
    _make("SARRH", "sinus arrhythmia", "rhythm", 4, 0.8, "sinus P, RR swings > 0.16 s with respiration", "Chou; HRV"),
    _make(
        "AFIB",
        "atrial fibrillation",
        "rhythm",
        12,
        0.9,
        "irregular RR at 45-170/min, no P, f waves 4-9 Hz",
        "ESC 2020",
    ),
    _make(
        "AFLT", "atrial flutter", "rhythm", 5, 0.8, "sawtooth 230-330/min, down in II, III, aVF; 2:1 to 4:1", "ESC 2019"
    ),
    _make(
        "SVTAC",
        "supraventricular tachycardia",
        "rhythm",
        3,
        0.3,
        "regular 145-215/min, P hidden in or just behind the QRS",
        "ESC 2019",
        "1AVB",
    ),
    _make("AT", "atrial tachycardia", "rhythm", 3, 0.4, "regular 105-180/min, a P wave of other axis", "ESC 2019"),
    _make("JR", "junctional rhythm", "rhythm", 3, 0.5, "regular 36-60/min, no P or an inverted one close by", "Chou"),
    _make("PACE", "ventricular pacing", "rhythm", 7, 1, "spike before each wide QRS", "ESC 2021"),
    _make("APACE", "atrial pacing", "rhythm", 3, 1, "spike before each P, QRS its own", "ESC 2021", implies="PACE"),
    _make(
        "DPACE", "atrioventricular pacing", "rhythm", 3, 1, "spikes before each P and wide QRS", "ESC 2021", "", "PACE"
    ),
    # --- ectopy
    _make(
        "PAC",
        "atrial premature complex",
        "ectopy",
        9,
        0.7,
        "early narrow beat, other P, pause not full",
        "Chou",
        NOT_SINUS,
    ),
    _make(
        "PVC",
        "ventricular premature complex",
        "ectopy",
        9,
        0.75,
        "early beat >= 120 ms, discordant T, full pause",
        "Chou; ESC 2022",
        "AFLT SVTAC AT JR PACE APACE DPACE",
    ),
    _make(
        "BIGU",
        "ventricular bigeminy",
        "ectopy",
        3,
        0.75,
        "every other beat a PVC",
        "Chou",
        f"{NOT_SINUS} STACH SARRH",
        "PVC",
    ),
    _make(
        "TRIGU",
        "ventricular trigeminy",
        "ectopy",
        3,
        0.75,
        "every third beat a PVC",
        "Chou",
        f"{NOT_SINUS} STACH SARRH",
        "PVC",
    ),
    _make(
        "COUP",
        "ventricular couplets",
        "ectopy",
        3,
        0.75,
        "two wide early beats in a row",
        "ESC 2022",
        f"{NOT_SINUS} STACH SARRH",
        "PVC",
    ),
    # --- atrioventricular conduction
    _make(
        "1AVB",
        "first degree AV block",
        "av",
        6,
        0.95,
        "PR 205-340 ms",
        "ACC 2018",
        f"AFIB AFLT AT JR DPACE PACE APACE {_FAST} WPW",
        "LPR",
    ),
    _make(
        "2AVB",
        "second degree AV block, Mobitz type I",
        "av",
        3,
        0.8,
        "PR grows until a P is not conducted",
        "ACC 2018",
        f"{NOT_SINUS} SBRAD STACH SARRH PAC PVC BIGU TRIGU COUP WPW",
    ),
    _make(
        "2AVB2",
        "second degree AV block, Mobitz type II or 2:1",
        "av",
        3,
        0.8,
        "PR constant, single P waves (or every other) not conducted",
        "ACC 2018",
        f"{NOT_SINUS} SBRAD STACH SARRH PAC PVC BIGU TRIGU COUP WPW",
        "2AVB",
    ),
    _make(
        "3AVB",
        "third degree AV block",
        "av",
        3,
        0.9,
        "P and QRS independent, QRS 28-52/min",
        "ACC 2018",
        f"{NOT_SINUS} SBRAD STACH SARRH PAC PVC BIGU TRIGU COUP WPW",
    ),
    # --- ventricular conduction
    _make(
        "CRBBB",
        "complete right bundle branch block",
        "conduction",
        7,
        1,
        "QRS 120-165 ms, rsR' in V1, wide S in I, V6",
        "AHA III",
        "PACE DPACE",
    ),
    _make(
        "CLBBB",
        "complete left bundle branch block",
        "conduction",
        6,
        1,
        "QRS 124-185 ms, QS or rS in V1, no q and broad R in I, V6",
        "AHA III",
        "PACE DPACE",
    ),
    _make(
        "IRBBB",
        "incomplete right bundle branch block",
        "conduction",
        8,
        1,
        "QRS 96-119 ms, rsr' in V1",
        "AHA III",
        "PACE DPACE",
    ),
    _make(
        "ILBBB",
        "incomplete left bundle branch block",
        "conduction",
        3,
        1,
        "QRS 108-119 ms, no septal q in I, V6",
        "AHA III",
        "PACE DPACE LAFB",
    ),
    _make(
        "IVCD",
        "nonspecific intraventricular conduction delay",
        "conduction",
        3,
        1,
        "QRS 114-150 ms, no pattern of a bundle branch",
        "AHA III",
        "PACE DPACE",
    ),
    _make(
        "WPW",
        "Wolff-Parkinson-White pattern",
        "conduction",
        3,
        0.9,
        "PR < 120 ms, delta wave, QRS > 110 ms",
        "AHA III; ESC 2019",
        f"{NOT_SINUS} STACH",
    ),
    _make(
        "LAFB",
        "left anterior fascicular block",
        "fascicle",
        8,
        1,
        "axis -45 to -80 degrees, qR in aVL",
        "AHA III",
        f"{_VENTRICLE} IVCD",
        "",
    ),
    _make(
        "LPFB",
        "left posterior fascicular block",
        "fascicle",
        3,
        1,
        "axis 95 to 140 degrees, rS in I and aVL, qR in III",
        "AHA III",
        f"{_VENTRICLE} IVCD ILBBB RVH LVH LVHST",
    ),
    _make(
        "LAD",
        "left axis deviation",
        "axis",
        4,
        0.9,
        "axis -31 to -60 degrees",
        "AHA III",
        f"{_VENTRICLE} RVH LAFB LPFB IMI",
    ),
    _make(
        "RAD",
        "right axis deviation",
        "axis",
        3,
        0.9,
        "axis 93 to 150 degrees",
        "AHA III",
        f"{_VENTRICLE} RVH LAFB LPFB LVH LVHST LMI",
    ),
    # --- hypertrophy, voltage, atria
    _make(
        "LVH",
        "left ventricular hypertrophy",
        "hypertrophy",
        9,
        1,
        "S V1 + R V5/V6 > 3.5 mV, or R aVL > 1.1 mV",
        "AHA V; Sokolow and Lyon 1949",
        f"{_WIDE} IVCD",
        "VCLVH",
    ),
    _make(
        "LVHST",
        "left ventricular hypertrophy with strain",
        "hypertrophy",
        4,
        1,
        "voltage as in LVH, ST down and T inverted in V5, V6",
        "AHA V",
        f"{_WIDE} IVCD",
        "LVH VCLVH",
    ),
    _make(
        "RVH",
        "right ventricular hypertrophy",
        "hypertrophy",
        3,
        1,
        "axis > 95 degrees, R > S in V1, deep S in V6",
        "AHA V",
        f"{_WIDE} IRBBB ILBBB IVCD LAFB",
    ),
    _make(
        "LVOLT",
        "low QRS voltage",
        "voltage",
        4,
        0.9,
        "QRS < 0.5 mV in limb, < 1.0 mV in chest leads",
        "Chou",
        f"{_VENTRICLE} LVH LVHST RVH",
    ),
    _make(
        "LAO/LAE",
        "left atrial enlargement",
        "atrial",
        5,
        0.9,
        "P >= 120 ms, notched in II, negative end in V1",
        "AHA V",
        f"{NOT_SINUS} 3AVB WPW",
    ),
    _make("RAO/RAE", "right atrial enlargement", "atrial", 3, 0.9, "P > 0.25 mV in II", "AHA V", f"{NOT_SINUS} 3AVB"),
    # --- old infarction
    _make(
        "IMI",
        "inferior myocardial infarction",
        "infarct",
        5,
        1,
        "Q >= 30 ms and a quarter of R in III, aVF",
        "UDMI; AHA VI",
        f"{_VENTRICLE} LAFB LPFB LAD RAD RVH",
        "QWAVE",
    ),
    _make(
        "ASMI",
        "anteroseptal myocardial infarction",
        "infarct",
        4,
        1,
        "QS or hardly any r in V1-V3",
        "UDMI; AHA VI",
        f"{_VENTRICLE} RVH",
        "QWAVE",
    ),
    _make(
        "AMI",
        "anterior myocardial infarction",
        "infarct",
        3,
        1,
        "Q or QS in V3, V4",
        "UDMI; AHA VI",
        f"{_VENTRICLE} RVH",
        "QWAVE",
    ),
    _make(
        "LMI",
        "lateral myocardial infarction",
        "infarct",
        3,
        1,
        "Q >= 30 ms in I, aVL and V6",
        "UDMI; AHA VI",
        f"{_VENTRICLE} ILBBB RVH LAFB LPFB RAD",
        "QWAVE",
    ),
    _make(
        "PMI",
        "posterior myocardial infarction",
        "infarct",
        3,
        1,
        "R >= S in V1 or V2, T upright there",
        "UDMI; AHA VI",
        f"{_WIDE} IRBBB ILBBB RVH",
    ),
    # --- ST segment and T wave
    _make(
        "ISTEMI",
        "acute inferior ST elevation",
        "repolarisation",
        3,
        0.2,
        "ST >= 0.1 mV up in II, III, aVF, down in aVL",
        "UDMI; AHA VI",
        f"{_ST} LVOLT",
        "STE_",
    ),
    _make(
        "ASTEMI",
        "acute anterior ST elevation",
        "repolarisation",
        3,
        0.2,
        "ST >= 0.2 mV up in V2-V4",
        "UDMI; AHA VI",
        f"{_ST} LVOLT",
        "STE_",
    ),
    _make(
        "LSTEMI",
        "acute lateral ST elevation",
        "repolarisation",
        3,
        0.2,
        "ST >= 0.1 mV up in I, aVL, V5, V6, down in III",
        "UDMI; AHA VI",
        f"{_ST} LVOLT",
        "STE_",
    ),
    _make(
        "ISC_",
        "ischaemic ST-T changes",
        "repolarisation",
        5,
        0.6,
        "ST down 0.05 mV or more, T inverted, in V4-V6",
        "AHA VI",
        _ST,
    ),
    _make("STD_", "ST depression", "repolarisation", 4, 0.6, "ST down >= 0.05 mV in V4-V6, T upright", "AHA IV", _ST),
    _make("INVT", "inverted T waves", "repolarisation", 4, 0.7, "T down >= 0.1 mV in V2-V5, ST level", "AHA IV", _ST),
    _make(
        "NST_",
        "nonspecific ST-T changes",
        "repolarisation",
        6,
        0.7,
        "T flat: under a tenth of R in V5, V6 and II",
        "AHA IV",
        f"{_ST} LVOLT",
    ),
    _make(
        "ERP",
        "early repolarisation",
        "repolarisation",
        3,
        0.8,
        "notch or slur at the end of the QRS, J >= 0.1 mV up in V4-V6 or II, III",
        "ERP 2015",
        f"{_ST} LVOLT IVCD ILBBB IRBBB IMI AMI ASMI LMI",
    ),
    _make(
        "PERIC",
        "pericarditis",
        "repolarisation",
        3,
        0.2,
        "ST up in most leads, down in aVR; PR down in II, V5, up in aVR",
        "ESC 2015",
        f"{_ST} LVOLT AFIB AFLT SVTAC JR LAO/LAE 3AVB RAO/RAE",
    ),
    _make(
        "DIG",
        "digitalis effect",
        "repolarisation",
        3,
        0.7,
        "scooped ST depression in V5, V6, II; QT short",
        "Chou",
        f"{_ST} LNGQT SHQT",
    ),
    _make(
        "HYPERK",
        "hyperkalaemia pattern",
        "repolarisation",
        3,
        0.2,
        "T tall, narrow, peaked in V2-V5; P low",
        "Chou; AHA IV",
        f"{_ST} LVOLT LNGQT SHQT LAO/LAE RAO/RAE",
    ),
    _make(
        "HYPOK",
        "hypokalaemia pattern",
        "repolarisation",
        3,
        0.3,
        "T flat, U wave above it in V2-V4, ST sags",
        "Chou; AHA IV",
        f"{_ST} STACH SVTAC AT AFIB LNGQT SHQT",
    ),
    _make(
        "LNGQT",
        "long QT interval",
        "interval",
        4,
        0.8,
        "QTc > 475 ms (Bazett)",
        "AHA IV",
        f"AFIB AFLT PACE DPACE {_FAST} CLBBB CRBBB WPW IVCD BIGU TRIGU",
    ),
    _make(
        "SHQT",
        "short QT interval",
        "interval",
        3,
        0.8,
        "QTc < 355 ms (Bazett)",
        "ESC 2022",
        f"AFIB AFLT PACE DPACE {_FAST} CLBBB CRBBB WPW IVCD BIGU TRIGU",
    ),
]

OWN = frozenset(
    {
        "AT", "JR", "APACE", "DPACE", "COUP", "2AVB2", "LAD", "RAD", "LVHST", "ISTEMI", "ASTEMI", "LSTEMI", "ERP",
        "PERIC", "HYPERK", "HYPOK", "SHQT",
    }
)  # fmt: skip
"""Codes for which SCP (as PTB-XL has it) offers no statement."""
