"""What stands in a thought's place: lengths kept, the right token at the right thought, random tokens of the same class."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from workings.arithmetic.generator import PRESETS, generate
from workings.errors import BadInput
from workings.judging.replacements import (
    IN_WORDS,
    chain_tokens,
    class_of,
    embedded,
    negation,
    next_number,
    noise,
    of_a_study,
    of_length,
    random_of_class,
    read_by,
    zero,
)
from workings.models.codi import CODI, open_model
from workings.models.interventions import Condition, Intervention, Moment, answers_under
from workings.reading import ThoughtStore, TunedLens, collect, probe_targets, split_problems
from workings.reading.lens_kinds import LogitLens
from workings.reading.targets import EMPTY, Targets

PROBLEMS = list(generate(40, PRESETS["bundled"], seed=5))
QUESTIONS = [problem.question for problem in PROBLEMS[:4]]


@pytest.fixture(scope="module")
def model() -> CODI:
    return open_model("bundled")


@pytest.fixture(scope="module")
def store(model: CODI, tmp_path_factory: pytest.TempPathFactory) -> ThoughtStore:
    return collect(model, PROBLEMS, tmp_path_factory.mktemp("store"), max_new_tokens=0, splits=split_problems(PROBLEMS))


@pytest.fixture(scope="module")
def targets(model: CODI, store: ThoughtStore) -> Targets:
    return probe_targets("uniform", model, store)


def fed(model: CODI, value, questions: Sequence[str] = QUESTIONS) -> dict[int, torch.Tensor]:
    """What is fed at each thought under a replacement of all of them, in the order of the questions."""
    seen: dict[int, torch.Tensor] = {}

    def watched(moment: Moment) -> torch.Tensor:
        new = value(moment)
        seen[moment.k] = new[moment.rows.argsort()].detach()
        return new

    every = tuple(range(1, model.n_thoughts + 1))
    answers_under(model, questions, {"one": Condition((Intervention(watched, every),))})
    return seen


def test_nothing_its_negative_and_noise_of_its_length(model: CODI) -> None:
    def check(moment: Moment) -> torch.Tensor:
        torch.testing.assert_close(negation(moment), -moment.value)
        assert not zero(moment).any()
        drawn, again, other = noise(0)(moment), noise(0)(moment), noise(1)(moment)
        torch.testing.assert_close(drawn.norm(dim=1), moment.value.norm(dim=1))
        assert torch.equal(drawn, again) and not torch.allclose(drawn, other)
        assert abs(float(torch.cosine_similarity(drawn, moment.value).mean())) < 0.3
        return moment.value

    fed(model, check)


def test_the_embedding_of_a_token_has_the_length_of_the_thought_and_an_empty_slot_is_left(model: CODI) -> None:
    tokens = torch.full((4, 6), 7)
    tokens[1, 2] = EMPTY
    own = fed(model, lambda m: m.value)
    seen = fed(model, embedded(model, tokens))
    direction = model.embed(torch.tensor(7))
    torch.testing.assert_close(seen[1], of_length(direction.expand(4, -1), own[1]))
    values = embedded(model, tokens)(Moment(3, own[3], torch.arange(4), lambda: None))  # type: ignore[arg-type,return-value]
    assert torch.equal(values[1], own[3][1]) and not torch.allclose(values[0], own[3][0])


def test_a_lens_reads_the_state_that_the_thought_is_made_of(model: CODI) -> None:
    state = model.begin(model.prompt(QUESTIONS))
    logits = LogitLens.of(model).read(state.final, "final_norm")
    logits[:, model.forbidden()] = -torch.inf
    expected = model.embed(logits.argmax(-1))
    seen = fed(model, read_by(model, LogitLens.of(model), "final_norm", keep_length=False))
    torch.testing.assert_close(seen[1], expected)
    with pytest.raises(BadInput, match="has no layer 'block7'"):
        read_by(model, LogitLens.of(model), "block7")


def test_the_oracles_token_is_that_of_the_position_before_the_thought_is_fed(model: CODI, targets: Targets) -> None:
    tokens = chain_tokens(targets, model.n_thoughts)
    assert torch.equal(tokens[:, 0], targets.ids[:, targets.positions.index("bot"), 0])
    assert torch.equal(tokens[:, 3], targets.ids[:, targets.positions.index("t3"), 0])
    with pytest.raises(BadInput, match="no position t7"):
        chain_tokens(targets, 8)


def test_random_tokens_are_others_of_the_same_class_that_solutions_use(model: CODI, targets: Targets) -> None:
    texts = model.tokens(range(len(model.unembedding.weight)))
    used = targets.ids[targets.mask].tolist()
    tokens = chain_tokens(targets, model.n_thoughts)
    drawn = random_of_class(tokens, texts, used)
    for token, other in zip(tokens.flatten().tolist(), drawn.flatten().tolist(), strict=True):
        if other == EMPTY:
            assert token == EMPTY or len({i for i in used if class_of(texts[i]) == class_of(texts[token])}) == 1
        else:
            assert other != token and other in used and class_of(texts[other]) == class_of(texts[token])
    assert torch.equal(drawn, random_of_class(tokens, texts, used)) and not torch.equal(
        drawn, random_of_class(tokens, texts, used, seed=1)
    )


def test_the_next_number_is_one_more_and_nothing_else_has_one() -> None:
    texts = ["7", "8", " 7", "*", "99", " 8"]
    assert next_number(torch.tensor([[0, 2, 3], [4, EMPTY, 1]]), texts).tolist() == [
        [1, 5, EMPTY],
        [EMPTY, EMPTY, EMPTY],
    ]


def test_every_replacement_of_a_study_is_made(model: CODI, store: ThoughtStore, targets: Targets) -> None:
    rows = targets.rows("test")[:3]
    values = of_a_study(model, store, targets, rows, TunedLens.of(model), "block1")
    assert set(values) == set(IN_WORDS)
    questions = [store.as_problems()[row].question for row in rows.tolist()]
    conditions = {name: Condition((Intervention(value, (1, 2)),)) for name, value in values.items()}
    found = answers_under(model, questions, conditions)
    assert all(len(one.answers) == 3 and bool(one.divergence.isfinite().all()) for one in found.values())
    oracle = fed(model, values["oracle"], questions)[1]
    first = targets.ids[rows, targets.positions.index("bot"), 0]
    assert float(torch.cosine_similarity(oracle, model.embed(first).detach()).min()) > 0.999
