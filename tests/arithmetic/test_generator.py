"""A generated problem is a true story: its numbers are in its words, its steps follow, and nothing leaves its range."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from workings.arithmetic.chain import write_chain
from workings.arithmetic.generator import (
    MOST_STEPS,
    PRESETS,
    ProblemSpec,
    generate,
    part_of,
    split_pieces,
    vocabulary,
)
from workings.arithmetic.problems import Problem
from workings.arithmetic.stories import NUMBER_WORDS, RINGS, RUNNING, STRUCTURED, THEMES
from workings.errors import BadInput

EVERY_STORY = replace(PRESETS["varied"], templates=(*RUNNING, *STRUCTURED, "plain"))
EVERY_RING = replace(PRESETS["ring20"], templates=(*RINGS, "ring plain"), distractor_rate=0.3)


@st.composite
def specs(draw: st.DrawFn) -> ProblemSpec:
    """Any spec a reader of its docstring could write."""
    ring = draw(st.booleans())
    low = 0 if ring else draw(st.integers(0, 5))
    high = draw(st.integers(low + 20, 300))
    modulus = draw(st.integers(5, 97)) if ring else None
    marks = "+-*" if ring else "+-*/"
    families = [name for name, family in THEMES.items() if family.ring == ring and name not in STRUCTURED]
    return ProblemSpec(
        n_steps=tuple(draw(st.lists(st.integers(1, MOST_STEPS), min_size=1, max_size=3))),
        low=low,
        high=high,
        operations=tuple(draw(st.lists(st.sampled_from(marks), min_size=1, unique=True))),
        multipliers=(low + 2, 3 if low < 4 else 7),
        divisors=(low + 2, 5),
        mix=draw(st.booleans()),
        modulus=modulus,
        distractor_rate=draw(st.sampled_from([0.0, 0.5, 1.0])),
        templates=tuple(draw(st.lists(st.sampled_from(families), unique=True))),
    )


def numbers_of(question: str) -> set[int]:
    """The numbers a question gives, in digits or in words such as half and twice."""
    return {
        int(p) if p.isdigit() else NUMBER_WORDS[p.lower()]
        for p in split_pieces(question)
        if p.isdigit() or p.lower() in NUMBER_WORDS
    }


def check(problem: Problem, spec: ProblemSpec) -> None:
    """Everything that must hold of one problem, worked out again from its text by Python's own arithmetic."""
    low, high = (0, spec.modulus - 1) if spec.modulus else (spec.low, spec.high)
    known = numbers_of(problem.question)
    results: set[int] = set()
    for step in problem.steps:
        assert re.fullmatch(r"\d+[-+*/]\d+([-+]\d+)?", step.expression)
        assert eval(step.expression) == int(step.result)
        first, second, *wrap = (int(n) for n in re.findall(r"\d+", step.expression))
        assert {first, second} <= known | results, f"{step} uses a number from nowhere in: {problem.question}"
        assert all(low <= n <= high for n in (first, second, int(step.result)))
        assert not wrap or (spec.modulus and wrap[0] % spec.modulus == 0 and wrap[0] > 0)
        results.add(int(step.result))
    assert problem.answer == problem.steps[-1].result
    assert problem.n_steps in spec.n_steps
    last_sentence = re.split(r"[.] ", problem.question)[-1]
    assert last_sentence.endswith("?")
    assert not any(p.isdigit() for p in split_pieces(last_sentence))


@pytest.mark.parametrize(
    "spec", [*PRESETS.values(), EVERY_STORY, EVERY_RING], ids=[*PRESETS, "every story", "every ring"]
)
def test_the_story_gives_every_number_its_steps_use(spec: ProblemSpec) -> None:
    for problem in generate(2000, spec, seed=1):
        check(problem, spec)


@settings(max_examples=60, deadline=None)
@given(specs(), st.integers())
def test_any_spec_gives_true_stories_or_says_it_has_none(spec: ProblemSpec, seed: int) -> None:
    words = set(vocabulary(spec))
    try:
        problems = list(generate(15, spec, seed))
    except BadInput:
        reject()
    for problem in problems:
        check(problem, spec)
        assert words.issuperset(split_pieces(f"{problem.question} {write_chain(problem.steps)} {problem.answer}"))


@pytest.mark.parametrize("name", [*RUNNING, *RINGS, "plain", "ring plain"])
def test_each_step_of_a_running_story_acts_on_the_result_before_it(name: str) -> None:
    base = PRESETS["ring20"] if THEMES[name].ring else PRESETS["hundred"]
    for problem in generate(300, replace(base, templates=(name,), n_steps=(2, 3, 4, 8)), seed=2):
        starts = [re.match(r"\d+", step.expression) for step in problem.steps[1:]]
        assert [m.group() for m in starts if m] == [step.result for step in problem.steps[:-1]]


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_structured_story_has_steps_that_are_not_on_the_result_before(name: str) -> None:
    chains = [p.steps for p in generate(300, replace(PRESETS["hundred"], templates=(name,), n_steps=(3,)), seed=2)]
    elsewhere = [c for c in chains if any(not b.expression.startswith(a.result) for a, b in pairwise(c))]
    assert len(elsewhere) > 30


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(PRESETS)), st.integers(), st.integers(0, 40), st.integers(0, 40))
def test_a_longer_stream_begins_with_the_shorter_one(name: str, seed: int, a: int, b: int) -> None:
    shorter, longer = sorted((a, b))
    assert list(generate(shorter, PRESETS[name], seed)) == list(islice(generate(longer, PRESETS[name], seed), shorter))


def test_a_seed_means_the_same_problems_on_every_machine() -> None:
    assert [p.id for p in generate(3, PRESETS["hundred"], seed=0)] == [
        "d0f27792b131498c",
        "735c2d527bdb382a",
        "8103cc8ba2a3b41e",
    ]
    assert [p.id for p in generate(3, PRESETS["ring20"], seed=0)] == [
        "f73886a4ac98e27f",
        "629cdfaccdd47df1",
        "45c7c036d4f2c08b",
    ]


def test_seeds_differ_and_no_two_problems_of_a_stream_are_alike() -> None:
    first, second = ([p.id for p in generate(5000, PRESETS["hundred"], seed)] for seed in (0, 1))
    assert len(set(first)) == len(set(second)) == 5000
    assert first[:100] != second[:100]


def test_problems_already_used_are_left_out() -> None:
    narrow = ProblemSpec(n_steps=(1,), high=9, operations=("+",), style="plain")
    train = [p.id for p in generate(12, narrow, seed=0)]
    fresh = [p.id for p in generate(8, narrow, seed=1, without=set(train))]
    assert not set(train) & set(fresh)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(PRESETS)), st.sampled_from(sorted(PRESETS)), st.integers(), st.integers())
def test_what_is_held_out_shares_no_question_and_no_structure_with_training(
    a: str, b: str, seed: int, other: int
) -> None:
    """Whatever the specifications and the seeds, equal ones included: the text of the structure alone decides."""
    drawn = {
        part: list(generate(60, replace(PRESETS[name], structures=part), at))
        for part, name, at in [
            ("training", a, seed),
            ("held out", b, other),
            ("validation", a, other),
            ("test", b, seed),
        ]
    }
    for key in ("id", "question", "structure"):
        found = {part: {getattr(p, key) for p in problems} for part, problems in drawn.items()}
        assert found["training"].isdisjoint(found["held out"] | found["validation"] | found["test"])
        assert found["validation"].isdisjoint(found["test"])
    assert {part_of(p.structure) for p in drawn["held out"]} <= {"validation", "test"}


def test_a_structure_stays_in_its_part_on_every_machine() -> None:
    parts = [part_of(structure) for structure in ("6*9", "6*9;54-4", "18+5-20;3*2", "7*8;56-6")]
    assert parts == ["training", "test", "training", "test"]


def test_the_parts_have_their_shares_of_the_structures_whatever_the_number_of_steps() -> None:
    for n_steps in range(1, 6):
        problems = generate(20_000, replace(PRESETS["bundled"], n_steps=(n_steps,)), seed=12)
        parts = Counter(part_of(structure) for structure in {p.structure for p in problems})
        assert 0.70 < parts["training"] / parts.total() < 0.80
        assert 0.15 < parts["test"] / parts.total() < 0.25 and parts["validation"] >= 5


def test_training_on_three_quarters_of_the_short_chains_still_shows_every_number_and_operation() -> None:
    for n_steps in (1, 2):
        spec = replace(PRESETS["bundled"], n_steps=(n_steps,))
        told, seen = (
            {piece for p in generate(5000, replace(spec, structures=part), 13) for piece in split_pieces(p.structure)}
            for part in ("held out", "training")
        )
        assert told <= seen


def test_a_spec_with_nothing_left_to_give_says_so() -> None:
    sums_to_nine = ProblemSpec(n_steps=(1,), high=9, operations=("+",), style="plain")
    with pytest.raises(BadInput, match=r"made 21 of 1000 problems"):
        list(generate(1000, sums_to_nine, seed=0))


@pytest.mark.parametrize("name", [name for name, spec in PRESETS.items() if spec.mix])
def test_a_mixed_chain_multiplies_or_divides_after_its_first_step(name: str) -> None:
    spec = replace(PRESETS[name], templates=(), n_steps=(2, 3, 4))
    for problem in generate(500, spec, seed=3):
        assert any(re.search(r"\d[*/]", step.expression) for step in problem.steps[1:])


def test_no_shortcut_solves_mixed_problems() -> None:
    """Neither naming one answer always nor adding up signed numbers in the order of the story."""
    problems = list(generate(3000, replace(PRESETS["hundred"], n_steps=(2, 3, 4)), seed=4))
    commonest = Counter(p.answer for p in problems).most_common(1)[0][1]
    assert commonest < 0.10 * len(problems)
    running_sums = [sum(int(n) for n in re.findall(r"\d+", p.question)) for p in problems]
    assert sum(s == p.value for s, p in zip(running_sums, problems, strict=True)) < 0.05 * len(problems)


def test_every_chain_length_and_operation_and_answer_of_a_ring_comes_about_equally_often() -> None:
    problems = list(generate(4000, PRESETS["ring11"], seed=5))
    lengths, answers = Counter(p.n_steps for p in problems), Counter(p.answer for p in problems)
    assert min(lengths.values()) > 800
    assert len(answers) == 11
    assert max(answers.values()) < 0.15 * len(problems)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_distractors_come_at_their_rate_and_hold_a_number_no_step_uses(rate: float) -> None:
    spec = replace(PRESETS["thousand"], distractor_rate=rate, templates=("collection", "money"))
    problems = list(generate(1000, spec, seed=6))
    distracted = [
        p for p in problems if re.search(r"years old|degrees outside|has \d+ (kites|spoons|hats|ropes)", p.question)
    ]
    assert abs(len(distracted) - rate * len(problems)) <= 60
    for problem in distracted:
        assert problem.question.endswith("?")


def test_a_repeated_chain_length_is_drawn_more_often() -> None:
    lengths = Counter(p.n_steps for p in generate(2000, replace(PRESETS["hundred"], n_steps=(1, 4, 4, 4)), seed=7))
    assert 0.70 < lengths[4] / 2000 < 0.80


def test_addends_stay_in_their_bounds() -> None:
    spec = replace(PRESETS["hundred"], addends=(3, 9))
    for problem in generate(1000, spec, seed=8):
        for step in problem.steps:
            found = re.search(r"[-+](\d+)", step.expression)
            assert found is None or 3 <= int(found.group(1)) <= 9


def test_sentences_are_short() -> None:
    for spec in (PRESETS["hundred"], PRESETS["ring20"]):
        pieces = [len(s.split()) for p in generate(500, spec, seed=9) for s in re.split(r"(?<=[.?]) ", p.question)]
        assert sum(pieces) / len(pieces) < 8
        assert max(pieces) <= 10


@pytest.mark.parametrize("spec", [*PRESETS.values(), EVERY_STORY, EVERY_RING])
def test_one_vocabulary_reads_the_same_stories_in_every_variation(spec: ProblemSpec) -> None:
    pieces = vocabulary(spec)
    assert len(pieces) == len(set(pieces))
    assert all(split_pieces(piece) == [piece] for piece in pieces)
    for varied in (spec, replace(spec, distractor_rate=1.0), replace(spec, n_steps=(8,), mix=False)):
        assert vocabulary(varied) == pieces
        told = " ".join(f"{p.question} {write_chain(p.steps)}" for p in generate(500, varied, seed=10))
        assert set(split_pieces(told)) <= set(pieces)


def test_text_splits_into_words_numbers_and_marks() -> None:
    assert split_pieces("Ann has $30, or 5%. <<18+5-20=3>>") == (
        ["Ann", "has", "$", "30", ",", "or", "5", "%", ".", "<<", "18", "+", "5", "-", "20", "=", "3", ">>"]
    )


def test_every_sentence_of_every_family_reaches_some_problem() -> None:
    told = " ".join(
        p.question
        for spec in (EVERY_STORY, EVERY_RING)
        for p in generate(6000, replace(spec, multipliers=(2, 3, 7)), 11)
    )
    for family in THEMES.values():
        sentences = [s for said in (*family.acts.values(), *family.words.values(), family.questions) for s in said]
        for sentence in [*sentences, *(o.text for o in family.openings)]:
            shape = "".join(
                r"[\w]+" if part.startswith("%(") else re.escape(part) for part in re.split(r"(%\(\w+\)s)", sentence)
            )
            assert re.search(shape, told), sentence


BROKEN = [
    ({"n_steps": ()}, "n_steps is ()"),
    ({"n_steps": (0,)}, "n_steps is (0,), and must be at least 1 and at most 8"),
    ({"n_steps": (9,)}, "n_steps is (9,)"),
    ({"low": -1}, "low is -1, and must be at least 0"),
    ({"low": 50, "high": 50}, "the range is 50..50"),
    ({"operations": ()}, "operations are ()"),
    ({"operations": ("^",)}, "operations are ('^',)"),
    ({"modulus": 2, "operations": ("+",)}, "modulus is 2"),
    ({"modulus": 20}, "a ring has no division"),
    ({"multipliers": (1, 2)}, "multipliers is (1, 2)"),
    ({"multipliers": (200,)}, "none of (200,) lies in 0..99 for the operation *"),
    ({"divisors": ()}, "none of () lies in 0..99 for the operation /"),
    ({"addends": (0, 5)}, "addends is (0, 5), and must be at least 1"),
    ({"addends": (5, 100)}, "addends are (5, 100)"),
    ({"structures": "some"}, "structures are 'some'; give 'all', 'training', 'held out', 'validation' or 'test'"),
    ({"distractor_rate": 1.5}, "distractor_rate is 1.5"),
    ({"style": "poem"}, "style is 'poem'"),
    ({"templates": ("zoo",)}, "no theme 'zoo'; there are collection, "),
    ({"templates": ("ring dial",)}, "the theme 'ring dial' needs a modulus"),
    ({"templates": ("bus",), "modulus": 7, "operations": ("+",)}, "the theme 'bus' does not go with a modulus"),
]


@pytest.mark.parametrize(("fields", "complaint"), BROKEN)
def test_a_spec_that_makes_no_sense_says_which_field_and_why(fields: dict, complaint: str) -> None:
    with pytest.raises(BadInput) as bad:
        ProblemSpec(**fields)
    assert complaint in str(bad.value)


def test_families_that_cannot_tell_a_chain_with_the_operations_given_say_so() -> None:
    with pytest.raises(BadInput, match="tells 1 steps"):
        list(generate(1, ProblemSpec(n_steps=(1,), operations=("+",), templates=("boxes",)), seed=0))
