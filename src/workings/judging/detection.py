"""States × problems → how strongly a value would have to be carried to be read: what a "no" would have seen.

Copies of the real states are given to other problems, so that they hold nothing of what is asked. Then the true value of each
problem is planted at one place: a direction for each value, drawn as the difference of two states, so that it lies where the states
themselves vary. (What is carried where they vary little is seen at a fraction of the strength.) Questions, values and question
readers stay as they are, and the search and the decision of a verdict say whether the value is read.
A strength is in units of the standard deviation of the states at that place: at 1, values vary the states as much as everything
else does.
Shapes: n problems that have the target, N problems of the states, P positions, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from workings import seeds
from workings.errors import BadInput
from workings.judging.conditional import MODEL, Asked, Fold
from workings.judging.readers import Floats
from workings.judging.statistics import Interval, wilson
from workings.judging.verdict import RUNGS, verdicts
from workings.models.anatomy import is_thought
from workings.reading.store import HiddenStates, StatesInMemory

STRENGTHS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.13, 1.6)
N_DRAWS = 8
N_BESIDE = (
    1  # other thoughts of the layer that are searched too; what they hold is as much noise as at the other places
)


@dataclass(frozen=True)
class DetectionCurve:
    """How often a planted value was read, by its strength.

    Attributes:
        rule, rung: The target, and the question readers that had to be beaten.
        layer, position: The place at which it was planted.
        strengths: In standard deviations of the states; increasing.
        n_read: Draws in which it was read, for each strength.
        n_draws: Draws: which problem's states each problem is given, and the directions.
    """

    rule: str
    rung: str
    layer: str
    position: str
    strengths: tuple[float, ...]
    n_read: tuple[int, ...]
    n_draws: int

    @property
    def shares(self) -> list[tuple[float, Interval]]:
        """For each strength the share of draws in which it was read, with its 95 % interval (Wilson)."""
        return [(n / self.n_draws, wilson(n, self.n_draws)) for n in self.n_read]

    def strength_read_in(self, share: float) -> float:
        """The least strength at which at least this share of the draws was read; infinite where none is strong enough.

        >>> DetectionCurve("step2", "computing", "block1", "t2", (0.1, 0.2, 0.4), (0, 5, 8), 8).strength_read_in(0.9)
        0.4
        """
        enough = (s for s, n in zip(self.strengths, self.n_read, strict=True) if n >= share * self.n_draws)
        return next(enough, float("inf"))


def detection_curve(
    asked: Asked,
    hidden: HiddenStates,
    layer: str,
    position: str,
    rung: str = RUNGS[-1],
    strengths: Sequence[float] = STRENGTHS,
    n_draws: int = N_DRAWS,
) -> DetectionCurve:
    """Plant a target into copies of states with several strengths, and let the judge look for it.

    It is read where the answer of `verdict.verdicts` is yes for the target judged alone, with the question readers as the only
    rivals. The other rivals of a verdict (an untrained model, shuffled targets) hold nothing of what was planted, and are left out.
    In one draw, what is read with one strength counts as read with every greater one: three or four fits find where that begins.

    Args:
        asked, rung: As in `conditional.judged`.
        hidden: The states.
        layer, position: The place that is planted, a thought; the place where a verdict read is the natural one.
        strengths: Strengths to try, in standard deviations of the states.
        n_draws: Draws, each with its own directions.

    Raises:
        BadInput: There is no such place, or it is no thought.
    """
    if layer not in hidden.layers or position not in hidden.positions or not is_thought(position):
        raise BadInput(
            f"{layer}/{position} is no place of a thought; there are {', '.join(hidden.layers)} and t1, t2, …"
        )
    rule = asked.rule
    folds = [_PlantedFold(fold, rung) for fold in asked.folds]
    alone = [fold.question() for fold in folds]
    strengths = tuple(sorted(strengths))
    begins = []
    for draw in range(n_draws):
        states = _Draw.of(asked, hidden, layer, position, seeds.derive(f"planted {rule} {draw}", asked.seed))

        def is_read(strength: float, states: _Draw = states) -> bool:
            planted = states.with_strength(strength)
            tables = [fold.beside(planted) for fold in folds]
            return verdicts({rule: pl.concat([*alone, *tables])}, rung)[rule].read.answer == "yes"

        begins.append(_first(is_read, strengths))
    n_read = tuple(sum(begin <= i for begin in begins) for i in range(len(strengths)))
    return DetectionCurve(rule, rung, layer, position, strengths, n_read, n_draws)


def _first(is_read: Callable[[float], bool], strengths: Sequence[float]) -> int:
    """The index of the least strength that is read, by bisection; their number, where none is."""
    unread, read = -1, len(strengths)
    while read - unread > 1:
        middle = (unread + read) // 2
        if is_read(strengths[middle]):
            read = middle
        else:
            unread = middle
    return read


@dataclass(frozen=True)
class _Draw:
    """States that hold nothing of the target, and what is to be planted into them.

    Attributes:
        states: Of one layer, each problem's those of another problem [N, P, d]; the first position is planted.
        directions: Of each problem's value, at strength 1 [N, d].
        like: Where the states come from.
    """

    states: Tensor
    directions: Tensor
    positions: tuple[str, ...]
    layer: str
    like: HiddenStates

    @classmethod
    def of(cls, asked: Asked, hidden: HiddenStates, layer: str, position: str, seed: int) -> _Draw:
        random = seeds.numpy("planted directions", seed)
        thoughts = [p for p in hidden.positions if is_thought(p) and p != position]
        positions = (position, *random.permutation(thoughts)[:N_BESIDE].tolist())
        at = [hidden.positions.index(p) for p in positions]
        rows = torch.from_numpy(asked.rows)
        states = torch.zeros(len(hidden.ids), len(at), hidden.hidden(layer, rows[:1]).shape[-1])
        states[rows] = hidden.hidden(layer, rows[torch.from_numpy(random.permutation(len(rows)))])[:, at].float()
        values = sorted(set(asked.values))
        pairs = rows[torch.from_numpy(random.integers(len(rows), size=2 * len(values)))]
        ends = hidden.hidden(layer, pairs)[:, at[0]].float()
        of_value = (
            ends[: len(values)] - ends[len(values) :]
        ) / 2**0.5  # the difference of two states varies twice as much as one
        planted = torch.zeros(len(hidden.ids), states.shape[-1])
        planted[rows] = of_value[[values.index(value) for value in asked.values]]
        return cls(states, planted, positions, layer, hidden)

    def with_strength(self, strength: float) -> StatesInMemory:
        states = self.states.clone()
        states[:, 0] += strength * self.directions
        return StatesInMemory({self.layer: states}, self.positions, self.like.ids, self.like.fingerprint)


class _PlantedFold:
    """One fold: the question readers are fitted once, the states' with every strength."""

    def __init__(self, fold: Fold, rung: str) -> None:
        self.fold, self.rung = fold, rung
        self.stack: list[Floats] = [reader.log_p for reader in fold.question_readers(rung)]
        self.base = fold.pool(self.stack)

    def question(self) -> pl.DataFrame:
        """Rows of the stack of question readers alone."""
        return self.fold.rows(self.rung, "", "S", self.base)

    def beside(self, hidden: HiddenStates) -> pl.DataFrame:
        """Rows of the stack with the states, at the place that is chosen."""
        found = self.fold.search(hidden, {self.rung: self.base})[self.rung]
        return self.fold.rows(self.rung, MODEL, "S+T", self.fold.pool([*self.stack, found.log_p]), found)
