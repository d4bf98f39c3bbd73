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
        *((f"2{times}3", 6) for times in "·⋅∙•∗＊✕✖"),
        *((f"6{over}3", 2) for over in "∕⁄／"),
        *((f"5{minus}3", 2) for minus in "—‒―‐‑﹣－"),
        ("[2+3]*4", 20),
        ("{2+3}*[4-(1+1)]", 10),
        ("（2＋3）4", 20),
        ("(2+3)4", 20),
        ("(2+3)(4)5", 100),
        ("12/(2)3", 18),
        ("1e3*2", 2000),
        ("1.5E-2", Fraction(3, 200)),
        ("2^3", 8),
        ("2**3", 8),
        ("2³", 8),
        ("10⁻²", Fraction(1, 100)),
        ("2^-1", Fraction(1, 2)),
        ("2^3^2", 512),
        ("-2^2", -4),
        ("2*3^2", 18),
        ("(1+1)^(1+2)", 8),
        ("4(3)^2", 36),
        ("50%^2", Fraction(1, 4)),
        (r"2\times3", 6),
        (r"2 \cdot 3 \div 4", Fraction(3, 2)),
        (r"\frac{3+4}{2}", Fraction(7, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"\dfrac{\frac{1}{2}}{3}", Fraction(1, 6)),
        (r"1{,}234+\$1\,000", 2234),
        (r"2^{10}", 1024),
        ("€5+£6", 11),
    ],
)
def test_arithmetic_as_people_and_models_write_it(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "x",
        "2+",
        "*3",
        "(2",
        "2)",
        "1 2",
        "1..2",
        "two",
        "9" * (LONGEST_NUMBER + 1),
        "(" * 99,
        "2^",
        "^2",
        "2^(1/2)",
        "2^99999",
        "9^9^9^9",
        "2^" * 99 + "2",
        "2e",
        "1e99999",
        "2 3(4)",
        "()",
        r"\sqrt{4}",
    ],
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


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("22/10*100", "220.00000000000003"),  # floating point, as a program printed it
        ("0.1*3", "0.30000000000000004"),
        ("1.1+2.2", "3.3000000000000003"),
        ("1/3", "0.3333333333333333"),
        ("10^20/3", "3.3333333333333332e19"),
        ("1/3", "33.3%"),
        ("1/3", "3.33e-1"),
        ("2·3", "6"),
        ("2**3", "8"),
        ("5—3", "2"),
        ("13*2=20+6", "26"),  # every side of a running equation
        ("7", "7."),
    ],
)
def test_a_step_is_right_in_whichever_characters_and_however_it_was_computed(expression: str, result: str) -> None:
    assert Step(expression, result).is_right()


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("22/10*100", "220.0000000003"),
        ("22/10*100", "221.00000000000003"),
        ("1/3", "33.5%"),
        ("13*2=20+7", "26"),
        ("13*2=20+6", "27"),
        ("7.5", "7."),
        ("1/3", "3.5e-1"),
        ("10^20", "99999999999999999999"),  # written without a decimal it must be exact
    ],
)
def test_what_no_rounding_explains_is_wrong(expression: str, result: str) -> None:
    assert not Step(expression, result).is_right()


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.sampled_from("+*/"))
def test_what_a_computer_prints_as_the_result_is_right(a: float, b: float, operator: str) -> None:
    result = {"+": a + b, "*": a * b, "/": a / b}[operator]
    assert Step(f"{a}{operator}{b}", f"{result}").is_right()


def test_steps_are_found_among_words_and_the_last_equals_sign_divides() -> None:
    text = "Janet sells 16 - 3 = <<16-3=13>>13 eggs.\nThat is <<13*2=20+6=26>>26 dollars."
    assert read_chain(text) == (Step("16-3", "13"), Step("13*2=20+6", "26"))
    assert read_chain("nothing here") == ()


@pytest.mark.parametrize("text", ["<<6*9>>", "<<=54>>", "<<6*9=>>", "<<6*9=54>", "<<6*9=54", "<<6<<7=7>>"])
def test_a_broken_step_is_not_passed_over(text: str) -> None:
    with pytest.raises(Unreadable):
        read_chain(text)
