"""Written solutions → probe targets: the tokens that each (problem, position) is to be read as, by two named rules.

A *membership* rule says which tokens of a written solution belong to each position; a *selection* rule says which of them are
asked. A slot without a target is masked and counted, never a token, and nothing is asked of the mean over the question.
Shapes: n problems, P positions, M asked tokens of a slot at most, N tokens of a chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

import torch
from torch import Tensor

from workings import seeds
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.anatomy import QUESTION
from workings.models.thinking import ThoughtModel
from workings.reading.store import HiddenStates, ThoughtStore
from workings.reading.target_rules import Documents, Ids, Spelling, TargetRule, numbers_in

SPLITS = ("train", "val", "test")
EMPTY = -1  # the id of a masked slot: no token has it, so that a forgotten mask fails loudly
_LONGEST_CHAIN = 128  # tokens that a model may write as a chain of its own


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
        chain_lengths: Tokens of the chain that was divided, or that the named token stands in, Long [n]: what is known of a
            target from the form of the solution alone.
    """

    rule: str
    positions: tuple[str, ...]
    ids: Tensor
    new_value: Tensor
    n_members: Tensor
    problems: tuple[str, ...]
    splits: tuple[str, ...]
    chain_lengths: Tensor

    def __post_init__(self) -> None:
        n, n_positions = len(self.problems), len(self.positions)
        shapes = (self.ids.shape[:2], self.new_value.shape[:2], self.n_members.shape)
        if n != len(self.splits) or n != len(self.chain_lengths) or any(shape != (n, n_positions) for shape in shapes):
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
        rule: MEMBERSHIP, MEMBERSHIP@FORM, or either with :SELECTION, as `target_rules` lists them: `step2`, `answer`,
            `uniform`, `weighted(1,2,2,1):every`, `uniform@marked`. Another name is BadInput.
        model: The model that thought; its tokenizer and its way of writing a chain are used.
        store: Its thoughts, which name the problems and hold its answers.
    """
    problems = store.as_problems()
    encode = lambda text: model.tokenizer.encode(text, add_special_tokens=False)
    answers = dict(zip(store.ids, store.problems["answer_ids"].to_list(), strict=True))
    said = (lambda problem: answers[problem.id]) if all(ids is not None for ids in answers.values()) else None
    own = _own_chains(model, problems) if TargetRule.of(rule).form == "own" else None
    spelling = Spelling(encode, model.tokenizer.decode, model.chain_ids, own, said)
    return targets_by_rule(rule, problems, spelling, store.positions, store.splits)


def _own_chains(model: ThoughtModel, problems: Sequence[Problem]) -> Ids:
    """The chains that the model writes itself, greedily, each up to where its answer begins."""
    answers = model.write_and_answer([problem.question for problem in problems], _LONGEST_CHAIN)
    is_chain = lambda token: token != model.answer_opening()
    written = {p.id: list(takewhile(is_chain, each.token_ids)) for p, each in zip(problems, answers, strict=True)}
    return lambda problem: written[problem.id]


def targets_by_rule(
    rule: str,
    problems: Sequence[Problem],
    spelling: Spelling,
    positions: Sequence[str],
    splits: Sequence[str] | None = None,
) -> Targets:
    """Targets of problems by the names of their rules, see `probe_targets`.

    Args:
        rule: MEMBERSHIP, MEMBERSHIP@FORM, or either with :SELECTION.
        problems: The n problems.
        spelling: How the model writes.
        positions: Names of the P positions; nothing is asked at `question`.
        splits: One per problem; "train", by default.
    """
    named, asked = TargetRule.of(rule), _asked(positions)
    splits = ["train"] * len(problems) if splits is None else splits
    names = [positions[place] for place in asked]
    members = [named.members(problem, spelling, names) for problem in problems]
    n_members = torch.zeros(len(problems), len(positions), dtype=torch.long)
    n_members[:, asked] = torch.tensor([[len(slot) for slot in slots] for slots in members]).reshape(-1, len(asked))
    # Splits of another number are refused by Targets, which says of what.
    documents = Documents.of(slots for slots, split in zip(members, splits, strict=False) if split == "train")
    chosen = [[named.select(slot, documents) for slot in slots] for slots in members]
    most = max((len(slot) for slots in chosen for slot in slots), default=0)
    ids = torch.full((len(problems), len(positions), max(most, 1)), EMPTY)
    new = torch.zeros(ids.shape, dtype=torch.bool)
    for row, (problem, slots) in enumerate(zip(problems, chosen, strict=True)):
        known = numbers_in(problem.question) | {problem.value}
        for place, slot in zip(asked, slots, strict=True):
            for at, token in enumerate(slot):
                ids[row, place, at] = token.id
                new[row, place, at] = token.value is not None and token.value not in known
    chain_lengths = torch.tensor([len(spelling.chain(problem, named.form or "seen")) for problem in problems])
    ids_of = tuple(problem.id for problem in problems)
    return Targets(named.in_words, tuple(positions), ids, new, n_members, ids_of, tuple(splits), chain_lengths)


def _asked(positions: Sequence[str]) -> list[int]:
    """Places of the positions at which something may be asked."""
    return [place for place, position in enumerate(positions) if position != QUESTION]


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
