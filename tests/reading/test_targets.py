"""Targets: all tokens assigned in order, empty slots masked, shuffles keep nothing, splits share no question."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reading.toy import decode, encode, problems
from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.reading.targets import EMPTY, numbers_in, slices, split_problems, step_result, uniform_split

chains = st.lists(st.lists(st.integers(0, 50), max_size=40), min_size=1, max_size=12)
positions = st.integers(1, 9)


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
    assert targets.mask[0].tolist() == [size > 0 for size in sizes]
    assert targets.n_empty == sizes.count(0)
    assert targets.ids[0][targets.mask[0]].tolist() == [10 + s for s, e in slices(n_tokens, 6) if e > s]
    assert targets.multi_token[0].tolist() == [size > 1 for size in sizes]


@given(chains=chains, n_positions=positions)
def test_an_empty_slot_is_never_a_token(chains, n_positions):
    targets = uniform_split(chains, n_positions)
    assert (targets.ids[~targets.mask] == EMPTY).all()
    assert (targets.ids[targets.mask] != EMPTY).all()
    assert targets.n_empty == int((targets.ids == EMPTY).sum())


@given(chains=chains, n_positions=positions, seed=st.integers(0, 5), data=st.data())
def test_a_shuffle_moves_whole_problems_within_their_split(chains, n_positions, seed, data):
    # Every chain starts with a token of its own, so that its targets can be recognised wherever they go.
    chains = [[100 + i] * max(len(chain), 1) for i, chain in enumerate(chains)]
    splits = data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=len(chains), max_size=len(chains)))
    targets = uniform_split(chains, n_positions, splits=splits)
    shuffled = targets.shuffled(seed)
    assert torch.equal(shuffled.ids, targets.shuffled(seed).ids)
    assert not (shuffled.mask & ~targets.mask).any()
    for row, split in enumerate(splits):
        donors = {int(i) - 100 for i in shuffled.ids[row][shuffled.mask[row]]}
        assert len(donors) <= 1
        for donor in donors:
            assert splits[donor] == split
            assert donor != row or splits.count(split) == 1
            assert torch.equal(shuffled.mask[row], targets.mask[row] & targets.mask[donor])


def test_the_result_of_a_step_is_one_target_for_all_positions():
    given = [
        Problem("Ann has 3 and 4.", (Step("3+4", "7"), Step("7*2", "14")), "14"),
        Problem("Bob has 1 and 6.", (Step("1+6", "7"),), "7"),
        Problem("Cy has 50 and 50.", (Step("50+50", "100"), Step("100-1", "99")), "99"),
        Problem("Di has 7 of 7.", (Step("7*1", "7"), Step("7+1", "8")), "8"),
    ]
    first, second = (step_result(given, encode, k, n_positions=3) for k in (1, 2))
    assert first.ids.tolist() == [[7] * 3, [7] * 3, [1] * 3, [7] * 3]
    assert first.multi_token[:, 0].tolist() == [False, False, True, False]
    assert first.multi_token_share == 1 / 4
    # new: not the answer (Bob's), not in the question (Di's)
    assert first.new_value[:, 0].tolist() == [True, False, True, False]
    assert second.mask[:, 0].tolist() == [True, False, True, True]
    assert second.n_empty == 3
    assert step_result(given, encode, 3, 3).n_empty == 12
    with pytest.raises(BadInput, match="no step 0"):
        step_result(given, encode, 0, 3)


def test_a_number_in_the_chain_is_new_where_question_and_answer_lack_it():
    given = [Problem("3 and 4, twice", (Step("3+4", "7"), Step("7*2", "14")), "14")]
    targets = uniform_split([encode("3+4=7 7*2=14")], 10, problems=given, decode=decode)
    read = [decode([i]) for i in targets.ids[0].tolist()]
    assert read == ["3", "+", "4", "=", "7", "7", "*", "2", "=", "14"]
    assert targets.new_value[0].tolist() == [t in ("7", "2") for t in read]


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
