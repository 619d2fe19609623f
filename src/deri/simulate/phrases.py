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
    "SVTAC": (
        "Supraventricular tachycardia",
        "Narrow complex tachycardia, supraventricular tachycardia",
        "Rapid regular supraventricular tachycardia",
    ),
    "AT": ("Atrial tachycardia", "Ectopic atrial tachycardia", "Atrial tachycardia with abnormal P axis"),
    "JR": ("Junctional rhythm", "Junctional escape rhythm", "AV junctional rhythm, no sinus P waves"),
    "APACE": ("Atrial paced rhythm", "Atrial pacing with intrinsic conduction", "Electronic atrial pacemaker"),
    "DPACE": (
        "AV dual-paced rhythm",
        "Dual chamber pacemaker rhythm",
        "Atrial and ventricular paced rhythm",
    ),
    "TRIGU": ("Ventricular trigeminy", "Ventricular premature complexes in trigeminy"),
    "COUP": ("Ventricular couplets", "Paired ventricular premature complexes", "Couplets of PVCs"),
    "2AVB2": (
        "Second degree A-V block, Mobitz type II",
        "2:1 A-V block, second degree",
        "2nd degree A-V block, Mobitz II, constant PR",
    ),
    "ILBBB": ("Incomplete left bundle branch block", "Incomplete LBBB"),
    "IVCD": (
        "Nonspecific intraventricular conduction delay",
        "Intraventricular conduction delay",
        "Nonspecific IVCD, wide QRS",
    ),
    "LPFB": ("Left posterior fascicular block", "LPFB", "Left posterior hemiblock"),
    "LAD": ("Left axis deviation", "Marked left axis deviation", "Abnormal left axis deviation"),
    "RAD": ("Right axis deviation", "Abnormal right axis deviation", "Marked right axis deviation"),
    "LVHST": (
        "Left ventricular hypertrophy with strain",
        "LVH with secondary repolarization abnormality",
        "Left ventricular hypertrophy with ST-T changes",
    ),
    "AMI": ("Anterior infarct - age undetermined", "Old anterior infarct", "Anterior Q waves, prior infarct"),
    "LMI": ("Lateral infarct - age undetermined", "Old lateral infarct", "Lateral Q waves, prior infarct"),
    "PMI": (
        "Posterior infarct - age undetermined",
        "Old posterior infarct",
        "Tall R waves in V1-V2, posterior infarct",
    ),
    "ISTEMI": (
        "Acute inferior infarct, ST elevation in II, III, aVF",
        "Inferior ST elevation, acute MI",
        "Acute inferior ST elevation myocardial infarction",
    ),
    "ASTEMI": (
        "Acute anterior infarct, ST elevation in V2-V4",
        "Anterior ST elevation, acute MI",
        "Acute anterior ST elevation myocardial infarction",
    ),
    "LSTEMI": (
        "Acute lateral infarct, ST elevation in I, aVL, V5-V6",
        "Lateral ST elevation, acute MI",
        "Acute lateral ST elevation myocardial infarction",
    ),
    "NST_": (
        "Nonspecific ST-T changes",
        "Nonspecific T wave abnormality",
        "Diffuse nonspecific ST-T abnormality",
        "Nonspecific T wave changes",
    ),
    "ERP": ("Early repolarization", "ST elevation, probable early repolarization", "Early repolarization pattern"),
    "PERIC": (
        "Acute pericarditis",
        "Diffuse ST elevation with PR depression, acute pericarditis",
        "Widespread ST elevation suggests pericarditis",
    ),
    "DIG": ("Digitalis effect", "ST-T changes of digitalis effect", "Scooped ST depression, digitalis effect"),
    "HYPERK": ("Peaked T waves, hyperkalemia", "Tall peaked T waves - hyperkalemia", "Hyperkalemia pattern"),
    "HYPOK": ("Prominent U waves, hypokalemia", "Flat T waves and U waves - hypokalemia", "Hypokalemia pattern"),
    "SHQT": ("Short QT interval", "QT interval is short for rate", "Short QTc"),
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
    "LPFB": ("left posterior fascicular block",),
    "LVHST": ("left ventricular hypertrophy with strain", "LVH with strain"),
    "AMI": ("anterior infarct - age undetermined", "old anterior infarct", "anterior myocardial infarction"),
    "LMI": ("lateral infarct - age undetermined", "old lateral infarct", "lateral myocardial infarction"),
    "PMI": ("posterior infarct - age undetermined", "old posterior infarct", "posterior myocardial infarction"),
    "ISTEMI": ("acute inferior infarct", "inferior injury or acute infarct"),
    "ASTEMI": ("acute anterior infarct", "anterior injury or acute infarct"),
    "LSTEMI": ("acute lateral infarct", "lateral injury or acute infarct"),
    "ERP": ("early repolarization",),
    "PERIC": ("acute pericarditis", "pericarditis"),
    "DIG": ("digitalis effect",),
    "HYPERK": ("hyperkalemia",),
    "HYPOK": ("hypokalemia",),
}
HEDGES = ("Possible {}", "Probable {}", "Consider {}", "Cannot rule out {}", "Suggests {}")

# Company of other statements; the T inversion of an infarct or a strain pattern is spelled out now and then.
STRAIN = ("ST-T changes secondary to hypertrophy", "Repolarization changes of left ventricular strain")
BLOCK_REPOLARISATION = ("Secondary ST-T changes",)
AXIS_LEFT = ("Left axis deviation", "LAD")
AXIS_LEFTWARD = ("Leftward axis",)
AXIS_RIGHT = ("Right axis deviation", "Rightward axis")

# Physicians' shorthand; findings without one are written in full.
TERSE: dict[str, str] = {
    "SR": "SR", "NORM": "normal", "SBRAD": "sinus brady", "STACH": "sinus tach", "AFIB": "AF", "AFLT": "A flutter",
    "SVTAC": "SVT", "PACE": "V-paced", "APACE": "A-paced", "DPACE": "AV-paced", "PAC": "PACs", "PVC": "PVCs",
    "1AVB": "1st degree AVB", "2AVB": "2nd degree AVB, Wenckebach", "3AVB": "CHB", "CRBBB": "RBBB", "CLBBB": "LBBB",
    "IRBBB": "incomplete RBBB", "ILBBB": "incomplete LBBB", "IVCD": "IVCD", "WPW": "WPW", "LAFB": "LAFB",
    "LPFB": "LPFB", "LAD": "LAD", "RAD": "RAD", "LVH": "LVH", "LVHST": "LVH with strain", "RVH": "RVH",
    "LAO/LAE": "LAE", "RAO/RAE": "RAE", "IMI": "old IMI", "AMI": "old anterior MI", "ASMI": "old anteroseptal MI",
    "LMI": "old lateral MI", "PMI": "old posterior MI", "STD_": "ST depression", "INVT": "TWI",
    "NST_": "NSST-T changes",
    "LNGQT": "long QT", "SHQT": "short QT", "LVOLT": "low voltage", "ISC_": "ischemic ST-T changes",
    "ISTEMI": "inferior STEMI", "ASTEMI": "anterior STEMI", "LSTEMI": "lateral STEMI",
}  # fmt: skip
VERBOSE = ("There is {}.", "The tracing shows {}.", "{} is present.", "This is consistent with {}.", "Findings of {}.")
VERBOSE_DOUBT = ("{} is possible.", "{} cannot be excluded.", "{} should be considered.")
RAPID, SLOW = " with rapid ventricular response", " with slow ventricular response"
ARMS_SWAPPED = ("Suspect arm lead reversal", "Limb lead reversal, interpretation assumes no reversal")

NORMAL = ("Normal ECG", "Within normal limits", "No abnormality found")
OTHERWISE_NORMAL = ("Otherwise normal ECG", "Otherwise within normal limits")
BORDERLINE = ("Borderline ECG",)
ABNORMAL = ("Abnormal ECG",)
POOR_QUALITY = ("Artifact in tracing, interpretation may be affected", "Poor data quality")
UNCONFIRMED = "Unconfirmed analysis"

GERMAN: dict[str, tuple[str, ...]] = {
    "NORM": ("normales ekg", "sonst normales ekg", "ekg in den grenzen der norm", "unauffÄlliges ekg"),
    "SR": ("sinusrhythmus", "regelmÄssiger sinusrhythmus"),
    "SBRAD": ("sinusbradykardie", "bradykarder sinusrhythmus"),
    "STACH": ("sinustachykardie",),
    "SARRH": ("sinusarrhythmie", "sinus arrhythmie, respiratorisch"),
    "AFIB": (
        "vorhofflimmern",
        "vorhofflimmern/-flattern",
        "vorhofflimmern mit unregelmÄssiger Überleitung",
        "absolute arrhythmie bei vorhofflimmern",
    ),
    "AFLT": ("vorhofflattern", "vorhofflattern mit regelmÄssiger Überleitung"),
    "PACE": ("schrittmacher ekg", "schrittmacher-ekg", "ventrikulÄre schrittmacherstimulation"),
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
    "LVH": ("linkshypertrophie", "mÄssige amplitudenkriterien fÜr linkshypertrophie", "zeichen der linkshypertrophie"),
    "RVH": ("rechtsherzhypertrophie", "zeichen der rechtsherzbelastung"),
    "IMI": (
        "alter hinterwandinfarkt",
        "qrs(t) abnorm    inferiorer infarkt     wahrscheinlich alt",
        "inferiorer infarkt, alter unbestimmt",
    ),
    "ASMI": (
        "alter anteroseptaler infarkt",
        "qrs(t) abnorm    anteroseptaler infarkt     alter unbest.",
        "vorderwandinfarkt anteroseptal, alter unbestimmt",
    ),
    "ISC_": ("st-t-verÄnderungen, myokardischÄmie", "ischÄmiezeichen lateral"),
    "STD_": ("st-senkung lateral", "unspezifische st-senkung"),
    "INVT": ("t-negativierung in den brustwandableitungen", "t-inversion v2-v5"),
    "LNGQT": ("qt-verlÄngerung", "verlÄngerte qt-zeit"),
    "LVOLT": ("niedervoltage", "periphere und zentrale niederspannung"),
    "LAO/LAE": ("p-sinistroatriale", "linksatriale belastung"),
    "RAO/RAE": ("p-dextroatriale", "rechtsatriale belastung"),
    "SVTAC": ("supraventrikulÄre tachykardie", "rhythmus: supraventrikulÄre tachykardie"),
    "AT": ("ektope atriale tachykardie", "atriale tachykardie"),
    "JR": ("av-knotenrhythmus", "junktionaler ersatzrhythmus"),
    "APACE": ("schrittmacher-ekg, vorhofstimulation", "vorhof-schrittmacher"),
    "DPACE": ("schrittmacher ekg, av-sequentielle stimulation", "zweikammer-schrittmacher"),
    "TRIGU": ("ventrikulÄre extrasystole(n), trigeminus", "ventrikulÄrer trigeminus"),
    "COUP": ("ventrikulÄre extrasystole(n), couplets", "ventrikulÄre couplets"),
    "2AVB2": ("av-block ii. grades, typ mobitz ii", "av-block ii. grades, 2:1-Überleitung"),
    "ILBBB": ("unvollstÄndiger linksschenkelblock", "inkompletter linksschenkelblock"),
    "IVCD": ("unspezifische intraventrikulÄre leitungsstÖrung", "unspezifischer intraventrikulÄrer block"),
    "LPFB": ("linksposteriorer hemiblock",),
    "LAD": ("ueberdrehter linkstyp",),
    "RAD": ("rechtstyp", "ueberdrehter rechtstyp"),
    "LVHST": ("linkshypertrophie mit linksherzbelastung", "zeichen der linkshypertrophie mit st-t-verÄnderungen"),
    "AMI": ("qrs(t) abnorm    anteriorer infarkt     wahrscheinlich alt", "alter vorderwandinfarkt"),
    "LMI": ("qrs(t) abnorm    lateraler infarkt     alter unbest.", "alter lateraler infarkt"),
    "PMI": ("qrs(t) abnorm    posteriorer infarkt     wahrscheinlich alt", "alter posteriorer infarkt"),
    "ISTEMI": ("akuter inferiorer infarkt, st-hebung in ii, iii, avf", "st-hebung inferior, akuter infarkt"),
    "ASTEMI": ("akuter vorderwandinfarkt, st-hebung v2-v4", "st-hebung anterior, akuter infarkt"),
    "LSTEMI": ("akuter lateraler infarkt, st-hebung i, avl, v5, v6", "st-hebung lateral, akuter infarkt"),
    "NST_": ("unspezifisches abnormes t", "unspezifische st-t-verÄnderungen", "unspezifische abnormale st-senkung"),
    "ERP": ("frÜhe repolarisation", "st-hebung, frÜhe repolarisation"),
    "PERIC": ("akute perikarditis, st-hebung", "perikarditis"),
    "DIG": ("digitaliswirkung", "muldenfÖrmige st-senkung, digitaliseffekt"),
    "HYPERK": ("hohe spitze t-wellen, hyperkaliÄmie", "hyperkaliÄmie"),
    "HYPOK": ("u-wellen, hypokaliÄmie", "hypokaliÄmie"),
    "SHQT": ("verkÜrzte qt-zeit", "kurzes qt-intervall"),
}
GERMAN_HEDGES = ("{} mÖglich", "verdacht auf {}", "{} nicht auszuschliessen", "wahrscheinlich {}")
GERMAN_AXIS = {
    "LAD": "linkstyp",
    "ALAD": "ueberdrehter linkstyp",
    "MID": "lagetyp normal",
    "RAD": "steiltyp",
    "ARAD": "rechtstyp",
}

ENGLISH: dict[str, tuple[str, ...]] = {
    "NORM": ("normal ecg.", "no definite pathology.", "no pathological findings.", "tracing within normal limits."),
    "SR": ("sinus rhythm.", "regular sinus rhythm."),
    "SBRAD": ("sinus bradycardia.",),
    "STACH": ("sinus tachycardia.",),
    "SARRH": ("sinus arrhythmia.",),
    "AFIB": ("atrial fibrillation.", "atrial fibrillation with irregular ventricular rate."),
    "AFLT": ("atrial flutter.",),
    "PACE": ("ventricular pacing throughout.", "pacemaker rhythm."),
    "PAC": ("premature atrial contraction(s).", "atrial extrasystoles.", "premature atrial beats."),
    "PVC": ("premature ventricular contraction(s).", "ventricular extrasystoles.", "premature ventricular beats."),
    "BIGU": ("ventricular bigeminy.",),
    "1AVB": ("first degree av block.", "pr interval prolonged."),
    "2AVB": ("second degree av block, wenckebach type.",),
    "3AVB": ("complete heart block.", "third degree av block."),
    "CRBBB": ("right bundle branch block.",),
    "CLBBB": ("left bundle branch block.",),
    "IRBBB": ("incomplete right bundle branch block.",),
    "WPW": ("wolff-parkinson-white pattern.", "short pr and delta wave."),
    "LAFB": ("left anterior hemiblock.",),
    "LVH": ("left ventricular hypertrophy.", "voltages are high in chest leads suggesting lvh."),
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
    "SVTAC": ("rapid regular supraventricular tachycardia without evident p waves.", "supraventricular tachycardia."),
    "AT": ("atrial tachycardia.", "ectopic atrial tachycardia."),
    "JR": ("junctional rhythm.", "junctional escape rhythm."),
    "APACE": ("pacemaker spikes noted. atrial pacing.", "atrial paced rhythm."),
    "DPACE": ("pacemaker spikes noted. dual chamber pacing.", "av sequential pacing."),
    "TRIGU": ("ventricular trigeminy.",),
    "COUP": ("ventricular couplets.", "paired ventricular extrasystoles."),
    "2AVB2": ("second degree av block, mobitz type ii.", "second degree av block with 2:1 conduction."),
    "ILBBB": ("incomplete left bundle branch block.",),
    "IVCD": ("non-specific intraventricular conduction delay.", "intraventricular conduction defect."),
    "LPFB": ("left posterior hemiblock.",),
    "LAD": ("left axis deviation.",),
    "RAD": ("right axis deviation.",),
    "LVHST": ("left ventricular hypertrophy with strain.", "lvh and strain."),
    "AMI": ("old anterior infarct.", "q waves v3-v4: anterior infarct."),
    "LMI": ("old lateral infarct.", "q waves i, avl: lateral infarct."),
    "PMI": ("old posterior infarct.", "tall r in v1, v2: true posterior infarct."),
    "ISTEMI": ("acute inferior infarction.", "st elevated in ii, iii, avf: acute inferior infarct."),
    "ASTEMI": ("acute anterior infarction.", "st elevated in v2-4: acute anterior infarct."),
    "LSTEMI": ("acute lateral infarction.", "st elevated in i, avl, v5,6: acute lateral infarct."),
    "NST_": ("non-specific st-t wave changes.", "minor non-specific st-t wave changes.", "t waves are low or flat."),
    "ERP": ("early repolarisation.", "st elevation due to early repolarisation."),
    "PERIC": ("acute pericarditis.", "widespread st elevation, pericarditis."),
    "DIG": ("digitalis effect.", "st changes consistent with digitalis effect."),
    "HYPERK": ("peaked t waves, hyperkalaemia.", "hyperkalaemia."),
    "HYPOK": ("flat t waves and u waves, hypokalaemia.", "hypokalaemia."),
    "SHQT": ("short qt interval.", "qt interval short."),
}
