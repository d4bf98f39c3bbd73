"""A file of problems gives every problem in it, says which rows are none, and an id means the same content anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.arithmetic.answers import answer_in
from workings.arithmetic.chain import Step, write_chain
from workings.arithmetic.problems import (
    ChainCounts,
    Malformed,
    Problem,
    problem_of_row,
    read_problems,
    steps_among,
)
from workings.errors import BadInput

EGGS = Problem("Ann has 6 boxes of 9 eggs and 1 more. How many?", (Step("6*9", "54"), Step("54+1", "55")), "55")
HALF = Problem("Ben has half of 1,080 bees. How many?", (Step("1080/2", "540"),), "540")
NONE = Problem("What is “8”?", (), "8")
BOOK = [EGGS, HALF, NONE]


def as_gsm8k(problem: Problem) -> str:
    told = "".join(f"So it is <<{s.expression}={s.result}>>{s.result}.\n" for s in problem.steps)
    return json.dumps({"question": problem.question, "answer": f"{told}#### {problem.answer}"})


def as_icot(problem: Problem) -> str:
    return f"{problem.question}||{write_chain(problem.steps)} #### {problem.answer}"


def as_aug(problem: Problem) -> str:
    return json.dumps({"question": problem.question, "cot": write_chain(problem.steps), "answer": problem.answer})


def as_coconut(problem: Problem) -> dict[str, object]:
    steps = [write_chain([step]) for step in problem.steps]
    return {"question": problem.question, "steps": steps, "answer": problem.answer}


def lines(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"


FORMATS = {
    "gsm8k": lambda problems: lines([as_gsm8k(p) for p in problems]),
    "icot": lambda problems: lines([as_icot(p) for p in problems]),
    "aug": lambda problems: lines([as_aug(p) for p in problems]),
    "coconut": lambda problems: json.dumps([as_coconut(p) for p in problems]),
    "coconut, indented": lambda problems: json.dumps([as_coconut(p) for p in problems], indent=2),
    "coconut, one a line": lambda problems: lines([json.dumps(as_coconut(p)) for p in problems]),
}


def test_a_structure_is_what_the_chain_computes_and_nothing_of_how_it_is_told() -> None:
    told_otherwise = Problem(
        "6 nests, 9 eggs each, 1 more.", (Step("6 * 9", "54.0"), Step("54 +1", "55")), "55.0", "b:2"
    )
    assert EGGS.structure == told_otherwise.structure == "6*9;54+1"
    assert Problem(EGGS.question, EGGS.steps[:1], "54").structure != EGGS.structure
    assert NONE.structure == NONE.id  # no chain is no reason to be counted together


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_problems_with_the_same_ids(name: str, tmp_path: Path) -> None:
    path = tmp_path / "problems.anything"
    path.write_text(FORMATS[name](BOOK))
    read = read_problems(path, strict=True)
    assert [(p.question, p.steps, p.answer) for p in read.problems] == [(p.question, p.steps, p.answer) for p in BOOK]
    assert [p.id for p in read.problems] == [p.id for p in BOOK]
    assert [p.value for p in read.problems] == [55, 540, 8]
    assert [p.n_steps for p in read.problems] == [2, 1, 0]
    assert (read.malformed, read.n_rows, read.duplicates) == ([], 3, {})


def test_a_problem_knows_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text(f"{as_icot(EGGS)}\n\n{as_icot(HALF)}")
    assert [p.source for p in read_problems(path).problems] == ["test.txt:1", "test.txt:3"]
    path.write_text("[\n" + ",\n".join(json.dumps(as_coconut(p)) for p in BOOK) + "\n]\n")
    assert [p.source for p in read_problems(path).problems] == ["test.txt:2", "test.txt:3", "test.txt:4"]


def test_an_id_is_made_of_the_content_and_of_nothing_else() -> None:
    assert EGGS.id == Problem(EGGS.question, EGGS.steps, EGGS.answer, source="elsewhere").id
    assert len(EGGS.id) == 16
    assert int(EGGS.id, 16) >= 0
    assert EGGS.id == "a7e2a0c1220196cb"


@given(st.text(), st.text(), st.text(), st.text())
def test_content_that_differs_has_ids_that_differ(question: str, expression: str, result: str, answer: str) -> None:
    problem = Problem(question, (Step(expression, result),), answer)
    moved = Problem(question + expression, (Step(expression, result),), answer)
    assert (problem.id == moved.id) == (expression == "")
    assert problem.id != Problem(question, (), answer).id
    assert problem.id != Problem(question, (Step(expression, result),) * 2, answer).id


ROWS: dict[str, tuple[dict[str, object], tuple[str, str, str]]] = {  # row → question, chain, answer
    "GSM8K": ({"question": "q?", "answer": "So <<6*9=54>>54.\n#### 54"}, ("q?", "<<6*9=54>>", "54")),
    "GSM8K without marks": (
        {"question": "q?", "answer": "Six times 9.\nThat is 54.\n#### 54"},
        ("q?", "Six times 9.\nThat is 54.", "54"),
    ),
    "GSM8k-Aug": ({"question": "q?", "cot": "<<6*9=54>>", "answer": "54"}, ("q?", "<<6*9=54>>", "54")),
    "GSM8k-Aug-NL": (
        {"question": "q?", "cot": "She has 6 * 9 = 54. She gives 1.5 away. So 52.5.", "answer": "52.5"},
        ("q?", "She has 6 * 9 = 54.\nShe gives 1.5 away.\nSo 52.5.", "52.5"),
    ),
    "Coconut": ({"question": "q?", "steps": ["<<6*9=54>>"], "answer": "54"}, ("q?", "<<6*9=54>>", "54")),
    "Coconut in words": (
        {"question": "q?", "steps": ["Six times 9.", "So 54"], "answer": "54"},
        ("q?", "Six times 9.\nSo 54", "54"),
    ),
    "SVAMP": (
        {
            "ID": "chal-2",
            "Body": "Dan had $ 3 left",
            "Question": "How much?",
            "Equation": "( 4.0 - 3.0 )",
            "Answer": 1.0,
        },
        ("Dan had $ 3 left How much?", "", "1.0"),
    ),
    "AQuA": (
        {
            "question": "q?",
            "options": ["A)21", "B)21.5", "C)none"],
            "rationale": "Half of 43.\nAnswer B",
            "correct": "B",
        },
        ("q?", "Half of 43.\nAnswer B", "21.5"),
    ),
    "AQuA, lettered otherwise": (
        {"question": "q?", "options": ["(A) 21", "(B) 1/2"], "rationale": "", "correct": "b"},
        ("q?", "", "1/2"),
    ),
    "GSM-Hard": ({"input": "q?", "code": "def f(): ...", "target": -9867630.0}, ("q?", "", "-9867630.0")),
    "PAL": ({"input": "q?", "target": 18}, ("q?", "", "18")),
    "MetaMath of GSM8K": (
        {"query": "q?", "response": "It is 54.\n#### 54\nThe answer is: 54", "type": "GSM_AnsAug"},
        ("q?", "It is 54.", "54"),
    ),
    "MetaMath of MATH": (
        {"query": "q?", "response": "It is a half. The answer is: $\\frac12$.", "type": "MATH_AnsAug"},
        ("q?", "It is a half.", "$\\frac12$"),
    ),
    "MultiArith": ({"iIndex": 1, "sQuestion": "q?", "lEquations": ["X=6*9"], "lSolutions": [54.0]}, ("q?", "", "54.0")),
    "MultiArith of the hub": ({"question": "q?", "final_ans": "54"}, ("q?", "", "54")),
    "MATH": (
        {"problem": "q?", "solution": "It is a half.", "answer": "\\frac{1}{2}"},
        ("q?", "It is a half.", "\\frac{1}{2}"),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_known_data_set_is_known_by_its_fields(name: str, tmp_path: Path) -> None:
    row, parts = ROWS[name]
    problem = problem_of_row(row)
    assert (problem.question, problem.chain, problem.answer) == parts
    assert Problem.of(problem.question, problem.chain, problem.answer) == problem
    (tmp_path / "list.json").write_text(json.dumps([row]))
    pl.DataFrame([row]).write_parquet(tmp_path / "table")
    for file in ("list.json", "table"):
        [read] = read_problems(tmp_path / file, strict=True).problems
        assert (read, read.source) == (replace(problem, source=read.source), f"{file}:1")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "q?", "options": ["A)21", "B)2"], "correct": "C"}, "0 of 2 options have the letter 'C'"),
        ({"question": "q?", "options": ["A)21", "A)2"], "correct": "A"}, "2 of 2 options have the letter 'A'"),
        ({"question": "q?", "options": ["A)21", "B)none"], "correct": "B"}, "the answer 'none' holds no number"),
        ({"question": "q?", "options": "A)21", "correct": "A"}, "the field 'options' is not a list of texts"),
        ({"query": "q?", "response": "Who knows 5."}, "the solution ends in no answer"),
        ({"sQuestion": "q?", "lSolutions": [1.0, 2.0]}, "the field 'lSolutions' is list"),
        ({"input": "q?", "target": float("nan")}, "the answer 'nan' holds no number"),
        ({"Body": "b", "Answer": 3}, "no field 'question'; the row has 'Body', 'Answer' (--fields names others)"),
    ],
)
def test_a_row_of_a_known_data_set_without_an_answer_is_malformed(row: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        problem_of_row(row)


def test_fields_of_other_names_are_named(tmp_path: Path) -> None:
    row = {
        "story": "Six boxes of 9.",
        "ask": "How many?",
        "gold": "54",
        "why": "<<6*9=54>>",
        "question": "no",
        "answer": "3",
    }
    problem = problem_of_row(row, fields=["question=story+ask", "answer=gold", "chain=why"])
    assert problem == Problem("Six boxes of 9. How many?", (Step("6*9", "54"),), "54")
    assert problem_of_row(row, fields=["answer=gold"]).question == "no"  # what is not named is called as in GSM8K
    chosen = ["question=story", "answer=right", "options=of"]
    assert problem_of_row({"story": "s", "of": ["A. 3", "B. 4"], "right": "B"}, fields=chosen).answer == "4"
    for wrong, complaint in (
        ("gold", "names nothing"),
        ("answr=gold", "did you mean 'answer'"),
        ("answer=", "names nothing"),
    ):
        with pytest.raises(BadInput, match=complaint):
            problem_of_row(row, fields=[wrong])


ASDIV = """<?xml version="1.0" encoding="UTF-8"?>
<Machine-Reading-Corpus-File><ProblemSet>
<Problem ID="nluds-0001" Grade="1"><Body>Seven red apples &amp; two green.</Body><Question>How many apples?</Question>
<Solution-Type>Addition</Solution-Type><Answer>9 (apples)</Answer><Formula>7+2=9</Formula></Problem>
<Problem ID="nluds-0002"><Body>Two and three.</Body><Question>Which?</Question><Answer>2 (red); 3 (blue)</Answer></Problem>
<Problem ID="nluds-0003"><Body>Two.</Body><Question>Who?</Question><Answer>Ann</Answer></Problem>
</ProblemSet></Machine-Reading-Corpus-File>"""


def test_asdiv_is_read_from_its_xml(tmp_path: Path) -> None:
    path = tmp_path / "ASDiv.xml"
    path.write_text(ASDIV)
    read = read_problems(path)
    assert [(p.question, p.value) for p in read.problems] == [
        ("Seven red apples & two green. How many apples?", 9),
        ("Two and three. Which?", 2),
    ]
    assert [m.reason for m in read.malformed] == ["the answer 'Ann' holds no number"]
    assert ChainCounts.of(read.problems).sentences[-1] == "1 of 2 answers hold several numbers, of which one is read"


def test_digits_with_spaces_between_them_are_one_number(tmp_path: Path) -> None:
    path = tmp_path / "multiplication.txt"  # iCoT writes the least significant digit first
    path.write_text("5 6 3 2 * 7 4 3 4||5 5 4 9 + 0 0 6 5 9 1 #### 5 5 6 0 8 2 0 1\n")
    [problem] = read_problems(path).problems
    assert (problem.value, problem.answer) == (55608201, "5 5 6 0 8 2 0 1")
    assert problem.words == ("5 5 4 9 + 0 0 6 5 9 1",)


def test_words_are_a_chain_and_no_part_of_the_id() -> None:
    told = Problem.of("q?", "Six times 9. So 54.", "54")
    assert (told.steps, told.words, told.chain) == ((), ("Six times 9.", "So 54."), "Six times 9.\nSo 54.")
    assert told.id == Problem("q?", (), "54").id == told.structure
    assert Problem.of("q?", "Six times 9 is <<6*9=54>>54. So 54.", "54").words == ()  # steps say it all


@given(st.lists(st.text(st.characters(exclude_characters="<"), min_size=1), max_size=4))
def test_a_chain_in_words_reads_back_as_it_was_written(texts: list[str]) -> None:
    problem = Problem.of("q?", "\n".join(texts), "54")
    assert Problem.of("q?", problem.chain, "54").words == problem.words


def test_what_is_not_as_it_should_be_is_counted() -> None:
    wrong, cut = Problem("q", (Step("6*9", "55"),), "55"), Problem("q", (Step("6*9", "54"),), "55")
    odd, told = Problem("q", (Step("6?9", "54"),), "54 or 55"), Problem("q", (), "8", words=("So 8.",))
    counts = ChainCounts.of([EGGS, HALF, NONE, wrong, cut, odd, told])
    assert counts == ChainCounts(7, 5, 1, n_ending_elsewhere=1, n_steps=6, n_wrong_steps=2, n_several_numbers=1)
    assert counts.sentences == (
        "5 of 7 problems have steps",
        "1 of 7 problems have a chain in words",
        "in 1 of 5 problems the last step is not the answer",
        "2 of 6 steps are wrong or cannot be computed",
        "1 of 7 answers hold several numbers, of which one is read",
    )
    assert ChainCounts.of([NONE]).sentences == ("0 of 1 problems have steps",) == (steps_among([NONE]),)


@pytest.mark.parametrize(("name", "n", "n_elsewhere"), [("test", 1301, 93), ("train", 7378, 377)])
def test_the_rows_of_gsm8k_whose_last_step_is_not_the_answer_are_counted(
    shared_data: Path, name: str, n: int, n_elsewhere: int
) -> None:
    counts = ChainCounts.of(read_problems(shared_data / "gsm8k" / f"{name}.jsonl").problems)
    assert (counts.n_with_steps, counts.n_ending_elsewhere, counts.n_wrong_steps) == (n, n_elsewhere, 0)
    assert counts.n_in_words == counts.n_problems - n and counts.n_several_numbers == 0


def test_a_repeated_row_is_kept_and_can_be_found(tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text(lines([as_icot(p) for p in (EGGS, HALF, EGGS)]))
    read = read_problems(path)
    assert len(read.problems) == 3
    assert read.duplicates == {EGGS.id: 2}


BROKEN = {
    '{"question": "q", "answer"': "not JSON",
    "[1, 2]": "the row is a list",
    "3": "the row is a int",
    '{"answer": "#### 3"}': "no field 'question'; the row has 'answer'",
    '{"question": "q"}': "no field 'answer'",
    '{"question": "  ", "answer": "#### 3"}': "the question is empty",
    '{"question": ["q"], "answer": "#### 3"}': "the field 'question' is list, not text",
    '{"question": "q", "answer": null}': "the field 'answer' is NoneType, not text",
    '{"question": "q", "answer": true}': "the field 'answer' is bool, not text",
    '{"question": "q", "answer": "#### none"}': "the answer 'none' holds no number",
    '{"question": "q", "answer": "so <<1+2=3>>3"}': "no #### before its number",
    '{"question": "q", "answer": "<<1+2>>\\n#### 3"}': "<<1+2>> is not 'expression=result'",
    '{"question": "q", "answer": "<<1+2=3\\n#### 3"}': "a '<<' has no '>>' of its own",
    '{"question": "q", "answer": "<<1+2=three>>\\n#### 3"}': "<<1+2=three>> has no number as its result",
    '{"question": "q", "steps": [1], "answer": "3"}': "the field 'steps' is neither text nor a list of texts",
    '{"question": "q", "steps": ["6*9", "54+1=55"], "answer": "3"}': "<<6*9>> is not 'expression=result'",
    '{"question": "\\ud800", "answer": "#### 3"}': "half of a surrogate pair",
    "[" * 100_000: "nests too deeply",
}


@pytest.mark.parametrize("row", BROKEN, ids=range(len(BROKEN)))
def test_a_malformed_row_is_listed_with_file_line_and_reason(row: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines([as_gsm8k(EGGS), "", row, as_gsm8k(HALF)]))
    read = read_problems(path)
    assert [p.id for p in read.problems] == [EGGS.id, HALF.id]
    assert read.n_rows == 3
    (malformed,) = read.malformed
    assert (malformed.file, malformed.line) == (str(path), 3)
    assert BROKEN[row] in malformed.reason
    with pytest.raises(BadInput) as fatal:
        read_problems(path, strict=True)
    assert str(fatal.value).startswith(f"{path}:3: ")
    assert BROKEN[row] in str(fatal.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("What is 3? <<1+2=3>> #### 3", "no '||' between question and chain"),
        ("What is 3?||<<1+2=3>>", "no '####' before the answer"),
        ("What is 3?||<<1+2=3>> ####", "the answer '' holds no number"),
        ("||<<1+2=3>> #### 3", "the question is empty"),
    ],
)
def test_a_malformed_line_of_icot_is_listed_too(row: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text(lines([row, as_icot(EGGS)]))
    read = read_problems(path)
    assert [p.id for p in read.problems] == [EGGS.id]
    assert read.malformed == [Malformed(str(path), 1, reason)]


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "prose": (b"Once upon a time\nthere were 3 bears.\n", "not a format of problems; it starts with 'Once upon"),
    "latin-1": ('{"question": "caf\xe9"}'.encode("latin-1"), "is not UTF-8 text (byte 18)"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", "is not UTF-8 text (byte 2); unpack"),
    "zero bytes": (b'{"question": "\0"}', "is binary"),
    "nothing right": (b'{"q": 1}\n{"q": 2}\n', "none of 2 rows is a problem; the first,"),
    "empty list": (b"[]", "holds an empty list"),
    "list cut short": (b'[\n{"question": "q", "answer": "3"},\n{"question": "q"', ":3: the JSON list breaks"),
    "list without comma": (b'[{"question": "q", "answer": "3"} 4]', "has neither ',' nor ']'"),
    "broken XML": (b"<Problem><Body>q</Body>", "not XML"),
    "damaged Parquet": (b"PAR1 and no more PAR1", "is a damaged Parquet file"),
    "list and more": (b'[{"question": "q", "answer": "3"}] 4', "something follows the closing ']'"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_says_what_where_and_what_to_do(name: str, tmp_path: Path) -> None:
    content, complaint = UNREADABLE[name]
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput) as bad:
        read_problems(path)
    assert str(path) in str(bad.value)
    assert complaint in str(bad.value)


def test_a_missing_file_and_a_directory_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file .*nowhere\.jsonl; check the path"):
        read_problems(tmp_path / "nowhere.jsonl")
    with pytest.raises(BadInput, match="is a directory; name a file in it"):
        read_problems(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbf" + lines([as_icot(p) for p in BOOK]).replace("\n", "\r\n").encode())
    assert [p.id for p in read_problems(path, strict=True).problems] == [p.id for p in BOOK]


def test_a_question_may_hold_a_separator_that_is_no_newline(tmp_path: Path) -> None:
    odd = Problem("One\u2028line\x0bof 3?", (), "3")
    path = tmp_path / "odd.txt"
    path.write_text(lines([as_icot(odd), as_icot(EGGS)]))
    assert [p.id for p in read_problems(path, strict=True).problems] == [odd.id, EGGS.id]


def test_a_limit_counts_problems_and_not_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(["{", as_gsm8k(EGGS), as_gsm8k(HALF), "{"]))
    read = read_problems(path, limit=1)
    assert [p.id for p in read.problems] == [EGGS.id]
    assert [m.line for m in read.malformed] == [1]


def test_one_row_of_a_hub_data_set_is_read_alone() -> None:
    assert problem_of_row({"question": "q", "cot": "<<1+2=3>>", "answer": 3, "id": 7}).steps == (Step("1+2", "3"),)
    assert problem_of_row({"question": "q", "steps": ["1+2=3"], "answer": "3"}).steps == (Step("1+2", "3"),)
    assert problem_of_row({"question": "q", "answer": "3"}, source="hub").source == "hub"
    with pytest.raises(ValueError, match="no field 'answer'"):
        problem_of_row({"question": "q"})


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("54", 54),
        ("54 (6 a day for 9 days)", 54),
        ("9 * 6 = 54", 54),
        ("$1,234", 1234),
        ("5-10", 10),
        ("2 (red); 3 (blue)", 2),
    ],
)
def test_an_answer_is_worth_what_it_would_be_behind_its_mark(answer: str, value: int) -> None:
    row = {"question": "q?", "answer": f"So.\n#### {answer}"}
    assert Problem("q?", (), answer).value == problem_of_row(row).value == answer_in(str(row["answer"])) == value


def test_an_answer_without_a_number_has_no_value() -> None:
    with pytest.raises(ValueError, match="holds no number"):
        _ = Problem("q", (), "many").value


@pytest.mark.parametrize(
    ("name", "n", "n_without_steps"),
    [
        ("gsm8k/train.jsonl", 7473, 95),
        ("gsm8k/test.jsonl", 1319, 18),
        ("icot/test.txt", 1319, 18),
        ("icot/valid.txt", 500, 6),
    ],
)
def test_every_row_of_gsm8k_and_icot_reads_and_every_step_is_right(
    shared_data: Path, name: str, n: int, n_without_steps: int
) -> None:
    read = read_problems(shared_data / name, strict=True)
    assert (len(read.problems), read.malformed, read.duplicates) == (n, [], {})
    assert sum(p.n_steps == 0 for p in read.problems) == n_without_steps
    assert all(step.is_right() for p in read.problems for step in p.steps)


def test_gsm8k_and_icot_agree_on_the_ids_of_the_test_set(shared_data: Path) -> None:
    gsm8k, icot = (read_problems(shared_data / name).problems for name in ("gsm8k/test.jsonl", "icot/test.txt"))
    assert [p.id for p in gsm8k] == [p.id for p in icot]
