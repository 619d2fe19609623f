"""Search for a text: greedy, beams, or sampling, for many ECGs at once and with each decoder's own cache.

All texts start at the same place, so that nothing is padded on the left and a batch gives what single ECGs give.
The beam search is that of transformers (``early_stopping=False``), which a test compares; being here, it serves
decoders with a recurrent memory as well, and samples from a generator that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deri.generation.config import Decoding
from deri.generation.decoders.base import ReportDecoder

_NEVER = -1.0e9


@dataclass
class Decoded:
    """Texts of B ECGs as tokens.

    Attributes:
        ids: token lists, without begin and with end where there is one.
        log_probs: (B,) float64, log-probability (nats) of each text under the model itself: before penalties,
            temperature and banned tokens.
        scores: (B,) float64, what the search ranked by: beams: summed log-probability over length ** length_penalty.
        finished: (B,) bool, False where ``max_tokens`` came before the end.
    """

    ids: list[list[int]]
    log_probs: Tensor
    scores: Tensor
    finished: Tensor


@torch.inference_mode()
def decode(
    decoder: ReportDecoder,
    memory: Tensor,
    mask: Tensor | None,
    *,
    eos: int,
    options: Decoding,
    banned: Sequence[int] = (),
    start: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Decoded:
    """Write one text per memory.

    Args:
        decoder: in eval mode.
        memory: (B, m, d).
        mask: (B, m) bool or None.
        eos: the token that ends a text.
        options: how.
        banned: tokens that are never written, as padding.
        start: tokens that every text begins with; they are given, and not part of what is returned.
        generator: of the draws, on the CPU; needed to sample.
    """
    if not len(memory):
        empty = torch.zeros(0, dtype=torch.float64)
        return Decoded([], empty, empty, torch.zeros(0, dtype=torch.bool))
    if options.sample and generator is None:
        raise ValueError("sampling needs a generator")
    logits, state = decoder.begin(memory, mask, options.beams)
    for token in start:
        logits = decoder.advance(torch.full((len(logits),), token, device=logits.device), state)

    def allowed(scores: Tensor, texts: Tensor) -> Tensor:
        return restrict(scores, texts, options, banned)

    def choose(logits: Tensor, texts: Tensor) -> Tensor:
        scores = allowed(logits, texts)
        return _draw(scores, options, generator) if options.sample else scores.argmax(dim=-1)

    if options.beams > 1:
        return _beams(decoder, logits, state, eos, options, allowed)
    return _single(decoder, logits, state, eos, options.max_tokens, choose)


def _single(
    decoder: ReportDecoder, logits: Tensor, state: Any, eos: int, most: int, choose: Callable[[Tensor, Tensor], Tensor]
) -> Decoded:
    """One text per row: ``choose`` gives the next tokens from their logits and the texts so far."""
    b, device = len(logits), logits.device
    texts = torch.full((b, most), eos, device=device)
    lengths = torch.full((b,), most, device=device)
    log_probs = torch.zeros(b, dtype=torch.float64, device=device)
    done = torch.zeros(b, dtype=torch.bool, device=device)
    for step in range(most):
        token = torch.where(done, eos, choose(logits, texts[:, :step]))
        gained = logits.log_softmax(dim=-1).gather(1, token[:, None])[:, 0].double()
        log_probs += torch.where(done, 0.0, gained)
        texts[:, step] = token
        ends = (token == eos) & ~done
        lengths[ends] = step + 1
        done |= ends
        if bool(done.all()) or step + 1 == most:
            break
        logits = decoder.advance(token, state)
    return Decoded(_cut(texts, lengths), log_probs.cpu(), log_probs.cpu(), done.cpu())


def _draw(scores: Tensor, options: Decoding, generator: torch.Generator | None) -> Tensor:
    """One token per row from the smallest set of likeliest tokens that holds ``top_p`` of the probability."""
    p = (scores / options.temperature).softmax(dim=-1).cpu()
    if options.top_p < 1:
        ranked, order = p.sort(dim=-1, descending=True)
        # The first token is always kept: what counts is the probability before a token.
        ranked[ranked.cumsum(dim=-1) - ranked >= options.top_p] = 0
        p = torch.zeros_like(p).scatter(1, order, ranked)
    return torch.multinomial(p, 1, generator=generator)[:, 0].to(scores.device)


def _beams(
    decoder: ReportDecoder,
    logits: Tensor,
    state: Any,
    eos: int,
    options: Decoding,
    allowed: Callable[[Tensor, Tensor], Tensor],
) -> Decoded:
    k, most, v, device = options.beams, options.max_tokens, logits.shape[-1], logits.device
    b = len(logits) // k
    running = _Beams.new(b, k, most, eos, device)
    running.scores[:, 0] = 0  # at first all copies are the same text: only one of them counts
    finished = _Beams.new(b, k, most, eos, device)
    open_ = torch.ones(b, 1, dtype=torch.bool, device=device)
    # Twice as many candidates as beams, so that enough go on even if half of them end.
    wide = min(2 * k, k * v)
    first = torch.arange(wide, device=device) < k
    offset = torch.arange(b, device=device)[:, None] * k
    for step in range(most):
        plain = logits.log_softmax(dim=-1)
        scores = allowed(plain, running.texts.view(b * k, most)[:, :step])
        total = (running.scores[:, :, None] + scores.view(b, k, v)).view(b, k * v)
        best, at = total.topk(wide, dim=1)
        source, token = at // v, at % v
        candidates = running.take(source)
        candidates.log_probs.add_(plain.view(b, k * v).gather(1, at).double())
        candidates.texts[:, :, step] = token
        candidates.lengths[:] = step + 1
        stops = (token == eos) | (step + 1 == most)
        closes = stops & first & open_
        penalty = (step + 1) ** options.length_penalty

        finishing = candidates._replace(scores=best / penalty + _NEVER * (~closes).float(), closed=closes)
        pool = finished.join(finishing)
        finished = pool.take(pool.scores.topk(k, dim=1)[1])

        going = best + _NEVER * stops.float()
        places = going.topk(k, dim=1)[1]
        running = candidates._replace(scores=going).take(places)

        worst = torch.where(finished.closed, finished.scores.min(dim=1, keepdim=True)[0], _NEVER)
        open_ = open_ & (running.scores[:, :1] / penalty > worst).any(dim=1, keepdim=True)
        if step + 1 == most or not bool(open_.any()):
            break
        decoder.reorder(state, (source.gather(1, places) + offset).view(-1))
        logits = decoder.advance(running.texts[:, :, step].reshape(-1), state)
    ids = _cut(finished.texts[:, 0], finished.lengths[:, 0])
    return Decoded(
        ids,
        finished.log_probs[:, 0].cpu(),
        finished.scores[:, 0].double().cpu(),
        torch.tensor([bool(text) and text[-1] == eos for text in ids]),
    )


def _cut(texts: Tensor, lengths: Tensor) -> list[list[int]]:
    return [text[:n] for text, n in zip(texts.tolist(), lengths.tolist(), strict=True)]


class _Beams(NamedTuple):
    """Texts (B, k, L); and (B, k) each: what they rank by, log-probability, length, and whether they have ended."""

    texts: Tensor
    scores: Tensor
    log_probs: Tensor
    lengths: Tensor
    closed: Tensor

    @classmethod
    def new(cls, b: int, k: int, most: int, eos: int, device: torch.device) -> _Beams:
        return cls(
            torch.full((b, k, most), eos, device=device),
            torch.full((b, k), _NEVER, device=device),
            torch.zeros(b, k, dtype=torch.float64, device=device),
            torch.zeros(b, k, dtype=torch.int64, device=device),
            torch.zeros(b, k, dtype=torch.bool, device=device),
        )

    def take(self, index: Tensor) -> _Beams:
        return _Beams(*(torch.take_along_dim(x, index if x.dim() == 2 else index[:, :, None], dim=1) for x in self))

    def join(self, other: _Beams) -> _Beams:
        return _Beams(*(torch.cat(pair, dim=1) for pair in zip(self, other, strict=True)))


def restrict(scores: Tensor, texts: Tensor, options: Decoding, banned: Sequence[int] = ()) -> Tensor:
    """Logits or log-probabilities (rows, V) under the rules against repetition, as transformers applies them.

    Args:
        scores: of the next token.
        texts: (rows, t) tokens so far.
        options: ``repetition_penalty`` (Keskar et al. 2019: positive scores divided by it, negative multiplied) and
            ``no_repeat_ngram``.
        banned: tokens that are never written.
    """
    if options.repetition_penalty != 1 and texts.shape[1]:
        old = scores.gather(1, texts)
        p = options.repetition_penalty
        scores = scores.scatter(1, texts, torch.where(old < 0, old * p, old / p))
    n = options.no_repeat_ngram
    if n and texts.shape[1] >= n:
        grams = texts.unfold(1, n, 1)
        again = (grams[:, :, :-1] == texts[:, None, texts.shape[1] - n + 1 :]).all(dim=2)
        rows, places = again.nonzero(as_tuple=True)
        scores = scores.clone()
        scores[rows, grams[rows, places, -1]] = float("-inf")
    if banned:
        scores = scores.index_fill(1, torch.tensor(list(banned), device=scores.device), float("-inf"))
    return scores
