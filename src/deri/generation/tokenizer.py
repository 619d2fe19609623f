"""From text to tokens and back: a tokenizer trained on a store's own reports, or one of a hub or directory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deri.errors import DeriError
from deri.files import atomic_files
from deri.models.hub import load_pretrained
from deri.models.text import source_of

HUB_IDS = {
    "pubmedbert": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
    "scibert": "allenai/scibert_scivocab_uncased",
    "clinicalbert": "emilyalsentzer/Bio_ClinicalBERT",
}
BOS, EOS, PAD = "[BOS]", "[EOS]", "[PAD]"
_LONGEST = 8  # pieces that one word may be put together from


class ReportTokenizer:
    """A Hugging Face tokenizer with a begin, an end and a padding token, whatever it came with.

    Begin and end are its own (BERT: [CLS] and [SEP]). GPT-2's ``<|endoftext|>`` is both; there, as in the paper, the
    end keeps it and ``[BOS]`` and ``[PAD]`` are added. A missing end or padding token is added too.

    Args:
        tokenizer: the Hugging Face tokenizer; it is changed.
        words: words with signs inside, to be put together again where the tokenizer takes them apart ("a - v").
        add: whether missing special tokens may be added; not when a saved tokenizer is loaded.
    """

    def __init__(self, tokenizer: Any, words: Iterable[str] | None = None, *, add: bool = True) -> None:
        self.hf = tokenizer
        if add:
            bos = tokenizer.bos_token or tokenizer.cls_token
            eos = tokenizer.eos_token or tokenizer.sep_token
            tokenizer.add_special_tokens(
                {
                    "eos_token": eos or EOS,
                    "bos_token": BOS if bos is None or bos == eos else bos,
                    "pad_token": tokenizer.pad_token if tokenizer.pad_token not in (None, eos, bos) else PAD,
                }
            )
        self.bos, self.eos, self.pad = (int(getattr(tokenizer, f"{name}_token_id")) for name in ("bos", "eos", "pad"))
        self.words = None if words is None else frozenset(words)

    @classmethod
    def trained(cls, texts: Sequence[str], size: int) -> ReportTokenizer:
        """A byte-level BPE of at most ``size`` tokens learned from ``texts``, which it renders without loss."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        raw.train_from_iterator(texts, trainer)
        return cls(PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, bos_token=BOS, eos_token=EOS))

    @classmethod
    def named(cls, name: str, texts: Sequence[str]) -> ReportTokenizer:
        """The tokenizer ``name``, fitted to the spelling of ``texts``.

        ``name`` is a key of ``HUB_IDS``, a text encoder as a recipe names it, a hub id or a directory.
        """
        from transformers import AutoTokenizer

        cure = "without a hub: tokenizer=scratch, or a directory with a saved tokenizer"
        source = HUB_IDS.get(name) or source_of(name)
        tokenizer = load_pretrained("tokenizer", source, AutoTokenizer, cure, weights=False)
        return cls.fitted(tokenizer, texts)

    @classmethod
    def fitted(cls, tokenizer: Any, texts: Sequence[str]) -> ReportTokenizer:
        """``tokenizer``, and the words of ``texts`` that it takes apart."""
        made = cls(tokenizer)
        sample = list(texts)[:2000]
        if any(made.decode(made.encode(text)) != text for text in sample):
            made.words = frozenset(
                word for text in texts for word in text.split() if len(re.findall(r"\w+|[^\w\s]", word)) > 1
            )
        return made

    def __len__(self) -> int:
        return len(self.hf)

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """Tokens of ``text`` and the end token; of a longer one the first ``most`` tokens, without an end."""
        ids: list[int] = list(self.hf(text, add_special_tokens=False, verbose=False)["input_ids"])
        return ids[:most] if most is not None and len(ids) >= most else [*ids, self.eos]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens up to the first end; white space as single blanks."""
        ids = [int(i) for i in ids]
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        text = self.hf.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        pieces = text.split()
        return " ".join(pieces if self.words is None else _join(pieces, self.words))

    def save(self, folder: Path) -> list[str]:
        """Write the tokenizer's files, and ``words.json`` where it has words; returns their names."""
        with atomic_files(folder) as aside:
            self.hf.save_pretrained(str(aside))
            if self.words is not None:
                words = json.dumps(sorted(self.words), ensure_ascii=False)
                (aside / "words.json").write_text(words, encoding="utf-8")
            return [file.name for file in aside.iterdir()]

    @classmethod
    def load(cls, folder: Path) -> ReportTokenizer:
        """Read what :meth:`save` wrote."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            cause = str(error).splitlines()[0]
            raise DeriError(f"{folder} has no usable tokenizer ({cause}); train or copy the writer again") from error
        words = folder / "words.json"
        return cls(tokenizer, json.loads(words.read_text(encoding="utf-8")) if words.is_file() else None, add=False)


def _join(pieces: list[str], words: frozenset[str]) -> list[str]:
    """Put neighbouring pieces together where they make a known word; the longest first."""
    out, i = [], 0
    while i < len(pieces):
        for k in range(min(_LONGEST, len(pieces) - i), 0, -1):
            word = "".join(pieces[i : i + k])
            if k == 1 or word in words:
                out.append(word)
                i += k
                break
    return out


def padded(sequences: Sequence[Sequence[int]], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as one array (B, T) int64 filled up with ``fill``, and their lengths (B,)."""
    lengths = np.array([len(ids) for ids in sequences], np.int64)
    out = np.full((len(sequences), int(lengths.max(initial=0))), fill, np.int64)
    for row, ids in zip(out, sequences, strict=True):
        row[: len(ids)] = ids
    return out, lengths
