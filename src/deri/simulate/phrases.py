"""The wording of simulated reports: our own, in the manner of electrocardiographs and of short clinical notes.

`STATEMENTS` are English cart statements, `NOUNS` English noun phrases that a hedge can precede, `GERMAN` and
`ENGLISH` short texts in the lower case that PTB-XL's reports have.
"""

from __future__ import annotations

STATEMENTS: dict[str, tuple[str, ...]] = {
    "SR": ("Sinus rhythm", "Normal sinus rhythm", "Regular sinus rhythm"),
    "SBRAD": ("Sinus bradycardia", "Slow sinus rhythm", "Marked sinus bradycardia"),
    "STACH": ("Sinus tachycardia", "Fast sinus rhythm"),
    "SARRH": (
        "Sinus arrhythmia",
        "Sinus rhythm with sinus arrhythmia",
        "Sinus rhythm with respiratory variation of rate",
    ),
    "AFIB": (
        "Atrial fibrillation",
        "Atrial fibrillation, irregular ventricular response",
        "Rhythm is atrial fibrillation",
    ),
    "AFLT": ("Atrial flutter", "Atrial flutter with AV conduction block", "Rhythm is atrial flutter"),
    "PACE": (
        "Ventricular paced rhythm",
        "Electronic ventricular pacemaker",
        "Paced rhythm - no further analysis attempted",
    ),
    "PAC": (
        "Atrial premature complexes",
        "with premature atrial complexes",
        "Occasional supraventricular extrasystoles",
    ),
    "PVC": ("Ventricular premature complexes", "with PVC(s)", "Occasional ventricular extrasystoles"),
    "BIGU": ("Ventricular bigeminy", "Bigeminal ventricular premature complexes"),
    "1AVB": ("First degree A-V block", "with 1st degree A-V block", "Prolonged PR interval"),
    "2AVB": ("Second degree A-V block, Mobitz type I", "2nd degree A-V block (Wenckebach)"),
    "3AVB": (
        "Complete A-V block",
        "Third degree A-V block with escape rhythm",
        "A-V dissociation, complete heart block",
    ),
    "CRBBB": ("Right bundle branch block", "Complete right bundle branch block", "RBBB"),
    "CLBBB": ("Left bundle branch block", "Complete left bundle branch block", "LBBB"),
    "IRBBB": (
        "Incomplete right bundle branch block",
        "RSR' pattern in V1, partial right bundle branch block",
        "Incomplete RBBB",
    ),
    "WPW": (
        "Ventricular pre-excitation, WPW pattern",
        "Wolff-Parkinson-White pattern",
        "Short PR interval with delta wave",
    ),
    "LAFB": ("Left anterior fascicular block", "LAFB", "Left anterior hemiblock"),
    "LVH": (
        "Left ventricular hypertrophy",
        "LVH by voltage",
        "High left ventricular voltage, left ventricular hypertrophy",
    ),
    "RVH": (
        "Right ventricular hypertrophy",
        "RVH with right axis deviation",
        "Tall R in V1, right ventricular hypertrophy",
    ),
    "IMI": (
        "Inferior infarct - age undetermined",
        "Old inferior infarct",
        "Inferior Q waves, prior myocardial infarction",
    ),
    "ASMI": (
        "Anteroseptal infarct - age undetermined",
        "Old anteroseptal infarct",
        "Septal and anterior Q waves, prior infarct",
    ),
    "ISC_": (
        "ST depression and T inversion suggest myocardial ischemia",
        "Lateral ST-T changes consistent with ischemia",
        "ST-T changes of ischemia",
    ),
    "STD_": ("Lateral ST depression", "Nonspecific ST segment depression", "ST depression in lateral leads"),
    "INVT": ("Anterior T wave inversion", "T wave inversion in precordial leads", "Inverted T waves in V2 to V5"),
    "LNGQT": ("Prolonged QT interval", "QT interval is prolonged for rate", "Long QTc"),
    "LVOLT": ("Low QRS voltages", "Low voltage in limb and chest leads", "Generalized low QRS voltage"),
    "LAO/LAE": ("Left atrial enlargement", "Left atrial abnormality", "Broad notched P wave, left atrial enlargement"),
    "RAO/RAE": ("Right atrial enlargement", "Right atrial abnormality", "Tall P wave, right atrial enlargement"),
}

# Only findings about which carts hedge; a rhythm or a block is stated plainly.
NOUNS: dict[str, tuple[str, ...]] = {
    "IRBBB": ("incomplete right bundle branch block",),
    "LAFB": ("left anterior fascicular block",),
    "LVH": ("left ventricular hypertrophy", "LVH"),
    "RVH": ("right ventricular hypertrophy", "RVH"),
    "IMI": ("inferior infarct - age undetermined", "old inferior infarct", "inferior myocardial infarction"),
    "ASMI": (
        "anteroseptal infarct - age undetermined",
        "old anteroseptal infarct",
        "anteroseptal myocardial infarction",
    ),
    "ISC_": ("myocardial ischemia", "lateral ischemia"),
    "LAO/LAE": ("left atrial abnormality", "left atrial enlargement"),
    "RAO/RAE": ("right atrial abnormality", "right atrial enlargement"),
    "WPW": ("ventricular pre-excitation",),
}
HEDGES = ("Possible {}", "Probable {}", "Consider {}", "Cannot rule out {}", "Suggests {}")

# Company of other statements; the T inversion of an infarct or a strain pattern is spelled out now and then.
STRAIN = ("ST-T changes secondary to hypertrophy", "Repolarization changes of left ventricular strain")
BLOCK_REPOLARISATION = ("Secondary ST-T changes",)
AXIS_LEFT = ("Left axis deviation", "LAD")
AXIS_LEFTWARD = ("Leftward axis",)
AXIS_RIGHT = ("Right axis deviation", "Rightward axis")

NORMAL = ("Normal ECG", "Within normal limits", "No abnormality found")
OTHERWISE_NORMAL = ("Otherwise normal ECG", "Otherwise within normal limits")
BORDERLINE = ("Borderline ECG",)
ABNORMAL = ("Abnormal ECG",)
POOR_QUALITY = ("Artifact in tracing, interpretation may be affected", "Poor data quality")
UNCONFIRMED = "Unconfirmed analysis"

GERMAN: dict[str, tuple[str, ...]] = {
    "NORM": ("normales ekg", "sonst normales ekg", "ekg in den grenzen der norm", "unauffÄlliges ekg"),
    "SR": ("sinusrhythmus", "regelmÄssiger sinusrhythmus"),
    "SBRAD": ("sinusbradykardie",),
    "STACH": ("sinustachykardie",),
    "SARRH": ("sinusarrhythmie", "sinus arrhythmie, respiratorisch"),
    "AFIB": (
        "vorhofflimmern",
        "vorhofflimmern mit unregelmÄssiger Überleitung",
        "absolute arrhythmie bei vorhofflimmern",
    ),
    "AFLT": ("vorhofflattern", "vorhofflattern mit regelmÄssiger Überleitung"),
    "PACE": ("schrittmacher-ekg", "ventrikulÄre schrittmacherstimulation"),
    "PAC": ("supraventrikulÄre extrasystole(n)", "vorzeitige vorhofaktionen"),
    "PVC": ("ventrikulÄre extrasystole(n)", "einzelne kammerextrasystolen"),
    "BIGU": ("ventrikulÄrer bigeminus", "bigeminus"),
    "1AVB": ("av-block i. grades", "verlÄngerte pq-zeit"),
    "2AVB": ("av-block ii. grades, typ wenckebach",),
    "3AVB": ("av-block iii. grades", "totaler av-block mit ersatzrhythmus"),
    "CRBBB": ("kompletter rechtsschenkelblock", "rechtsschenkelblock"),
    "CLBBB": ("kompletter linksschenkelblock", "linksschenkelblock"),
    "IRBBB": ("inkompletter rechtsschenkelblock",),
    "WPW": ("prÄexzitation, wpw-typ", "wpw-syndrom mit deltawelle"),
    "LAFB": ("linksanteriorer hemiblock",),
    "LVH": ("linksherzhypertrophie", "zeichen der linkshypertrophie"),
    "RVH": ("rechtsherzhypertrophie", "zeichen der rechtsherzbelastung"),
    "IMI": ("alter hinterwandinfarkt", "inferiorer infarkt, alter unbestimmt"),
    "ASMI": ("alter anteroseptaler infarkt", "vorderwandinfarkt anteroseptal, alter unbestimmt"),
    "ISC_": ("st-t-verÄnderungen, myokardischÄmie", "ischÄmiezeichen lateral"),
    "STD_": ("st-senkung lateral", "unspezifische st-senkung"),
    "INVT": ("t-negativierung in den brustwandableitungen", "t-inversion v2-v5"),
    "LNGQT": ("qt-verlÄngerung", "verlÄngerte qt-zeit"),
    "LVOLT": ("niedervoltage", "periphere und zentrale niederspannung"),
    "LAO/LAE": ("p-sinistroatriale", "linksatriale belastung"),
    "RAO/RAE": ("p-dextroatriale", "rechtsatriale belastung"),
}
GERMAN_HEDGES = ("{} mÖglich", "verdacht auf {}", "{} nicht auszuschliessen", "wahrscheinlich {}")
GERMAN_AXIS = {
    "LAD": "linkstyp",
    "ALAD": "ueberdrehter linkstyp",
    "MID": "indifferenztyp",
    "RAD": "steiltyp",
    "ARAD": "rechtstyp",
}

ENGLISH: dict[str, tuple[str, ...]] = {
    "NORM": ("normal ecg.", "no pathological findings.", "tracing within normal limits."),
    "SR": ("sinus rhythm.", "regular sinus rhythm."),
    "SBRAD": ("sinus bradycardia.",),
    "STACH": ("sinus tachycardia.",),
    "SARRH": ("sinus arrhythmia.",),
    "AFIB": ("atrial fibrillation.", "atrial fibrillation with irregular ventricular rate."),
    "AFLT": ("atrial flutter.",),
    "PACE": ("ventricular pacing throughout.", "pacemaker rhythm."),
    "PAC": ("atrial extrasystoles.", "premature atrial beats."),
    "PVC": ("ventricular extrasystoles.", "premature ventricular beats."),
    "BIGU": ("ventricular bigeminy.",),
    "1AVB": ("first degree av block.", "pr interval prolonged."),
    "2AVB": ("second degree av block, wenckebach type.",),
    "3AVB": ("complete heart block.", "third degree av block."),
    "CRBBB": ("right bundle branch block.",),
    "CLBBB": ("left bundle branch block.",),
    "IRBBB": ("incomplete right bundle branch block.",),
    "WPW": ("wolff-parkinson-white pattern.", "short pr and delta wave."),
    "LAFB": ("left anterior hemiblock.",),
    "LVH": ("left ventricular hypertrophy.", "chest lead voltages high, lvh."),
    "RVH": ("right ventricular hypertrophy.",),
    "IMI": ("old inferior infarct.", "q waves ii, iii, avf: inferior infarct."),
    "ASMI": ("old anteroseptal infarct.", "q waves v1-v3: anteroseptal infarct."),
    "ISC_": ("st-t changes of ischaemia.", "st depressed and t inverted laterally, ischaemia."),
    "STD_": ("st depression v4-v6.",),
    "INVT": ("t inversion v2-v5.", "inverted t waves in chest leads."),
    "LNGQT": ("qt prolonged.", "long qt interval."),
    "LVOLT": ("low voltage.", "low qrs voltages in all leads."),
    "LAO/LAE": ("left atrial enlargement.",),
    "RAO/RAE": ("right atrial enlargement.",),
}
