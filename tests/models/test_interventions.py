"""Edits of thoughts: inert where they replace a state by itself, without effect before their cause, the same together and alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workings.arithmetic.generator import PRESETS, generate
from workings.errors import BadInput
from workings.models.anatomy import Edit
from workings.models.codi import CODI, open_model
from workings.models.interventions import Condition, Intervention, Moment, answers_under

QUESTIONS = [problem.question for problem in generate(3, PRESETS["bundled"], seed=3)]


@pytest.fixture(scope="module")
def model() -> CODI:
    return open_model("bundled")


def itself(moment: Moment) -> Tensor:
    return moment.value


def zero(moment: Moment) -> Tensor:
    return torch.zeros_like(moment.value)


def sites(model: CODI) -> list[str]:
    return ["fed", *model.layers[1:]]


def at(value, *thoughts: int, site: str = "fed") -> Condition:
    return Condition((Intervention(value, thoughts, site),))


def test_a_state_replaced_by_itself_at_any_site_changes_nothing_at_all(model: CODI) -> None:
    every = tuple(range(1, model.n_thoughts + 1))
    own = answers_under(model, QUESTIONS, {"own": Condition()})["own"]
    for site in sites(model):
        found = answers_under(model, QUESTIONS, {"again": at(itself, *every, site=site)})["again"]
        assert [a.token_ids for a in found.answers] == [a.token_ids for a in own.answers]
        assert float(found.divergence.abs().max()) == 0.0
    assert [a.token_ids for a in own.answers] == [a.token_ids for a in model.answer(QUESTIONS, max_new_tokens=16)]


def test_an_edit_changes_its_own_thought_and_later_ones_and_none_before(model: CODI) -> None:
    seen: dict[int, Tensor] = {}

    def watch(moment: Moment) -> Tensor:
        seen[moment.k] = moment.value.clone()
        return moment.value

    every = tuple(range(1, model.n_thoughts + 1))
    answers_under(model, QUESTIONS[:1], {"clean": at(watch, *every)})
    clean = dict(seen)
    edited = Condition((Intervention(zero, (3,), "block1"), Intervention(watch, every)))
    answers_under(model, QUESTIONS[:1], {"edited": edited})
    assert all(torch.equal(seen[k], clean[k]) for k in (1, 2, 3))
    assert all(not torch.equal(seen[k], clean[k]) for k in (4, 5, 6))


def test_conditions_that_run_together_answer_as_they_do_alone(model: CODI) -> None:
    conditions = {f"zero {site} {k}": at(zero, k, site=site) for site in sites(model) for k in (1, 2, 4, 6)}
    conditions |= {"own": Condition(), "two": Condition(n_thoughts=2), "none": Condition(n_thoughts=0)}
    conditions["two, edited"] = Condition((Intervention(zero, (2,)),), n_thoughts=2)
    together = answers_under(model, QUESTIONS, conditions, batch_size=2, rows_at_once=7)
    for name, condition in conditions.items():
        alone = answers_under(model, QUESTIONS, {name: condition})[name]
        assert [a.text for a in alone.answers] == [a.text for a in together[name].answers]
        torch.testing.assert_close(alone.divergence, together[name].divergence, rtol=1e-3, atol=1e-5)


def test_what_is_done_is_what_the_engine_does_step_by_step(model: CODI) -> None:
    state = model.begin(model.prompt(QUESTIONS))
    for k in range(1, model.n_thoughts + 1):
        z = model.feed(state.final, state.n_fed)
        edits = [Edit("block1", lambda h: -h)] if k == 4 else []
        state = model.step(state, -z if k == 2 else z, edits)
    expected = model.greedy_answer(state, 16)
    negated = lambda moment: -moment.value
    condition = Condition((Intervention(negated, (2,)), Intervention(negated, (4,), "block1")))
    found = answers_under(model, QUESTIONS, {"negated": condition})["negated"]
    assert [a.token_ids for a in found.answers] == expected


def test_a_value_sees_the_run_before_its_thought_and_which_questions_it_is_about(model: CODI) -> None:
    seen = []

    def watch(moment: Moment) -> Tensor:
        seen.append(
            (moment.k, moment.before().n_fed, moment.rows.tolist(), moment.before().final.clone(), moment.value.clone())
        )
        return moment.value

    answers_under(model, QUESTIONS, {"a": at(watch, 2), "b": at(zero, 2)}, batch_size=2)
    assert sorted(row for _, _, rows, _, _ in seen for row in rows) == [0, 1, 2]
    for k, n_fed, _, final, value in seen:
        assert (k, n_fed) == (2, 1)
        torch.testing.assert_close(model.feed(final, 1), value)


def test_the_divergence_is_that_of_the_first_token_behind_the_answer_is(model: CODI) -> None:
    found = answers_under(model, QUESTIONS, {"zero": at(zero, 1, 2, 3, 4, 5, 6)})["zero"]
    state = clean = model.begin(model.prompt(QUESTIONS))
    for _ in range(model.n_thoughts):
        clean, state = model.step(clean), model.step(state, torch.zeros_like(state.final))
    assert model.decode(model.answer_prefix()).split() == ["The", "answer", "is", ":"]
    prefix = torch.tensor(model.answer_prefix()).expand(3, -1)
    p, q = (model.log_p(model.close(run, prefix)[0][-1][:, -1]) for run in (clean, state))
    expected = (p.exp() * (p - q)).nan_to_num().sum(1)
    torch.testing.assert_close(found.divergence, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (at(zero, 7), r"edits thoughts \[7\]; there are 1 to 6"),
        (at(zero, 0), "there are 1 to 6"),
        (at(zero), "there are 1 to 6"),
        (at(zero, 1, site="embed"), "edits 'embed'; there are fed, block1, final_norm"),
        (Condition(n_thoughts=7), "answers after 7 thoughts; the model has 6"),
        (Condition((Intervention(zero, (4,)),), n_thoughts=2), "there are 1 to 2"),
    ],
)
def test_what_cannot_be_edited_is_refused(model: CODI, condition: Condition, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        answers_under(model, QUESTIONS, {"no": condition})
