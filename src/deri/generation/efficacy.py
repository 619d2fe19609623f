"""Clinical efficacy as in the paper: do generated and true report fall into the same class of the model's text space?

It is the model's own view of both texts, so it flatters a writer that was trained on that model; the labeller's
findings (:mod:`deri.generation.evaluate`) are the figure that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deri.evaluation.bootstrap import Bootstrap, interval
from deri.evaluation.intervals import as_list
from deri.evaluation.zero_shot import class_weights
from deri.generation.agreement import drawn_f1, mean_of_known, precision_recall_f1
from deri.generation.findings import embed_texts
from deri.models import EcgTextModel
from deri.reports import load_prompt_file, load_prompts
from deri.reports.prompts import LABELS


@dataclass(frozen=True)
class TextSpace:
    """A model's text space, and the classes that texts are held against.

    Attributes:
        model: whose space it is.
        name: of the model, for the result.
        task: whose shipped prompts are the classes; all known classes when neither this nor ``prompts`` is given.
        prompts: a prompt file instead.
    """

    model: EcgTextModel
    name: str
    task: str | None = None
    prompts: Path | None = None

    def classes(self) -> dict[str, list[str]]:
        """The prompts of every class, each set of prompts once: that of the first class that has it."""
        known = load_prompt_file(self.prompts) if self.prompts is not None else load_prompts(self.task or LABELS)
        # Where all known classes are taken there are aliases: one class under several codes would be a draw of equals.
        distinct = {tuple(texts): code for code, texts in reversed(known.items())}
        return {code: texts for code, texts in known.items() if distinct[tuple(texts)] == code}


def text_classes(model: EcgTextModel, texts: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """The class of each text, int64 (n,): that of the prompt with the highest cosine; the first of equal ones."""
    return (embed_texts(model, texts) @ weights.T).argmax(axis=1)


def model_efficacy(
    space: TextSpace, references: Sequence[str], generated: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Precision, recall and F1 of the classes of generated texts against those of the references, macro averages.

    Averages are over the classes that occur on either side, as scikit-learn has it; a class that was never generated
    has precision 0, one without a reference recall 0.

    Args:
        space: model and classes.
        references: n texts, none empty.
        generated: n texts; an empty one has no class, which is never right.
        bootstrap: of the n pairs, for the interval of F1.
    """
    classes = space.classes()
    weights = class_weights(space.model, classes)
    truth, said = (text_classes(space.model, texts, weights) for texts in (references, generated))
    said = np.where([bool(text.strip()) for text in generated], said, -1)
    left, right = (found[:, None] == np.arange(len(classes)) for found in (truth, said))
    present = left.any(axis=0) | right.any(axis=0)
    left, right = left[:, present], right[:, present]
    precision, recall, f1 = (float(np.nan_to_num(values).mean()) for values in precision_recall_f1(left, right))
    return {
        "model": space.name,
        "prompts": str(space.prompts) if space.prompts is not None else space.task or LABELS,
        "classes_in_all": len(classes),
        "classes": int(present.sum()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "ci": as_list(interval(mean_of_known(drawn_f1(bootstrap, left, right)))),
        "accuracy": float((truth == said).mean()),
    }
