"""The answer a text gives is the number a careful reader would take from it, exactly."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

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


SHAPES: dict[str, list[tuple[str, str | None]]] = {
    "the word answer in prose": [
        ("There are 5 long-answer questions: 5*5 = 25 points, and 26 for the rest.\nA: 51", "51"),
        ("If each answer is worth 4 points, 20 answers are worth 80 points.", "80"),
        ("Each correct answer is worth 5 points, so 12 of them are worth 60.", "60"),
        ("Every answer is 2 points. She has 9, so 18 points.", "18"),
        ("A wrong answer is minus 2 points, so he has 20 - 2 = 18.", "18"),
        ("An answer is 3 lines long; 6 of them fill 18 lines", "18"),
        ("The time to answer is 3 minutes each, so 10 take 30 minutes.", "30"),
        ("They answer all calls: 5 an hour, 40 a day", "40"),
        ("Answer sheets: 3 a person, so 27 in all", "27"),
        ("The answer key is 2 pages. 9 copies are 18 pages.", "18"),
        ("If the answer is worth 4 points, five are worth 20.", "20"),
        ("A multiple-answer test is 30 minutes and 12 questions", "12"),
        ("No, the answer is 54. She had 3 before.", "54"),
        ("For her the answer is 54. She had 3 before.", "54"),
        ("The correct answer is 54. It took 3 steps.", "54"),
        ("The answer to the first part was 7, the final answer is 54. Bye 3", "54"),
        ("The answer would be 54. It took 3 steps.", "54"),
        ("the answer, in dollars: 54. It took 3 steps.", "54"),
        ("My answer is 54! 3 cheers!", "54"),
        ("ANSWER: 54 (3 steps)", "54"),
        ("### Answer: 54 (3 steps)", "54"),
        ("**Final Answer**: 54 (3 steps)", "54"),
        ("answer = 54 # in 3 steps", "54"),
    ],
    "a thought never outranks what follows it": [
        ("<think>The answer is 45. \\boxed{45} #### 45</think>So it is 54.", "54"),
        ("<think>\n#### 45\n</think>\n\n54", "54"),
        ("The answer is 45</think>54", "54"),
        ("<thinking>\\boxed{45}</thinking>\nShe has 54.", "54"),
        ("<reasoning>45</reasoning> 54", "54"),
        ("<|begin_of_thought|>\\boxed{45}<|end_of_thought|> 54", "54"),
        ("[THINK]\\boxed{45}[/THINK]54", "54"),
        ("◁think▷\\boxed{45}◁/think▷54", "54"),
        ("<|channel|>analysis<|message|>#### 45<|end|><|start|>assistant<|channel|>final<|message|>54<|return|>", "54"),
        ("<think>A user asked:\nQuestion: what is 6*9?\n45</think>54", "54"),
        ("<think>6*9 is 54</think>", "54"),
        ("<think>6*9 is 54", "54"),
        ("<think>#### 45</think>It is fifty-four.", None),
        ("<think>45</think><answer>54</answer>", "54"),
        ("<think>45</think><answer>6*9, so \\boxed{54} in 3 steps</answer>", "54"),
        ("<answer>54</answer> in 3 steps", "54"),
        ("<answer>\n54", "54"),
        ("First <think>45</think> then <think>#### 46</think> 54", "54"),
    ],
    "powers of ten and powers": [
        (r"\boxed{2.5\times10^{-3}}", "1/400"),
        (r"\boxed{2.5 \times 10^{-3}}", "1/400"),
        (r"$2.5\cdot10^3$", "2500"),
        (r"\boxed{5\times 10^4 \text{ J}}", "50000"),
        ("5 × 10³", "5000"),
        ("5×10³ m", "5000"),
        ("5 × 10⁻³", "1/200"),
        ("5 · 10³", "5000"),
        ("5 x 10^3", "5000"),
        ("5*10^3", "5000"),
        ("5 * 10^(-3)", "1/200"),
        ("so 10³", "1000"),
        ("so 2^10", "1024"),
        (r"\boxed{2^{10}}", "1024"),
        ("#### 3²", "9"),
        ("#### 2^-2", "1/4"),
        ("1E+3", "1000"),
        ("6.02e23", "602000000000000000000000"),
        ("an area of 54 cm^{2}", "54"),
        ("an area of 54 m²", "54"),
        ("x^2 = 9", "9"),
    ],
    "fractions": [
        (r"\frac12", "1/2"),
        (r"\frac 12", "1/2"),
        (r"\frac{1}2", "1/2"),
        (r"\frac1{12}", "1/12"),
        (r"\cfrac{1}{2}", "1/2"),
        (r"\tfrac{1}{2}", "1/2"),
        (r"\dfrac 3 4", "3/4"),
        (r"\boxed{-\frac12}", "-1/2"),
        (r"\boxed{\frac{-1}{2}}", "-1/2"),
        (r"2\,\frac{1}{2}", "5/2"),
        (r"2\frac12", "5/2"),
        (r"2 \dfrac{1}{2}", "5/2"),
        (r"\boxed{2\;\tfrac{1}{2}}", "5/2"),
        (r"\boxed{\frac{3+4}{2}}", "7/2"),
        (r"\boxed{\frac{1{,}000}{3}}", "1000/3"),
        (r"\frac{1,000}{3}", "1000/3"),
        ("1⁄2", "1/2"),
        ("2 1⁄2 hours", "5/2"),
        ("2½", "5/2"),
        ("2 ½ hours", "5/2"),
        ("⅔ of it", "2/3"),
        ("-2 1/2", "-5/2"),
        ("3 and 1/2", "7/2"),
        ("3 and 1/2 hours", "7/2"),
        ("3-1/2", "7/2"),
        ("#### 3-1/2", "7/2"),
        ("The answer is 3 and 1/2 cups.", "7/2"),
        ("2 and a half hours", "5/2"),
        ("2 and three-quarter hours", "2"),
        ("3 and a quarter", "13/4"),
        ("between 10-4/2", "2"),
        ("0.5/2", "1/4"),
    ],
    "grouping": [
        ("1 234 567", "1234567"),
        ("She has 1 234 567 eggs.", "1234567"),
        ("#### 1 234", "1234"),
        ("The answer is 1 234 dollars.", "1234"),
        ("1 234 567.89", "123456789/100"),
        (r"9\,500", "9500"),
        (r"\boxed{9\,500}", "9500"),
        (r"\boxed{1\,234\,567}", "1234567"),
        (r"\boxed{9\;500}", "9500"),
        (r"\boxed{9\ 500}", "9500"),
        (r"\boxed{9~500}", "9500"),
        (r"\boxed{9,\!500}", "9500"),
        (r"\boxed{9{,}500{,}000}", "9500000"),
        ("1'234'567", "1234567"),
        ("1’234’567", "1234567"),
        ("1'234", "1234"),
        ("1_000_000", "1000000"),
        ("#### 1_000", "1000"),
        ("1,00,000", "100000"),
        ("₹12,34,567", "1234567"),
        ("1，234", "1234"),
        ("1,234，567", "1234567"),
        ("1.234.567", "1234567"),
        ("1\u00a0234\u00a0567", "1234567"),
        ("1\u2009234", "1234"),
        ("２５", "25"),
        ("5 100-watt bulbs", "100"),
        ("#### 5 100-watt bulbs", "5"),
        ("1 23 456", "456"),
        ("3 and 100 200", "200"),
        ("100 2000", "2000"),
        ("1,2345", "2345"),
        ("call 555 1234", "1234"),
    ],
    "digits with spaces": [
        ("#### 5 5 6 0 8 2 0 1", "55608201"),
        ("1 1 1 1 1 1", "1"),  # a model that repeats itself states nothing
        ("The answer is: 5 5 6 0 8 2 0 1", "55608201"),
        ("The answer is 1 0.", "10"),
        ("#### -1 2 3", "-123"),
        ("rooms 1 2 3", "3"),
        ("#### 1 2 3 apples", "1"),
        ("1 2 3\nso 4", "4"),
    ],
    "signs": [
        ("It is negative 5.", "-5"),
        ("negative 5", "-5"),
        ("Negative $5", "-5"),
        ("It is minus 5.", "-5"),
        ("The answer is minus 5", "-5"),
        ("12 minus 5", "5"),
        ("ten minus 5 dollars", "5"),
        ("The balance is - $5.", "-5"),
        ("= - 5", "-5"),
        ("x = -  5", "-5"),
        ("Answer: - $5", "-5"),
        ("#### - $5", "-5"),
        (r"\boxed{- 5}", "-5"),
        (r"\boxed{-\$5}", "-5"),
        ("Profit:\n- $5 a day", "5"),
        ("20 - $5", "5"),
        ("a loss of -$5", "-5"),
        ("$-5", "-5"),
        ("-$1,234.50", "-2469/2"),
        ("－5", "-5"),
        ("5‒10", "10"),
        ("#### −5", "-5"),
        ("#### negative 5", "-5"),
    ],
    "currencies and units": [
        ("USD18", "18"),
        ("USD 18", "18"),
        ("18USD", "18"),
        ("US$18", "18"),
        ("A$18", "18"),
        ("EUR18.50", "37/2"),
        ("Rs.500", "500"),
        ("Rs 500", "500"),
        ("Rs500", "500"),
        ("₹500", "500"),
        ("₩5,000", "5000"),
        ("-USD18", "-18"),
        ("RM18", "18"),
        ("18€", "18"),
        ("18¢", "18"),
        ("18 lakh", "1800000"),
        ("1.5 crore rupees", "15000000"),
        ("H2O", None),
        ("in B5", None),
    ],
    "where the turn ends": [
        ("54\n### Instruction:\nWhat is 9?", "54"),
        ("54\n\n### Instruction:\n9\n\n### Response:\n8", "54"),
        ("54\n\n### Input:\n9", "54"),
        ("54\n\n### Response:\n9", "54"),
        ("54</s>9", "54"),
        ("54<eos>9", "54"),
        ("54<pad><pad>9", "54"),
        ("54[PAD][PAD] 9", "54"),
        ("54<|pad|>9", "54"),
        ("54<|end|>9", "54"),
        ("54<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n9", "54"),
        ("54<|im_end|>\n<|im_start|>user\n9<|im_end|>", "54"),
        ("54<end_of_turn>\n<start_of_turn>user\n9", "54"),
        ("54 [INST] 9 [/INST] 8", "54"),
        ("54</s><s>[INST] 9 [/INST] 8", "54"),
        ("54<｜end▁of▁sentence｜><｜User｜>9<｜Assistant｜>8", "54"),
        ("54\n\nHuman: 9\n\nAssistant: 8", "54"),
        ("54\nAssistant: 9", "54"),
        ("54\nSystem: 9", "54"),
        ("54\n<human>: 9\n<bot>: 8", "54"),
        ("54\n[|Human|] 9", "54"),
        ("54\n问题：9", "54"),
        ("54\nPregunta: 9", "54"),
        ("54\n## Question 2: 9", "54"),
        ("54\n\nProblem 3:\n9", "54"),
        ("The answer is 54.\nQ: The answer is 9.", "54"),
    ],
    "where the turn begins": [
        ("Assistant: 54", "54"),
        ("\nAssistant: 54", "54"),
        ("### Response:\n54", "54"),
        ("User: What is 6*9?\nAssistant: 54", "54"),
        ("User: What is 6*9?\nAssistant: 54\nUser: 9?\nAssistant: 8", "54"),
        ("### Instruction:\nWhat is 6*9?\n\n### Response:\n54", "54"),
        ("Human: What is 6*9?\n\nAssistant: 54\n\nHuman: 9", "54"),
        ("[INST] What is 6*9? [/INST] 54</s>", "54"),
        ("<s>[INST] What is 6*9? [/INST] 54</s>", "54"),
        ("<|im_start|>assistant\n54<|im_end|>", "54"),
        (
            "<|im_start|>system\nBe 1.<|im_end|>\n<|im_start|>user\n6*9?<|im_end|>\n<|im_start|>assistant\n54<|im_end|>\n9",
            "54",
        ),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n54<|eot_id|>", "54"),
        (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n6*9?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n54",
            "54",
        ),
        ("<start_of_turn>model\n54<end_of_turn>", "54"),
        ("<bos><start_of_turn>user\n6*9?<end_of_turn>\n<start_of_turn>model\n54", "54"),
        ("<|user|>\n6*9?<|assistant|>\n54<|user|>9", "54"),
        ("<pad><pad>54</s>", "54"),
        ("Question: What is 6*9?\nAnswer: 54", "54"),
        ("model 3 costs 54", "54"),
        ("Assistants: 54", "54"),
    ],
    "denied numbers": [
        ("not 45 but 54", "54"),
        ("The answer is not 45 but 54.", "54"),
        ("#### not 45 but 54", "54"),
        ("It is 54, not 45.", "54"),
        ("54 rather than 45", "54"),
        ("54 instead of 45", "54"),
        ("The answer is 54 and not $45", "54"),
        ("not only 45 but 54", "54"),
        ("It is not 45", None),
    ],
    "what a statement comes to": [
        ("The answer is 12 + 5, so 17", "17"),
        ("12 + 5, so 17", "17"),
        ("The answer is 12 - 5, so 7", "7"),
        ("The answer is 12 + 5, which is 17.", "17"),
        ("The answer is 6*9 or 54", "54"),
        ("The answer is 12 + 5 → 17", "17"),
        ("#### 12 + 5", "17"),
        ("#### 6 * 9", "54"),
        (r"\boxed{6 \times 9}", "54"),
        (r"\boxed{6 \cdot 9 = 54}", "54"),
        (r"\boxed{(2+3)4}", "20"),
        ("The answer is 54 because 9 = 3*3", "54"),
        ("The answer is 54 (6*9 = 54, and 9 = 3*3)", "54"),
        ("The answer is $54, since 60 - 6 = 54 and 6 = 2*3.", "54"),
        ("Answer: 2*3 = 6, 6+4 = 10", "10"),
        ("Answer: 5*(2+3) = 25 apples", "25"),
        ("The answer is 2 * (3 + 4) = 14", "14"),
        ("The answer is 9 eggs * 6 = 54 eggs", "54"),
        ("The answer is x = 54", "54"),
        ("The answer is 54 = total", "54"),
        ("The answer is 54, and 3 are left", "54"),
        ("54 is the answer, since 60 - 6 is 54", "54"),
        ("So 54 is the answer.", "54"),
        ("$54 is the final answer (60 - 6)", "54"),
        ("6*9 = 54 is our answer. Check: 54/9 = 6", "54"),
        ("She has 54, which is the answer: 6*9.", "54"),
        ("So 9 is the answer to part 1. The answer is 54 in 3 steps", "54"),
    ],
    "ranges, times, ratios and dates": [
        *(
            (f"{mark}{text}", value)
            for mark in ("", "#### ", "The answer is ")
            for text, value in (
                ("5-10", "10"),
                ("5 – 10", "10"),
                ("5 to 10", "10"),
                ("10:30", "30"),
                ("10:30 pm", "30"),
                ("2:3", "3"),
                ("2 : 3", "3"),
                ("1:2:3", "3"),
                ("2024-05-10", "10"),
                ("5/10/2024", "2024"),
                ("10.5.2024", "2024"),
            )
        ),
        (r"\boxed{2:3}", "3"),
        ("The answer: 54: six times nine", "54"),
    ],
    "other languages": [
        ("答案是18元", "18"),
        ("答案是18元，共3天", "18"),
        ("答案：18（9×2）", "18"),
        ("所以答案是 18。她有3个", "18"),
        ("最终答案为18。3天", "18"),
        ("答：18元，3天", "18"),
        ("La respuesta es: 18 (9*2)", "18"),
        ("La respuesta es: 18 (9*2=18, 3*3=9)", "18"),
        ("La respuesta final es 18. Son 3 pasos", "18"),
        ("Respuesta: 18 (3 pasos)", "18"),
        ("La réponse est 18. En 3 étapes", "18"),
        ("Die Antwort lautet 18. Es sind 3 Schritte", "18"),
        ("Antwort: 18 (3 Schritte)", "18"),
        ("A resposta é 18. São 3 passos", "18"),
        ("La risposta è 18. In 3 passi", "18"),
        ("Ответ: 18 (3 шага)", "18"),
        ("答えは18です。3歩", "18"),
        ("정답은 18입니다. 3단계", "18"),
        ("Она купила 18 яблок", "18"),
        ("١٨", "18"),
    ],
    "cut off in a repetition": [
        ("The answer is 18.\nThe answer is 1", "18"),
        ("The answer is 1,234.\nThe answer is 1,2", "1234"),
        ("#### 18\n#### 1", "18"),
        ("\\boxed{18}\n\\boxed{1", "18"),
        ("Answer: $18\nAnswer: $1", "18"),
        ("The answer is 18. The answer is 18. The answer is", "18"),
        ("The answer is 18.\nThe answer is 1.", "1"),
        ("The answer is 18.\nThe answer is 2", "2"),
        ("The answer is 1.\nThe answer is 18", "18"),
    ],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [pytest.param(*shape, id=f"{kind} {i}") for kind, shapes in SHAPES.items() for i, shape in enumerate(shapes, 1)],
)
def test_a_shape_that_people_and_models_write_is_read(text: str, value: str | None) -> None:
    assert answer_in(text) == (None if value is None else Fraction(value))


def test_all_verdicts_on_published_model_solutions_are_those_of_their_authors(shared_data: Path) -> None:
    with gzip.open(shared_data / "gsm8k" / "model_solutions.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    verdicts = [same_answer(answer_in(row["solution"]), answer_in(row["ground_truth"])) for row in rows]
    assert len(rows) == 5276
    assert verdicts == [row["is_correct"] for row in rows]


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
        "9^",
        "<think>",
        "</think>",
        "<answer>",
        "<|im_start|>",
        "\nUser",
        "\n ",
        "1'000'",
        "100 ",
        "1,00,",
        "is - ",
        "not ",
        "not 1 ",
        " is the answer",
        "answer is 1 + ",
        "answer is 2^9^",
        "each answer ",
        " and a ",
        "1:",
        "#### 1 (",
        "\\frac{",
    ],
)
def test_degenerate_text_is_read_without_raising(piece: str) -> None:
    answer_in(piece * 20_000)


integers = st.integers(-(10**12), 10**12)
decimals = st.decimals(-(10**9), 10**9, places=2, allow_nan=False)
GROUPED = {
    "spaces": " ", "thin spaces": "\u2009", "narrow spaces": "\u202f", "hard spaces": "\u00a0", "apostrophes": "'",
    "typographic apostrophes": "’", "underscores": "_", "wide commas": "，", "LaTeX thin spaces": r"\,", "LaTeX commas": "{,}",
}  # fmt: skip
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
CHAT_ENDS = [
    "</s>", "<|endoftext|>", "<|im_end|>\n<|im_start|>user\n", "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "<end_of_turn>\n<start_of_turn>user\n", "<eos>", "<pad>", "[PAD]", " [INST] ", "<｜end▁of▁sentence｜><｜User｜>",
    "\nUser: ", "\n\nHuman: ", "\n\nAssistant: ", "\n### Instruction:\n", "\n\n### Input:\n", "\n**Question 2:** ",
]  # fmt: skip
CHAT_STARTS = [
    "", "Assistant: ", "### Response:\n", "<|im_start|>assistant\n", "<start_of_turn>model\n", "User: 6 times 9?\nAssistant: ",
    "<|start_header_id|>assistant<|end_header_id|>\n\n", "[INST] 6 times 9? [/INST] ", "<think>\\boxed{9}</think>\n",
    "<|im_start|>user\n6*9?<|im_end|>\n<|im_start|>assistant\n", "<s>", "<pad><pad><bos>",
]  # fmt: skip
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


@given(integers, st.sampled_from(sorted(GROUPED)), st.sampled_from(["#### {}", "The answer is {}.", "$\\boxed{{{}}}$"]))
def test_a_whole_number_in_any_grouping_reads_back_as_itself(number: int, grouping: str, stated: str) -> None:
    assert answer_in(stated.format(f"{number:,}".replace(",", GROUPED[grouping]))) == number


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from(CHAT_STARTS),
    st.sampled_from(CHAT_ENDS),
    st.sampled_from(sorted(SAID)),
    st.integers(0, 99),
)
def test_no_chat_format_changes_what_was_said(number: int, start: str, end: str, said: str, other: int) -> None:
    assert answer_in(f"{start}{SAID[said](number)}{end}The answer is {other}. #### {other}") == number


@given(st.integers(1, 10**6), st.integers(1, 999), st.integers(2, 10**3), st.sampled_from(sorted(SAID)))
def test_a_mixed_number_reads_back_as_itself(whole: int, top: int, bottom: int, said: str) -> None:
    value = whole + Fraction(top % bottom, bottom)
    for written in (
        "{} {}/{}",
        "{} and {}/{}",
        "{}-{}/{}",
        r"{}\frac{{{}}}{{{}}}",
        r"{}\,\frac{{{}}}{{{}}}",
        "{} {}⁄{}",
    ):
        assert answer_in(SAID[said](written.format(whole, top % bottom, bottom))) == value


@given(st.integers(1, 9999), st.integers(1, 9999), st.sampled_from(["-", "–", ":", " to ", "/2/"]))
def test_a_range_a_time_a_ratio_and_a_date_give_one_number_wherever_they_stand(a: int, b: int, joint: str) -> None:
    for said in ("{}", "#### {}", "\\boxed{{{}}}", "The answer is {}.", "Answer: {}\n"):
        assert answer_in(said.format(f"{a}{joint}{b}")) == b


@given(st.integers(1, 999), st.integers(1, 999), st.sampled_from("+*×"))
def test_a_statement_that_is_an_expression_is_worked_out(a: int, b: int, operator: str) -> None:
    value = a + b if operator == "+" else a * b
    for said in (
        "#### {} {} {}",
        "\\boxed{{{}{}{}}}",
        "The answer is {} {} {} = " + str(value),
        "Answer: {} {} {}, so " + str(value),
    ):
        assert answer_in(said.format(a, operator, b)) == value


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
