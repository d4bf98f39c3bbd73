"""What can be put in the place of a thought, as values for `models.interventions`: from nothing to the token that a lens reads.

The vector fed at thought k is made of the state before it. So to replace a thought by what is read from it is to read that state
(at the opening token for k = 1) and to feed the embedding of the token. An embedding has another length than a thought; by default
it is given the thought's.
Shapes: b questions, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from workings import seeds
from workings.errors import BadInput
from workings.models.interventions import Moment, Value
from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens
from workings.reading.lens_kinds import LogitLens
from workings.reading.store import FINAL_NORM, ThoughtStore
from workings.reading.target_rules import value_in
from workings.reading.targets import EMPTY, Targets

TokenClass = Literal["number", "operator", "equals", "space", "other"]
_OPERATORS = {"+", "-", "*", "/", "×", "÷", "−"}


def zero(moment: Moment) -> Tensor:
    """Nothing."""
    return torch.zeros_like(moment.value)


def negation(moment: Moment) -> Tensor:
    """The negative of what would stand there: as far from it as from nothing."""
    return -moment.value


def noise(seed: int = 0) -> Value:
    """Normal noise of the length of what would stand there: does any change of this size do as much?"""

    def value(moment: Moment) -> Tensor:
        drawn = [
            torch.randn(moment.value.shape[1], generator=_generator(seed, moment.k, row))
            for row in moment.rows.tolist()
        ]
        return of_length(torch.stack(drawn).to(moment.value), moment.value)

    return value


def mean_of(vectors: Tensor) -> Value:
    """The mean of the vectors [n, K, d] of other problems at the same thought (mean ablation)."""
    means = vectors.mean(0)
    return lambda moment: means[moment.k - 1].to(moment.value).expand_as(moment.value)


def of_donors(vectors: Tensor, donors: Tensor) -> Value:
    """The vector of each question's donor at the same thought: `vectors` [n, K, d], `donors` Long [n]."""
    return lambda moment: vectors[donors[moment.rows], moment.k - 1].to(moment.value)


def embedded(model: ThoughtModel, tokens: Tensor, keep_length: bool = True) -> Value:
    """The embedding of a token: `tokens` Long [n, K] for each question and thought; `EMPTY` leaves the thought as it is.

    Args:
        model: Its input embedding is used.
        tokens: Token ids.
        keep_length: Give the embedding the length of the thought that it replaces.
    """

    def value(moment: Moment) -> Tensor:
        ids = tokens[moment.rows, moment.k - 1].to(moment.value.device)
        new = model.embed(ids.clamp(min=0)).to(moment.value)
        new = of_length(new, moment.value) if keep_length else new
        return torch.where((ids != EMPTY)[:, None], new, moment.value)

    return value


def read_by(model: ThoughtModel, lens: Lens, layer: str, keep_length: bool = True) -> Value:
    """The embedding of the likeliest token that a lens reads from the state which the thought is made of."""
    if layer not in lens.layers:
        raise BadInput(f"the {lens.name} has no layer '{layer}'; it has {', '.join(lens.layers)}")
    at = model.layers.index(layer)
    never = torch.tensor(model.forbidden())

    def value(moment: Moment) -> Tensor:
        position = "bot" if moment.k == 1 else f"t{moment.k - 1}"
        logits = lens.read(moment.before().hidden[:, at], layer, position).detach()
        ids = logits.index_fill(-1, never.to(logits.device), -torch.inf).argmax(-1)
        new = model.embed(ids).to(moment.value)
        return of_length(new, moment.value) if keep_length else new

    return value


def of_length(vectors: Tensor, like: Tensor) -> Tensor:
    """Vectors [b, d] with the lengths of others."""
    return F.normalize(vectors.float(), dim=-1).to(like) * like.norm(dim=-1, keepdim=True)


# ---- tokens for thoughts -------------------------------------------------------------------------------------------


def chain_tokens(targets: Targets, n_thoughts: int) -> Tensor:
    """The token that each thought is to be read as, Long [n, K]: of targets at `bot`, `t1` …, the one before it is fed."""
    places = [f"t{k - 1}" if k > 1 else "bot" for k in range(1, n_thoughts + 1)]
    if missing := [name for name in places if name not in targets.positions]:
        raise BadInput(f"the targets '{targets.rule}' have no position {', '.join(missing)}")
    return targets.ids[:, [targets.positions.index(name) for name in places], 0]


def class_of(text: str) -> TokenClass:
    """The class of a token by its text: a number, an operator, `=`, a space, or something else.

    >>> [class_of(text) for text in (" 54", "*", "=", " ", "pens")]
    ['number', 'operator', 'equals', 'space', 'other']
    """
    bare = text.strip()
    if not bare:
        return "space"
    if value_in(bare) is not None:
        return "number"
    return "operator" if bare in _OPERATORS else "equals" if bare == "=" else "other"


def random_of_class(tokens: Tensor, texts: Sequence[str], used: Sequence[int], seed: int = 0) -> Tensor:
    """Another token of the same class for each, drawn from those that solutions use; `EMPTY` where there is none.

    Args:
        tokens: Long [n, K].
        texts: The text of every token id.
        used: Token ids that stand in solutions.
        seed: Random seed.
    """
    by_class: dict[TokenClass, list[int]] = {}
    for token in sorted(set(used)):
        by_class.setdefault(class_of(texts[token]), []).append(token)
    random = seeds.python("random token of the class", seed)

    def another(token: int) -> int:
        others = [] if token == EMPTY else [i for i in by_class.get(class_of(texts[token]), []) if i != token]
        return random.choice(others) if others else EMPTY

    return tokens.new_tensor([[another(token) for token in row] for row in tokens.tolist()])


def next_number(tokens: Tensor, texts: Sequence[str]) -> Tensor:
    """The token of the number that is one more, where a token is a number and that number has a token; `EMPTY` elsewhere."""
    token_of: Mapping[str, int] = {text: i for i, text in reversed(list(enumerate(texts)))}

    def more(token: int) -> int:
        text = texts[token] if token != EMPTY else ""
        if not text.strip().isdigit():
            return EMPTY
        return token_of.get(text.replace(text.strip(), str(int(text) + 1)), EMPTY)

    return tokens.new_tensor([[more(token) for token in row] for row in tokens.tolist()])


def _generator(*parts: int) -> torch.Generator:
    return seeds.torch("noise " + " ".join(map(str, parts)), parts[0])


# ---- all of them -----------------------------------------------------------------------------------------------------

IN_WORDS = {
    "zero": "nothing",
    "mean": "the mean over other problems",
    "noise": "noise of its length",
    "negation": "its negative",
    "logit lens": "the token that the logit lens reads",
    "tuned lens": "the token that the tuned lens reads",
    "oracle": "the token of the chain that belongs there",
    "random of its class": "a random token of that one's class",
    "next number": "the number one above it, where it is one",
}


def of_a_study(
    model: ThoughtModel,
    store: ThoughtStore,
    targets: Targets,
    rows: Tensor,
    lens: Lens,
    layer: str,
    keep_length: bool = True,
    seed: int = 0,
) -> dict[str, Value]:
    """Every replacement of `IN_WORDS`, for some problems of a store.

    Args:
        model: The model that thought.
        store: Its thoughts, whose training problems give the means.
        targets: Probe targets: the oracle's tokens.
        rows: The problems that are answered, Long [m]; `Moment.rows` counts in these.
        lens, layer: The tuned lens, and where it reads.
        keep_length: Give an embedding the length of the thought that it replaces.
        seed: Random seed of noise and random tokens.
    """
    train = [store.as_problems()[row].question for row in targets.rows("train").tolist()[:_MEANS_OVER]]
    texts = model.tokens(range(len(model.unembedding.weight)))
    oracle = chain_tokens(replace(targets, **_rows_of(targets, rows)), model.n_thoughts)
    used = targets.ids[targets.rows("train")][targets.mask[targets.rows("train")]].tolist()
    put = lambda tokens: embedded(model, tokens, keep_length)
    return {
        "zero": zero,
        "mean": mean_of(model.think(train).projected),
        "noise": noise(seed),
        "negation": negation,
        "logit lens": read_by(model, LogitLens.of(model), FINAL_NORM, keep_length),
        "tuned lens": read_by(model, lens, layer, keep_length),
        "oracle": put(oracle),
        "random of its class": put(random_of_class(oracle, texts, used, seed)),
        "next number": put(next_number(oracle, texts)),
    }


_MEANS_OVER = 200  # training problems


def _rows_of(targets: Targets, rows: Tensor) -> dict[str, Any]:
    named = {name: tuple(getattr(targets, name)[row] for row in rows.tolist()) for name in ("problems", "splits")}
    return named | {name: getattr(targets, name)[rows] for name in ("ids", "new_value", "n_members", "chain_lengths")}
