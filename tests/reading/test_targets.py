"""Targets: all tokens assigned in order, empty slots masked, shuffles keep nothing, splits share no question."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reading.toy import SPELLING, decode, encode, problems
from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.reading.targets import (
    EMPTY,
    SELECTIONS,
    Spelling,
    Targets,
    Token,
    numbers_in,
    slices,
    split_problems,
    targets_by_rule,
)

chains = st.lists(st.lists(st.integers(0, 50), max_size=40), min_size=1, max_size=12)
positions = st.integers(1, 9)


def at(n_positions: int) -> tuple[str, ...]:
    return tuple(f"t{k}" for k in range(1, n_positions + 1))


def uniform_split(chains, n_positions: int, splits=None, problems=None, rule: str = "uniform") -> Targets:
    """Targets of chains given as token ids; the problems only name them, where none are given."""
    given = problems or [Problem(f"no {i}", (), "0") for i in range(len(chains))]
    ids = dict(zip([p.id for p in given], chains, strict=True))
    spelling = Spelling(encode, decode, lambda problem: ids[problem.id])
    return targets_by_rule(rule, given, spelling, at(n_positions), splits)


@given(n_tokens=st.integers(0, 500), n_positions=positions)
def test_slices_hold_every_token_in_order_and_differ_by_at_most_one(n_tokens, n_positions):
    cut = slices(n_tokens, n_positions)
    assert [i for start, end in cut for i in range(start, end)] == list(range(n_tokens))
    sizes = [end - start for start, end in cut]
    assert max(sizes) - min(sizes) <= 1
    assert len(cut) == n_positions


@pytest.mark.parametrize(
    ("n_tokens", "sizes"),
    [
        (7, [1, 1, 1, 1, 1, 2]),
        (6, [1, 1, 1, 1, 1, 1]),
        (5, [0, 1, 1, 1, 1, 1]),
        (3, [0, 1, 0, 1, 0, 1]),
        (2, [0, 0, 1, 0, 0, 1]),
        (1, [0, 0, 0, 0, 0, 1]),
        (0, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_short_chains_leave_the_early_slots_empty(n_tokens, sizes):
    targets = uniform_split([list(range(10, 10 + n_tokens))], 6)
    assert [end - start for start, end in slices(n_tokens, 6)] == sizes
    assert targets.has_target[0].tolist() == [size > 0 for size in sizes]
    assert targets.n_empty == sizes.count(0)
    assert targets.ids[0][targets.mask[0]].tolist() == [10 + s for s, e in slices(n_tokens, 6) if e > s]
    assert targets.n_members[0].tolist() == sizes
    asked = [size for size in sizes if size]
    assert targets.multi_token_share == pytest.approx(sum(size > 1 for size in asked) / max(len(asked), 1))


@given(chains=chains, n_positions=positions)
def test_an_empty_slot_is_never_a_token(chains, n_positions):
    targets = uniform_split(chains, n_positions)
    assert (targets.ids[~targets.mask] == EMPTY).all()
    assert (targets.ids[targets.mask] != EMPTY).all()
    assert targets.n_empty == int((targets.ids == EMPTY).sum())


@given(chains=chains, n_positions=positions, seed=st.integers(0, 5), data=st.data())
def test_a_shuffle_moves_whole_problems_within_their_split(chains, n_positions, seed, data):
    # Every chain starts with a token of its own, so that its targets can be recognised wherever they go.
    chains = [[i] * max(len(chain), 1) for i, chain in enumerate(chains)]
    splits = data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=len(chains), max_size=len(chains)))
    targets = uniform_split(chains, n_positions, splits=splits)
    shuffled = targets.shuffled(seed)
    assert torch.equal(shuffled.ids, targets.shuffled(seed).ids)
    assert not (shuffled.has_target & ~targets.has_target).any()
    for row, split in enumerate(splits):
        donors = {int(i) for i in shuffled.ids[row][shuffled.mask[row]]}
        assert len(donors) <= 1
        for donor in donors:
            assert splits[donor] == split
            assert donor != row or splits.count(split) == 1
            both = targets.has_target[row] & targets.has_target[donor]
            assert torch.equal(shuffled.has_target[row], both)


def test_the_result_of_a_step_is_one_target_for_all_positions():
    given = [
        Problem("Ann has 3 and 4.", (Step("3+4", "7"), Step("7*2", "14")), "14"),
        Problem("Bob has 1 and 6.", (Step("1+6", "7"),), "7"),
        Problem("Cy has 50 and 50.", (Step("50+50", "100"), Step("100-1", "99")), "99"),
        Problem("Di has 7 of 7.", (Step("7*1", "7"), Step("7+1", "8")), "8"),
    ]
    first, second = (targets_by_rule(f"step{k}", given, SPELLING, at(3)) for k in (1, 2))
    assert first.ids[..., 0].tolist() == [[7] * 3, [7] * 3, [1] * 3, [7] * 3]
    assert first.n_members[:, 0].tolist() == [1, 1, 3, 1]
    assert first.multi_token_share == 1 / 4
    # new: not the answer (Bob's), not in the question (Di's)
    assert first.new_value[:, 0, 0].tolist() == [True, False, True, False]
    assert second.has_target[:, 0].tolist() == [True, False, True, True]
    assert second.n_empty == 3
    assert targets_by_rule("step3", given, SPELLING, at(3)).n_empty == 12
    with pytest.raises(BadInput, match="no step 0"):
        targets_by_rule("step0", given, SPELLING, at(3))


def test_the_answer_is_asked_as_a_result_is_written_and_is_never_new():
    given = [Problem("3 and 4", (Step("3+4", "7"),), "7"), Problem("many", (Step("10*150", "1500"),), " 1,500 ")]
    answer = targets_by_rule("answer", given, SPELLING, at(2))
    assert torch.equal(answer.ids, targets_by_rule("step1", given, SPELLING, at(2)).ids)
    assert answer.rule == "final answer" and not answer.new_value.any()
    asked = targets_by_rule("answer:every", given, SPELLING, at(2))
    assert asked.ids[:, 0].tolist() == [[7, EMPTY, EMPTY], [1, 5, 0]]  # each token once


@pytest.mark.parametrize("rule", ["step1", "uniform", "answer", "uniform:every"])
def test_nothing_is_asked_at_the_mean_over_the_question(rule):
    given, without = problems(6), ("bot", "t1", "t2")
    targets = targets_by_rule(rule, given, SPELLING, ("question", *without))
    assert not targets.has_target[:, 0].any()
    assert torch.equal(targets.ids[:, 1:], targets_by_rule(rule, given, SPELLING, without).ids)
    assert targets.n_empty == targets_by_rule(rule, given, SPELLING, without).n_empty


@given(chain=st.lists(st.integers(0, 9), min_size=1, max_size=30), n_positions=positions)
def test_every_token_of_a_slice_is_asked_once_and_the_first_first(chain, n_positions):
    one, all_of_them = (uniform_split([chain], n_positions, rule=rule) for rule in ("uniform", "uniform:every"))
    assert torch.equal(one.has_target, all_of_them.has_target)
    assert torch.equal(one.ids[..., 0], all_of_them.ids[..., 0])
    assert torch.equal(one.n_members, all_of_them.n_members)
    for place, (start, end) in enumerate(slices(len(chain), n_positions)):
        asked = all_of_them.ids[0, place][all_of_them.mask[0, place]].tolist()
        assert asked == list(dict.fromkeys(chain[start:end]))


@given(
    members=st.lists(st.integers(0, 9).map(lambda i: Token(i, Fraction(i)))), rule=st.sampled_from(sorted(SELECTIONS))
)
def test_a_selection_asks_for_different_members_in_their_order(members, rule):
    asked = SELECTIONS[rule](members)
    assert len(asked) == len(set(asked)) and bool(asked) == bool(members)
    assert [token for token in dict.fromkeys(members) if token in asked] == asked


def test_rules_that_do_not_exist_are_named():
    with pytest.raises(BadInput, match="no target rule 'telepathy'; there are uniform, answer, step1"):
        targets_by_rule("telepathy", problems(2), SPELLING, at(3))
    with pytest.raises(BadInput, match="no selection rule 'some'; there are first, every"):
        targets_by_rule("uniform:some", problems(2), SPELLING, at(3))


def test_a_number_in_the_chain_is_new_where_question_and_answer_lack_it():
    given = [Problem("3 and 4, twice", (Step("3+4", "7"), Step("7*2", "14")), "14")]
    targets = uniform_split([encode("3+4=7 7*2=14")], 10, problems=given)
    read = [decode(ids) for ids in targets.ids[0].tolist()]
    assert read == ["3", "+", "4", "=", "7", "7", "*", "2", "=", "14"]
    assert targets.new_value[0, :, 0].tolist() == [t in ("7", "2") for t in read]


def test_numbers_in_a_text():
    assert numbers_in("1,234 at $5.50 each, 3/4 of 12. (.5)") == {
        Fraction(n) for n in ("1234", "5.5", "3", "4", "12", "0.5")
    }
    assert numbers_in("9" * 5000) == set()  # a runaway, not a number


def test_splits_have_the_asked_for_sizes_whatever_the_order():
    given = problems(100)
    splits = split_problems(given, (0.7, 0.1, 0.2), seed=3)
    assert [list(splits.values()).count(name) for name in ("train", "val", "test")] == [70, 10, 20]
    assert split_problems(given, seed=3) == splits  # the shares where none are named
    assert split_problems(given[::-1], (0.7, 0.1, 0.2), seed=3) == splits
    assert split_problems(given, (0.7, 0.1, 0.2), seed=4) != splits


@given(n=st.integers(1, 30), copies=st.integers(1, 4), seed=st.integers(0, 9))
def test_the_same_question_never_sits_in_two_splits(n, copies, seed):
    given = [Problem(p.question.upper(), p.steps, f"{p.answer}{'0' * c}") for c in range(copies) for p in problems(n)]
    splits = split_problems(given, (0.5, 0.25, 0.25), seed)
    assert len(splits) == n * copies
    by_question = {}
    for p in given:
        by_question.setdefault(p.question, set()).add(splits[p.id])
    assert all(len(names) == 1 for names in by_question.values())


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(BadInput, match="must add up to 1"):
        split_problems(problems(3), (0.7, 0.7, 0.2))


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(BadInput, match="do not match"):
        uniform_split([[1], [2]], 2, splits=["train"])
