"""The judge on thinking machines, from the question to the verdict: collected as any model is, read, ablated."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.planted.models import BagOfWords, Chain, Echo, PlantedThinker, QuestionEcho, read_question, results_of
from tests.planted.states import HELD, NOTHING, Truth
from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.judging.ablation import ablate, accuracy, self_check
from workings.judging.conditional import Asked, judged
from workings.judging.transplant import swap_thoughts, used
from workings.judging.verdict import Verdict, verdicts
from workings.reading.collection import collect
from workings.reading.targets import split_problems


@dataclass(frozen=True)
class Pair:
    """A machine as model and as its own matched control, and what is true of the model."""

    model: Callable[[], PlantedThinker]
    control: Callable[[], PlantedThinker]
    truth: Truth
    uses_its_thoughts: bool


PAIRS = {
    "chain": Pair(Chain, lambda: Chain(recurrent=False), HELD, True),
    "echo": Pair(Echo, lambda: Echo(recurrent=False), Truth("no", "yes", "yes", "yes", "no"), False),
    "question echo": Pair(
        lambda: QuestionEcho(recurrent=False), lambda: QuestionEcho(recurrent=False), Truth(before="yes"), False
    ),
    "bag of words": Pair(BagOfWords, lambda: BagOfWords(recurrent=False), NOTHING, False),
}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return list(generate(1500, PRESETS["bundled"], seed=1000))


# ---- the machines are what they say ---------------------------------------------------------------------------------


def test_a_question_is_read_without_its_chain(problems: list[Problem]) -> None:
    for problem in problems:
        start, *results = results_of(read_question(problem.question))
        assert re.match(r"\d+", problem.steps[0].expression)[0] == str(start)
        assert results == [int(step.result) for step in problem.steps]


@pytest.mark.parametrize("machine", [Chain, Echo, QuestionEcho])
def test_a_machine_answers_every_question_and_a_bag_of_words_none(
    machine: type[PlantedThinker], problems: list[Problem]
) -> None:
    some = problems[:40]
    right = [
        answer.value == p.value for answer, p in zip(machine().answer([p.question for p in some]), some, strict=True)
    ]
    assert all(right)
    assert not any(
        answer.value == p.value for answer, p in zip(BagOfWords().answer([p.question for p in some]), some, strict=True)
    )


@pytest.mark.parametrize("name", PAIRS)
def test_batch_and_padding_change_nothing_and_a_thought_replaced_by_itself_neither(
    name: str, problems: list[Problem]
) -> None:
    model, questions = PAIRS[name].model(), [p.question for p in problems[:12]]
    together, alone = model.think(questions, batch_size=12), model.think(questions, batch_size=1)
    assert torch.allclose(together.hidden, alone.hidden, atol=1e-5)
    assert self_check(model, questions) == {"replace by itself": 0.0, "last state": 0.0}


# ---- from the question to the verdict ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_the_verdict_on_a_machine_is_the_truth(name: str, problems: list[Problem], tmp_path: Path) -> None:
    pair, split_of = PAIRS[name], split_problems(problems, (0.5, 0.2, 0.3))
    thinkers = {"model": pair.model(), "control": pair.control(), "untrained": BagOfWords(seed=1)}
    stores = {
        role: collect(thinker, problems, tmp_path / role, splits=split_of, max_new_tokens=0, batch_size=250)
        for role, thinker in thinkers.items()
    }
    table = judged(Asked.of("step2", problems, stores["model"].splits), **stores)
    found = verdicts({"step2": table})["step2"]
    assert _contradictions(found, pair.truth) == {}
    if "yes" in pair.truth.answers.values():
        held = {question for question, fact in pair.truth.answers.items() if fact == "yes"}
        assert {question for question in held if getattr(found, question).answer == "yes"} == held


def _contradictions(found: Verdict, truth: Truth) -> dict[str, str]:
    said = {question: getattr(found, question).answer for question in truth.answers}
    return {q: answer for q, answer in said.items() if answer in ("yes", "no") and answer != truth.answers[q]}


@pytest.mark.parametrize("name", PAIRS)
def test_an_ablation_tells_what_is_used_from_what_is_only_there(name: str, problems: list[Problem]) -> None:
    longer = [p for p in problems if p.n_steps == 3]
    found = accuracy(ablate(PAIRS[name].model(), longer[:60], longer[60:120], written=False))
    own, zero, swapped = (found[3, condition] for condition in ("own", "zero", "swapped"))
    if PAIRS[name].uses_its_thoughts:
        assert own.correct.value == 1 and zero.correct.value < 0.3
        assert swapped.follows is not None and swapped.follows.value == 1
    else:
        assert zero.correct.value == swapped.correct.value == own.correct.value
        assert swapped.follows is not None and swapped.follows.value == 0


@pytest.mark.parametrize("n", [40, pytest.param(160, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PAIRS)
def test_a_transplant_tells_in_which_machine_a_step_is_used(name: str, n: int, problems: list[Problem]) -> None:
    longer, model = [p for p in problems if p.n_steps == 3], PAIRS[name].model()
    validation, test = (swap_thoughts(model, some, longer[:20]).outcomes for some in (longer[:20], longer[20 : 20 + n]))
    found = {rule: one.anywhere.answer.answer for rule, one in used(validation, test).items()}
    if name == "bag of words":  # it answers nothing, so nothing can follow
        assert set(found.values()) <= {"not asked"}
    elif PAIRS[name].uses_its_thoughts:
        assert found["step2"] == "yes"
    else:
        assert found["step2"] == "no" if n > 40 else found["step2"] != "yes"
