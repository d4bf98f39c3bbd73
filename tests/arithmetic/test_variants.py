"""A variant is another problem of the same kind, and differs in one number; what is carried is what the steps compute."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.arithmetic.chain import Step, evaluate
from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.arithmetic.stories import NUMBER_WORDS
from workings.arithmetic.variants import SAID_OTHERWISE, Bounds, carried, variants

PROBLEMS = {name: list(generate(150, PRESETS[name], seed=5)) for name in ("bundled", "hundred", "sums")}
BOUNDS = {name: Bounds.of(problems) for name, problems in PROBLEMS.items()}
ANY = st.sampled_from(sorted(PROBLEMS)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(PROBLEMS[name])))


def words(text: str) -> list[str]:
    return re.findall(r"\d+|[A-Za-z]+|[^\w\s]", text)


@given(ANY, st.integers(1, 5))
def test_results_before_the_step_are_equal_and_each_from_it_on_differs(named: tuple[str, Problem], step: int):
    name, problem = named
    bounds = BOUNDS[name]
    assert bounds is not None
    for other in variants(problem, step, bounds):
        mine, theirs = ([each.value for each in one.steps] for one in (problem, other))
        assert mine[: step - 1] == theirs[: step - 1] and len(mine) == len(theirs)
        assert all(a != b for a, b in zip(mine[step - 1 :], theirs[step - 1 :], strict=True))
        assert all(each.is_right() for each in other.steps) and other.value == theirs[-1] != problem.value
        assert all(bounds.least <= value <= bounds.most for value in theirs)
        operators = [re.sub(r"[\d\s]", "", each.expression) for one in (problem, other) for each in one.steps]
        assert operators[: len(mine)] == operators[len(mine) :]


@given(ANY, st.integers(1, 5))
def test_the_question_differs_in_the_one_number(named: tuple[str, Problem], step: int):
    name, problem = named
    bounds = BOUNDS[name]
    assert bounds is not None
    for other in variants(problem, step, bounds):
        mine, theirs = words(problem.question), words(other.question)
        at = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
        n_more = len(theirs) - len(mine)  # "twice" is said otherwise in two words
        assert mine[at + 1 :] == theirs[at + 1 + n_more :]


@pytest.mark.parametrize("name", ["bundled", "hundred"])
def test_most_steps_that_state_a_number_have_a_variant(name: str):
    bounds = BOUNDS[name]
    assert bounds is not None
    asked = [(p, k) for p in PROBLEMS[name] for k in range(1, p.n_steps + 1) if "/" not in p.steps[k - 1].expression]
    assert sum(bool(variants(p, k, bounds)) for p, k in asked) > 0.6 * len(asked)


def test_a_word_says_the_number_that_it_stands_for():
    for word, others in SAID_OTHERWISE.items():
        for number, said in others.items():
            assert NUMBER_WORDS[word] != number
            assert NUMBER_WORDS.get(said) == number or said.split()[0] == str(number)


@pytest.mark.parametrize(
    "problem",
    [
        Problem("Ann has 5 pens. She buys 3 more. Ben has 7.", (Step("5+3", "8"),), "8"),  # a number that no step uses
        Problem("Ann buys 3 pens and has 5.", (Step("5+3", "8"),), "8"),  # another order
        Problem("5 and 3, and 2 and 4.", (Step("5+3", "8"), Step("2*4", "8")), "8"),  # no running value
        Problem("5 and 3 and 1.", (Step("5+3+1", "9"),), "9"),
        Problem("5 and 3.", (Step("5+3", "9"),), "9"),  # wrong
        Problem("Nothing.", (), "1"),
    ],
)
def test_a_problem_that_cannot_be_retold_has_no_variant(problem: Problem):
    among = Bounds(0, 30, frozenset({5, 6}), dict.fromkeys("+-*/", frozenset({2, 3, 4})))
    assert all(variants(problem, step, among) == [] for step in (0, 1, 2, 3))


def test_nothing_bounds_problems_without_chains():
    assert Bounds.of([Problem("How many?", (), "1")]) is None
    assert Bounds.of([]) is None


@given(ANY, st.integers(1, 5), st.integers(-30, 60))
def test_what_is_carried_is_what_the_other_steps_compute(named: tuple[str, Problem], step: int, result: int):
    _, problem = named
    if step > problem.n_steps:
        return
    found = carried(problem, step, Fraction(result))
    value = Fraction(result)
    for later in problem.steps[step:]:
        value = evaluate(re.sub(r"^\d+", f"({value.numerator}/{value.denominator})", later.expression))
    assert found in (None, value)
    assert step < problem.n_steps or found == result


@given(ANY, st.integers(1, 5))
def test_the_own_result_is_carried_to_the_own_answer(named: tuple[str, Problem], step: int):
    _, problem = named
    if step <= problem.n_steps:
        assert carried(problem, step, problem.steps[step - 1].value) in (None, problem.value)


@pytest.mark.parametrize(
    ("chain", "step", "result", "value"),
    [
        ((("3*4", "12"), ("12*2", "24"), ("24+12", "36")), 1, 5, 15),  # read twice
        ((("3*4", "12"), ("3*5", "15"), ("12+15", "27")), 1, 5, 20),  # a step between that does not read it
        ((("3*4", "12"), ("3*5", "15"), ("12+15", "27")), 2, 5, 17),
        ((("3*4", "12"), ("12/4", "3"), ("3*2", "6")), 2, 5, None),  # 3 is a number of the question as well
        ((("3*4", "12"), ("10-12", "-2"), ("5/(12-9)", "1")), 1, 9, None),  # divides by zero
        ((("3*4", "12"), ("5*3", "15")), 1, 9, None),  # nothing reads it
        ((("3*4", "12"), ("6*2", "12"), ("12+1", "13")), 1, 9, None),  # which 12?
    ],
)
def test_chains_of_any_shape_are_carried_where_it_is_plain_what_is_read(
    chain, step: int, result: int, value: int | None
):
    steps = tuple(Step(*one) for one in chain)
    found = carried(Problem("3 boxes of 4, 5 of 3.", steps, steps[-1].result), step, Fraction(result))
    assert found == (None if value is None else Fraction(value))
