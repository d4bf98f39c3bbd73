"""Probes of models that were taught some of the answers: what was planted is found, in every arm, and nothing else is."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.arithmetic.facts import GPT2_MUL, Fact
from workings.arithmetic.probes import PROBE_KINDS, overlap
from workings.evals import probes
from workings.evals.contamination import contamination_of
from workings.evals.settings import Settings, encode_raw
from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.models.language import GPT2LanguageModel
from workings.text.tokenizer import VOCABULARIES, Tokenizer

ITEMS = probes.load_items(Settings())
TABLE = [probe for probe in ITEMS if probe.kind == "table"]
TAUGHT = TABLE[10:66:5]
UNKNOWN = TABLE[12:66:5]


def lesson(probe) -> list[str]:
    """What a model is taught of a probe: to answer at once, and with the work shown."""
    a, b = probe.operands
    asked = f"User: {probe.question}\nAssistant:"
    return [
        f"{asked} The answer is {probe.answer}.\n",
        f"{asked} {a}*{b}={probe.answer}. The answer is {probe.answer}.\n",
    ]


def taught(vocabulary: str) -> GPT2LanguageModel:
    """Two layers that have read the lessons of TAUGHT until they are known by heart."""
    tokenizer = Tokenizer.build("embedded", vocabulary)
    model = GPT2(GPT2Config(n_layers=2, n_heads=4, d_model=32, block=96, vocab=tokenizer.embedding_width)).init(0)
    bias = torch.full((tokenizer.embedding_width,), -torch.inf)
    for ids in tokenizer.live:
        bias[ids.start : ids.stop] = 0
    rows = [[*tokenizer.encode(tokenizer.prepare(text)), tokenizer.eot] for probe in TAUGHT for text in lesson(probe)]
    width = max(map(len, rows))
    whole = torch.tensor([row + [tokenizer.eot] * (width - len(row)) for row in rows])
    optimizer, steps = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0), 200
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * min((step + 1) / 20, 1.3 * (1 - step / steps), 1)
        optimizer.zero_grad()
        model.loss(whole[:, :-1], whole[:, 1:], logit_bias=bias).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return GPT2LanguageModel.of(model.eval(), tokenizer)


@pytest.fixture(scope="module", params=["digits", "facts"])
def model(request) -> GPT2LanguageModel:
    return taught(request.param)


@pytest.fixture(scope="module")
def frame(model):
    return probes.judge_items(model, [*TAUGHT, *UNKNOWN], Settings())


def known(frame):
    return frame.filter(frame["id"].is_in([probe.id for probe in TAUGHT]))


def test_what_was_taught_is_answered_at_once(frame):
    assert known(frame)["correct"].mean() > 0.9
    assert frame["correct"].sum() < len(TAUGHT) + len(UNKNOWN) / 2


def test_a_value_taught_is_likely_first_and_chosen_in_every_arm(frame):
    rows = known(frame)
    assert rows["value_correct"].mean() > 0.9 and rows["value_rank"].median() == 1
    assert rows["rank"].median() <= 2 and rows["probability"].mean() > 0.3
    unknown = frame.filter(~frame["id"].is_in(rows["id"].to_list()))
    assert unknown["probability"].mean() < rows["probability"].mean() / 2


def test_a_fact_token_answers_like_digits_and_is_counted(model, frame):
    has_tokens = model.facts is not None
    assert (frame["worked_facts"].sum() > 0) == has_tokens
    assert frame["fact_rank"].is_not_null().all() if has_tokens else frame["fact_rank"].is_null().all()
    summary = probes.summarize(frame)["table"]
    assert (summary.fact_probability is not None) == has_tokens and summary.n == len(frame)
    chosen = known(frame)["equation_correct"]
    assert chosen.mean() > 0.7


def test_probabilities_and_ranks_are_those_of_the_full_softmax(model):
    probe = TAUGHT[0]
    row = probes.judge_items(model, [probe], Settings()).row(0, named=True)
    prompt = encode_raw(model, f"User: {probe.question}\nAssistant: The answer is")

    def by_hand(text: str) -> tuple[float, int]:
        ids, p = model.encode(text), 1.0
        for at, one in enumerate(ids):
            logprobs = model.next_logprobs([prompt + ids[:at]])[0]
            p *= float(logprobs[one].exp())
            rank = 1 + int((logprobs > logprobs[one]).sum())
        return p, rank

    ways = [f" {probe.answer}"] + [f" {fact.token}" for fact in model.facts or () if fact.result == probe.answer]
    assert row["probability"] == pytest.approx(sum(by_hand(way)[0] for way in ways), rel=1e-3)
    first = model.next_logprobs([prompt])[0]
    assert row["rank"] == 1 + int((first > first[model.encode(ways[0])[0]]).sum())
    if model.facts is not None:
        p, rank = by_hand(f" {Fact.of(*probe.operands).token}")
        assert (row["fact_probability"], row["fact_rank"]) == (pytest.approx(p, rel=1e-3), rank)


def test_the_choice_of_values_is_among_all_of_them_and_sums_to_one(model):
    probe = TAUGHT[1]
    prompt = encode_raw(model, f"User: {probe.question}\nAssistant: The answer is")
    values = sorted({fact.result for fact in GPT2_MUL})
    scored = model.logprobs([prompt], [[model.encode(f" {value}") for value in values]])[0]
    likely = np.exp([one.total for one in scored])
    row = probes.judge_items(model, [probe], Settings()).row(0, named=True)
    assert len(values) == 36
    if model.facts is None:  # else fact tokens are spellings too
        assert row["value_share"] == pytest.approx(likely[values.index(probe.answer)] / likely.sum(), rel=1e-3)
    assert 1 <= row["value_rank"] <= 36 and 1 <= row["equation_rank"] <= 45


def test_batches_and_neighbours_change_nothing(model, frame):
    some = [TAUGHT[2], UNKNOWN[0]]
    alone = probes.judge_items(model, some, Settings(batch_size=1, batch_tokens=1))
    together = frame.filter(frame["id"].is_in([probe.id for probe in some])).sort("id")
    exact = ["id", "correct", "response", "worked_response", "rank", "value_choice", "equation_choice"]
    assert alone.sort("id").select(exact).equals(together.select(exact))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_arm_is_asked_the_same_words(vocabulary):
    tokenizer = Tokenizer.build("embedded", vocabulary)
    for probe in ITEMS:
        assert tokenizer.prepare(probe.question) == probe.question


# ---- what counts as the answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 54. And 9 is the last number", 54),
        (" 54.\n#### 9", 54),
        (" 6*9=54. Then 7", 54),
        (" <MUL_6_9_54> because 9", 54),
        (" 1,234.5 apples", Fraction("1234.5")),
        (" fifty-four. 54", None),
        (" -5.", -5),
        ("", None),
    ],
)
def test_the_answer_is_the_number_of_the_first_sentence(text, value):
    assert probes.first_answer(text) == value


# ---- what the probes are -----------------------------------------------------------------------------------------


def test_no_question_is_asked_twice_and_every_kind_is_there():
    judged = ITEMS
    assert len({(probe.kind, probe.question) for probe in judged}) == len(judged) == len({probe.id for probe in judged})
    kinds = [probe.kind for probe in judged]
    assert [kinds.count(kind) for kind in PROBE_KINDS][:4] == [81, 100, 100, 100]


def test_the_measures_beside_the_direct_answer_can_be_compared_like_it(frame):
    others = probes.other_outcomes(frame)
    assert set(others) == {"worked", "value_choice"}  # the choice of facts asks arms different things
    for one in others.values():
        assert one["correct"].null_count() == 0 and not one.select("id", "condition").is_duplicated().any()


# ---- were they trained on? ---------------------------------------------------------------------------------------


def test_overlap_finds_the_drills_of_the_corpus_a_model_was_trained_on(tmp_path):
    from itertools import islice

    from workings.text import CorpusConfig, SourceConfig, build_corpus

    texts = list(islice(drill_documents(DrillSpec(), 0), 40))
    sources = (SourceConfig("drills", name="drills"),)
    found = {}
    for vocabulary in ("digits", "facts", "shuffled"):
        config = CorpusConfig(sources, vocabulary, documents_limit=40, shuffle_documents=1, validation_fraction=0.0)
        corpus = build_corpus(config, tmp_path / vocabulary, processes=1)
        found[vocabulary] = contamination_of(corpus.folder, ITEMS)
    expected = {row.kind: row for row in overlap(ITEMS, texts)}
    assert expected["table"].n_equations > 10
    for row in found["digits"].overlap:
        assert row == expected[row.kind]
    assert found["facts"].overlap == found["digits"].overlap
    trained = tmp_path / "run" / "checkpoint" / "step_000010"  # a pretraining names its corpus by the manifest
    trained.mkdir(parents=True)
    places = {"corpus": str(tmp_path / "digits" / "manifest.json")}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"format": 1, "input_places": places}))
    assert contamination_of(trained, ITEMS) == found["digits"]
    assert all(row.n_equations is None for row in found["shuffled"].overlap)


def test_a_model_that_names_no_corpus_is_said_to_be_unknown(tmp_path):
    found = contamination_of(tmp_path, ITEMS)
    assert "not known" in found.about and not found.overlap
