"""A chain is read as it was written, and an expression is worth what arithmetic says it is worth."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.arithmetic.chain import LONGEST_NUMBER, Step, Unreadable, evaluate, read_chain, write_chain

numbers = st.decimals(0, 10**9, places=2).map(lambda d: f"{d}") | st.integers(0, 10**9).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map("".join)
        | inner.map("({})".format)
        | inner.map("-({})".format)
    ),
    max_leaves=8,
)
steps = st.builds(Step, expressions, numbers)


class Exact:
    """Python's own arithmetic over fractions, as the second opinion."""

    @staticmethod
    def value(expression: str) -> Fraction:
        import re

        return eval(re.sub(r"[\d.]+", lambda m: f"Fraction('{m.group()}')", expression), {"Fraction": Fraction})


@given(expressions)
def test_an_expression_is_worth_what_python_says(expression: str) -> None:
    try:
        expected = Exact.value(expression)
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            evaluate(expression)
    else:
        assert evaluate(expression) == expected


@given(st.lists(steps, max_size=6).map(tuple))
def test_a_chain_reads_back_as_it_was_written(chain: tuple[Step, ...]) -> None:
    assert read_chain(write_chain(chain)) == chain
    assert write_chain(chain, style="stripped") == write_chain(chain).replace("<<", "").replace(">>", "")


@given(expressions)
def test_a_step_that_states_the_value_is_right_and_one_more_is_wrong(expression: str) -> None:
    try:
        value = evaluate(expression)
    except ZeroDivisionError:
        return
    assert Step(expression, f"{value}").is_right()
    assert not Step(expression, f"{value + 1}").is_right()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("6*9", 54),
        ("16-3-4", 9),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("2(3+4)", 14),
        ("12/4/3", 1),
        ("-5+8", 3),
        ("2--3", 5),
        (".5*10", 5),
        ("600*.4", 240),
        ("1,234+1", 1235),
        ("$5*2", 10),
        ("50%*80", 40),
        ("30%", Fraction(3, 10)),
        ("3/4", Fraction(3, 4)),
        ("6×9÷2", 27),
        ("6 x 9", 54),
        ("7−2", 5),
        ("560//10", 56),
        ("7//2", 3),
        ("5.", 5),
    ],
)
def test_arithmetic_as_gsm8k_writes_it(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", " ", "x", "2+", "*3", "(2", "2)", "1 2", "2^3", "1..2", "two", "9" * (LONGEST_NUMBER + 1), "(" * 99],
)
def test_what_is_no_arithmetic_says_so(expression: str) -> None:
    with pytest.raises(Unreadable):
        evaluate(expression)
    assert not Step(expression, "1").is_right()


def test_a_written_decimal_may_be_rounded_or_cut_and_a_whole_number_must_be_exact() -> None:
    assert Step("100/3", "33.33").is_right()
    assert Step("2/3", "0.67").is_right()
    assert Step("2/3", "0.66").is_right()
    assert not Step("2/3", "0.65").is_right()
    assert not Step("100/3", "33").is_right()
    assert not Step("1/0", "0").is_right()


def test_steps_are_found_among_words_and_the_last_equals_sign_divides() -> None:
    text = "Janet sells 16 - 3 = <<16-3=13>>13 eggs.\nThat is <<13*2=20+6=26>>26 dollars."
    assert read_chain(text) == (Step("16-3", "13"), Step("13*2=20+6", "26"))
    assert read_chain("nothing here") == ()


@pytest.mark.parametrize("text", ["<<6*9>>", "<<=54>>", "<<6*9=>>", "<<6*9=54>", "<<6*9=54", "<<6<<7=7>>"])
def test_a_broken_step_is_not_passed_over(text: str) -> None:
    with pytest.raises(Unreadable):
        read_chain(text)
