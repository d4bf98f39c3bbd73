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
from workings.reading.target_rules import (
    SELECTIONS,
    Documents,
    Spelling,
    TargetRule,
    Token,
    numbers_in,
    slices,
    weighted_slices,
)
from workings.reading.targets import EMPTY, Targets, split_problems, targets_by_rule

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
    asked = SELECTIONS[rule](members, Documents(0))
    assert len(asked) == len(set(asked)) and bool(asked) == bool(members)
    assert [token for token in dict.fromkeys(members) if token in asked] == asked


def test_rules_that_do_not_exist_are_named():
    with pytest.raises(BadInput, match="no target rule 'telepathy'; there are uniform, weighted"):
        targets_by_rule("telepathy", problems(2), SPELLING, at(3))
    with pytest.raises(BadInput, match="no selection rule 'some'; there are first, middle, last, tfidf, every"):
        targets_by_rule("uniform:some", problems(2), SPELLING, at(3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unifrom", "did you mean 'uniform'"),
        ("uniform@latin", "no form of the chain 'latin'; there are seen, stripped"),
        ("step2@marked", "no part of a chain"),
        ("step2.taste", "no part 'taste'; there are result, operator"),
        ("weighted", "takes weights"),
        ("uniform(1,2)", "takes no weights"),
        ("weighted(1,x)", "weights are numbers"),
        ("weighted(1,-1)", "may not be negative"),
        ("weighted(0,0)", "nor all zero"),
        ("weighted(1,1)", "2 weights; give one for each of t1, t2, t3"),
        ("uniform@own", "not known here"),
        ("response", "not known here"),
        ("Step 1", "names no target"),
    ],
)
def test_a_name_that_is_no_rule_is_refused_with_its_reason(name, message):
    with pytest.raises(BadInput, match=message):
        targets_by_rule(name, problems(2), SPELLING, at(3))


# ---- other splits, parts, forms and selections ---------------------------------------------------------------------

weights = st.lists(st.fractions(0, 5, max_denominator=8), min_size=1, max_size=9).filter(any)
roundings = st.sampled_from(["floor", "remainder", "min1"])


@given(n_tokens=st.integers(0, 100), of=weights, rounding=roundings)
def test_weighted_slices_hold_every_token_in_order(n_tokens, of, rounding):
    cut = weighted_slices(n_tokens, of, rounding)
    assert [i for start, end in cut for i in range(start, end)] == list(range(n_tokens)) and len(cut) == len(of)
    sizes = [end - start for start, end in cut]
    if rounding == "min1":
        assert min(sizes) >= 1 or n_tokens < len(of)
    else:  # nobody is further from its share than one token, and nobody without a weight has one
        assert all(abs(size - n_tokens * w / sum(of)) < 1 for size, w in zip(sizes, of, strict=True))
        assert all(size == 0 for size, w in zip(sizes, of, strict=True) if w == 0)


@given(n_tokens=st.integers(0, 100), n_positions=positions, weight=st.fractions(Fraction(1, 7), 9))
def test_equal_weights_are_the_uniform_split(n_tokens, n_positions, weight):
    assert weighted_slices(n_tokens, [weight] * n_positions) == slices(n_tokens, n_positions)


@given(n_tokens=st.integers(0, 100), of=weights, factor=st.fractions(Fraction(1, 100), 100).filter(bool))
def test_only_the_proportions_of_weights_matter(n_tokens, of, factor):
    assert weighted_slices(n_tokens, of) == weighted_slices(n_tokens, [factor * weight for weight in of])


def test_the_weights_of_the_note():
    of = [Fraction(w) for w in ("0.5", "1", "2", "2", "1", "0.5")]
    sizes = lambda n, rounding="floor": [end - start for start, end in weighted_slices(n, of, rounding)]
    assert sizes(14) == [1, 2, 4, 4, 2, 1]
    assert sizes(13)[0] == 0 and sizes(13, "min1")[0] == 1  # the first slot is empty below 14 tokens
    # 0.1 added ten times is not 1 in floating point: exact arithmetic loses no token at a border
    assert weighted_slices(10, [Fraction("0.1")] * 10) == [(i, i + 1) for i in range(10)]


def test_weights_for_the_thoughts_alone_leave_what_comes_before_them_empty():
    chain = list(range(6))
    given = [Problem("a chain", (), "0")]
    spelling = Spelling(encode, decode, lambda problem: chain)
    targets = targets_by_rule("weighted(1,2):every", given, spelling, ("bot", "t1", "t2"))
    assert targets.ids[0].tolist() == [[EMPTY] * 4, [0, 1, EMPTY, EMPTY], [2, 3, 4, 5]]


def test_first_middle_last_and_the_most_telling_token():
    chains = [[1, 2, 3, 4], [1, 1, 2, 5], [1, 6], [1, 9]]
    asked = lambda rule, splits=None: uniform_split(chains, 1, splits, rule=rule).ids[:, 0, 0].tolist()
    assert asked("uniform") == [1, 1, 1, 1]
    assert asked("uniform:middle") == [2, 1, 1, 1]  # the lower of two
    assert asked("uniform:last") == [4, 5, 6, 9]
    # 1 is in every chain: twice of idf 1 is more than once of ln(5/2) + 1, and once is less
    assert asked("uniform:tfidf") == [3, 1, 6, 9]
    # no test problem decides what is asked: with the last two in test, 2 is as common as 1
    assert asked("uniform:tfidf", ["train", "train", "test", "test"])[:2] == [3, 1]


def test_parts_of_a_step():
    given = [
        Problem("Ann has 1,500 and 4.", (Step("-1,500+4*2", "-1492"), Step("-3*2", "-6")), "-6"),
        Problem("none", (), "0"),
    ]
    said = lambda rule: [
        "".join(decode([i]) for i in slot if i != EMPTY)
        for slot in targets_by_rule(rule, given, SPELLING, ("t1",)).ids[:, 0].tolist()
    ]
    assert said("step1.operator") == ["+", ""] and said("step2.operator") == ["*", ""]  # a sign is no operator
    assert said("step1.operands") == ["1", ""] and said("step2.operands:every") == ["32", ""]
    assert said("step1.whole:every") == ["-150+4*2=9", ""]  # each token once
    assert targets_by_rule("step1.operands", given, SPELLING, ("t1",)).n_members[:, 0].tolist() == [6, 0]


def test_forms_of_the_chain():
    problem = Problem("q", (Step("6*9", "54"), Step("54+1", "55")), "55")
    own = {problem.id: encode("6*9=55")}
    spelling = Spelling(encode, decode, lambda p: encode("6*9=54"), lambda p: own[p.id], lambda p: encode("55 pens"))
    whole = lambda rule: [
        i for i in targets_by_rule(rule, [problem], spelling, at(40)).ids[0, :, 0].tolist() if i != EMPTY
    ]
    assert whole("uniform") == whole("uniform@seen") == encode("6*9=54")
    assert whole("uniform@stripped") == encode("6*9=54 54+1=55")
    assert whole("uniform@marked") == encode("<<6*9=54>> <<54+1=55>>")
    assert whole("uniform@own") == encode("6*9=55")
    assert targets_by_rule("response", [problem], spelling, at(1)).ids.tolist() == [[[encode("55")[0]]]]
    lengths = [
        int(targets_by_rule(f"uniform{form}", [problem], spelling, at(2)).chain_lengths[0])
        for form in ("", "@stripped")
    ]
    assert lengths == [len(encode("6*9=54")), len(encode("6*9=54 54+1=55"))]


def test_a_rule_says_in_words_what_it_asks():
    assert TargetRule.of("step2").in_words == "result of step 2"
    assert TargetRule.of("uniform").in_words == "uniform split"
    assert TargetRule.of("uniform:every").in_words == "uniform split, every token"
    assert TargetRule.of("uniform@marked:last").in_words == "uniform split of the chain (marked), last token"
    assert TargetRule.of("weighted-min1(1, 2)").in_words == "weighted split by min1 (1, 2)"


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
