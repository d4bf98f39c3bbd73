"""The ladder of question readers: what each rung can name and what it cannot, and that none of them sees a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.arithmetic.chain import Step, read_chain
from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.judging.question_features import given_steps, numbers_in_order, sentences_of
from workings.judging.questions import RUNGS, QuestionReader, question_readers
from workings.judging.readers import pool

PROBLEMS = list(generate(800, PRESETS["bundled"], seed=1000))
N = len(PROBLEMS)
TRAIN, VAL, TEST = np.arange(400), np.arange(400, 560), np.arange(560, N)


def read(values: list[str], rule: str = "step1", problems: list[Problem] = PROBLEMS, **more) -> list[QuestionReader]:
    """The readers of these values, of which the candidates are those seen in training."""
    classes = sorted({values[i] for i in TRAIN}, key=float)
    y = np.array([classes.index(value) if value in classes else -1 for value in values])
    return question_readers(problems, rule, classes, y, TRAIN, VAL, **more)


def named(values: list[str], readers: list[QuestionReader], upto: str) -> float:
    """The share of the test values that the stack of readers up to a rung names."""
    classes = sorted({values[i] for i in TRAIN}, key=float)
    y = np.array([classes.index(value) if value in classes else -1 for value in values])
    stack = [reader.log_p for reader in readers if RUNGS.index(reader.rung) <= RUNGS.index(upto)]
    return float((pool(stack, y, VAL).log_p.argmax(1) == y)[TEST].mean())


RESULTS = [problem.steps[0].result for problem in PROBLEMS]


@pytest.fixture(scope="module")
def of_step_1() -> list[QuestionReader]:
    """What all readers say of the results of the first steps."""
    return read(RESULTS)


def first_number(problem: Problem) -> str:
    return problem.steps[0].expression.rstrip("0123456789")[:-1]


# ---- no reader sees a result -------------------------------------------------------------------------------------


@given(st.sampled_from(PROBLEMS), st.lists(st.integers(0, 99).map(str), min_size=5, max_size=5))
def test_what_is_written_as_a_result_changes_nothing_that_is_seen(problem: Problem, results: list[str]) -> None:
    steps = tuple(replace(step, result=result) for step, result in zip(problem.steps, results, strict=False))
    assert given_steps(replace(problem, steps=steps, answer="0")) == given_steps(problem)


@given(st.sampled_from(PROBLEMS), st.integers(1000, 2000))
def test_a_running_value_is_not_seen_whatever_it_is(problem: Problem, other: int) -> None:
    swapped = tuple(
        step if i == 0 else replace(step, expression=f"{other + i}{step.expression.lstrip('0123456789')}")
        for i, step in enumerate(problem.steps)
    )
    seen = [value for step in given_steps(replace(problem, steps=swapped)) for _, value in step.terms]
    assert max(value or 0 for value in seen) <= 20
    assert [value for step in given_steps(problem)[1:] for value in [step.terms[0][1]]] == [None] * (
        problem.n_steps - 1
    )


@pytest.mark.parametrize(
    ("question", "chain", "seen"),
    [
        # the running value is left out though the question names the same number
        ("Ann has 2 pens, doubles them and gets 4.", "<<2*2=4>><<4+4=8>>", [["2", "*2"], ["?", "+4"]]),
        # a result used twice; the second use is not named by the question
        ("A box of 12. Twice. All?", "<<12*2=24>><<24+12=36>><<24-1=23>>", [["12", "*2"], ["?", "+12"], ["?", "-1"]]),
        # a rounded result is still a result, and not the 12 that everybody knows
        ("35 pens for 3 people.", "<<35/3=12>><<12*3=36>>", [["35", "/3"], ["?", "*3"]]),
        ("50 minutes at $12.", "<<12/60=0.2>><<0.2*50=10>>", [["12", "/60"], ["?", "*50"]]),
        ("A quarter of 1,000, then 25% off.", "<<1000/4=250>><<250*.25=62.5>>", [["1000", "/4"], ["?", "*0.25"]]),
    ],
)
def test_a_step_gives_the_operands_that_were_not_worked_out(question: str, chain: str, seen: list[list[str]]) -> None:
    steps = given_steps(Problem(question, read_chain(chain), "0"))
    shown = [[before + ("?" if value is None else f"{value:g}") for before, value in step.terms] for step in steps]
    assert shown == seen


def test_an_expression_that_cannot_be_read_gives_nothing() -> None:
    steps = (Step("six × y", "54"), Step("54+1", "55"))
    assert [step.terms for step in given_steps(Problem("6 and 1?", steps, "55"))] == [(), (("", None), ("+", 1.0))]


def test_the_numbers_of_a_question_stand_in_order_with_their_words() -> None:
    numbers = numbers_in_order(sentences_of("Ann has 1,234 pens, 5. She buys twenty more; then half go."))
    assert [value for value, _, _ in numbers] == [1234, 5, 20, 0.5]
    assert numbers[0] == (1234, "has", "pens")


# ---- what the rungs can name -------------------------------------------------------------------------------------


def test_words_are_named_from_the_surface_on() -> None:
    values = [str(len(problem.question.split()[0])) for problem in PROBLEMS]
    assert named(values, read(values, rungs=["surface"]), "surface") > 0.95


def test_one_number_is_named_from_the_first_order_on() -> None:
    values = [first_number(problem) for problem in PROBLEMS]
    assert named(values, read(values, rungs=["first order"]), "first order") > 0.95


def test_what_two_numbers_make_is_named_by_computing_only(of_step_1: list[QuestionReader]) -> None:
    computing, first_order, surface = (named(RESULTS, of_step_1, rung) for rung in reversed(RUNGS))
    assert computing > 0.7
    assert surface < first_order < computing - 0.08


def test_noise_is_named_by_none() -> None:
    draw = np.random.default_rng(0).integers(0, 10, N)
    values = [str(value) for value in draw]
    assert named(values, read(values), "computing") < 0.2


# ---- how they are fitted -----------------------------------------------------------------------------------------


def test_every_reader_gives_probabilities_also_where_the_value_is_unknown() -> None:
    readers = read([*(problem.answer for problem in PROBLEMS[:600]), *["7000"] * 200], "answer")
    assert [reader.rung for reader in readers] == sorted((reader.rung for reader in readers), key=RUNGS.index)
    assert len({reader.name for reader in readers}) == len(readers)
    for reader in readers:
        assert reader.log_p.dtype == np.float32
        np.testing.assert_allclose(np.exp(reader.log_p).sum(1), 1, atol=1e-3)


def test_no_reader_looks_at_a_test_value_and_one_seed_gives_one_reading(of_step_1: list[QuestionReader]) -> None:
    for one, other in zip(of_step_1, read([*RESULTS[:560], *reversed(RESULTS[560:])]), strict=True):
        np.testing.assert_array_equal(one.log_p, other.log_p)


def test_problems_without_a_chain_are_read_by_their_numbers() -> None:
    bare = [replace(problem, steps=()) for problem in PROBLEMS]
    values = [first_number(problem) for problem in PROBLEMS]
    readers = read(values, "answer", bare)
    assert {reader.rung for reader in readers} == set(RUNGS)
    assert named(values, readers, "first order") > 0.9
