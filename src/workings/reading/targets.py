"""Written chains → probe targets: the token that each (problem, position) is to be read as, by a named rule.

A slot without a target is masked and counted, never a token. Shapes: n problems, P positions, N tokens of a chain.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from workings import seeds
from workings.arithmetic.chain import LONGEST_NUMBER, evaluate
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.thinking import ThoughtModel
from workings.reading.store import HiddenStates, ThoughtStore

SPLITS = ("train", "val", "test")
EMPTY = -1  # the id of a masked slot: no token has it, so that a forgotten mask fails loudly

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(_DIGITS)
_WRITTEN = re.compile(rf"-?\$?{_DIGITS}%?")


@dataclass(frozen=True)
class Targets:
    """Probe targets, one row per problem, in the order of the store.

    Attributes:
        rule: The rule they follow.
        ids: Token ids, Long [n, P]; `EMPTY` where there is no target.
        new_value: True where the target is a number that stands neither in the question nor in the answer, Bool [n, P].
        multi_token: True where the target is only the first token of something longer, Bool [n, P].
        problems, splits: Ids of the problems, and "train", "val" or "test" for each [n].
    """

    rule: str
    ids: Tensor
    new_value: Tensor
    multi_token: Tensor
    problems: tuple[str, ...]
    splits: tuple[str, ...]

    @cached_property
    def mask(self) -> Tensor:
        """True where there is a target, Bool [n, P]."""
        return self.ids != EMPTY

    @property
    def n_empty(self) -> int:
        """Slots with no target."""
        return int((~self.mask).sum())

    @property
    def in_every_split(self) -> bool:
        """True if every split has a target; otherwise nothing can be fitted, selected or judged."""
        return all(bool(self.mask[self.rows(split)].any()) for split in SPLITS)

    @property
    def multi_token_share(self) -> float:
        """Share of the targets that are only the first token of something longer; 0 where there is no target."""
        return float(self.multi_token[self.mask].float().mean()) if self.mask.any() else 0.0

    @property
    def digest(self) -> str:
        """sha256 of rule, problems, splits, ids and mask."""
        sha256 = hashlib.sha256("\n".join((self.rule, *self.problems, *self.splits)).encode())
        sha256.update(self.ids.contiguous().numpy().tobytes() + self.mask.contiguous().numpy().tobytes())
        return sha256.hexdigest()

    def rows(self, split: str) -> Tensor:
        """The rows of one split, in order, Long [m]."""
        return torch.tensor([i for i, name in enumerate(self.splits) if name == split], dtype=torch.long)

    def refuse_others(self, hidden: HiddenStates) -> None:
        """BadInput for hidden states of other problems, or in another order."""
        if list(self.problems) != list(hidden.ids):
            raise BadInput(
                f"the targets '{self.rule}' are of other problems than the hidden states, or in another order"
            )

    def shuffled(self, seed: int) -> Targets:
        """The control: every problem gets the whole row of targets of another problem of its split.

        A problem alone in its split keeps its own. A slot counts only where both rows have a target, so that receiver and
        donor have targets at the same positions; `new_value` stays that of the slot, so that the same slots are compared.
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
            new_value=self.new_value & mask,
            multi_token=self.multi_token[donors] & mask,
        )


def probe_targets(rule: str, model: ThoughtModel, store: ThoughtStore) -> Targets:
    """The probe targets of a store's problems, by the name of a rule.

    Args:
        rule: `stepK`: the result of step K, at every position. `uniform`: the first token of the position's slice of the
            chain. Another name is BadInput.
        model: The model that thought; its tokenizer and its way of writing a chain are used.
        store: Its thoughts, which name the problems.
    """
    problems, n_positions = store.as_problems(), len(store.positions)
    if rule == "uniform":
        chains = [model.chain_ids(p) for p in problems]
        return uniform_split(chains, n_positions, problems, store.splits, model.tokenizer.decode)
    if rule.startswith("step") and rule[4:].isdigit():
        encode = lambda text: model.tokenizer.encode(text, add_special_tokens=False)
        return step_result(problems, encode, int(rule[4:]), n_positions, store.splits)
    raise BadInput(f"no target rule '{rule}'; there are uniform, step1, step2, …")


def uniform_split(
    chains: Sequence[Sequence[int]],
    n_positions: int,
    problems: Sequence[Problem] | None = None,
    splits: Sequence[str] | None = None,
    decode: Callable[[list[int]], str] | None = None,
) -> Targets:
    """Targets: at position i of P, the first token of slice [i·N/P, (i+1)·N/P) of the chain's N token ids.

    A chain of fewer tokens than positions leaves slots empty (the first one always).

    Args:
        chains: Token ids of each problem's chain.
        n_positions: P.
        problems: Needed, with `decode`, to mark the targets that are new values.
        splits: One per row; "train", by default.
        decode: Token ids → text.
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
        values = {i: _value(decode([i])) for i in ids[ids != EMPTY].unique().tolist()}
        for row, problem in enumerate(problems):
            new[row] = torch.tensor([_is_new(values.get(i), problem) for i in ids[row].tolist()])
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
    """Targets: at every position, the first token of the result of step k (1 is the first).

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
    """Split problems into "train", "val" and "test", the same question never in two splits.

    A group of equal questions (case and spaces aside) is never divided, so the shares are met as nearly as that allows.

    Args:
        problems: Their order does not matter.
        fractions: Shares of the three splits; they must add up to 1, or BadInput.
        seed: Random seed of the order in which questions are drawn.

    Returns:
        {problem id: split}.
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
    return Targets(rule, ids, new, multi, tuple(problems), tuple(splits))


def _value(text: str) -> Fraction | None:
    """The number that a text is, or None: `" 54"` and `"-1,234.5"` are one, `"="` and `"5 pens"` are not."""
    try:
        return evaluate(text) if _WRITTEN.fullmatch(text.strip()) else None
    except ValueError:
        return None


def _is_new(value: Fraction | None, problem: Problem) -> bool:
    return value is not None and value not in numbers_in(problem.question) | {problem.value}
