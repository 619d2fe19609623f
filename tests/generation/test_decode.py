from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from deri.generation.config import Decoding
from deri.generation.decode import decode, restrict
from deri.generation.decoders.base import ReportDecoder
from support import writers

EOS = 0
BIAS = 16.0


class Chain(ReportDecoder):
    """A Markov chain over four tokens: the next token's logits are a row of a table, whatever the ECG."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, Any]:
        return self.table[-1].expand(len(memory) * copies, -1), None

    def advance(self, tokens: Tensor, state: Any) -> Tensor:
        return self.table[tokens]

    def reorder(self, state: Any, index: Tensor) -> None:
        return None


def chain(seed: int) -> Chain:
    return Chain(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) * 2)


def brute_force(table: Tensor, most: int) -> tuple[list[int], float]:
    """The likeliest of all texts that end within ``most`` tokens, or are cut there."""
    log_p = table.log_softmax(-1)
    best: tuple[float, list[int]] = (-np.inf, [])
    for n in range(1, most + 1):
        for text in itertools.product(range(4), repeat=n):
            ended = text[-1] == EOS
            if EOS in text[:-1] or (not ended and n < most):
                continue
            before = [-1, *text[:-1]]
            value = sum(float(log_p[a, b]) for a, b in zip(before, text, strict=True))
            best = max(best, (value, list(text)))
    return best[1], best[0]


@pytest.mark.parametrize("seed", range(6))
def test_many_beams_find_the_likeliest_text_of_all(seed: int) -> None:
    model = chain(seed)
    found = decode(
        model, torch.zeros(2, 1, 1), None, eos=EOS, options=Decoding(beams=64, length_penalty=0, max_tokens=4)
    )
    text, value = brute_force(model.table, 4)
    assert found.ids == [text, text]
    assert found.log_probs.tolist() == pytest.approx([value, value], abs=1e-5)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_given_start_is_read_and_not_returned(beams: int) -> None:
    model, memory = chain(3), torch.zeros(2, 1, 1)
    options = Decoding(beams=beams, max_tokens=4)
    found = decode(model, memory, None, eos=EOS, options=options, start=[3, 2])
    behind = Chain(torch.cat([model.table[:-1], model.table[2:3]]))  # a chain whose texts begin behind token 2
    expected = decode(behind, memory, None, eos=EOS, options=options)
    assert found.ids == expected.ids
    assert found.log_probs.tolist() == pytest.approx(expected.log_probs.tolist())


def ending_decoder() -> tuple[ReportDecoder, Any]:
    """A random GPT-2 that ends some texts early and some never."""
    decoder, tokenizer = writers.decoder(writers.config())
    lm: Any = decoder.lm
    head = torch.nn.Linear(*reversed(lm.lm_head.weight.shape))
    with torch.no_grad():
        head.weight.copy_(lm.lm_head.weight)
        head.bias.zero_()
        head.bias[tokenizer.eos] = BIAS
    lm.lm_head = head
    return decoder, tokenizer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "length_penalty": 2.0},
        {"num_beams": 3, "length_penalty": -0.5},
        {"num_beams": 3, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"repetition_penalty": 1.5},
    ],
)
def test_search_equals_that_of_transformers_on_the_same_scores(options: dict[str, Any]) -> None:
    decoder, tokenizer = ending_decoder()
    memory = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0)) * 3
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2, 3:] = False
    lm: Any = decoder.lm
    # Theirs counts the begin token as a part of the text; ours does not write it, and its texts begin behind it.
    options, processors = dict(options), LogitsProcessorList()
    if penalty := options.pop("repetition_penalty", None):
        processors.append(RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=1))
    with torch.inference_mode():
        theirs = lm.generate(
            torch.full((6, 1), tokenizer.bos),
            encoder_hidden_states=decoder.memory_input(memory),
            encoder_attention_mask=mask,
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=tokenizer.eos,
            pad_token_id=tokenizer.eos,
            return_dict_in_generate=True,
            output_scores=True,
            suppress_tokens=[tokenizer.bos],
            logits_processor=processors,
            **options,
        )
    ours = decode(
        decoder,
        memory,
        mask,
        eos=tokenizer.eos,
        banned=[tokenizer.bos],
        options=Decoding(
            beams=options.get("num_beams", 1),
            length_penalty=options.get("length_penalty", 1.0),
            no_repeat_ngram=options.get("no_repeat_ngram_size", 0),
            repetition_penalty=penalty or 1.0,
            max_tokens=24,
        ),
    )
    for text, row in zip(ours.ids, theirs.sequences.tolist(), strict=True):
        assert text == row[1 : len(text) + 1]
        assert set(row[len(text) + 1 :]) <= {tokenizer.eos}
    if "num_beams" in options:
        torch.testing.assert_close(ours.scores.float(), theirs.sequences_scores, rtol=1e-4, atol=1e-5)


def test_the_comparison_with_transformers_has_ended_and_cut_texts_of_different_lengths() -> None:
    decoder, tokenizer = ending_decoder()
    memory = torch.randn(40, 5, 8, generator=torch.Generator().manual_seed(0)) * 3
    found = decode(decoder, memory, None, eos=tokenizer.eos, options=Decoding(beams=3, max_tokens=24))
    assert len({len(ids) for ids in found.ids}) > 2
    assert 0 < int(found.finished.sum()) < 40


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder: Path = tmp_path_factory.mktemp("lm")
    return {
        "scratch": [],
        "gpt2": [f"writer={writers.save_gpt2(folder / 'gpt2')}"],
        "prefix": [f"writer=prefix:{writers.save_llama(folder / 'llama')}", "prefix_tokens=3"],
        "r2gen": ["writer=r2gen"],
    }


@pytest.mark.parametrize("kind", ["scratch", "gpt2", "prefix", "r2gen"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_gives_what_single_ecgs_give(sources: dict[str, list[str]], kind: str, beams: int) -> None:
    decoder, tokenizer = writers.decoder(writers.config(*sources[kind]))
    memory = torch.randn(7, 5, 8, generator=torch.Generator().manual_seed(4)) * 3
    mask = torch.arange(5) < torch.tensor([5, 1, 4, 5, 2, 3, 5])[:, None]
    options = Decoding(beams=beams, max_tokens=12)
    together = decode(decoder, memory, mask, eos=tokenizer.eos, options=options)
    alone = [decode(decoder, memory[i : i + 1], mask[i : i + 1], eos=tokenizer.eos, options=options) for i in range(7)]
    assert together.ids == [one.ids[0] for one in alone]
    torch.testing.assert_close(together.log_probs, torch.cat([one.log_probs for one in alone]), rtol=1e-4, atol=1e-4)
    # Vectors that do not count change nothing.
    other = torch.where(mask[:, :, None], memory, torch.full_like(memory, 9.0))
    assert decode(decoder, other, mask, eos=tokenizer.eos, options=options).ids == together.ids
    assert len({tuple(ids) for ids in together.ids}) > 1


@pytest.mark.parametrize("kind", ["scratch", "gpt2", "prefix", "r2gen"])
@pytest.mark.parametrize("beams", [1, 3])
def test_log_probability_is_the_training_loss_of_the_text(sources: dict[str, list[str]], kind: str, beams: int) -> None:
    decoder, tokenizer = writers.decoder(writers.config(*sources[kind]))
    memory = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(6)) * 3
    mask = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    options = Decoding(beams=beams, max_tokens=10, repetition_penalty=1.3)
    found = decode(decoder, memory, mask, eos=tokenizer.eos, options=options)
    for i, ids in enumerate(found.ids):
        with torch.inference_mode():
            padded = torch.tensor([[*ids, 7, 7]])  # what lies beyond the length must not count
            loss = decoder.loss(memory[i : i + 1], mask[i : i + 1], padded, torch.tensor([len(ids)]))
        assert float(found.log_probs[i]) == pytest.approx(-float(loss), rel=1e-4, abs=1e-4)


def test_a_text_that_never_ends_is_cut_and_marked() -> None:
    table = torch.tensor([[0.0, 1.0, 0.5, 0.2]]).repeat(5, 1)
    table[:, EOS] = -50
    for beams in (1, 2):
        found = decode(Chain(table), torch.zeros(2, 1, 1), None, eos=EOS, options=Decoding(beams=beams, max_tokens=6))
        assert found.ids == [[1] * 6] * 2
        assert not found.finished.any()
    found = decode(Chain(-table), torch.zeros(1, 1, 1), None, eos=EOS, options=Decoding(beams=1, max_tokens=6))
    assert found.ids == [[EOS]]
    assert found.finished.all()


def test_sampling_draws_by_probability_from_the_generator_given() -> None:
    model = Chain(torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(5, 1))
    options = Decoding(beams=1, sample=True, max_tokens=1, temperature=0.5)
    draws = [
        decode(
            model, torch.zeros(4000, 1, 1), None, eos=EOS, options=options, generator=torch.Generator().manual_seed(3)
        )
        for _ in range(2)
    ]
    assert draws[0].ids == draws[1].ids
    counts = np.bincount([ids[0] for ids in draws[0].ids], minlength=4) / 4000
    expected = np.exp([4.0, 2, 0, -2]) / np.exp([4.0, 2, 0, -2]).sum()
    assert np.abs(counts - expected).max() < 0.02
    # The log-probability is the model's, not that of the changed temperature.
    plain = np.log(np.exp([2.0, 1, 0, -1]) / np.exp([2.0, 1, 0, -1]).sum())
    assert draws[0].log_probs.numpy() == pytest.approx([plain[ids[0]] for ids in draws[0].ids], abs=1e-6)


def test_top_p_keeps_the_smallest_set_that_holds_it() -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    model = Chain(p.log().repeat(5, 1))
    for top_p, kept in ((0.39, {0}), (0.6, {0, 1}), (0.75, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        options = Decoding(beams=1, sample=True, max_tokens=1, top_p=top_p)
        generator = torch.Generator().manual_seed(0)
        found = decode(model, torch.zeros(500, 1, 1), None, eos=EOS, options=options, generator=generator)
        assert {ids[0] for ids in found.ids} == kept


def test_restrictions_by_hand() -> None:
    scores = torch.tensor([[1.0, -1.0, 2.0, 0.5]])
    penalised = restrict(scores, torch.tensor([[2, 1]]), Decoding(repetition_penalty=2.0))
    assert penalised.tolist() == [[1.0, -2.0, 1.0, 0.5]]
    # "1 2" has been written, and so has "1 3": behind another 1 neither may follow.
    texts = torch.tensor([[1, 2, 1, 3, 1]])
    assert restrict(scores, texts, Decoding(no_repeat_ngram=2)).tolist() == [[1.0, -1.0, -np.inf, -np.inf]]
    assert restrict(scores, texts, Decoding(), banned=[0]).tolist() == [[-np.inf, -1.0, 2.0, 0.5]]
    assert scores.tolist() == [[1.0, -1.0, 2.0, 0.5]]


def test_no_ecg_gives_no_text() -> None:
    assert decode(chain(0), torch.zeros(0, 1, 1), None, eos=EOS, options=Decoding()).ids == []
