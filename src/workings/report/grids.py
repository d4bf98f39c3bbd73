"""What a lens reads from one problem: a grid of layers × positions, each cell with its best guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workings.report.shapes import same_length


@dataclass(frozen=True)
class Guess:
    """A token (decoded text, possibly blank or broken) and its probability under the full softmax."""

    token: str
    probability: float
    is_target: bool = False

    def __post_init__(self) -> None:
        if self.probability > 1.0 + 1e-6 or self.probability < 0.0:
            raise ValueError(f"{self.token!r} has probability {self.probability}; a probability lies between 0 and 1")


@dataclass(frozen=True)
class Reading:
    """What a lens reads from one state: its best guesses, and how the target fared when it is not among them.

    `target_rank` counts tokens with a larger logit, as the readings table does: 0 is the first guess.
    """

    guesses: Sequence[Guess]
    target_rank: int | None = None
    target_probability: float | None = None

    def target_is_elsewhere(self) -> bool:
        """Whether the target's rank is known and none of the guesses is the target."""
        return self.target_rank is not None and not any(guess.is_target for guess in self.guesses)


@dataclass(frozen=True)
class ReadingGrid:
    """One problem read everywhere: `cells[layer][position]`; `targets`: one token a position (None: an empty slot)."""

    question: str
    chain: str
    gold: str
    answer: str
    correct: bool
    layers: Sequence[str]
    positions: Sequence[str]
    cells: Sequence[Sequence[Reading]]
    targets: Sequence[str | None] = ()
    problem: str = ""

    def __post_init__(self) -> None:
        where = f"reading grid of {self.question[:40]!r}"
        same_length(where, "cells", self.cells, "layers", self.layers)
        for layer, row in zip(self.layers, self.cells, strict=True):
            same_length(f"{where}, layer {layer!r}", "cells", row, "positions", self.positions)
        if self.targets:
            same_length(where, "targets", self.targets, "positions", self.positions)
