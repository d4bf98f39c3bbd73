"""Questions × many edits of their thoughts → answers: what an edited run shares with the clean one is computed once.

Until its first edit a run is the clean run, which is kept thought by thought: every condition goes on from there. Conditions that
begin at the same thought run together, as rows of one batch.
Shapes: n questions, b of a batch, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.anatomy import Edit
from workings.models.thinking import Answer, ThoughtModel, ThoughtState

FED = "fed"
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Moment:
    """Where a value is asked for.

    Attributes:
        k: The thought, from 1.
        value: What would stand there, [b, d].
        rows: Which questions, Long [b].
        before: Gives the run before this thought was fed.
    """

    k: int
    value: Tensor
    rows: Tensor
    before: Callable[[], ThoughtState]


Value = Callable[[Moment], Tensor]
"""What is put in the place of `Moment.value`, [b, d]. It must treat each row by itself."""


@dataclass(frozen=True)
class Intervention:
    """A replacement at some thoughts.

    Attributes:
        value: What is put there.
        thoughts: At which thoughts, from 1.
        site: "fed", the vector that is fed at a thought; or the state after a block (`block1`, …) or `final_norm` at it. The last
            one is what the next thought is made of, and changes nothing else.
    """

    value: Value
    thoughts: tuple[int, ...]
    site: str = FED


@dataclass(frozen=True)
class Condition:
    """Interventions of one run, and after how many thoughts it answers; as many as the model has, by default."""

    interventions: tuple[Intervention, ...] = ()
    n_thoughts: int | None = None

    @property
    def first(self) -> int:
        """The first thought that is edited; 0 where none is."""
        return min((min(each.thoughts) for each in self.interventions), default=0)


@dataclass(frozen=True)
class Answered:
    """Answers under one condition, and how far their first token is from the clean run's: KL(clean ‖ edited) in nats [n].

    It is the first token of what an answer gives, behind what every answer begins with ("The answer is:").
    """

    answers: list[Answer]
    divergence: Tensor


@torch.no_grad()
def answers_under(
    model: ThoughtModel,
    questions: Sequence[str],
    conditions: Mapping[str, Condition],
    *,
    batch_size: int = 64,
    max_new_tokens: int = 16,
    rows_at_once: int = ROWS_AT_ONCE,
) -> dict[str, Answered]:
    """Greedy answers to questions under each condition.

    Args:
        model: The model that thinks and answers.
        questions: As text.
        conditions: By name. One without interventions and with all thoughts is the clean run.
        batch_size: The most questions in a batch.
        max_new_tokens: Of each answer.
        rows_at_once: The most rows in a batch of edited runs; a condition has a row for each question of its batch.

    Raises:
        BadInput: There is no such thought or site.

    >>> from workings.models import open_model
    >>> model = open_model("bundled")
    >>> zero = Intervention(lambda moment: torch.zeros_like(moment.value), thoughts=(1, 2, 3, 4, 5, 6))
    >>> from workings.arithmetic.generator import PRESETS, generate
    >>> asked = [problem.question for problem in generate(2, PRESETS["bundled"], seed=0)]
    >>> found = answers_under(model, asked, {"own": Condition(), "zero": Condition((zero,))})
    >>> found["own"].divergence.tolist(), bool((found["zero"].divergence > 0).all())
    ([0.0, 0.0], True)
    """
    for name, condition in conditions.items():
        _refuse_impossible(name, condition, model)
    answers: dict[str, list[Any]] = {name: [None] * len(questions) for name in conditions}
    divergence = {name: torch.zeros(len(questions)) for name in conditions}
    for rows in model.batches(questions, batch_size):
        clean = _Clean.of(model, [questions[i] for i in rows], torch.tensor(rows))
        for names, state in _edited(clean, conditions, max(1, rows_at_once // len(rows))):
            written = model.greedy_answer(state, max_new_tokens)
            of_each = model.log_p_of_answer(state).split(len(rows))
            for at, name in enumerate(names):
                for i, ids in zip(rows, written[at * len(rows) : (at + 1) * len(rows)], strict=True):
                    answers[name][i] = model.answer_of(ids)
                divergence[name][rows] = clean.divergence(of_each[at]).cpu()
    return {name: Answered(answers[name], divergence[name]) for name in conditions}


@dataclass
class _Clean:
    """The clean run of one batch: its states after no, one, … all thoughts, and the log-probabilities that it answers with."""

    model: ThoughtModel
    rows: Tensor
    states: list[ThoughtState]
    log_p: Tensor

    @classmethod
    def of(cls, model: ThoughtModel, questions: Sequence[str], rows: Tensor) -> _Clean:
        states = [model.begin(model.prompt(questions))]
        for _ in range(model.n_thoughts):
            states.append(model.step(states[-1]))
        return cls(model, rows, states, model.log_p_of_answer(states[-1]))

    def divergence(self, log_p: Tensor) -> Tensor:
        """KL(clean ‖ edited) [b]."""
        return (self.log_p.exp() * (self.log_p - log_p)).nan_to_num().sum(1).clamp(min=0)


def _edited(
    clean: _Clean, conditions: Mapping[str, Condition], n_at_once: int
) -> Iterator[tuple[list[str], ThoughtState]]:
    """(names, the state before the answer) of conditions that ran together, the rows of the first name first."""
    last = lambda name: _n_thoughts(conditions[name], clean.model)
    begins = lambda name: (conditions[name].first or last(name) + 1, last(name))
    for (first, k_last), group in groupby(sorted(conditions, key=begins), key=begins):
        names = list(group)
        for start in range(0, len(names), n_at_once):
            some = names[start : start + n_at_once]
            state = clean.states[min(first - 1, k_last)]
            b = len(state.visible)
            if len(some) > 1:
                state = clean.model.fork(state, torch.arange(b).repeat(len(some)))
            parts = [_Part(conditions[name], slice(i * b, (i + 1) * b)) for i, name in enumerate(some)]
            for k in range(first, k_last + 1):
                state = _step(clean, state, parts, k)
            yield some, state


@dataclass(frozen=True)
class _Part:
    """A condition, and its rows in a batch of several."""

    condition: Condition
    here: slice

    def replaced(self, site: str, moment: Callable[[slice], Moment], k: int) -> Tensor:
        """What stands at a site, [b, d]."""
        found = moment(self.here)
        for each in self.condition.interventions:
            if each.site == site and k in each.thoughts:
                value = each.value(found).to(found.value.dtype)
                found = replace(found, value=value)
        return found.value


def _step(clean: _Clean, state: ThoughtState, parts: Sequence[_Part], k: int) -> ThoughtState:
    model = clean.model

    def put(site: str, values: Tensor) -> Tensor:
        run = lambda here: model.fork(
            state, range(here.start, here.stop)
        )  # copies the cache: for values that ask for it
        moment = lambda here: Moment(k, values[here], clean.rows, lambda: run(here))
        return torch.cat([part.replaced(site, moment, k) for part in parts])

    sites = {each.site for part in parts for each in part.condition.interventions if k in each.thoughts}
    z = model.feed(state.final, state.n_fed)
    edits = [Edit(site, lambda h, site=site: put(site, h)) for site in sorted(sites - {FED})]
    return model.step(state, put(FED, z) if FED in sites else z, edits)


def _n_thoughts(condition: Condition, model: ThoughtModel) -> int:
    return model.n_thoughts if condition.n_thoughts is None else condition.n_thoughts


def _refuse_impossible(name: str, condition: Condition, model: ThoughtModel) -> None:
    last = _n_thoughts(condition, model)
    if not 0 <= last <= model.n_thoughts:
        raise BadInput(f"'{name}' answers after {last} thoughts; the model has {model.n_thoughts}")
    sites = (FED, *(layer for layer in model.layers if layer != "embed"))
    for each in condition.interventions:
        if each.site not in sites:
            raise BadInput(f"'{name}' edits '{each.site}'; there are {', '.join(sites)}")
        if not each.thoughts or min(each.thoughts) < 1 or max(each.thoughts) > last:
            raise BadInput(f"'{name}' edits thoughts {list(each.thoughts)}; there are 1 to {last}")
