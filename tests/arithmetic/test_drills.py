"""Drills are true, never show training what is held out, hold as many facts as asked, and differ from one another."""

from __future__ import annotations

import hashlib
import operator
import re
from dataclasses import fields, replace
from itertools import islice, product

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from workings.arithmetic.answers import answer_in
from workings.arithmetic.drills import Drill, DrillSpec, Weights, drill_documents, drill_items
from workings.arithmetic.exercises import LAYOUTS, QUESTIONS, RECITALS
from workings.arithmetic.facts import GPT2_MUL, Fact
from workings.arithmetic.rewrite import expand, rewrite_counted
from workings.config import from_yaml, to_yaml
from workings.errors import BadInput

EVERYTHING = DrillSpec(weights=Weights(**{field.name: 1.0 for field in fields(Weights)}))
NOTHING = {field.name: 0.0 for field in fields(Weights)}

MARKS = {
    "*": operator.mul, "×": operator.mul, "times": operator.mul, "multiplied by": operator.mul,
    "+": operator.add, "plus": operator.add, "-": operator.sub, "minus": operator.sub,
    "/": operator.truediv, "÷": operator.truediv, "divided by": operator.truediv, "^": operator.pow,
}  # fmt: skip
MARK = "|".join(re.escape(mark) for mark in MARKS)
EQUATION = re.compile(rf"(\d+) ?({MARK}) ?(\d+) ?(?:=|equals) ?(\d+)")
EXPRESSION = re.compile(rf"(?=\b(\d+) ?({MARK}) ?(\d+))")
WORDINGS = {
    f"{family} {i}": re.escape(text.format("@", "@")).replace("@", r"\d+")
    for family, texts in QUESTIONS.items()
    for i, text in enumerate(texts)
}
BARE = re.compile("|".join(WORDINGS.values()))
# How the wordings name what is asked, read by a second pair of eyes: word → what is to be done with the numbers.
ASKS = (
    (r"times|×|\*|[Mm]ultipl|product", operator.mul),
    (r"squared?\b|Square|\^2", lambda a, *_: a * a),
    (r"from|go into", None),
    (r"plus|\+|Add|sum|together", operator.add),
    (r"minus|-|difference|away|more", operator.sub),
    (r"divided|Divide|/|÷", operator.truediv),
)


@st.composite
def specs(draw: st.DrawFn) -> DrillSpec:
    """Any spec that a reader of its docstring could write."""
    weights = {field.name: draw(st.sampled_from([0.0, 0.3, 1.0, 5.0])) for field in fields(Weights)}
    least = draw(st.integers(1, 8))
    return DrillSpec(
        weights=Weights(**(weights | {"double_add": 1.0})),
        facts_per_document=draw(st.floats(0, 32)),
        problems=(least, least + draw(st.integers(0, 8))),
        fact_holdout=draw(st.floats(0, 0.3)),
        template_holdout=draw(st.sampled_from([0.0, 0.15, 0.3])),
        holdout_seed=draw(st.integers(0, 9)),
    )


def documents(spec: DrillSpec, n: int, seed: int = 0, split: str = "train") -> list[str]:
    return list(islice(drill_documents(spec, seed, split), n))


def items(spec: DrillSpec, n: int, seed: int = 0, split: str = "train") -> list[Drill]:
    return list(islice(drill_items(spec, seed, split), n))


def products_in(text: str) -> set[Fact]:
    """Every fact that a product, quotient or square of the text shows, digit by digit, whether or not it is solved."""
    shown = set()
    for a, mark, b in EXPRESSION.findall(text):
        a, b = (str(int(a) // int(b)), b) if MARKS[mark] is operator.truediv else (a, b)
        a, b = (a, a) if mark == "^" else (a, b)
        if MARKS[mark] not in (operator.add, operator.sub):
            shown |= {Fact.of(int(i), int(j)) for i, j in product(a, b) if "0" not in (i, j)}
    for a, b in re.findall(r"(?:product of|Multiply) (\d+) (?:and|by) (\d+)", text):
        shown |= products_in(f"{a}*{b}")
    for b, a in re.findall(r"How often does (\d+) go into (\d+)", text) + re.findall(r"Divide (\d+) by (\d+)", text):
        shown |= products_in(f"{max(int(a), int(b))}/{min(int(a), int(b))}")
    return shown | {
        Fact.of(int(d), int(d))
        for numbers in re.findall(r"[Ss]quare (?:of|the number) (\d+)|(\d+) squared", text)
        for d in "".join(numbers)
        if d != "0"
    }


def asked_for(question: str) -> float:
    """What a bare question asks for, worked out from its words."""
    a, *b = (int(number) for number in re.findall(r"\d+", question.replace("^2", "")))
    if re.search(r"from|go into", question):
        a, b = b[0], [a]
        return a / b[0] if "go into" in question else a - b[0]
    return next(work for words, work in ASKS if work and re.search(words, question))(a, *b)


def problems_in(text: str) -> list[tuple[str, int]]:
    """Question and stated answer of every problem of a document."""
    blocks = [block for block in text.split("\n\n") if block.partition("\n")[0] not in RECITALS]
    return [
        (re.split(rf"\n| (?={EQUATION.pattern})", re.sub(r"^(Question|Q|User): ", "", block))[0],
         int(re.findall(r"\d+", block)[-1]))
        for block in blocks
    ]  # fmt: skip


def identity(question: str) -> object:
    """Equal for two wordings of one bare problem."""
    family = next((name.split()[0] for name, pattern in WORDINGS.items() if re.fullmatch(pattern, question)), None)
    return (family, *sorted(re.findall(r"\d+", question))) if family else question


# ---- true --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(specs(), st.integers(0, 99), st.sampled_from(["train", "validation"]))
def test_every_statement_is_true_whatever_the_spec(spec: DrillSpec, seed: int, split: str) -> None:
    try:
        made = documents(spec, 5, seed, split)
    except BadInput:  # nothing is held out of the few kinds drawn, so there is nothing to validate with
        reject()
    for text in made:
        equations = EQUATION.findall(text)
        assert len(equations) == len(re.findall(r"=|equals (?=\d)", text))
        for a, mark, b, result in equations:
            assert MARKS[mark](int(a), int(b)) == int(result)


def test_the_answer_is_what_the_question_asks_for() -> None:
    bare = [drill for drill in items(EVERYTHING, 3000) if not drill.kind.startswith("story")]
    assert {drill.kind for drill in bare} == {field.name for field in fields(Weights)} - {
        "story_sums",
        "story_products",
    }
    for drill in bare:
        assert drill.answer == drill.steps[-1][-1] == asked_for(drill.question), drill.question
        assert answer_in(drill.response) == drill.answer


def test_every_layout_of_a_document_gives_the_answer_asked_for() -> None:
    made = documents(EVERYTHING, 200)
    bare = [(question, answer) for text in made for question, answer in problems_in(text) if BARE.fullmatch(question)]
    assert len(bare) > 800
    assert all(answer == asked_for(question) for question, answer in bare)
    starts = {layout.page.partition("{question}")[0] for layout in LAYOUTS}
    assert {start for start in starts for text in made if text.startswith(start)} == starts
    assert any("? The answer is" in text for text in made)  # without its work, as a probe can be made to answer
    assert not any("\nAssistant: The answer is" in text for text in made)  # an assistant always shows its work


def test_each_step_uses_what_the_question_gives_or_a_step_before_found() -> None:
    for drill in items(replace(EVERYTHING, template_holdout=0.0), 3000):
        asked = {int(number) for number in re.findall(r"\d+", drill.question)}
        parts = {n // 10 * 10 for n in asked} | {n % 10 for n in asked} | {n // 10 for n in asked} | {2, 3, 10, 100}
        found: set[int] = set()
        for a, _, b, result in drill.steps:
            assert {a, b} <= asked | parts | found, drill
            found.add(result)


def test_a_product_of_two_digits_is_taken_apart() -> None:
    chains = {drill.question: drill.chain() for drill in items(EVERYTHING, 20_000) if drill.kind == "double_by_single"}
    assert {"10*7=70\n2*7=14\n70+14=84"} <= {chain for question, chain in chains.items() if "12" in question}
    assert any("*10=" in chain for chain in chains.values())


# ---- held out ----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(specs(), st.integers(0, 99))
def test_training_never_shows_a_held_out_fact(spec: DrillSpec, seed: int) -> None:
    for text in documents(spec, 8, seed):
        assert spec.held_out_facts.isdisjoint(products_in(text))
    for drill in items(spec, 60, seed):
        assert spec.held_out_facts.isdisjoint(products_in(f"{drill.question}\n{drill.response}"))
        assert not drill.held_out


def test_what_is_not_held_out_is_all_trained_on() -> None:
    shown = set().union(*(products_in(text) for text in documents(EVERYTHING, 300)))
    assert shown == set(GPT2_MUL) - EVERYTHING.held_out_facts


def test_training_never_shows_a_held_out_wording() -> None:
    patterns = [pattern for name, pattern in WORDINGS.items() if name in EVERYTHING.held_out_templates]
    assert len(patterns) >= 5
    trained, validated = ("\n".join(documents(EVERYTHING, 400, split=split)) for split in ("train", "validation"))
    for pattern in patterns:
        assert not re.search(pattern, trained)
        assert re.search(pattern, validated)


def test_the_first_wording_and_the_easiest_table_are_never_held_out() -> None:
    for holdout_seed in range(50):
        spec = DrillSpec(fact_holdout=0.3, template_holdout=0.3, holdout_seed=holdout_seed)
        assert not {f"{family} 0" for family in QUESTIONS} & spec.held_out_templates
        assert len(spec.held_out_facts) == round(0.3 * 45)
        assert all(1 not in fact.operands for fact in spec.held_out_facts)


def test_another_holdout_seed_holds_out_other_things_and_the_seed_does_not() -> None:
    held = {DrillSpec(holdout_seed=seed).held_out_facts for seed in range(8)}
    assert len(held) >= 7
    assert all(len(facts) == 4 for facts in held)
    documents(DrillSpec(), 3, seed=5)
    assert DrillSpec().held_out_facts == DrillSpec(problems=(1, 2)).held_out_facts


def test_validation_items_say_what_of_them_is_held_out() -> None:
    spec = replace(EVERYTHING, fact_holdout=0.2)
    drills = items(spec, 1500, split="validation")
    assert {drill.held_out for drill in drills} == {"fact", "template", "fact, template"}
    for drill in drills:
        shown = products_in(f"{drill.question}\n{drill.response}")
        assert ("fact" in drill.held_out) == (not spec.held_out_facts.isdisjoint(shown)), drill
        assert ("template" in drill.held_out) == (drill.template in spec.held_out_templates)


def test_no_validation_document_is_a_training_document() -> None:
    spec = replace(DrillSpec(), problems=(1, 1), facts_per_document=0)
    assert not set(documents(spec, 3000)) & set(documents(spec, 800, split="validation"))


# ---- how many facts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 0.5, 4.0, 12.0, 32.0])
@pytest.mark.parametrize("problems", [(1, 2), (4, 12)])
def test_documents_hold_as_many_facts_as_asked_and_the_rewriting_finds_each(mean: float, problems: tuple[int, int]):
    made = documents(DrillSpec(facts_per_document=mean, problems=problems), 400)
    counts = [rewrite_counted(text, GPT2_MUL, "strict")[1] for text in made]
    assert sum(counts) / len(made) == pytest.approx(mean, abs=0.07 * mean + 0.05)  # four standard errors
    assert len(set(counts)) > 1 or mean == 0


@pytest.mark.parametrize("kind", ["single_mul", "double_by_single", "double_by_double", "story_products"])
def test_every_fact_an_item_names_becomes_one_token_and_no_other_does(kind: str) -> None:
    for drill in items(DrillSpec(weights=Weights(**(NOTHING | {kind: 1.0})), template_holdout=0), 60):
        rewritten, n_facts = rewrite_counted(f"{drill.question}\n{drill.response}", GPT2_MUL, "strict")
        assert n_facts == len(drill.facts)
        assert sorted(re.findall(r"<MUL_\w+>", rewritten)) == sorted(fact.token for fact in drill.facts)


def test_both_arms_read_the_same_chain() -> None:
    """What the fact arm reads says, spelled out, the very equations of the digits arm, up to the order of factors."""
    for text in documents(EVERYTHING, 100):
        spelled_out = expand(rewrite_counted(text, GPT2_MUL, "strict")[0])
        both = [
            [(*sorted((int(a), int(b))), MARKS[mark], int(result)) for a, mark, b, result in EQUATION.findall(version)]
            for version in (text, spelled_out)
        ]
        assert both[0] == both[1]


# ---- a stream ----------------------------------------------------------------------------------------------------


def test_no_document_and_no_problem_in_it_comes_twice() -> None:
    made = documents(DrillSpec(problems=(12, 12)), 500)
    assert len(set(made)) == 500
    for text in made:
        questions = [question for question, _ in problems_in(text)]
        asked = [identity(question) for question in questions]
        assert len(asked) == len(set(asked)) == 12


def test_no_item_comes_twice_even_when_a_kind_is_used_up() -> None:
    drills = items(DrillSpec(weights=Weights(**(NOTHING | {"single_mul": 9.0, "story_sums": 1.0}))), 2000)
    assert len({drill.question for drill in drills}) == 2000
    assert sum(drill.kind == "single_mul" for drill in drills) == (81 - 7) * 8  # all there are: operands × wordings


@settings(max_examples=15, deadline=None)
@given(st.integers(), st.integers(0, 20), st.integers(0, 20), st.sampled_from(["train", "validation"]))
def test_a_longer_stream_begins_with_the_shorter_one(seed: int, a: int, b: int, split: str) -> None:
    shorter, longer = sorted((a, b))
    assert documents(DrillSpec(), longer, seed, split)[:shorter] == documents(DrillSpec(), shorter, seed, split)


def test_a_seed_means_the_same_drills_on_every_machine() -> None:
    text = "\n\n\n".join(documents(DrillSpec(), 50, 3) + documents(DrillSpec(), 50, 3, "validation"))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "ba3d43e13af8cd58"


def test_seeds_and_splits_give_different_documents() -> None:
    streams = [documents(DrillSpec(), 50, seed, split) for seed in (0, 1) for split in ("train", "validation")]
    assert len({text for stream in streams for text in stream}) == 200


# ---- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"weights": Weights(**NOTHING)}, "weights must not all be zero"),
        ({"problems": (0, 4)}, "must be at least 1"),
        ({"problems": (5, 4)}, "give least <= largest"),
        ({"facts_per_document": -1.0}, "must be at least 0 and at most 32"),
        ({"facts_per_document": 50.0}, "must be at least 0 and at most 32"),
        ({"fact_holdout": 0.9}, "must be at least 0 and at most 0.3"),
        ({"template_holdout": -0.1}, "must be at least 0 and at most 0.3"),
        ({"weights": Weights(**(NOTHING | {"single_mul": 1.0})), "facts_per_document": 1.0}, "weight sums"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        DrillSpec(**wrong)
    with pytest.raises(BadInput, match=r"single_add is -1\.0, and must be at least 0"):
        Weights(single_add=-1.0)


def test_a_spec_that_has_no_more_says_so() -> None:
    few = Weights(**(NOTHING | {"squares": 1.0}))
    with pytest.raises(BadInput, match=r"nothing new came in .* attempts; widen"):
        items(DrillSpec(weights=few, facts_per_document=4.0), 100)
    with pytest.raises(BadInput, match=r"no document holds 9 different problems; lower 'problems'"):
        documents(DrillSpec(weights=few, facts_per_document=12.0, problems=(20, 20)), 1)


def test_a_spec_survives_its_file(tmp_path) -> None:
    spec = DrillSpec(weights=Weights(story_sums=2.0), problems=(2, 3))
    (tmp_path / "spec.yaml").write_text(to_yaml(spec))
    assert from_yaml(DrillSpec, tmp_path / "spec.yaml") == spec
