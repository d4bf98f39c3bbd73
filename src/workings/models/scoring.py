"""contexts × continuations → log-probabilities: every context read once, whatever stands beside it in the batch.

A context is read once for all its continuations, also where several questions share it. Its last logits give each continuation's
first token; one more pass over the repeated cache gives the others. Rows are batched by length under a token budget.

Shapes: n contexts, R continuations, T positions, q tokens of a continuation, V rows of the output head. All logarithms are natural.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.causal import CausalModel, by_length, right_padded
from workings.models.kernels import n_rows_at_once, top_and_logsumexp

if TYPE_CHECKING:
    from workings.text.corpus import ValidationDocument


@dataclass(frozen=True)
class Scored:
    """A continuation: `token_logprobs` in nats (float64 [q]) and `total`, their sum, 0 if there are none.

    `greedy`: each token is the likeliest at its place. `n_cut`: tokens that the context lost on its left to fit the positions.
    """

    total: float
    token_logprobs: np.ndarray
    greedy: bool
    n_cut: int


@dataclass(frozen=True)
class _Continuation:
    """What is to be scored, and the question and alternative it belongs to."""

    question: int
    alternative: int
    ids: Sequence[int]
    n_cut: int


_Context = tuple[int, ...]


class LanguageModel(CausalModel):
    """A causal language model with its tokenizer, to be scored and to generate from. Abstract: kinds are final."""

    @torch.inference_mode()
    def logprobs(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[Sequence[int]]],
        batch_tokens: int = 8192,
    ) -> list[list[Scored]]:
        """log p of each continuation after its context, in nats: what one plain pass over both gives, whatever the batch.

        Args:
            contexts: Token ids; an empty context stands for `start`. One that does not fit the positions together with a
                continuation is cut on the left (`Scored.n_cut`).
            continuations: `continuations[i]` are the alternatives of `contexts[i]`.
            batch_tokens: The most tokens in a batch, padding included.

        Raises:
            BadInput: A continuation alone does not fit the positions, or an id is none of this model's.
        """
        if len(contexts) != len(continuations):
            raise BadInput(
                f"{len(contexts)} contexts but continuations for {len(continuations)}; give a list for each context"
            )
        scored = [[Scored(0.0, np.zeros(0), True, 0) for _ in group] for group in continuations]
        by_context: dict[_Context, list[_Continuation]] = {}
        for i, (context, alternatives) in enumerate(zip(contexts, continuations, strict=True)):
            whole = tuple(context) or (self.start,)
            self.check_ids(whole)
            for j, ids in enumerate(alternatives):
                self.check_ids(ids)
                longest = self.context_length - (len(ids) - 1)  # the last token is predicted and never read
                if longest < 1:
                    raise BadInput(
                        f"a continuation of {len(ids)} tokens (question {i}, alternative {j}) does not fit the "
                        f"{self.context_length} positions of {self.name}; leave it out, or take a model with a longer context"
                    )
                if len(ids):
                    one = _Continuation(i, j, ids, max(0, len(whole) - longest))
                    by_context.setdefault(whole[-longest:], []).append(one)
        groups = list(by_context.items())
        for rows in by_length([len(context) for context, _ in groups], self.n_positions_at_once, batch_tokens):
            for one, tokens, best in _score([groups[i] for i in rows], self, batch_tokens):
                scored[one.question][one.alternative] = Scored(float(tokens.sum()), tokens, best, one.n_cut)
        return scored

    def next_logprobs(self, prompts: Sequence[Sequence[int]], batch_tokens: int = 8192) -> Tensor:
        """log p of every next id [n, V], fp32 on the CPU; −inf for ids that may not be predicted.

        Long prompts are cut on the left.
        """
        rows = [list(prompt)[-self.context_length :] or [self.start] for prompt in prompts]
        for row in rows:
            self.check_ids(row)
        out = torch.empty(
            len(rows), self.vocab_size
        )  # made out here: the caller could not change one of inference mode
        with torch.inference_mode():
            for batch in by_length([len(row) for row in rows], self.n_positions_at_once, batch_tokens):
                features, _ = self.begin([rows[i] for i in batch], 0)
                for at in torch.arange(len(batch)).split(n_rows_at_once(self.vocab_size, features.device)):
                    out[torch.tensor(batch)[at]] = self.logits(features[at]).log_softmax(-1).cpu()
        return out


@torch.inference_mode()
def bits_per_byte(
    model: LanguageModel, documents: Iterable[ValidationDocument], batch_tokens: int = 8192
) -> pl.DataFrame:
    """Score whole documents, from which bits per byte of a source follow: Σ nats / (ln 2 · Σ bytes).

    The model's `start` opens each document and is not predicted, nor is an end of text. A document longer than the positions is
    read in windows that advance by half of them, so each later token is predicted once with at least half the positions before
    it. The convention is the same for every model.

    Args:
        model: The model to judge.
        documents: Read in batches of like length, and given back in their own order.
        batch_tokens: The most tokens in a batch, padding included.

    Returns:
        One row a document: `source`, `nats` (negative log-likelihood), `bytes` of the raw text, `tokens`.
    """
    documents = list(documents)
    nats = np.zeros(len(documents))
    pieces = [(i, *window) for i, document in enumerate(documents) for window in windows(document.ids, model)]
    n_tokens = min(batch_tokens, model.n_positions_at_once)
    for batch in by_length([len(read) for _, read, _ in pieces], n_tokens=n_tokens):
        some = [pieces[i] for i in batch]
        ids = right_padded([read for _, read, _ in some], model.eot, model.device)
        picked, _ = _of_rows(model, model.read(ids[:, :-1]), ids[:, 1:], [len(read) - 1 for _, read, _ in some])
        for row, (i, read, n_new) in zip(picked, some, strict=True):
            nats[i] -= row[len(read) - 1 - n_new : len(read) - 1].sum()
    columns = {"source": pl.String, "nats": pl.Float64, "bytes": pl.Int64, "tokens": pl.Int64}
    rows = [(d.source, n, d.n_bytes, len(d.ids)) for d, n in zip(documents, nats.tolist(), strict=True)]
    return pl.DataFrame(rows, schema=columns, orient="row")


def total_bits_per_byte(scored: pl.DataFrame) -> float:
    """Bits per byte of all documents of a `bits_per_byte` table together: Σ nats / (ln 2 · Σ bytes)."""
    return float(scored["nats"].sum()) / (math.log(2) * int(scored["bytes"].sum()))


def windows(ids: Sequence[int] | np.ndarray, model: LanguageModel) -> Iterator[tuple[list[int], int]]:
    """Windows of a document: tokens, the last of which is only predicted, and how many are predicted for the first time."""
    whole = [model.start, *map(int, ids)]
    model.check_ids(whole)
    done = 1
    for begin in range(0, len(whole), max(1, model.context_length // 2)):
        end = min(len(whole), begin + model.context_length + 1)
        if end > done:
            yield whole[begin:end], end - done
            done = end


# How a batch is scored ------------------------------------------------------------------------------------------------


def _score(
    groups: list[tuple[_Context, list[_Continuation]]], model: LanguageModel, batch_tokens: int
) -> Iterator[tuple[_Continuation, np.ndarray, bool]]:
    """Score all continuations of one batch of contexts: log p of each token, and whether all are the likeliest."""
    wanted = [(row, one) for row, (_, group) in enumerate(groups) for one in group]
    features, state = model.begin([context for context, _ in groups], max(len(one.ids) for _, one in wanted) - 1)
    rows, firsts = torch.tensor([(row, one.ids[0]) for row, one in wanted], device=model.device).T
    first, first_best = picked_logprobs(model, features, rows, firsts)
    width = len(groups[0][0])
    for chunk in by_length([width + len(one.ids) for _, one in wanted], n_tokens=batch_tokens):
        for some in _blocks(chunk, [(len(groups[row][0]), len(one.ids) - 1) for row, one in wanted], model):
            rest, rest_best = _rest([wanted[i] for i in some], model, state)
            for at, i in enumerate(some):
                one = wanted[i][1]
                tokens = np.concatenate([first[i : i + 1], rest[at, : len(one.ids) - 1]])
                yield one, tokens, bool(first_best[i] and rest_best[at, : len(one.ids) - 1].all())


def _rest(wanted: list[tuple[int, _Continuation]], model: LanguageModel, state: Any) -> tuple[np.ndarray, np.ndarray]:
    """log p of every token but the first [R, q-1], and which are the likeliest; beyond a row's end they mean nothing."""
    ids = right_padded([one.ids for _, one in wanted], model.eot, model.device)
    n, q = len(ids), ids.shape[1] - 1
    if q == 0:
        return np.zeros((n, 0)), np.ones((n, 0), dtype=bool)
    rows = torch.tensor([row for row, _ in wanted], device=model.device)
    features, _ = model.extend(ids[:, :-1], model.fork(state, rows, q))
    return _of_rows(model, features, ids[:, 1:], [len(one.ids) - 1 for _, one in wanted])


def _blocks(rows: list[int], lengths: list[tuple[int, int]], model: LanguageModel) -> Iterator[list[int]]:
    """Rows in blocks that can be read together, given the `lengths` of context and continuation.

    The features of a block fit the memory, and no padding of a short continuation behind a long context stands beyond the
    positions.
    """
    block: list[int] = []
    longest = [0, 0]
    for row in rows:
        grown = [max(pair) for pair in zip(longest, lengths[row], strict=True)]
        too_long = sum(grown) > model.context_length
        if block and (too_long or grown[1] * (len(block) + 1) > model.n_positions_at_once):
            yield block
            block, grown = [], list(lengths[row])
        block.append(row)
        longest = grown
    yield block


def _of_rows(
    model: LanguageModel, features: Tensor, targets: Tensor, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """log p of targets Long [R, q] at features [R, q, f], and whether each is the likeliest; 0 beyond a row's length."""
    n, q = targets.shape
    real = np.flatnonzero(np.arange(q) < np.array(lengths)[:, None])
    picked, best = np.zeros(n * q), np.ones(n * q, dtype=bool)
    at = torch.from_numpy(real).to(targets.device)
    picked[real], best[real] = picked_logprobs(model, features.flatten(0, 1), at, targets.flatten()[at])
    return picked.reshape(n, q), best.reshape(n, q)


def picked_logprobs(
    model: LanguageModel, features: Tensor, rows: Tensor, targets: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """log p of `targets` Long [R] at the features [m, f] of `rows` Long [R], which rise.

    The head is the dearest part of a small model: it is computed once a row, and only for rows that are needed.

    Returns:
        log p, float64 [R], and whether each target is the likeliest id, Bool [R].
    """
    needed, which = rows.unique_consecutive(return_inverse=True)
    size = n_rows_at_once(model.vocab_size, features.device)
    ends = torch.searchsorted(which, torch.arange(0, len(needed) + size, size, device=which.device)).tolist()
    picked, best = [], []
    for (begin, end), some in zip(pairwise(ends), needed.split(size), strict=True):
        logits, row = model.logits(features[some]), which[begin:end] - which[begin]
        target = logits[row, targets[begin:end]]
        top, log_z = top_and_logsumexp(logits, logits)
        picked.append(target.double() - log_z[row].double())
        best.append(target >= top[row])
    return torch.cat(picked).cpu().numpy(), torch.cat(best).cpu().numpy()
