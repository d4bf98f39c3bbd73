"""The judge on machines whose truth is known: what it says of one draw of each, and how often it is wrong over many."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.planted.rates import FAMILY, IS_WRONG, Draw, all_answers, answers, draws_without_error, problems_of, rates
from tests.planted.states import EMPTY, MACHINES, NULLS, POSITIONS, planted, results
from workings.judging.readers import discriminants
from workings.reading.store import StatesInMemory

FOUND = tuple(name for name, machine in MACHINES.items() if set(machine.truth.answers.values()) == {"yes", "no"})
N_DRAWS = 100


# ---- the machines are what they say ---------------------------------------------------------------------------------


def named(states: StatesInMemory, position: str, values: np.ndarray) -> float:
    """Share of held-out problems whose value a linear reader of one place names."""
    x, n = states.hidden("block2")[:, POSITIONS.index(position)].numpy(), len(values)
    readers = discriminants(x, values, 21, np.arange(n // 2))
    return max(float((log_p.argmax(1) == values)[n // 2 :].mean()) for log_p in readers)


@pytest.mark.parametrize("name", ["chain", "echo", "complement"])
def test_a_chain_holds_each_result_at_its_own_thought(name: str) -> None:
    problems, _ = problems_of(Draw(0))
    model = planted(name, problems).model
    for k in (1, 3):
        values = results(problems, k)
        there, elsewhere = named(model, f"t{k}", values), named(model, "bot", values)
        assert there > elsewhere + 0.1


def test_the_control_of_an_echo_holds_what_its_model_holds_and_that_of_a_chain_does_not() -> None:
    problems, _ = problems_of(Draw(0))
    values = results(problems, 2)
    echo, chain = planted("echo", problems), planted("chain", problems)
    assert abs(named(echo.model, "t2", values) - named(echo.control, "t2", values)) < 0.1
    assert named(chain.model, "t2", values) > named(chain.control, "t2", values) + 0.1


def test_a_draw_can_be_drawn_again_and_another_seed_is_another_model() -> None:
    problems, _ = problems_of(Draw(0, n_problems=20))
    one, again, other = (planted("chain", problems, seed).model.hidden("block2") for seed in (0, 0, 1))
    assert one.equal(again) and not one.equal(other)


# ---- one draw of each, judged ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_draw() -> pl.DataFrame:
    return answers(Draw(0))


@pytest.mark.parametrize("name", MACHINES)
def test_no_answer_about_a_machine_is_wrong(one_draw: pl.DataFrame, name: str) -> None:
    of_machine = one_draw.filter(pl.col("machine") == name)
    assert len(of_machine) == 5 and not len(of_machine.filter(IS_WRONG))


@pytest.mark.parametrize("name", FOUND)
def test_what_a_machine_holds_is_found(one_draw: pl.DataFrame, name: str) -> None:
    held = one_draw.filter((pl.col("machine") == name) & (pl.col("truth") == "yes"))
    assert set(held["answer"]) == {"yes"}


def test_a_machine_that_holds_the_answer_is_read_where_the_answer_is_asked_for() -> None:
    found = answers(Draw(0, ("answer only",), ("answer",)))
    assert dict(found.select("question", "answer").iter_rows())["read"] == "yes"


# ---- the rates -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many_draws() -> pl.DataFrame:
    return all_answers([Draw(seed) for seed in range(N_DRAWS)])


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_in_95_of_100_draws_no_answer_is_wrong(many_draws: pl.DataFrame, name: str) -> None:
    [right] = draws_without_error(many_draws.filter(pl.col("machine") == name))["right"]
    assert right >= 0.95 * N_DRAWS


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_what_a_machine_holds_is_found_in_most_draws(many_draws: pl.DataFrame, name: str) -> None:
    held = rates(many_draws.filter((pl.col("machine") == name) & (pl.col("truth") == "yes")))
    assert held["yes"].min() >= 0.9


@pytest.mark.slow
def test_of_machines_that_hold_nothing_hardly_any_has_a_yes(many_draws: pl.DataFrame) -> None:
    by_draw = (
        many_draws.filter(pl.col("machine").is_in(NULLS)).group_by("machine", "draw").agg(IS_WRONG.any().alias("wrong"))
    )
    assert len(by_draw) >= 200
    assert by_draw["wrong"].mean() <= 0.05


@pytest.mark.slow
def test_five_targets_together_have_a_false_yes_no_more_often_than_one() -> None:
    draws = [Draw(seed, (EMPTY[seed % len(EMPTY)],), FAMILY) for seed in range(40)]
    families = all_answers(draws).group_by("draw").agg(IS_WRONG.any().alias("wrong"))
    assert families["wrong"].mean() <= 0.05
