"""Scoring and generation equal transformers, one item at a time, whatever the batch: for small real models in memory."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.models.conftest import FAMILIES, WORDS, tiny_base
from workings.errors import BadInput
from workings.models.generation import Growing
from workings.models.language import HubModel, bits_per_byte, open_language
from workings.text.words import word_tokenizer

N_WORDS = len(WORDS) + 2
CONTEXT = 96


@dataclass
class Doc:
    source: str
    ids: np.ndarray
    n_bytes: int


def hub(family: str, tmp_path) -> HubModel:
    """A model of a family, saved and opened again as a user opens one; untied and noisy, so that it does not repeat itself."""
    words = word_tokenizer(WORDS)
    base = tiny_base(family, len(words), tied=False, noise=0.3)
    base.config.eos_token_id = base.generation_config.eos_token_id = words.eos_token_id
    base.generation_config.pad_token_id = words.eos_token_id
    base.save_pretrained(tmp_path / family)
    words.save_pretrained(tmp_path / family)
    model = open_language(tmp_path / family, device="cpu")
    assert isinstance(model, HubModel)
    return model


@pytest.fixture(params=FAMILIES)
def model(request, tmp_path) -> HubModel:
    return hub(request.param, tmp_path)


def rows_of(rng: random.Random, n: int, longest: int, shortest: int = 0) -> list[list[int]]:
    return [[rng.randrange(2, N_WORDS) for _ in range(rng.randint(shortest, longest))] for _ in range(n)]


@torch.no_grad()
def alone(model: HubModel, context: list[int], continuation: list[int]) -> tuple[np.ndarray, bool]:
    """log p of each token of a continuation, and whether it is what greedy decoding gives: one plain pass of transformers."""
    whole = ([*context] or [model.start]) + list(continuation)
    whole = whole[-(model.context + 1) :]
    logits = model.model(torch.tensor([whole[:-1]])).logits[0].double().log_softmax(-1)
    logits = logits[len(logits) - len(continuation) :]
    targets = torch.tensor(continuation)
    return logits.gather(1, targets[:, None])[:, 0].numpy(), bool((logits.argmax(-1) == targets).all())


def expect_as_alone(model: HubModel, contexts, continuations, scored) -> None:
    for context, group, answers in zip(contexts, continuations, scored, strict=True):
        for continuation, answer in zip(group, answers, strict=True):
            if continuation:
                tokens, greedy = alone(model, context, continuation)
                np.testing.assert_allclose(answer.tokens, tokens, atol=1e-4)
                assert answer.total == pytest.approx(tokens.sum(), abs=1e-3) and answer.greedy == greedy
                assert answer.cut == max(0, len(context) + len(continuation) - 1 - model.context)


@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
def test_scores_are_those_of_one_plain_pass_an_item(model, batch_tokens):
    rng = random.Random(batch_tokens)
    contexts = [[], *rows_of(rng, 9, 40), *rows_of(rng, 1, 90, 90), *rows_of(rng, 1, 130, 130)]
    continuations = [rows_of(rng, rng.randint(0, 4), 12) for _ in contexts]
    scored = model.logprobs(contexts, continuations, batch_tokens=batch_tokens)
    expect_as_alone(model, contexts, continuations, scored)


def test_order_repeats_and_company_change_nothing(model):
    rng = random.Random(3)
    contexts = rows_of(rng, 6, 30)
    continuations = [rows_of(rng, 3, 8, 1) for _ in contexts]
    together = model.logprobs(contexts, continuations)
    order = [4, 1, 1, 5, 0, 3, 2]
    again = model.logprobs([contexts[i] for i in order], [continuations[i] for i in order])
    for i, group in zip(order, again, strict=True):
        for one, other in zip(group, together[i], strict=True):
            np.testing.assert_allclose(one.tokens, other.tokens, atol=1e-4)


def test_a_context_is_read_once_for_all_its_continuations(tmp_path, monkeypatch):
    model = hub("gpt2", tmp_path)
    read = []
    begin = model.begin
    monkeypatch.setattr(model, "begin", lambda rows, room: read.extend(rows) or begin(rows, room))
    model.logprobs([[5, 6, 7], [5, 6, 7], [8]], [[[1], [2, 3]], [[4]], [[5, 6]] * 3])
    assert sorted(map(list, read)) == [[5, 6, 7], [8]]


def test_nothing_to_score(tmp_path):
    model = hub("gpt2", tmp_path)
    assert model.logprobs([], []) == [] and model.logprobs([[3]], [[]]) == [[]]
    (only,) = model.logprobs([[3]], [[[]]])[0]
    assert (only.total, len(only.tokens), only.greedy) == (0.0, 0, True)


def test_what_cannot_be_scored_is_said(tmp_path):
    model = hub("gpt2", tmp_path)
    with pytest.raises(BadInput, match=r"question 1, alternative 0.*96 positions"):
        model.logprobs([[2], [2]], [[[3]], [[3] * 97]])
    with pytest.raises(BadInput, match=f"id {N_WORDS} is outside the {N_WORDS} rows"):
        model.logprobs([[N_WORDS]], [[[1]]])
    with pytest.raises(BadInput, match="2 contexts"):
        model.logprobs([[1], [2]], [[[1]]])


def test_the_next_token(model):
    prompts = rows_of(random.Random(1), 7, 120)
    got = model.next_logprobs(prompts, batch_tokens=64)
    for prompt, row in zip(prompts, got, strict=True):
        with torch.no_grad():
            logits = model.model(torch.tensor([prompt[-CONTEXT:] or [model.start]])).logits[0, -1]
        torch.testing.assert_close(row, logits.log_softmax(-1), atol=1e-4, rtol=0)


# Generation ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def greedy_alone(model: HubModel, prompt: list[int], max_new_tokens: int, **options) -> list[int]:
    """What `model.generate` of transformers gives for one prompt, without the id that ended it."""
    ids = torch.tensor([prompt or [model.start]])
    options = {"do_sample": False, "max_new_tokens": max_new_tokens} | options
    out = model.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
    return out[: out.index(model.eot)] if model.eot in out else out


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_greedy_text_is_that_of_transformers(model, batch_size):
    prompts = rows_of(random.Random(2), 10, 50)
    for prompt, got in zip(prompts, model.generate(prompts, 24, batch_size=batch_size), strict=True):
        assert got.ids == greedy_alone(model, prompt, 24)
        assert got.text == model.decode(got.ids) and got.cut == 0
        assert got.ended == ("length" if len(got.ids) == 24 else "eot")


def test_the_limits_of_generation(tmp_path):
    model = hub("gpt2", tmp_path)
    assert model.generate([], 5) == []
    assert [(g.ids, g.text, g.ended) for g in model.generate([[3]], 0)] == [([], "", "length")]
    (long,) = model.generate([[5] * 100], 10)
    assert long.cut == 14 and long.ids == model.generate([[5] * 86], 10)[0].ids
    with pytest.raises(BadInput, match="96 new tokens"):
        model.generate([[3]], 96)
    with pytest.raises(BadInput, match="may be empty"):
        model.generate([[3]], 5, stop=[""])


def test_a_row_ends_where_its_text_holds_a_stop_string(model):
    prompts = rows_of(random.Random(8), 12, 40)
    free = model.generate(prompts, 30)
    long = [text for g in free if len(text := g.text.split(" ")) > 8]
    stops = [*(" ".join(text[5:7]) for text in long[:2]), "ow"]  # two words, and the inside of a word
    stopped = model.generate(prompts, 30, stop=stops, batch_size=5)
    for whole, cut in zip(free, stopped, strict=True):
        at = min((whole.text.find(s) for s in stops if s in whole.text), default=None)
        assert cut.text == whole.text[:at] and cut.ids == whole.ids[: len(cut.ids)]
        assert cut.ended == (whole.ended if at is None else "stop")
        if at is not None:  # not one token too many
            assert not any(s in model.decode(cut.ids[:-1]) for s in stops)
    assert {g.ended for g in stopped} >= {"stop"}


def test_forbidden_and_dead_ids_never_come(model, tmp_path):
    prompts = rows_of(random.Random(9), 8, 30)
    said = {i for g in model.generate(prompts, 20) for i in g.ids}
    forbidden = sorted(said)[: len(said) // 2 + 1]
    for prompt, got in zip(prompts, model.generate(prompts, 20, forbid=forbidden), strict=True):
        assert got.ids == greedy_alone(model, prompt, 20, suppress_tokens=forbidden)
    alive = [i for i in range(model.width) if i not in forbidden]
    model = HubModel(model.model, replace(model.reader, live=tuple(range(i, i + 1) for i in alive)), "live", tmp_path)
    assert [g.ids for g in model.generate(prompts, 20)] == [
        g.ids for g in model.generate(prompts, 20, forbid=forbidden)
    ]
    assert model.next_logprobs(prompts)[:, forbidden].isneginf().all()
    torch.testing.assert_close(model.next_logprobs(prompts).exp().sum(-1), torch.ones(8))
    assert model.logprobs([[3]], [[[forbidden[0]]]])[0][0].total == -np.inf


def test_the_end_of_a_text_ends_a_row_and_not_its_neighbours(model):
    prompts = rows_of(random.Random(10), 10, 30)
    free = model.generate(prompts, 20)
    ends = model.reader.ends | {g.ids[len(g.ids) // 2] for g in free[:4] if g.ids}
    model.reader = replace(model.reader, ends=ends)
    again = model.generate(prompts, 20)
    for whole, got in zip(free, again, strict=True):
        at = next((i for i, token in enumerate(whole.ids) if token in ends), None)
        assert got.ids == whole.ids[:at] and (got.ended == "eot") == (at is not None or whole.ended == "eot")
    assert len({len(g.ids) for g in again if g.ended == "eot"}) > 1


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """Bytes and a few merges: a character of several bytes comes in pieces, a stop string in many ways."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c"), ("Ċ", "Ċ"), ("Ġ", "a"), ("c", "Ċ")]
    vocabulary = {name: i for i, name in enumerate([*names, *map("".join, merges), "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_growing_text_is_stopped_by_the_first_id_that_completes_a_stop_string(byte_level, data):
    letters = byte_level.convert_tokens_to_ids([*"abcé€Ċ", "Ã", "©", "â", "Ĥ", "¬", "ab", "abc", "ĊĊ", "Ġa", "cĊ"])
    ids = data.draw(st.lists(st.sampled_from([i for i in letters if i is not None]), max_size=25))
    stop = data.draw(st.lists(st.text("abcé€\n ", min_size=1, max_size=4), min_size=1, max_size=3))
    texts = [byte_level.decode(ids[:n]) for n in range(len(ids) + 1)]
    expected = next((n for n, text in enumerate(texts) if any(s in text for s in stop) and text[-1] != "\ufffd"), None)
    growing = Growing(byte_level.decode, stop)
    assert next((n for n, token in enumerate(ids, 1) if growing.add(token)), None) == expected
    whole = texts[expected if expected is not None else -1]
    assert growing.text == whole[: min((whole.find(s) for s in stop if s in whole), default=None)]


# Documents -----------------------------------------------------------------------------------------------------------


def test_documents_in_bits_per_byte(model):
    rng = random.Random(5)
    docs = [Doc("a" if i % 2 else "b", np.array(ids), 7 * len(ids)) for i, ids in enumerate(rows_of(rng, 8, 90))]
    frame = bits_per_byte(model, docs, batch_tokens=300)
    assert frame.columns == ["source", "nats", "bytes", "tokens"]
    assert frame["source"].to_list() == [d.source for d in docs]
    assert frame["bytes"].to_list() == [d.n_bytes for d in docs]
    nats = [-alone(model, [], d.ids.tolist())[0].sum() for d in docs]
    np.testing.assert_allclose(frame["nats"], nats, rtol=1e-4, atol=1e-4)


def test_a_long_document_is_predicted_once_with_half_the_positions_before_each_token(tmp_path):
    model = hub("gpt2", tmp_path)
    ids = rows_of(random.Random(6), 1, 333, 333)[0]
    whole = [model.start, *ids]
    nats = 0.0
    for at in range(1, len(whole)):  # token `at` is predicted by the window that reaches it first
        begin = 0 if at <= CONTEXT else -(-(at - CONTEXT) // (CONTEXT // 2)) * (CONTEXT // 2)
        nats -= alone(model, whole[begin:at], [whole[at]])[0].sum()
    frame = bits_per_byte(model, [Doc("a", np.array(ids), 1000)])
    assert frame["nats"].item() == pytest.approx(nats, rel=1e-5) and frame["tokens"].item() == 333
