"""The first screen and the folds say what the verdicts say, in words, and no sentence says too much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.judging.test_verdict import HELD, NOTHING, RIVALS, table
from workings.experiments.judged_report import (
    conclusion,
    first_screen,
    in_full,
    in_order,
    place_name,
    use_in_full,
    used_badge,
)
from workings.judging.transplant import Gain, Used, used
from workings.judging.verdict import QUESTIONS, Answer, Verdict, verdicts
from workings.report import Badge, Fold, HeatMap, Intervals, Provenance, Report, Table, write_report

BY_RUNG = ("surface", "first order", "computing")


def sentences(markdown: str) -> Iterator[str]:
    """Sentences of a report.md: of its paragraphs, not of tables, lists, code, or the problems that were read."""
    for block in re.sub(r"(?s)```.*?```", "", markdown).split("\n\n"):
        if not re.match(r"\s*(\||#|- |\*\*\d|!?\[)", block):
            yield from re.split(r"(?<=[.?!]) ", " ".join(block.lstrip("> ").split()))


def says_too_much(sentence: str) -> bool:
    """More than 30 words or two numbers; the number of a step is part of its name."""
    named = re.sub(r"\bsteps? \d+|\(problem × position\)", "step", sentence)
    return len(named.split()) > 30 or len(re.findall(r"(?<![\w-])[+−]?\d[\d,.]*\b", named)) > 2


def ladder(gains: dict[str, tuple[float, float]], **settings: object) -> pl.DataFrame:
    """A table with the sides of every rung: the thoughts add nothing to the strongest where `gains` says so."""
    strongest = table(gains, **settings)
    of_stack = pl.col("features").is_in(["S", "S+T"])
    weaker = [
        table(HELD | RIVALS, **settings).filter(of_stack).with_columns(reader=pl.lit(rung), rung=pl.lit(rung))
        for rung in BY_RUNG[:-1]
    ]
    return pl.concat([*weaker, strongest])


TABLES = {
    "step1": ladder(NOTHING),
    "step2": ladder(HELD | RIVALS),
    "step4": ladder(HELD | RIVALS | {"S+T": (0.01, 0.15)}),
    "answer": table({"S+T": (0.0, 0.02)}),
}
FOUND = verdicts(TABLES)


def cells(found: dict[str, Verdict], rule: str, used: dict[str, Badge] | None = None) -> list[Badge]:
    answers = first_screen(found, "step2", used)[0]
    assert isinstance(answers, Table)
    return dict(zip(found, [row.cells for row in answers.rows], strict=True))[rule]  # ty: ignore


def test_the_first_screen_is_one_table_and_one_figure():
    answers, gains = first_screen(FOUND, "step2")
    assert isinstance(answers, Table) and isinstance(gains, Intervals)
    assert [row.name for row in answers.rows] == list(gains.rows) == ["step 1", "step 2", "step 4", "answer"]
    assert answers.highlight == "step 2" and "named beforehand" in answers.rows[1].note
    assert not any(row.note for row in (answers.rows[0], *answers.rows[2:]))


def test_a_row_says_beyond_which_readers_it_is_read_and_what_of_the_declared_ones():
    assert cells(FOUND, "step2")[1] == Badge("beyond every reader of the question", "yes")
    weaker = cells(FOUND, "step1")[1]
    assert (weaker.text, weaker.kind) == ("beyond the question's numbers one by one", "in part")
    assert weaker.note == "beyond every reader of the question: no"
    assert cells(FOUND, "step4")[1].note == "but below the margin"
    assert cells(FOUND, "answer")[0] == Badge("not asked", "not asked")


@given(st.tuples(*[st.sampled_from(["yes", "no", "undecided", "not asked"])] * len(QUESTIONS)))
def test_every_cell_is_the_answer_in_words(given_answers):
    said = dict(zip(QUESTIONS, map(Answer, given_answers), strict=True))
    one = replace(FOUND["step2"], rung="computing" if said["read"].answer == "yes" else None, **said)
    row = cells({"step2": one}, "step2")
    for question, badge in zip(QUESTIONS, row, strict=False):
        assert badge.kind == said[question].answer
        assert question == "read" or badge.text == said[question].answer
    assert row[-1].text == "not asked"


def test_the_kind_of_the_conclusion_follows_the_declared_rung_first():
    kinds = {rule: conclusion(one).kind for rule, one in FOUND.items()}
    assert kinds["step2"] == "read" and kinds["step1"] == "read in part"
    assert conclusion(verdicts({"step1": table(NOTHING)})["step1"]).kind == "not read"


def test_every_gain_of_the_figure_is_an_answers():
    gains = first_screen(FOUND, "step2")[1]
    assert isinstance(gains, Intervals)
    points, bits = gains.panels
    at, control = gains.rows.index("step 2"), gains.series.index("the matched control")
    assert points.values[at][control].value == FOUND["step2"].needs_the_recurrence.points
    assert bits.values[at][gains.series.index("the words of the question")].low == (
        FOUND["step2"].by_rung["surface"].bits_low
    )


def test_shares_in_the_folds_are_those_of_the_table():
    answers, rungs, readers, predictors = in_full(FOUND["step2"], [TABLES["step2"]])
    assert [row.n for row in answers.rows] == [400] * len(QUESTIONS)
    assert [row.name for row in readers.rows] == ["bag of words"]
    shares = {row.name: row.cells[0].value for row in predictors.rows}
    assert shares["the question"] == pytest.approx(0.4)
    assert shares["the question and the thoughts"] == pytest.approx(0.55)
    assert rungs.rows[-1].cells[2].value == pytest.approx(0.55)


def test_seeds_are_pooled_and_counted():
    tables = [table(HELD | RIVALS, seed=seed) for seed in range(5)]
    found = verdicts({"step2": tables})
    answers = first_screen(found, "step2")[0]
    assert answers.caption.startswith("5 training seeds are pooled.")
    *_, predictors = in_full(found["step2"], tables)
    one = in_full(FOUND["step2"], [TABLES["step2"]])[-1]
    assert predictors.rows[0].cells[0].value == pytest.approx(0.4)
    assert predictors.rows[0].n == one.rows[0].n == 400


def test_no_sentence_says_too_much(tmp_path: Path):
    folds = [Fold(rule, in_full(one, [TABLES[rule]]), one.sentence) for rule, one in FOUND.items()]
    made = Report("t", "q?", conclusion(FOUND["step2"]), [*first_screen(FOUND, "step2"), *folds], Provenance(["run"]))
    markdown = write_report(made, tmp_path).with_suffix(".md").read_text()
    assert len(list(sentences(markdown))) > 20
    assert [sentence for sentence in sentences(markdown) if says_too_much(sentence)] == []
    assert "\\" not in markdown and "does as well" not in markdown


@pytest.mark.parametrize(
    ("anywhere", "later", "kind", "text"),
    [
        ("yes", "yes", "yes", "yes"),
        ("yes", "undecided", "in part", "the first vector"),
        ("yes", "no", "in part", "the first vector"),
        ("no", "no", "no", "no"),
        ("not asked", "not asked", "not asked", "not asked"),
    ],
)
def test_use_of_the_first_vector_alone_is_use_in_part(anywhere, later, kind, text):
    shown = used_badge(Used(Gain(Answer(anywhere)), Gain(Answer(later))))
    assert (shown.kind, shown.text) == (kind, text)
    assert shown.note == (f"from the second on: {later}" if kind == "in part" else "")
    row = cells(FOUND, "step2", used={"step2": shown})
    assert row[-1] == shown


def test_answers_that_follow_are_shown_by_step_chain_length_and_position():
    """Those of chains of two steps follow at t1 alone, those of three nowhere."""
    rows = [
        {
            "problem": f"p{n_steps}{i}",
            "structure": f"s{n_steps}{i}",
            "n_steps": n_steps,
            "step": 1,
            "position": position,
            "condition": condition,
            "at_risk": True,
            "follows": n_steps == 2 and position == "t1" and condition.startswith("swapped"),
        }
        for n_steps in (2, 3)
        for i in range(60)
        for position in ("t1", "t2")
        for condition in ("swapped", "swapped on", "resampled", "resampled on")
    ]
    outcomes = pl.DataFrame(rows)
    table, alone, on = use_in_full(used(outcomes, outcomes), outcomes)
    assert isinstance(table, Table) and isinstance(alone, HeatMap) and isinstance(on, HeatMap)
    by_name = {row.name: row.cells for row in table.rows}
    assert by_name["step 1, 2 steps in the chain"][0].kind == "yes"  # ty: ignore
    assert by_name["step 1, 2 steps in the chain"][-1] == "t1 alone"
    assert alone.rows == ["step 1 of 2", "step 1 of 3"] and alone.columns == ["t1", "t2"]
    assert alone.values == on.values == [[1.0, 0.0], [0.0, 0.0]]
    assert alone.controls[0].values == [0.0, 0.0]


def test_targets_stand_in_the_order_of_the_chain():
    assert in_order(["step4", "step10", "step1", "uniform", "answer"]) == [
        "step1",
        "step4",
        "step10",
        "answer",
        "uniform",
    ]


def test_the_layer_embed_of_a_thought_is_what_was_fed():
    assert place_name("embed", "t3") == "what was fed, t3"
    assert place_name("block1", "all") == "block1, all thoughts together"
    assert place_name("", "") == ""
