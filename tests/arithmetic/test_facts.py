"""A fact is one true equation with one name; a vocabulary gives each its id; a new kind of fact is data."""

from __future__ import annotations

import json
import math
import pickle
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.arithmetic.meaning import WORTH, same
from workings.arithmetic.facts import (
    EQUALS,
    FAMILIES,
    GPT2_MUL,
    MUL,
    Fact,
    FactVocabulary,
    Family,
    Form,
    embedding_width,
)
from workings.arithmetic.rewrite import expand, rewrite
from workings.errors import BadInput

EVERYTHING = FactVocabulary.build("MUL:0-12,ADD:0-9,SUB:0-9,DIV:1-9,SQUARE:1-12")


def cells(table: str, between: str | None = None) -> list[str]:
    return table.split(between)


def test_the_products_behind_gpt2_have_the_ids_of_the_studies():
    assert len(GPT2_MUL) == 45 and GPT2_MUL.width == 50349 and embedding_width(GPT2_MUL.width) == 50432
    assert [GPT2_MUL.id_of(t) for t in ("<MUL_1_1_1>", "<MUL_6_9_54>", "<MUL_9_9_81>")] == [50304, 50342, 50348]
    assert sum(fact.result for fact in GPT2_MUL) == 1155
    assert [fact.operands for fact in GPT2_MUL] == [(a, b) for a in range(1, 10) for b in range(a, 10)]


def test_a_fact_is_the_same_in_either_order_of_its_operands():
    assert Fact.of(9, 6) == Fact.of(6, 9) and Fact.of(9, 6).token == "<MUL_6_9_54>"
    assert Fact.of(9, 6).equation == "6*9=54" and Fact.of(9, 6).result == 54
    assert Fact.of(9, 6, family="SUB") != Fact.of(9, 3, family="SUB") and Fact.of(54, 6, family="DIV").result == 9


@pytest.mark.parametrize(
    "token",
    cells("""<MUL_6_9_55> <MUL_9_6_54> <MUL_06_9_54> <MUL_6_9_054> <mul_6_9_54> <MUL_6_9> <MUL_6_54> <MUL_6_9_54_1> <MUL__6_9_54>
    <MUL_-6_-9_54> <MUL_6_9_54 MUL_6_9_54 <DIV_1_0_0> <DIV_7_2_3> <SUB_4_9_5> <SQUARE_6_6_36> <NONE_6_9_54> <MUL_٦_٩_٥٤>
    <MUL_6_9_54>x <SQUARE_>"""),
)
def test_what_is_wrong_or_not_canonical_is_no_token(token):
    assert Fact.parse(token) is None and token not in EVERYTHING


@given(st.sampled_from(EVERYTHING.facts))
def test_every_fact_is_true_and_reads_back_from_its_token(fact):
    assert WORTH[fact.family](*fact.operands) == fact.result
    assert Fact.parse(fact.token) == fact and fact.token in EVERYTHING
    assert Fact.parse(fact.token.replace(f"_{fact.result}>", f"_{fact.result + 1}>")) is None


@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from(["MUL", "ADD", "SUB", "DIV"]))
def test_a_fact_is_made_where_there_is_a_whole_result_and_refused_elsewhere(a, b, family):
    worth = {"MUL": a * b, "ADD": a + b, "SUB": a - b if a >= b else None}
    worth["DIV"] = a // b if b and a % b == 0 else None
    if worth[family] is None:
        with pytest.raises(BadInput):
            Fact.of(a, b, family=family)
    else:
        assert Fact.of(a, b, family=family).result == worth[family]


def test_a_fact_cannot_be_made_false():
    for wrong in (("MUL", (6, 9), 55), ("MUL", (9, 6), 54), ("MUL", (6,), 6), ("NONE", (6, 9), 54)):
        with pytest.raises(BadInput):
            Fact(*wrong)


def test_subtraction_undoes_addition_and_division_multiplication():
    def facts(ranges):
        return FactVocabulary.build(ranges).facts

    sums = {(fact.operands, fact.result) for fact in facts("ADD:0-9")}
    assert {(tuple(sorted((f.operands[1], f.result))), f.operands[0]) for f in facts("SUB:0-9")} == sums
    products = {(fact.operands, fact.result) for fact in facts("MUL:1-9")}
    assert {(tuple(sorted((f.operands[1], f.result))), f.operands[0]) for f in facts("DIV:0-9") if f.result} == products


@given(st.integers(0, 70_000), st.sampled_from(["MUL:1-9", "ADD:0-9,MUL:2-3", "SQUARE:1-20"]))
def test_ids_begin_at_a_multiple_of_128_and_are_dense(base_size, ranges):
    vocabulary = FactVocabulary.build(ranges, base_size)
    assert vocabulary.first_id % 128 == 0 and 0 <= vocabulary.first_id - base_size < 128
    ids = [vocabulary.id_of(fact) for fact in vocabulary]
    assert ids == list(range(vocabulary.first_id, vocabulary.width))
    assert [vocabulary.fact_at(id) for id in ids] == list(vocabulary.facts) == vocabulary.of_ids([base_size - 1, *ids])
    assert vocabulary.fact_at(vocabulary.first_id - 1) is None and vocabulary.fact_at(vocabulary.width) is None
    assert embedding_width(vocabulary.width) - vocabulary.width < 128


def test_a_vocabulary_survives_json_pickle_and_another_process():
    again = FactVocabulary.from_dict(json.loads(json.dumps(EVERYTHING.to_dict())))
    assert again == EVERYTHING and hash(again) == hash(EVERYTHING)
    assert pickle.loads(pickle.dumps(EVERYTHING)) == EVERYTHING
    look = "import pickle, sys; v = pickle.load(sys.stdin.buffer); print({v: 1}[type(v)(v.facts, v.first_id)])"
    found = subprocess.run(
        [sys.executable, "-c", look], input=pickle.dumps(EVERYTHING), capture_output=True, check=True
    )
    assert found.stdout.strip() == b"1", "the hash is worked out anew where strings hash differently"
    assert EVERYTHING.with_first_id(7).id_of(EVERYTHING.facts[0]) == 7


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [
        ("MUL", "not a range"),
        ("MUL:9-1", "upwards"),
        ("MLU:1-9", "there are MUL, ADD"),
        ("MUL:1-9,MUL:5-6", "twice"),
        ("MUL:1-9999", "too many"),
        ("MUL:1-999999999", "not over more than"),
        ("", "not a range"),
    ],
)
def test_a_range_that_is_none_is_refused_in_words(ranges, complaint):
    with pytest.raises(BadInput, match=complaint):
        FactVocabulary.build(ranges)


def test_a_stored_vocabulary_with_a_false_token_is_refused():
    with pytest.raises(BadInput, match="<MUL_6_9_55>"):
        FactVocabulary.from_dict({"first_id": 0, "facts": ["<MUL_6_9_55>"]})


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_family_is_whole(family):
    assert FAMILIES[family.name] is family and family.forms and family.questions
    for operands in family.table(1, 9):
        fact = Fact.of(*operands, family=family.name)
        assert family.canonical(operands) == operands == fact.operands
        assert all(str(operand) in question for question in _asked(family, operands) for operand in operands)
        assert rewrite(fact.equation, EVERYTHING) == fact.token if fact in EVERYTHING else True
    for form in family.forms:
        assert "(" not in re.sub(r"\(\?[:=!]", "", form.between + form.after), "groups are the engine's"


def _asked(family, operands):
    return [question.format(*operands) for question in family.questions]


CUBE = Family(
    "CUBE",
    lambda a: a**3,
    lambda low, high: ((a,) for a in range(low, high + 1)),
    (Form(after=r"\^3|³"), Form(after=r"cubed\b", bare="cued")),
    "{0}^3={result}",
    ("What is {0} cubed?",),
    arity=1,
)
GCD = Family(
    "GCD",
    lambda a, b: math.gcd(a, b),
    lambda low, high: ((a, b) for a in range(low, high + 1) for b in range(a, high + 1)),
    (Form(before="gcd(", between=",", after=r"\)"),),
    "gcd({0}, {1}) = {result}",
    ("What is the greatest common divisor of {0} and {1}?",),
    commutative=True,
)
CHINESE = replace(MUL, name="CHENG", forms=(*MUL.forms, Form("乘以?")), equals=(*EQUALS, "等于"))


@pytest.fixture
def more(monkeypatch):
    for family in (CUBE, GCD, CHINESE):
        monkeypatch.setitem(FAMILIES, family.name, family)
    return FactVocabulary.build("CUBE:1-10,GCD:1-20,CHENG:1-9")


def test_a_new_family_needs_nothing_but_its_definition(more):
    for text, expected in [
        ("3^3 = 27", "<CUBE_3_27>"),
        ("So 3 cubed equals 27.", "So <CUBE_3_27>."),
        ("4³ = $64, ok", "$<CUBE_4_64>, ok"),
        ("27 = 3^3", "<CUBE_3_27>"),
        ("gcd(9, 6) = 3", "<GCD_6_9_3>"),
        ("3 = gcd(12 ,15)", "<GCD_12_15_3>"),
        ("6乘9等于54。", "<CHENG_6_9_54>。"),
        ("(6 * 9 = <<6*9=54>>54)", "(<CHENG_6_9_54>)"),
    ]:
        assert rewrite(text, more) == expected
        assert rewrite(expand(expected, more), more) == expected
        assert rewrite(text) == text or "*" in text, "the 45 products know nothing of it"
    for text in [
        "3^3=28",
        "2*3^3=27",
        "3^3=27^2",
        "x3^3=27",
        "gcd(9, 6) = 4",
        "2gcd(9, 6) = 3",
        "gcd(9, 6) = 3.5",
        "agcd(6, 9) = 3",
    ]:
        assert rewrite(text, more) == text
    for text in [
        "gcd(9, 6) = 3 * 2",
        "6 乘 9 等于 54 乘 2",
        "6乘9等于54 等于 54",
        "54 = 6乘9等于54",
        "二乘 6乘9等于54",
        "第6乘9等于54",
    ]:
        assert rewrite(text, more) == text


def test_new_families_keep_the_law(more):
    for text in ["What is 3^3?", "3 cubed", "What is 3 cubed?", "2 + 3^3", "See 3³.", "3^3 = 27\n2 cubed equals 8"]:
        assert same(text, rewrite(text, more, "weak"))
    assert rewrite("What is 3 cubed? 3 cubed.", more, "weak") == "What is <CUBE_3_27>? 3 cubed."
