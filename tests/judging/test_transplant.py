"""A thought that carries a step's result takes it to another problem; one that carries nothing does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.arithmetic.chain import Step
from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, Failed
from workings.judging.transplant import CONDITIONS, matched, swap_thoughts, used
from workings.models.codi import open_model
from workings.text.datasets import load_problems

# ---- donors ------------------------------------------------------------------------------------------------------


def sums(n: int) -> list[Problem]:
    """`a has 3 pens . then 4 more .`, as the small models' tokenizer reads it, of one and two steps."""
    made = []
    for i in range(n):
        a, b, c = 1 + i % 5, 1 + i % 3, 1 + i % 4
        steps = (Step(f"{a}+{b}", str(a + b)), Step(f"{a + b}+{c}", str(a + b + c)))[: 1 + i % 2]
        more = "".join(f" then {step.expression.split('+')[1]} more ." for step in steps)
        made.append(Problem(f"a has {a} pens .{more} how many now ?", steps, steps[-1].result))
    return made


def test_a_retold_donor_differs_in_its_step_and_is_followed_to_its_own_answer():
    problems = list(generate(60, PRESETS["bundled"], seed=2))
    found = matched(problems, seed=0)
    assert found.retold and found.pairs
    for pair in found.pairs:
        own = problems[pair.problem]
        results = [[step.value for step in one.steps] for one in (own, pair.donor)]
        assert results[0][: pair.step - 1] == results[1][: pair.step - 1]
        assert pair.follows == pair.donor.value != own.value
    assert len(found.pairs) + sum(found.left_out.values()) == sum(p.n_steps for p in problems)
    assert matched(problems, seed=0) == found != matched(problems, seed=1)


def test_where_stories_cannot_be_retold_the_donor_is_another_problem_and_the_rest_of_the_chain_is_reckoned():
    problems = [
        Problem(
            f"{a} each of {b} and {c}.",
            (Step(f"{b}*{a}", str(a * b)), Step(f"{c}*7", str(7 * c)), Step(f"{a * b}+{7 * c}", str(a * b + 7 * c))),
            str(a * b + 7 * c),
        )
        for a, b, c in ((2, 31, 11), (3, 41, 13), (5, 43, 17))
    ]
    found = matched(problems)
    assert not found.retold and len(found.pairs) == 9
    for pair in found.pairs:
        results = [step.value for step in problems[pair.problem].steps]
        results[pair.step - 1] = pair.donor.steps[pair.step - 1].value
        assert pair.follows == (results[0] + results[1] if pair.step < 3 else results[2])
        assert pair.follows != problems[pair.problem].value and (pair.follows == pair.donor.value) == (pair.step == 3)


# ---- answers -----------------------------------------------------------------------------------------------------


def test_every_step_is_answered_at_every_position_in_every_condition(thinker):
    problems = sums(12)
    found = swap_thoughts(thinker(n_thoughts=3), problems, sums(3), batch_size=5)
    frame = found.outcomes
    assert set(frame["condition"]) == set(CONDITIONS)
    n_pairs = len(frame.filter(condition="own"))
    counts = frame.group_by("condition", "position").len()
    assert set(counts["len"]) == {n_pairs} and len(counts) == 1 + 6 * 3
    assert n_pairs + sum(found.left_out.values()) == sum(p.n_steps for p in problems)
    assert frame.filter(condition="own")["keeps"].all() and set(frame["structure"]) <= {p.structure for p in problems}
    last = frame.filter(position="t3").pivot("condition", index=["problem", "step"], values="answer")
    assert last["swapped"].equals(last["swapped on"], check_names=False)  # after the last position there is none


def test_what_is_fed_is_the_donors_and_later_thoughts_are_recomputed():
    """The engine says the same when it is told so directly."""
    model, problems = open_model("bundled"), list(generate(14, replace(PRESETS["bundled"], n_steps=(4,)), seed=8))
    frame, pairs = swap_thoughts(model, problems[:10], problems[10:]).outcomes, matched(problems[:10]).pairs
    assert frame.filter(condition="own")["donor"].to_list() == [pair.donor.id for pair in pairs]
    given = model.think([pair.donor.question for pair in pairs]).projected
    questions = [problems[pair.problem].question for pair in pairs]
    for position in (1, 3):
        for condition, on in (("swapped", False), ("swapped on", True)):
            state = model.begin(model.prompt(questions))
            for k in range(1, model.n_thoughts + 1):
                state = model.step(state, given[:, k - 1] if k == position or (on and k > position) else None)
            expected = [model.answer_of(ids).value for ids in model.greedy_answer(state, 16)]
            said = frame.filter(condition=condition, position=f"t{position}")["answer"].to_list()
            assert said == [None if value is None else str(value) for value in expected]


def test_under_a_constant_recurrence_nothing_follows(thinker):
    frame = swap_thoughts(thinker(recurrence="constant"), sums(12), sums(3)).outcomes
    moved = frame.filter(pl.col("condition").is_in(["mean", "resampled", "resampled on", "swapped", "swapped on"]))
    assert moved["keeps"].all()


def test_a_model_that_a_thought_of_its_own_changes_is_refused(thinker):
    model = thinker()
    generator = torch.Generator().manual_seed(0)
    model.feed = lambda final, k: 9 * torch.randn(final.shape, generator=generator)  # never twice the same
    with pytest.raises(Failed, match="replaced by themselves changed"):
        swap_thoughts(model, sums(12), sums(3))


def test_problems_without_a_matched_donor_are_an_error(thinker):
    alike = [Problem(f"a has {i} pens . how many now ?", (Step(f"{i}*1", str(i)),), str(i)) for i in range(1, 4)]
    with pytest.raises(BadInput, match="nothing can be swapped"):
        swap_thoughts(thinker(), [alike[0]] * 2 + [Problem("b has 1 pens .", alike[0].steps, "2")], alike)


# ---- the answer --------------------------------------------------------------------------------------------------


def outcomes(
    generator: np.random.Generator,
    n: int,
    follow: dict[str, float],
    chance: float = 0.03,
    step: int = 2,
    lengths: tuple[int, ...] = (3, 4),
    told: int = 1,
) -> pl.DataFrame:
    """A table as `swap_thoughts` makes it: answers follow a swap at a position with a probability, and else by chance."""
    frames = []
    structures = np.repeat(np.arange(-(-n // told)), told)[:n]
    for position in ("t1", "t2", "t3"):
        for condition in ("swapped", "swapped on", "resampled", "resampled on"):
            p = follow.get(position, chance) if condition == "swapped" else chance
            frames.append(
                {
                    "problem": [f"p{i}" for i in range(n)],
                    "structure": [f"s{i}" for i in structures],
                    "n_steps": [lengths[i % len(lengths)] for i in structures],
                    "step": step,
                    "position": position,
                    "condition": condition,
                    "at_risk": True,
                    "follows": np.repeat(generator.random(structures[-1] + 1) < p, told)[:n],
                }
            )
    return pl.concat(map(pl.DataFrame, frames))


def both(seed: int, n: int, follow: dict[str, float], **fields) -> tuple[pl.DataFrame, pl.DataFrame]:
    generator = np.random.default_rng(seed)
    return outcomes(generator, n, follow, **fields), outcomes(generator, n, follow, **fields)


def test_a_step_that_is_followed_is_used_and_its_place_is_found():
    found = used(*both(1, 300, {"t2": 0.6}))["step2"].anywhere
    assert found.answer.answer == "yes" and found.answer.low > 0.05 and found.answer.n == 300
    assert found.places == {3: ("t2", "swapped"), 4: ("t2", "swapped")}
    assert {one.answer for one in found.by_length.values()} == {"yes"}
    assert found.answer.points == pytest.approx(found.follows - found.by_chance)


def test_the_place_is_chosen_on_validation_alone():
    generator = np.random.default_rng(11)
    validation, test = outcomes(generator, 100, {"t2": 0.6}), outcomes(generator, 100, {"t3": 0.6})
    found = used(validation, test)["step2"].anywhere
    assert set(found.places.values()) == {("t2", "swapped")} and found.answer.answer == "undecided"


def test_what_only_the_first_vector_carries_is_said_apart():
    found = used(*both(2, 600, {"t1": 0.9}))["step2"]
    assert (found.anywhere.answer.answer, found.after_first.answer.answer) == ("yes", "no")


def test_what_nothing_follows_is_not_used_and_few_problems_leave_it_open():
    assert used(*both(3, 500, {}))["step2"].anywhere.answer.answer == "no"
    few = used(*both(4, 12, {}))["step2"].anywhere.answer
    assert few.answer == "undecided" and "is not excluded" in few.why


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_problems_decide_nothing(n: int):
    assert used(*both(5, n, {"t2": 1.0}))["step2"].anywhere.answer.answer == "undecided"


def test_a_last_step_is_the_answer_and_a_longer_chain_is_another_target():
    made = [both(6, 60, {}, step=step, lengths=(2, 3)) for step in (1, 2)]
    found = used(*(pl.concat(side) for side in zip(*made, strict=True)))
    assert list(found) == ["answer", "step1", "step2"]
    assert [set(one.anywhere.by_length) for one in found.values()] == [{2}, {2, 3}, {3}]


def test_only_what_the_model_answers_right_by_itself_counts():
    validation, test = both(7, 200, {"t2": 0.6})
    wrong = test.with_columns(at_risk=pl.lit(False))
    found = used(validation, wrong)["step2"].anywhere.answer
    assert found.answer == "not asked" and found.n == 0


def test_sixteen_tellings_of_a_structure_are_not_sixteen():
    once, often = (
        used(*both(8, n, {"t2": 0.25}, told=told))["step2"].anywhere.answer for n, told in ((40, 1), (640, 16))
    )
    assert once.n == often.n == 40
    assert often.high - often.low > 0.6 * (once.high - once.low)


def test_all_thoughts_at_once_are_no_place():
    validation, test = both(9, 300, {})
    everything = (pl.col("position") == "t1") & (pl.col("condition") == "swapped on")
    sides = [one.with_columns(follows=pl.col("follows") | everything) for one in (validation, test)]
    assert used(*sides)["step2"].anywhere.answer.answer == "no"


def test_a_place_that_was_lucky_on_validation_earns_no_yes():
    """Where a random donor does as well, and where the true gain is no more than the margin."""
    for follow in ({}, {"t2": 0.08}):
        says = [used(*both(100 + at, 150, follow))["step2"].anywhere.answer.answer for at in range(50)]
        assert says.count("yes") <= 3


def test_what_follows_is_found_and_not_denied():
    says = [used(*both(300 + at, 200, {"t2": 0.3}))["step2"].anywhere.answer.answer for at in range(40)]
    assert says.count("yes") >= 38 and "no" not in says


def test_a_table_of_something_else_is_refused():
    with pytest.raises(BadInput, match="lacks the columns step, position, at_risk"):
        used(
            pl.DataFrame({"problem": [], "structure": [], "n_steps": [], "condition": [], "follows": []}),
            pl.DataFrame(),
        )


# ---- the bundled pair --------------------------------------------------------------------------------------------


def test_the_bundled_model_follows_matched_donors_and_its_control_does_not():
    problems = load_problems("generated", limit=30, seed=7).problems
    for name, follows in (("bundled", True), ("bundled-control", False)):
        frame = swap_thoughts(open_model(name), problems[:24], problems[24:]).outcomes
        swapped = frame.filter("at_risk", condition="swapped on", position="t1")
        assert (swapped["follows"].cast(pl.Float64).to_numpy().mean() > 0.8) == follows
        assert follows or not swapped["follows"].any()
