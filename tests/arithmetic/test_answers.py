"""The answer a text gives is the number a careful reader would take from it, exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.arithmetic.answers import answer_in, same_answer
from workings.arithmetic.chain import LONGEST_NUMBER

GOLDEN = [
    # the marker
    ("#### 1,234.56", "1234.56"),
    ("#### .5", "0.5"),
    ("#### -$5", "-5"),
    ("#### $-5", "-5"),
    ("#### −7", "-7"),
    ("#### - 7", "-7"),
    ("#### 54 apples, not 3", "54"),
    ("#### **54**", "54"),
    ("####54####", "54"),
    ("####\n54", "54"),
    ("#### 9 * 6 = 54", "54"),
    ("#### 1\nNo, wait.\n#### 2", "2"),
    ("6*9=54\n#### 54\nThat took 3 minutes.", "54"),
    ("#### 54\n####", "54"),
    ("#### none of the 3", "3"),
    ("#### Step 1: take 9\n\\boxed{54}", "54"),
    ("#### 2. Add them\nThe answer is 54.", "54"),
    ("##### 3\n\\boxed{54}", "54"),
    # boxes
    (r"\boxed{54}", "54"),
    (r"So $\boxed{-54}$ of 3.", "-54"),
    (r"\boxed{\$1{,}234}", "1234"),
    (r"\boxed{1\,234}", "1234"),
    (r"\boxed{\frac{1}{2}}", "1/2"),
    (r"\boxed{-\dfrac{3}{4}}", "-3/4"),
    (r"\boxed{1\frac{1}{2}}", "3/2"),
    (r"\boxed{\text{about } 54\%}", "54"),
    (r"\boxed{x = 54}", "54"),
    (r"\boxed{1} or \boxed{2}", "2"),
    (r"\boxed{54", "54"),
    # the answer is
    ("The answer is $54.", "54"),
    ("The answer is: 54 (6 a day for 9 days)", "54"),
    ("The final answer is 54 dollars. She had 3 left.", "54"),
    ("**Answer:** 54", "54"),
    ("Answer:\n\n54", "54"),
    ("The answer is 5 + 4 = 9.", "9"),
    ("The answer is 3.5. I am sure of 2 things.", "3.5"),
    ("The answer to the question is 54 because 3 is odd.", "54"),
    ("The answer is clear: she has 9 of 12", "9"),
    ("The answer is unknown. She had 3 and then 4.", "4"),
    ("The answer is 5-10", "10"),
    # the last number
    ("He has 1,234", "1234"),
    ("range 5-10", "10"),
    ("between 5 – 10", "10"),
    ("pages 5–10", "10"),
    ("-5", "-5"),
    ("It fell to -5.", "-5"),
    ("x=-5", "-5"),
    ("(-5)", "-5"),
    ("8-(-5)", "-5"),
    ("so — 5", "5"),
    ("- 5 apples", "5"),
    ("1/2", "1/2"),
    ("2 1/2 hours", "5/2"),
    ("½", "1/2"),
    ("2½ hours", "5/2"),
    ("-½", "-1/2"),
    ("= 54", "54"),
    ("6*9=54", "54"),
    ("**54**", "54"),
    ("_54_", "54"),
    ("$54$", "54"),
    ("$1,234.00", "1234"),
    ("€ 5", "5"),
    ("US$5", "5"),
    ("He has 3.", "3"),
    ("3.", "3"),
    ("Is it 3?", "3"),
    ("costs...5", "5"),
    ("007", "7"),
    ("42.0", "42"),
    ("50%", "50"),
    (r"50\%", "50"),
    ("54cm", "54"),
    ("25 m2", "25"),
    ("25 cm^2", "25"),
    ("25 km²", "25"),
    ("54°", "54"),
    ("the 5th", "5"),
    ("1,2,3", "3"),
    ("1, 2 and 3", "3"),
    ("1,234,5", "5"),
    ("1234,567", "567"),
    ("1,234,567", "1234567"),
    ("1\u202f234\u202f567", "1234567"),
    ("3,5", "5"),
    ("1.5e3", "1500"),
    ("2E-2", "1/50"),
    ("1.5 × 10^3", "1500"),
    (r"1.5 \times 10^{3}", "1500"),
    ("2 million", "2000000"),
    ("$1.5 million.", "1500000"),
    ("on 2024-05-10", "10"),
    ("5/10/2024", "2024"),
    ("10.5.2024", "2024"),
    ("at 10:30", "30"),
    ("答案是54元", "54"),
    ("答案是-54", "-54"),
    ("٥٤", "54"),
    ("4/0", "0"),
    # where the answer ends
    ("54\nUser: what is 6*8?", "54"),
    ("#### 54\nUser: next\n#### 9", "54"),
    ("54\n\nQuestion: There are 9 birds", "54"),
    ("54\n**Question 2:** There are 9 birds", "54"),
    ("54\nQ: 9", "54"),
    ("54<|endoftext|>9 9 9", "54"),
    ("54<|im_end|>\n9", "54"),
    ("<|begin_of_text|>54", "54"),
    ("<s> 54</s> 9", "54"),
    # a number with everything around it
    ("#### " + "9" * LONGEST_NUMBER, "9" * LONGEST_NUMBER),
]


@pytest.mark.parametrize(("text", "value"), GOLDEN)
def test_a_text_gives_the_answer_a_careful_reader_takes_from_it(text: str, value: str) -> None:
    assert answer_in(text) == Fraction(value)


@pytest.mark.parametrize(
    "text", ["", "   ", "none", "fifty-four", "####", r"\boxed{}", "m2", "\nUser: 54", "$", "-", ".", "," * 9, "#### ."]
)
def test_a_text_without_a_number_gives_none(text: str) -> None:
    assert answer_in(text) is None


@pytest.mark.parametrize("text", ["9" * (LONGEST_NUMBER + 1), "54 then " + "9" * 10**5, "#### " + "1" * 10**5])
def test_a_runaway_number_is_no_answer(text: str) -> None:
    assert answer_in(text) is None


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "####",
        "#### \n",
        "answer is ",
        "{",
        "-",
        "1 ",
        "1,",
        "1/",
        "1.",
        "\n \t",
        "\\frac{1}{",
        "=",
        "9x10^",
    ],
)
def test_degenerate_text_is_read_without_raising(piece: str) -> None:
    answer_in(piece * 20_000)


integers = st.integers(-(10**12), 10**12)
decimals = st.decimals(-(10**9), 10**9, places=2, allow_nan=False)
WRITTEN = {
    "plain": "{}".format,
    "thousands": "{:,}".format,
    "dollars": lambda n: f"{'-' if n < 0 else ''}${abs(n):,}",
    "unicode minus": lambda n: f"{n}".replace("-", "−"),
    "bold": "**{}**".format,
    "percent": "{}%".format,
    "unit": "{} km".format,
    "sentence": "So she has {}.".format,
    "equation": "x = {}".format,
    "latex": lambda n: f"{n:,}".replace(",", "{,}"),
}
SAID = {
    "bare": "{}".format,
    "marker": "6*9=54, so\n#### {}".format,
    "box": "54 so $\\boxed{{{}}}$ in 3 steps".format,
    "answer is": "After 3 steps the answer is {}".format,
    "turn": "{}\nUser: what is 6*9?".format,
}


@given(integers | decimals, st.sampled_from(sorted(WRITTEN)), st.sampled_from(sorted(SAID)))
def test_a_number_written_in_any_form_reads_back_as_itself(number: int | Decimal, written: str, said: str) -> None:
    assert answer_in(SAID[said](WRITTEN[written](number))) == Fraction(number)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6), st.sampled_from(sorted(SAID)))
def test_a_fraction_reads_back_as_itself(top: int, bottom: int, said: str) -> None:
    assert answer_in(SAID[said](f"{top}/{bottom}")) == Fraction(top, bottom)
    assert answer_in(SAID[said](f"{'-' if top < 0 else ''}\\frac{{{abs(top)}}}{{{bottom}}}")) == Fraction(top, bottom)


@given(integers, integers)
def test_the_last_marker_wins_over_every_number_before_it(before: int, after: int) -> None:
    assert answer_in(f"#### {before}\nThe answer is {before}. \\boxed{{{before}}}\n#### {after}") == after


@given(integers, integers)
def test_a_box_wins_over_the_sentence_and_the_sentence_over_the_last_number(a: int, b: int) -> None:
    assert answer_in(f"The answer is {b}. \\boxed{{{a}}} and {b}") == a
    assert answer_in(f"The answer is {a}. I used {b} steps") == a


@given(st.text() | st.text(alphabet="0123456789.,/-$#\\{}%xe^= \nboxedanswris:|<>"))
def test_any_text_gives_a_number_or_none(text: str) -> None:
    value = answer_in(text)
    assert value is None or isinstance(value, Fraction)
    assert answer_in(text) == value


def test_missing_answers_are_equal_to_nothing() -> None:
    assert same_answer(answer_in("42"), answer_in("42.0"))
    assert not same_answer(answer_in("42"), answer_in("43"))
    assert not same_answer(None, answer_in("0"))
    assert not same_answer(None, None)
