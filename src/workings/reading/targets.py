"""Written solutions → probe targets: the tokens that each (problem, position) is to be read as, by two named rules.

A *membership* rule says which tokens of a written solution belong to each position; a *selection* rule says which of them are
asked. A slot without a target is masked and counted, never a token, and nothing is asked of the mean over the question.
Shapes: n problems, P positions, M asked tokens of a slot at most, N tokens of a chain.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from workings import seeds
from workings.arithmetic.chain import LONGEST_NUMBER, evaluate
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.anatomy import QUESTION
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
        rule: The rules they follow, in words.
        positions: Names of the P positions.
        ids: Token ids, Long [n, P, M], the asked tokens of a slot first; `EMPTY` where there is none.
        new_value: True where the token says a number that stands neither in the question nor in the answer, Bool [n, P, M].
        n_members: Tokens that belong to each slot, asked or not, Long [n, P].
        problems, splits: Ids of the problems, and "train", "val" or "test" for each [n].
    """

    rule: str
    positions: tuple[str, ...]
    ids: Tensor
    new_value: Tensor
    n_members: Tensor
    problems: tuple[str, ...]
    splits: tuple[str, ...]

    def __post_init__(self) -> None:
        n, n_positions = len(self.problems), len(self.positions)
        shapes = (self.ids.shape[:2], self.new_value.shape[:2], self.n_members.shape)
        if len(self.splits) != n or any(shape != (n, n_positions) for shape in shapes):
            raise BadInput(
                f"targets of shape {list(self.ids.shape)}, {n} problems, {len(self.splits)} splits and "
                f"{n_positions} positions do not match"
            )

    @cached_property
    def mask(self) -> Tensor:
        """True where a token is asked, Bool [n, P, M]."""
        return self.ids != EMPTY

    @cached_property
    def has_target(self) -> Tensor:
        """True for the slots that have a target, Bool [n, P]."""
        return self.mask.any(-1)

    @property
    def n_empty(self) -> int:
        """Slots with no target, those at the mean over the question left out: nothing is asked there by any rule."""
        return int((~self.has_target[:, _asked(self.positions)]).sum())

    @property
    def in_every_split(self) -> bool:
        """True if every split has a target; otherwise nothing can be fitted, selected or judged."""
        return all(bool(self.mask[self.rows(split)].any()) for split in SPLITS)

    @property
    def multi_token_share(self) -> float:
        """Share of the slots with a target that hold more tokens than are asked; 0 where there is no target."""
        in_part = self.n_members > self.mask.sum(-1)
        return float(in_part[self.has_target].float().mean()) if self.has_target.any() else 0.0

    @property
    def digest(self) -> str:
        """sha256 of rule, problems, splits, positions and ids."""
        sha256 = hashlib.sha256("\n".join((self.rule, *self.problems, *self.splits, *self.positions)).encode())
        sha256.update(self.ids.contiguous().numpy().tobytes())
        return sha256.hexdigest()

    def rows(self, split: str) -> Tensor:
        """The rows of one split, in order, Long [m]."""
        return torch.tensor([i for i, name in enumerate(self.splits) if name == split], dtype=torch.long)

    def refuse_others(self, hidden: HiddenStates) -> None:
        """BadInput for hidden states of other problems or positions, or in another order."""
        if list(self.problems) != list(hidden.ids):
            raise BadInput(
                f"the targets '{self.rule}' are of other problems than the hidden states, or in another order"
            )
        if self.positions != tuple(hidden.positions):
            raise BadInput(
                f"the targets '{self.rule}' are at {', '.join(self.positions)}, the hidden states at "
                f"{', '.join(hidden.positions)}"
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
        both = self.has_target & self.has_target[donors]
        ids = self.ids[donors].where(both[..., None], EMPTY)
        return replace(
            self,
            rule=f"{self.rule}, shuffled",
            ids=ids,
            new_value=self.new_value & (ids != EMPTY),
            n_members=self.n_members[donors] * both,
        )


def probe_targets(rule: str, model: ThoughtModel, store: ThoughtStore) -> Targets:
    """The probe targets of a store's problems, by the names of their rules.

    Args:
        rule: A membership rule: `stepK`, the result of step K; `answer`, the final answer; `uniform`, the position's slice of
            the chain. The first of its tokens is asked; `uniform:every` asks for all of them. Another name is BadInput.
        model: The model that thought; its tokenizer and its way of writing a chain are used.
        store: Its thoughts, which name the problems.
    """
    encode = lambda text: model.tokenizer.encode(text, add_special_tokens=False)
    spelling = Spelling(encode, model.tokenizer.decode, model.chain_ids)
    return targets_by_rule(rule, store.as_problems(), spelling, store.positions, store.splits)


def targets_by_rule(
    rule: str,
    problems: Sequence[Problem],
    spelling: Spelling,
    positions: Sequence[str],
    splits: Sequence[str] | None = None,
) -> Targets:
    """Targets of problems by the names of their rules, see `probe_targets`.

    Args:
        rule: MEMBERSHIP, or MEMBERSHIP:SELECTION.
        problems: The n problems.
        spelling: How the model writes.
        positions: Names of the P positions; nothing is asked at `question`.
        splits: One per problem; "train", by default.
    """
    membership, _, selection = rule.partition(":")
    in_words, members = membership_rule(membership)
    select = SELECTIONS.get(selection or "first")
    if select is None:
        raise BadInput(f"no selection rule '{selection}'; there are {', '.join(SELECTIONS)}")
    asked = _asked(positions)
    n_members = torch.zeros(len(problems), len(positions), dtype=torch.long)
    chosen: list[list[list[Token]]] = []
    for row, problem in enumerate(problems):
        slots = members(problem, spelling, len(asked))
        n_members[row, asked] = torch.tensor([len(slot) for slot in slots])
        chosen.append([select(slot) for slot in slots])
    most = max((len(slot) for slots in chosen for slot in slots), default=0)
    ids = torch.full((len(problems), len(positions), max(most, 1)), EMPTY)
    new = torch.zeros(ids.shape, dtype=torch.bool)
    for row, (problem, slots) in enumerate(zip(problems, chosen, strict=True)):
        known = numbers_in(problem.question) | {problem.value}
        for place, slot in zip(asked, slots, strict=True):
            for at, token in enumerate(slot):
                ids[row, place, at] = token.id
                new[row, place, at] = token.value is not None and token.value not in known
    named = in_words if selection in ("", "first") else f"{in_words}, {selection} token"
    splits = ["train"] * len(problems) if splits is None else splits
    return Targets(named, tuple(positions), ids, new, n_members, tuple(p.id for p in problems), tuple(splits))


def _asked(positions: Sequence[str]) -> list[int]:
    """Places of the positions at which something may be asked."""
    return [place for place, position in enumerate(positions) if position != QUESTION]


# ---- which tokens belong to a position ---------------------------------------------------------------------------


class Token(NamedTuple):
    """A token of a written solution, and the number that it says, or begins to say, if any."""

    id: int
    value: Fraction | None


@dataclass(frozen=True)
class Spelling:
    """How a model writes, which is all that a rule needs of it: text → token ids, and back; a problem → its chain's ids."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    chain_ids: Callable[[Problem], Sequence[int]]

    @cached_property
    def value_of(self) -> Callable[[int], Fraction | None]:
        """The number that a token is by itself, or None."""
        return cache(lambda i: _value(self.decode([i])))

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a number written out; each has the value of the whole."""
        return [Token(i, _value(text)) for i in self.encode(text)] if text else []


# The tokens of each of P positions; [] where there are none.
Membership = Callable[[Problem, Spelling, int], Sequence[Sequence[Token]]]


def result_of_step(k: int) -> Membership:
    """At every position, the result of step k (1 is the first). None where a problem has fewer steps."""
    if k < 1:
        raise BadInput(f"there is no step {k}: the first is step 1")
    return lambda problem, spelling, n_positions: (
        [spelling.tokens(problem.steps[k - 1].result if problem.n_steps >= k else "")] * n_positions
    )


def final_answer(problem: Problem, spelling: Spelling, n_positions: int) -> list[list[Token]]:
    """At every position, the final answer, written as a result is: without separators of thousands."""
    return [spelling.tokens(problem.answer.strip().replace(",", ""))] * n_positions


def slices_of_chain(problem: Problem, spelling: Spelling, n_positions: int) -> list[list[Token]]:
    """At position i of P, slice [i·N/P, (i+1)·N/P) of the chain's N tokens; see `slices`.

    A chain of fewer tokens than positions leaves slots empty (the first one always).
    """
    chain = [Token(i, spelling.value_of(i)) for i in spelling.chain_ids(problem)]
    return [chain[start:end] for start, end in slices(len(chain), n_positions)]


def slices(n_tokens: int, n_positions: int) -> list[tuple[int, int]]:
    """(start, end) of each position's slice: all tokens, in order; sizes differ by at most one, larger ones late."""
    bounds = [i * n_tokens // n_positions for i in range(n_positions + 1)]
    return list(pairwise(bounds))


def membership_rule(name: str) -> tuple[str, Membership]:
    """A membership rule and what it is called in words. BadInput where there is none of that name."""
    if name.startswith("step") and name[4:].isdigit():
        return f"result of step {int(name[4:])}", result_of_step(int(name[4:]))
    if name not in MEMBERSHIPS:
        raise BadInput(f"no target rule '{name}'; there are {', '.join(MEMBERSHIPS)}, step1, step2, …")
    return MEMBERSHIPS[name]


MEMBERSHIPS: dict[str, tuple[str, Membership]] = {
    "uniform": ("uniform split", slices_of_chain),
    "answer": ("final answer", final_answer),
}

# ---- which of them are asked -------------------------------------------------------------------------------------

Selection = Callable[[Sequence[Token]], list[Token]]


def first(members: Sequence[Token]) -> list[Token]:
    """The first token: what a reader that says one token can say."""
    return list(members[:1])


def every(members: Sequence[Token]) -> list[Token]:
    """Every token, each once however often it is written: a reader gives one score to a token."""
    return list({token.id: token for token in members}.values())


SELECTIONS: dict[str, Selection] = {"first": first, "every": every}

# ---- problems ----------------------------------------------------------------------------------------------------


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
        groups.setdefault(problem.asked, set()).add(problem.id)
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


def _value(text: str) -> Fraction | None:
    """The number that a text is, or None: `" 54"` and `"-1,234.5"` are one, `"="` and `"5 pens"` are not."""
    try:
        return evaluate(text) if _WRITTEN.fullmatch(text.strip()) else None
    except ValueError:
        return None
