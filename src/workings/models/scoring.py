"""contexts × continuations → log-probabilities: every context read once, whatever stands beside it in the batch.

A context is read once for all its continuations, also where several questions share it. Its last logits give each continuation's
first token; one more pass over the repeated cache gives the others. Rows are batched by length under a token budget.

Shapes: n contexts, R continuations, T positions, q tokens of a continuation, V rows of the output head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.nats import rows_of_a_piece, top_and_logsumexp

if TYPE_CHECKING:
    from workings.models.causal import LanguageModel


@dataclass(frozen=True)
class Scored:
    """One continuation: `tokens` are its log-probabilities in nats (float64 [q]), `total` their sum, 0 if there are none.

    `greedy`: each token is the likeliest at its place. `cut`: tokens that the context lost on its left to fit the positions.
    """

    total: float
    tokens: np.ndarray
    greedy: bool
    cut: int


@dataclass(frozen=True)
class _Asked:
    """A continuation, and the question and alternative it belongs to."""

    question: int
    alternative: int
    ids: Sequence[int]
    cut: int


_Context = tuple[int, ...]
_Group = tuple[_Context, list[_Asked]]


# Continuations -------------------------------------------------------------------------------------------------------


def logprobs(
    model: LanguageModel,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    batch_tokens: int,
) -> list[list[Scored]]:
    """See `LanguageModel.logprobs`."""
    if len(contexts) != len(continuations):
        raise BadInput(
            f"{len(contexts)} contexts but continuations for {len(continuations)}; give a list for each context"
        )
    nothing = Scored(0.0, np.zeros(0), True, 0)
    answers = [[nothing for _ in group] for group in continuations]
    groups = _by_context(model, contexts, continuations)
    for rows in budgeted([len(context) for context, _ in groups], batch_tokens, model.block):
        for one, tokens, best in _score([groups[i] for i in rows], model, batch_tokens):
            answers[one.question][one.alternative] = Scored(float(tokens.sum()), tokens, best, one.cut)
    return answers


def _by_context(
    model: LanguageModel, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[_Group]:
    """Each different context, as far as it fits the positions, with all that is asked about it."""
    groups: dict[_Context, list[_Asked]] = {}
    for i, (context, alternatives) in enumerate(zip(contexts, continuations, strict=True)):
        whole = tuple(context) or (model.start,)
        check_ids(whole, model)
        for j, ids in enumerate(alternatives):
            check_ids(ids, model)
            if not len(ids):
                continue
            # The last token is predicted and never read.
            room = model.context - (len(ids) - 1)
            if room < 1:
                raise BadInput(
                    f"a continuation of {len(ids)} tokens (question {i}, alternative {j}) does not fit the {model.context} "
                    f"positions of {model.name}; leave it out, or take a model with a longer context"
                )
            groups.setdefault(whole[-room:], []).append(_Asked(i, j, ids, max(0, len(whole) - room)))
    return list(groups.items())


def _score(groups: list[_Group], model: LanguageModel, batch_tokens: int) -> Iterator[tuple[_Asked, np.ndarray, bool]]:
    """All that is asked about one batch of contexts: log p of each token, and whether all are the likeliest."""
    asked = [(row, one) for row, (_, group) in enumerate(groups) for one in group]
    features, state = model.begin([context for context, _ in groups], max(len(one.ids) for _, one in asked) - 1)
    rows, firsts = torch.tensor([(row, one.ids[0]) for row, one in asked], device=model.device).T
    first, first_best = picked_logprobs(model, features, rows, firsts)
    width = len(groups[0][0])
    for chunk in budgeted([width + len(one.ids) for _, one in asked], batch_tokens):
        for some in _blocks(chunk, [(len(groups[row][0]), len(one.ids) - 1) for row, one in asked], model):
            rest, rest_best = _rest([asked[i] for i in some], model, state)
            for at, i in enumerate(some):
                one = asked[i][1]
                tokens = np.concatenate([first[i : i + 1], rest[at, : len(one.ids) - 1]])
                yield one, tokens, bool(first_best[i] and rest_best[at, : len(one.ids) - 1].all())


def _rest(asked: list[tuple[int, _Asked]], model: LanguageModel, state: Any) -> tuple[np.ndarray, np.ndarray]:
    """log p of every token but the first [R, q-1], and which are the likeliest; beyond a row's end they mean nothing."""
    ids = right_padded([one.ids for _, one in asked], model)
    n, q = len(ids), ids.shape[1] - 1
    if q == 0:
        return np.zeros((n, 0)), np.ones((n, 0), dtype=bool)
    rows = torch.tensor([row for row, _ in asked], device=model.device)
    features, _ = model.extend(ids[:, :-1], model.fork(state, rows, q))
    return _of_rows(model, features, ids[:, 1:], [len(one.ids) - 1 for _, one in asked])


def _of_rows(
    model: LanguageModel, features: Tensor, targets: Tensor, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """features [R, q, f], Long [R, q] → log p of the targets [R, q], and whether each is the likeliest; 0 beyond a row's length."""
    n, q = targets.shape
    real = np.flatnonzero(np.arange(q) < np.array(lengths)[:, None])
    said, best = np.zeros(n * q), np.ones(n * q, dtype=bool)
    at = torch.from_numpy(real).to(targets.device)
    said[real], best[real] = picked_logprobs(model, features.flatten(0, 1), at, targets.flatten()[at])
    return said.reshape(n, q), best.reshape(n, q)


# The next token ------------------------------------------------------------------------------------------------------


def next_logprobs(model: LanguageModel, prompts: Sequence[Sequence[int]], batch_tokens: int) -> Tensor:
    """See `LanguageModel.next_logprobs`."""
    rows = [list(prompt)[-model.context :] or [model.start] for prompt in prompts]
    out = torch.empty(len(rows), model.width)
    for row in rows:
        check_ids(row, model)
    for batch in budgeted([len(row) for row in rows], batch_tokens, model.block):
        features, _ = model.begin([rows[i] for i in batch], 0)
        for at in torch.arange(len(batch)).split(rows_of_a_piece(model.width, features.device)):
            out[torch.tensor(batch)[at]] = model.logits(features[at]).log_softmax(-1).cpu()
    return out


# Whole documents -----------------------------------------------------------------------------------------------------


def bits_per_byte(model: LanguageModel, documents: Iterable[Any], batch_tokens: int = 8192) -> pl.DataFrame:
    """How well a model predicts documents (`source`, `ids` without the opening token, `n_bytes` of the raw text).

    → one row a document, in the order given: `source`, `nats`, `bytes`, `tokens`; bits per byte of a source is
    Σ nats / (ln 2 · Σ bytes). The model's `start` opens each document and is not predicted, nor is an end of text.
    A document longer than the positions is read in windows that advance by half of them, so each later token is predicted once
    with at least half the positions before it. The convention is the same for every model.
    """
    documents = list(documents)
    nats = np.zeros(len(documents))
    pieces = [(i, *window) for i, document in enumerate(documents) for window in windows(document.ids, model)]
    with model.evaluating():
        for batch in budgeted([len(ids) for _, ids, _ in pieces], min(batch_tokens, model.block)):
            some = [pieces[i] for i in batch]
            ids = right_padded([ids for _, ids, _ in some], model)
            picked, _ = _of_rows(model, model.read(ids[:, :-1]), ids[:, 1:], [len(read) - 1 for _, read, _ in some])
            for row, (i, read, n_new) in zip(picked, some, strict=True):
                nats[i] -= row[len(read) - 1 - n_new : len(read) - 1].sum()
    columns = {"source": pl.String, "nats": pl.Float64, "bytes": pl.Int64, "tokens": pl.Int64}
    rows = [(d.source, n, d.n_bytes, len(d.ids)) for d, n in zip(documents, nats.tolist(), strict=True)]
    return pl.DataFrame(rows, schema=columns, orient="row")


def windows(ids: Sequence[int] | np.ndarray, model: LanguageModel) -> Iterator[tuple[list[int], int]]:
    """A document's ids → (tokens of a window, the last of which is only predicted; how many are predicted for the first time)."""
    whole = [model.start, *map(int, ids)]
    check_ids(whole, model)
    done = 1
    for begin in range(0, len(whole), max(1, model.context // 2)):
        end = min(len(whole), begin + model.context + 1)
        if end > done:
            yield whole[begin:end], end - done
            done = end


# What they share -----------------------------------------------------------------------------------------------------


def budgeted(lengths: Sequence[int], tokens: int, rows: int | None = None) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first; a batch is one row, or at most `rows` and `tokens`, padding included."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    at = 0
    while at < len(order):
        n = max(1, min(tokens // max(1, lengths[order[at]]), rows or len(order)))
        yield order[at : at + n]
        at += n


def _blocks(rows: list[int], lengths: list[tuple[int, int]], model: LanguageModel) -> Iterator[list[int]]:
    """Rows in blocks that fit together: `lengths` of context and continuation. The features fit the memory, and no padding
    of a short continuation behind a long context stands beyond the positions."""
    block: list[int] = []
    longest = [0, 0]
    for row in rows:
        grown = [max(pair) for pair in zip(longest, lengths[row], strict=True)]
        if block and (sum(grown) > model.context or grown[1] * (len(block) + 1) > model.block):
            yield block
            block, grown = [], list(lengths[row])
        block.append(row)
        longest = grown
    yield block


def right_padded(rows: Sequence[Sequence[int]], model: LanguageModel) -> Tensor:
    """Long [n, T]."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[model.eot] * (width - len(row))] for row in rows], device=model.device)


def picked_logprobs(
    model: LanguageModel, features: Tensor, rows: Tensor, targets: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """log p, float64 [R], of `targets` [R] at the features [m, f] of `rows` [R], in rising order, and which are the likeliest.

    The head is the dearest part of a small model: it is computed once a row, and only for rows that are asked for.
    """
    asked, which = rows.unique_consecutive(return_inverse=True)
    size = rows_of_a_piece(model.width, features.device)
    ends = torch.searchsorted(which, torch.arange(0, len(asked) + size, size, device=which.device)).tolist()
    picked, best = [], []
    for (begin, end), some in zip(pairwise(ends), asked.split(size), strict=True):
        logits, of = model.logits(features[some]), which[begin:end] - which[begin]
        said = logits[of, targets[begin:end]]
        top, log_z = top_and_logsumexp(logits, logits)
        picked.append(said.double() - log_z[of].double())
        best.append(said >= top[of])
    return torch.cat(picked).cpu().numpy(), torch.cat(best).cpu().numpy()


def check_ids(ids: Sequence[int], model: LanguageModel) -> None:
    """BadInput for an id that the model has no row for: on a GPU it would end the process."""
    if len(ids) and not 0 <= min(ids) <= max(ids) < model.width:
        wrong = next(i for i in ids if not 0 <= i < model.width)
        raise BadInput(
            f"id {wrong} is outside the {model.width} rows of {model.name}; were these ids made by its own tokenizer?"
        )
