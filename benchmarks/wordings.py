"""Whether code, English and German words for a finding score alike, and its denial does not. Prints one JSON object.

    python benchmarks/wordings.py --data STORE --split test --model deri-open [--model deri-sim …] [--task labels]

For every class of the task that the table below words and at least ``--min-pos`` recordings have: the AUROC of the
zero-shot scores for its code, for English and for German wordings, as ``deri classify`` scores them (``asked``) and as
the model's text encoder hears the words themselves (``raw``); and for wordings that deny it ("no …", "kein …"), which
are good where they are 1 − AUROC of the finding. ``difference``: the largest distance of a wording from the code.
The wordings were written by hand, apart from the labeller's table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from deri.evaluation.features import Features, unit
from deri.evaluation.metrics import auroc
from deri.models import EcgTextModel, load_model
from deri.reports.words import label_texts
from deri.store import Store

# code: English wordings | German wordings
WORDINGS = {
    "SR": "sinus rhythm, regular sinus rhythm | Sinusrhythmus, regelmäßiger Sinusrhythmus, SR",
    "NORM": "normal ECG, ECG within normal limits, normal tracing "
    "| normales EKG, unauffälliges EKG, EKG o.B., Normalbefund",
    "ABQRS": "abnormal QRS, abnormal QRS complexes | QRS abnorm, auffällige QRS-Komplexe, pathologischer QRS-Komplex",
    "IMI": "inferior myocardial infarction, inferior infarct, old inferior MI "
    "| inferiorer Infarkt, Hinterwandinfarkt, alter Hinterwandinfarkt, inferiorer Myokardinfarkt",
    "ASMI": "anteroseptal myocardial infarction, anteroseptal infarct "
    "| anteroseptaler Infarkt, anteroseptaler Myokardinfarkt, Vorderwandseptuminfarkt",
    "NST_": "non-specific ST changes, nonspecific ST-T changes "
    "| unspezifische ST-Veränderungen, unspezifische ST-Strecken-Veränderungen, unspezifische Repolarisationsstörungen",
    "NDT": "non-diagnostic T abnormalities, nonspecific T wave abnormality "
    "| unspezifische T-Veränderungen, unspezifische T-Wellen-Veränderungen, abnormes T",
    "LVH": "left ventricular hypertrophy, LVH | Linksherzhypertrophie, linksventrikuläre Hypertrophie, LV-Hypertrophie",
    "AFIB": "atrial fibrillation, A-fib, AF with rapid ventricular response "
    "| Vorhofflimmern, VHF, absolute Arrhythmie, tachykardes Vorhofflimmern",
    "LAFB": "left anterior fascicular block, left anterior hemiblock, LAHB "
    "| linksanteriorer Hemiblock, linksanteriorer Faszikelblock, LAH",
    "PVC": "ventricular premature beats, PVCs, ventricular ectopics "
    "| ventrikuläre Extrasystolen, VES, ventrikuläre Extrasystolie, Kammerextrasystolen",
    "STD_": "ST depression, ST segment depression | ST-Senkung, ST-Strecken-Senkungen, Senkung der ST-Strecke",
    "ISC_": "ischemic ST-T changes, myocardial ischemia | Ischämie, Myokardischämie, ischämische ST-Veränderungen",
    "IRBBB": "incomplete right bundle branch block, incomplete RBBB "
    "| inkompletter Rechtsschenkelblock, unvollständiger Rechtsschenkelblock, inkompletter RSB",
    "STACH": "sinus tachycardia | Sinustachykardie, tachykarder Sinusrhythmus",
    "SBRAD": "sinus bradycardia | Sinusbradykardie, bradykarder Sinusrhythmus",
    "SARRH": "sinus arrhythmia | Sinusarrhythmie, respiratorische Arrhythmie",
    "1AVB": "first degree AV block, 1st degree AV block "
    "| AV-Block I. Grades, AV-Block 1. Grades, AV-Block ersten Grades, AV-Block I°",
    "CLBBB": "left bundle branch block, complete LBBB | Linksschenkelblock, kompletter Linksschenkelblock, LSB",
    "CRBBB": "right bundle branch block, complete RBBB | Rechtsschenkelblock, kompletter Rechtsschenkelblock, RSB",
    "QWAVE": "Q waves, pathological Q waves | Q-Zacken, pathologische Q-Zacken, Q-Zacke",
    "IVCD": "intraventricular conduction delay, nonspecific intraventricular block "
    "| intraventrikuläre Leitungsstörung, unspezifische intraventrikuläre Leitungsverzögerung",
    "LPR": "prolonged PR interval, long PR | verlängerte PQ-Zeit, PQ-Verlängerung, PR-Verlängerung",
    "PAC": "premature atrial contractions, PACs, supraventricular premature beats "
    "| supraventrikuläre Extrasystolen, SVES, Vorhofextrasystolen",
    "PACE": "paced rhythm, pacemaker rhythm | Schrittmacherrhythmus, Schrittmacher-EKG, Schrittmacherstimulation",
    "AFLT": "atrial flutter | Vorhofflattern, typisches Vorhofflattern",
    "LVOLT": "low voltage, low QRS voltage | Niederspannung, Niedervoltage, periphere Niedervoltage",
    "LNGQT": "prolonged QT interval, long QT | QT-Verlängerung, verlängerte QT-Zeit, verlängertes QT-Intervall",
    "INVT": "inverted T waves, T wave inversion | T-Inversion, negative T-Wellen, T-Negativierung",
    "LAO/LAE": "left atrial enlargement | P-sinistroatriale, linksatriale Vergrößerung, P mitrale",
}


def wordings(code: str) -> dict[str, list[str]]:
    """The code, and its wordings in both languages, as they are and denied."""
    english, german = ([text.strip() for text in part.split(",")] for part in WORDINGS[code].split("|"))
    denied = [f"no {english[0]}", f"no evidence of {english[0]}", f"kein {german[0]}", f"{german[0]} ausgeschlossen"]
    return {"code": [code], "en": english, "de": german, "denied": denied}


def table(model: EcgTextModel, store: Store, rows: np.ndarray, task: str, min_pos: int) -> dict[str, object]:
    """AUROC of every wording of every finding."""
    names, labels = store.labels(task, rows)
    embeddings = unit(Features(model, store).rows(rows))
    found = {}
    for code in (name for name in WORDINGS if name in names):
        truth = labels[:, names.index(code)].astype(bool)
        if truth.sum() < min_pos:
            continue
        asked = wordings(code)
        texts = [text for group in asked.values() for text in group]
        notes = [label.note for label in label_texts(texts)]
        scores = embeddings @ model.encode_labels(texts)[0].T
        raw = embeddings @ unit(model.encode_text(texts)).T
        of = {
            text: {"asked": auroc(truth, scores[:, i]), "raw": auroc(truth, raw[:, i]), "note": notes[i]}
            for i, text in enumerate(texts)
        }
        own = of[code]["asked"]
        entry = {kind: {text: of[text] for text in group} for kind, group in asked.items()}
        same = [*asked["en"], *asked["de"]]
        found[code] = {
            "n_pos": int(truth.sum()),
            "auroc": own,
            "difference": max(abs(of[text]["asked"] - own) for text in same),
            "difference_raw": max(abs(of[text]["raw"] - own) for text in same),
            "denied": max(of[text]["asked"] for text in asked["denied"]),
            "denied_raw": max(of[text]["raw"] for text in asked["denied"]),
            "wordings": entry,
        }
    return {"largest_difference": max(entry["difference"] for entry in found.values()), "findings": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--task", default="labels")
    parser.add_argument("--min-pos", type=int, default=10)
    options = parser.parse_args()
    store = Store.open(options.data)
    rows = store.task_rows(options.task, options.split)
    result = {name: table(load_model(name), store, rows, options.task, options.min_pos) for name in options.model}
    print(json.dumps({"split": options.split, "n": len(rows), "models": result}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
