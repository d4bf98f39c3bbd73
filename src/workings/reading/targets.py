"""Written chains → what each (problem, position) is asked about, by a named rule.

A slot without a target is masked and counted, never a token. Shapes: n problems, P positions, N tokens of a chain.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

from workings import seeds
from workings.arithmetic.chain import LONGEST_NUMBER, evaluate
from workings.arithmetic.problems import Problem
from workings.errors import BadInput

SPLITS = ("train", "val", "test")
EMPTY = -1
"""The id of a masked slot: no token has it, so that a forgotten mask fails loudly."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(_DIGITS)
_WRITTEN = re.compile(rf"-?\$?{_DIGITS}%?")


@dataclass(frozen=True)
class Targets:
    """`ids` Long [n, P]; `mask`, `new_value`, `multi_token` Bool [n, P]; a row per problem, as in the store.

    `new_value`: the target is a number that stands neither in the question nor in the answer. `multi_token`: what the
    target stands for is longer than the one token that is asked for.
    """

    rule: str
    ids: Tensor
    mask: Tensor
    new_value: Tensor
    multi_token: Tensor
    problems: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def n_empty(self) -> int:
        """Slots with no target."""
        return int((~self.mask).sum())

    @property
    def n_empty_by_position(self) -> list[int]:
        return (~self.mask).sum(0).tolist()

    @property
    def multi_token_share(self) -> float:
        """Share of the targets of which only the first token is asked for; 0 where there is no target."""
        return float(self.multi_token[self.mask].float().mean()) if self.mask.any() else 0.0

    @property
    def digest(self) -> str:
        """sha256 of rule, problems, splits, ids and mask."""
        sha256 = hashlib.sha256("\n".join((self.rule, *self.problems, *self.splits)).encode())
        sha256.update(self.ids.contiguous().numpy().tobytes() + self.mask.contiguous().numpy().tobytes())
        return sha256.hexdigest()

    def rows(self, split: str) -> Tensor:
        """Long [m]: the rows of one split, in order."""
        return torch.tensor([i for i, name in enumerate(self.splits) if name == split], dtype=torch.long)

    def shuffled(self, seed: int) -> Targets:
        """The control: every problem gets the whole row of targets of another problem of its split (alone, its own).

        A slot counts only where both rows have a target, so that receiver and donor are asked at the same positions;
        `new_value` stays that of the slot, so that the same slots are compared.
        """
        donors = torch.arange(len(self.ids))
        for split in dict.fromkeys(self.splits):
            rows = self.rows(split)
            cycle = rows[torch.randperm(len(rows), generator=seeds.torch(f"shuffled targets {split}", seed))]
            donors[cycle] = cycle.roll(1)  # one cycle through the split: nobody keeps its own
        mask = self.mask & self.mask[donors]
        return replace(
            self,
            rule=f"{self.rule}, shuffled",
            ids=self.ids[donors].where(mask, EMPTY),
            mask=mask,
            new_value=self.new_value & mask,
            multi_token=self.multi_token[donors] & mask,
        )


def uniform_split(
    chains: Sequence[Sequence[int]],
    n_positions: int,
    problems: Sequence[Problem] | None = None,
    splits: Sequence[str] | None = None,
    decode: Callable[[list[int]], str] | None = None,
) -> Targets:
    """Position i of P is asked for the first token of slice [i·N/P, (i+1)·N/P) of the chain's N token ids.

    A chain of fewer tokens than positions leaves slots empty (the first one always). With `problems` and `decode`, a
    token that reads as a number is marked where it is a new value. `splits` per row; "train" where none are given.
    """
    ids = torch.full((len(chains), n_positions), EMPTY)
    multi = torch.zeros(len(chains), n_positions, dtype=torch.bool)
    for row, chain in enumerate(chains):
        for position, (start, end) in enumerate(slices(len(chain), n_positions)):
            if end > start:
                ids[row, position] = chain[start]
                multi[row, position] = end - start > 1
    new = torch.zeros_like(multi)
    if problems is not None and decode is not None:
        new = _new_tokens(ids, problems, decode)
    names = [p.id for p in problems] if problems is not None else [str(i) for i in range(len(chains))]
    return _targets("uniform split", ids, new, multi, names, splits)


def slices(n_tokens: int, n_positions: int) -> list[tuple[int, int]]:
    """(start, end) of each position's slice: all tokens, in order; sizes differ by at most one, larger ones late."""
    bounds = [i * n_tokens // n_positions for i in range(n_positions + 1)]
    return list(pairwise(bounds))


def step_result(
    problems: Sequence[Problem],
    encode: Callable[[str], list[int]],
    k: int,
    n_positions: int,
    splits: Sequence[str] | None = None,
) -> Targets:
    """Every position is asked for the result of step k (1 is the first), as its first token.

    A problem of fewer steps, or a result that does not encode, is masked at every position.
    """
    if k < 1:
        raise BadInput(f"there is no step {k}: the first is step 1")
    ids = torch.full((len(problems), n_positions), EMPTY)
    new, multi = (torch.zeros(len(problems), n_positions, dtype=torch.bool) for _ in range(2))
    for row, problem in enumerate(problems):
        result = problem.steps[k - 1].result if problem.n_steps >= k else ""
        if tokens := encode(result):
            ids[row], multi[row] = tokens[0], len(tokens) > 1
            new[row] = _is_new(_value(result), problem)
    return _targets(f"result of step {k}", ids, new, multi, [p.id for p in problems], splits)


def split_problems(
    problems: Sequence[Problem], fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0
) -> dict[str, str]:
    """{problem id: "train" | "val" | "test"}: by problem, and the same question never in two splits.

    The order in which the problems are given does not matter. A group of equal questions (case and spaces aside) is
    never divided, so the shares are met as nearly as that allows.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise BadInput(f"the shares of {', '.join(SPLITS)} must add up to 1, not {tuple(fractions)}")
    groups: dict[str, set[str]] = {}
    for problem in problems:
        groups.setdefault(" ".join(problem.question.lower().split()), set()).add(problem.id)
    drawn = sorted(groups, key=lambda question: hashlib.sha256(f"{seed}\0{question}".encode()).digest())
    n, given, split_of = sum(map(len, groups.values())), 0, {}
    ends = [sum(fractions[: i + 1]) * n for i in range(len(SPLITS) - 1)]
    for question in drawn:
        middle = given + len(groups[question]) / 2
        split_of |= dict.fromkeys(groups[question], SPLITS[sum(middle > end for end in ends)])
        given += len(groups[question])
    return split_of


def numbers_in(text: str) -> set[Fraction]:
    """Every number written in digits in a text; `1,234` is one number, a sign is not part of it."""
    written = (number.replace(",", "") for number in _NUMBER.findall(text))
    return {Fraction(number) for number in written if len(number) <= LONGEST_NUMBER}


def _targets(
    rule: str, ids: Tensor, new: Tensor, multi: Tensor, problems: Sequence[str], splits: Sequence[str] | None
) -> Targets:
    splits = ["train"] * len(ids) if splits is None else splits
    if not len(ids) == len(problems) == len(splits):
        raise BadInput(f"{len(ids)} rows of targets, {len(problems)} problems and {len(splits)} splits do not match")
    return Targets(rule, ids, ids != EMPTY, new, multi, tuple(problems), tuple(splits))


def _new_tokens(ids: Tensor, problems: Sequence[Problem], decode: Callable[[list[int]], str]) -> Tensor:
    values: Mapping[int, Fraction | None] = {i: _value(decode([i])) for i in ids[ids != EMPTY].unique().tolist()}
    new = [[_is_new(values.get(i), p) for i in row] for row, p in zip(ids.tolist(), problems, strict=True)]
    return torch.tensor(new, dtype=torch.bool).reshape(ids.shape)


def _value(text: str) -> Fraction | None:
    """The number that a text is, or None: `" 54"` and `"-1,234.5"` are one, `"="` and `"5 pens"` are not."""
    try:
        return evaluate(text) if _WRITTEN.fullmatch(text.strip()) else None
    except ValueError:
        return None


def _is_new(value: Fraction | None, problem: Problem) -> bool:
    return value is not None and value not in numbers_in(problem.question) | {problem.value}
