"""Scoring and generation equal transformers, one item at a time, whatever the batch: for small real models in memory."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers import GPT2Config as HFConfig

from tests.models.conftest import FAMILIES, WORDS, tiny_base
from workings.errors import BadInput
from workings.models.causal import GrowingText, StopStrings
from workings.models.checkpoint import save_gpt2
from workings.models.configs import GPT2Config
from workings.models.exchange import export_hf
from workings.models.gpt2 import GPT2, Inference
from workings.models.kernels import token_nll
from workings.models.language import GPT2LanguageModel, HuggingFaceModel, LanguageModel, open_language
from workings.models.scoring import bits_per_byte
from workings.progress import quietly
from workings.text.corpus import ValidationDocument
from workings.text.tokenizer import Tokenizer, Vocabulary, word_tokenizer

N_WORDS = len(WORDS) + 2
CONTEXT = 96


@dataclass
class Pair:
    """A model as we open it, and the same in transformers, run plainly."""

    ours: LanguageModel
    plain: Any

    @torch.no_grad()
    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """log p of the next token after each [T, V], over live ids."""
        logits = self.plain(torch.tensor([list(ids)])).logits[0].double()
        return (
            logits if self.ours.predictable is None else logits.masked_fill(~self.ours.predictable, -torch.inf)
        ).log_softmax(-1)

    @torch.no_grad()
    def greedy(self, prompt: list[int], max_new_tokens: int, never: Sequence[int] = ()) -> list[int]:
        """What `generate` of transformers gives for one prompt, without the id that ended it."""
        dead = [] if self.ours.predictable is None else (~self.ours.predictable).nonzero()[:, 0].tolist()
        ids = torch.tensor([prompt or [self.ours.start]])
        options = {"max_new_tokens": max_new_tokens, "suppress_tokens": [*dead, *never] or None, "do_sample": False}
        eot = self.ours.eot
        out = self.plain.generate(
            ids, attention_mask=torch.ones_like(ids), eos_token_id=eot, pad_token_id=eot, **options
        )
        said = out[0, ids.shape[1] :].tolist()
        return said[: said.index(eot)] if eot in said else said


def hub(family: str, tmp_path) -> Pair:
    """A model of a family, saved and opened as a user opens one; untied and noisy, so that it does not repeat itself."""
    words = word_tokenizer(WORDS)
    base = tiny_base(family.split()[0], len(words), tied=False, noise=0.3)
    if family.endswith("with a window"):  # only so many positions are seen, and kept in the cache
        base.config.sliding_window = 12
        base = type(base)._from_config(base.config).eval()
        for parameter in base.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    base.save_pretrained(tmp_path / family)
    words.save_pretrained(tmp_path / family)
    return Pair(open_language(tmp_path / family, device="cpu", as_hf=True), base)


def own(vocabulary: Vocabulary) -> Pair:
    """A GPT-2 of ours, and its weights in transformers' GPT-2."""
    tokenizer = Tokenizer.build("embedded", vocabulary)
    model = GPT2(GPT2Config(n_layers=2, n_heads=4, d_model=16, block=CONTEXT, vocab=tokenizer.embedding_width)).init(0)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    shape = {"vocab_size": tokenizer.embedding_width, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    plain = GPT2LMHeadModel(HFConfig(**shape, bos_token_id=None, eos_token_id=None)).eval()
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # transformers stores [in, out]
    weights = {k: v.T if k.endswith(linear) else v for k, v in model.state_dict().items()}
    plain.transformer.load_state_dict(weights)
    return Pair(GPT2LanguageModel.of(model, tokenizer), plain)


@pytest.fixture(scope="module", params=[*FAMILIES, "mistral with a window", "own facts", "own digits"])
def pair(request, tmp_path_factory) -> Pair:
    if request.param.startswith("own"):
        return own(request.param.split()[1])
    return hub(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """One that is enough where kinds do not differ."""
    return own("facts").ours


def rows_of(rng: random.Random, n: int, longest: int, shortest: int = 0) -> list[list[int]]:
    return [[rng.randrange(2, N_WORDS) for _ in range(rng.randint(shortest, longest))] for _ in range(n)]


def alone(pair: Pair, context: list[int], continuation: list[int]) -> tuple[np.ndarray, bool]:
    """log p of each token of a continuation, and whether it is what greedy decoding gives: one plain pass of transformers."""
    whole = ([*context] or [pair.ours.start]) + list(continuation)
    logprobs = pair.logprobs(whole[-(CONTEXT + 1) : -1])[-len(continuation) :]
    targets = torch.tensor(continuation)
    return logprobs.gather(1, targets[:, None])[:, 0].numpy(), bool((logprobs.argmax(-1) == targets).all())


def stated(pair: Pair, **changes: Any) -> Pair:
    """The same pair with another idea of which ids end a text or are live."""
    ours = copy(pair.ours)
    ours.codec = replace(ours.codec, **changes)
    vars(ours).pop("_logit_bias", None), vars(ours).pop("_dead", None)
    return Pair(ours, pair.plain)


# Scores --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
def test_scores_are_those_of_one_plain_pass_an_item(pair, batch_tokens):
    rng = random.Random(batch_tokens)
    contexts = [[], *rows_of(rng, 7, 40), *rows_of(rng, 1, 90, 90), *rows_of(rng, 1, 130, 130)]
    continuations = [rows_of(rng, rng.randint(0, 4), 12) for _ in contexts]
    scored = pair.ours.logprobs(contexts, continuations, batch_tokens=batch_tokens)
    for context, group, answers in zip(contexts, continuations, scored, strict=True):
        for continuation, answer in zip(group, answers, strict=True):
            if not continuation:
                assert (answer.total, answer.greedy) == (0.0, True)
                continue
            tokens, greedy = alone(pair, context, continuation)
            np.testing.assert_allclose(answer.token_logprobs, tokens, atol=1e-4)
            assert answer.total == pytest.approx(tokens.sum(), abs=1e-3) and answer.greedy == greedy
            assert answer.n_cut == max(0, len(context) + len(continuation) - 1 - CONTEXT)


def test_what_greedy_decoding_says_is_greedy(pair):
    prompts = rows_of(random.Random(4), 6, 20)
    said = [g.ids for g in stated(pair, ends=frozenset()).ours.generate(prompts, 8)]
    other = [[*ids[:-1], 3 if ids[-1] == 4 else 4] for ids in said]
    scored = pair.ours.logprobs(prompts, list(zip(said, other, strict=True)))
    assert [(a.greedy, b.greedy) for a, b in scored] == [(True, False)] * len(prompts)


def test_order_repeats_and_company_change_nothing(pair):
    rng = random.Random(3)
    contexts = rows_of(rng, 6, 30)
    continuations = [rows_of(rng, 3, 8, 1) for _ in contexts]
    together = pair.ours.logprobs(contexts, continuations)
    order = [4, 1, 1, 5, 0, 3, 2]
    again = pair.ours.logprobs([contexts[i] for i in order], [continuations[i] for i in order])
    for i, group in zip(order, again, strict=True):
        for one, other in zip(group, together[i], strict=True):
            np.testing.assert_allclose(one.token_logprobs, other.token_logprobs, atol=1e-4)


def test_a_context_is_read_once_for_all_its_continuations(model, monkeypatch):
    read = []
    begin = model.begin
    monkeypatch.setattr(model, "begin", lambda rows, n_more: read.extend(rows) or begin(rows, n_more))
    model.logprobs([[5, 6, 7], [5, 6, 7], [8]], [[[1], [2, 3]], [[4]], [[5, 6]] * 3])
    assert sorted(map(list, read)) == [[5, 6, 7], [8]]


def test_nothing_to_score(model):
    assert model.logprobs([], []) == [] and model.logprobs([[3]], [[]]) == [[]]
    (only,) = model.logprobs([[3]], [[[]]])[0]
    assert (only.total, len(only.token_logprobs), only.greedy) == (0.0, 0, True)
    assert model.next_logprobs([]).shape == (0, model.vocab_size)


def test_what_cannot_be_scored_is_said(model):
    with pytest.raises(BadInput, match=r"question 1, alternative 0.*96 positions"):
        model.logprobs([[2], [2]], [[[3]], [[3] * 97]])
    with pytest.raises(BadInput, match=f"id {model.vocab_size} is outside the {model.vocab_size} rows"):
        model.logprobs([[model.vocab_size]], [[[1]]])
    with pytest.raises(BadInput, match="2 contexts"):
        model.logprobs([[1], [2]], [[[1]]])


def test_the_next_token(pair):
    prompts = [[], *rows_of(random.Random(1), 6, 120)]
    got = pair.ours.next_logprobs(prompts, batch_tokens=64)
    for prompt, row in zip(prompts, got, strict=True):
        expected = pair.logprobs(prompt[-CONTEXT:] or [pair.ours.start])[-1].float()
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


# Generation ----------------------------------------------------------------------------------------------------------


def test_greedy_text_is_that_of_transformers(pair):
    prompts = [[], *rows_of(random.Random(2), 8, 50)]
    expected = [pair.greedy(prompt, 24) for prompt in prompts]
    for batch_size in (1, 3, 32):
        for ids, got in zip(expected, pair.ours.generate(prompts, 24, batch_size=batch_size), strict=True):
            assert got.ids == ids and got.text == pair.ours.decode(ids) and got.n_cut == 0
            assert got.ended == ("length" if len(ids) == 24 else "eot")


def test_the_limits_of_generation(model):
    assert model.generate([], 5) == []
    assert [(g.ids, g.text, g.ended) for g in model.generate([[3], [3, 4]], 0)] == [([], "", "length")] * 2
    (long,) = model.generate([[6, 7, *[5] * 100]], 10)
    assert long.n_cut == 16 and long.ids == model.generate([[5] * 86], 10)[0].ids
    with pytest.raises(BadInput, match="96 new tokens"):
        model.generate([[3]], 96)
    with pytest.raises(BadInput, match="may be empty"):
        model.generate([[3]], 5, stop=[""])
    with pytest.raises(BadInput, match="outside"):
        model.generate([[3]], 5, forbid=[-1])


def test_a_row_ends_where_its_text_holds_a_stop_string(pair):
    prompts = rows_of(random.Random(8), 12, 40)
    free = pair.ours.generate(prompts, 30)
    texts = sorted((g.text for g in free), key=len)[-3:]
    stops = [text[len(text) // 2 : len(text) // 2 + n] for n, text in enumerate(texts, 2)]  # wherever tokens end
    stopped = pair.ours.generate(prompts, 30, stop=stops, batch_size=5)
    for whole, cut in zip(free, stopped, strict=True):
        at = min((whole.text.find(s) for s in stops if s in whole.text), default=None)
        assert cut.text == whole.text[:at] and cut.ids == whole.ids[: len(cut.ids)]
        assert cut.ended == (whole.ended if at is None else "stop")
        if at is not None:  # not one token too many
            assert not any(s in pair.ours.decode(cut.ids[:-1]) for s in stops)
    assert sum(g.ended == "stop" for g in stopped) >= 3


def test_forbidden_and_dead_ids_never_come(pair):
    prompts = rows_of(random.Random(9), 8, 30)
    said = {i for g in pair.ours.generate(prompts, 20) for i in g.ids}
    forbidden = sorted(said)[: len(said) // 2 + 1]
    without = pair.ours.generate(prompts, 20, forbid=forbidden)
    assert [g.ids for g in without] == [pair.greedy(prompt, 20, forbidden) for prompt in prompts]
    live = (
        range(pair.ours.vocab_size) if pair.ours.predictable is None else pair.ours.predictable.nonzero()[:, 0].tolist()
    )
    fewer = stated(pair, predictable=tuple(range(i, i + 1) for i in live if i not in forbidden)).ours
    assert fewer.generate(prompts, 20) == without
    assert fewer.next_logprobs(prompts)[:, forbidden].isneginf().all()
    torch.testing.assert_close(fewer.next_logprobs(prompts).exp().sum(-1), torch.ones(8))
    assert fewer.logprobs([[3]], [[[forbidden[0]]]])[0][0].total == -np.inf


def test_the_end_of_a_text_ends_a_row_and_not_its_neighbours(pair):
    prompts = rows_of(random.Random(10), 10, 30)
    free = pair.ours.generate(prompts, 20)
    ends = pair.ours.codec.ends | {g.ids[len(g.ids) // 2] for g in free[:4] if g.ids}
    again = stated(pair, ends=ends).ours.generate(prompts, 20)
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
    tokenizer = Rust(models.BPE(vocabulary, merges))
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
    growing = GrowingText(StopStrings(byte_level.decode, stop))
    assert next((n for n, token in enumerate(ids, 1) if growing.add(token)), None) == expected
    whole = texts[expected if expected is not None else -1]
    assert growing.text == whole[: min((whole.find(s) for s in stop if s in whole), default=None)]


# Documents -----------------------------------------------------------------------------------------------------------


def test_documents_in_bits_per_byte(pair):
    rng = random.Random(5)
    docs = [
        ValidationDocument("a" if i % 2 else "b", np.array(ids), 7 * len(ids))
        for i, ids in enumerate(rows_of(rng, 8, 90))
    ]
    frame = bits_per_byte(pair.ours, docs, batch_tokens=300)
    assert frame.columns == ["source", "nats", "bytes", "tokens"]
    assert frame["source"].to_list() == [d.source for d in docs]
    assert frame["bytes"].to_list() == [d.n_bytes for d in docs]
    nats = [-alone(pair, [], d.ids.tolist())[0].sum() if len(d.ids) else 0.0 for d in docs]
    np.testing.assert_allclose(frame["nats"], nats, rtol=1e-4, atol=1e-4)


def test_a_long_document_is_predicted_once_with_half_the_positions_before_each_token(pair):
    ids = rows_of(random.Random(6), 1, 170, 170)[0]
    whole = [pair.ours.start, *ids]
    nats = 0.0
    for at in range(1, len(whole)):  # token `at` is predicted by the window that reaches it first
        begin = 0 if at <= CONTEXT else -(-(at - CONTEXT) // (CONTEXT // 2)) * (CONTEXT // 2)
        nats -= alone(pair, whole[begin:at], [whole[at]])[0].sum()
    frame = bits_per_byte(pair.ours, [ValidationDocument("a", np.array(ids), 1000)])
    assert frame["nats"].item() == pytest.approx(nats, rel=1e-5) and frame["tokens"].item() == 170


# A model in training -------------------------------------------------------------------------------------------------


def test_a_model_in_training_is_judged_as_it_stands_and_left_as_it_was():
    tokenizer = Tokenizer.build("embedded", "facts")
    model = (
        GPT2(GPT2Config(n_layers=2, n_heads=2, d_model=16, block=32, vocab=tokenizer.embedding_width)).init(0).train()
    )
    language = GPT2LanguageModel.of(model, tokenizer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = torch.randint(0, 2000, (4, 17))
    contexts, continuations = ids[:, :8].tolist(), [[row] for row in ids[:, 8:].tolist()]
    before, named = language.logprobs(contexts, continuations), language.fingerprint
    for _ in range(3):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = language.logprobs(contexts, continuations)
    assert sum(a[0].total for a in after) > sum(b[0].total for b in before) + 1
    assert language.fingerprint != named and model.training and torch.is_grad_enabled()
    bias = torch.zeros(language.vocab_size).masked_fill(~language.predictable, -torch.inf)
    nats = token_nll(model.hidden(ids[:, :-1]), model.wte.weight, ids[:, 1:], bias)[:, 7:].sum(1)
    np.testing.assert_allclose([-a[0].total for a in after], nats, rtol=1e-5)


# Opening -------------------------------------------------------------------------------------------------------------


def scores(model: LanguageModel) -> list[float]:
    rng = random.Random(12)
    asked = rows_of(rng, 4, 20), [rows_of(rng, 2, 6, 1) for _ in range(4)]
    return [one.total for group in model.logprobs(*asked) for one in group]


def test_a_checkpoint_of_ours_and_its_export_are_the_same_model(tmp_path):
    tokenizer = Tokenizer.build("embedded", "digits")
    model = GPT2(GPT2Config(n_layers=2, n_heads=2, d_model=16, block=64, vocab=tokenizer.embedding_width)).init(0)
    checkpoint = save_gpt2(model, tokenizer, tmp_path / "own")
    exported = export_hf(checkpoint, tmp_path / "hf")
    ours, theirs = open_language(checkpoint, "cpu"), open_language(exported, "cpu", as_hf=True)
    again = open_language(exported, "cpu")
    assert [type(m) for m in (ours, theirs, again)] == [GPT2LanguageModel, HuggingFaceModel, GPT2LanguageModel]
    for other in (theirs, again, GPT2LanguageModel.of(model, tokenizer)):
        np.testing.assert_allclose(scores(other), scores(ours), rtol=1e-5)
        np.testing.assert_array_equal(other.predictable[: tokenizer.width], ours.predictable[: tokenizer.width])
        assert other.prepare("6*9=54") == "6*9=54" and other.facts is None
    prompts = [ours.encode(text) for text in ("6 * 9 =", "a", "how many pens")]
    assert ours.generate(prompts, 20) == theirs.generate(prompts, 20) == again.generate(prompts, 20)
    assert theirs.fingerprint == again.fingerprint != ours.fingerprint


def test_the_tokenizer_belongs_to_the_fingerprint_of_a_checkpoint(tmp_path):
    digits, facts = (Tokenizer.build("embedded", vocabulary) for vocabulary in ("digits", "facts"))
    model = GPT2(GPT2Config(n_layers=1, n_heads=1, d_model=8, block=16, vocab=digits.embedding_width)).init(0)
    opened = [open_language(save_gpt2(model, t, tmp_path / t.vocabulary), "cpu") for t in (digits, facts)]
    assert opened[0].fingerprint != opened[1].fingerprint
    assert opened[1].prepare("6*9=54") == "<MUL_6_9_54>" and len(opened[1].facts) == 45


OTHERS = [
    {"activation_function": "gelu"},
    {"scale_attn_by_inverse_layer_idx": True},
    {"scale_attn_weights": False},
    {"layer_norm_epsilon": 1e-6},
    {"n_inner": 24},
    {"tie_word_embeddings": False},
]


@pytest.mark.parametrize(("setting", "own"), [({}, True), *((setting, False) for setting in OTHERS)])
def test_a_gpt2_of_transformers_is_run_by_our_modules_only_if_they_compute_the_same(tmp_path, setting, own):
    words = word_tokenizer(WORDS)
    torch.manual_seed(0)
    shape = {"vocab_size": len(words), "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    plain = GPT2LMHeadModel(HFConfig(**shape, **setting)).eval()
    plain.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    ours = open_language(tmp_path, "cpu")
    assert isinstance(ours, GPT2LanguageModel if own else HuggingFaceModel)
    pair = Pair(ours, plain)
    prompts = rows_of(random.Random(2), 4, 20)
    assert [g.ids for g in ours.generate(prompts, 12)] == [pair.greedy(prompt, 12) for prompt in prompts]
    np.testing.assert_allclose(scores(ours), scores(open_language(tmp_path, "cpu", as_hf=True)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # oneDNN's products, and torch's
@torch.no_grad()
def test_the_pass_for_inference_is_that_of_the_model(dtype):
    model = GPT2(GPT2Config(n_layers=2, n_heads=2, d_model=16, block=32, vocab=50)).init(0).to(dtype)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    ids, padding = torch.arange(60).view(3, 20) % 50, torch.tensor([0, 4, 9])
    run = Inference(model)
    torch.testing.assert_close(run.read(ids), model.hidden(ids))
    states, cache = run.begin(ids[:, :12], padding, 20)
    found = torch.cat([states, *(run.extend(piece, cache) for piece in ids[:, 12:].split([1, 5, 1, 1], 1))], 1)
    for row, fill in enumerate(padding.tolist()):
        torch.testing.assert_close(found[row, fill:], model.hidden(ids[row : row + 1, fill:])[0])


@pytest.mark.parametrize(
    ("family", "name"), [("gpt2", "transformer.h.1.mlp.c_fc.weight"), ("llama", "model.layers.1.mlp.up_proj.weight")]
)
def test_a_missing_tensor_is_not_made_up(tmp_path, family, name):
    hub(family, tmp_path)
    file = tmp_path / family / "model.safetensors"
    tensors = load_file(file)
    whole = tensors.pop(name)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=f"lacks 1 tensor.*{re.escape(name)}"):
        open_language(tmp_path / family, "cpu")
    save_file(tensors | {name: whole[:-1]}, file, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"shape|size"):
        open_language(tmp_path / family, "cpu")
    file.write_bytes(b"damaged")
    with pytest.raises(BadInput, match="transformers can load"):
        open_language(tmp_path / family, "cpu")


def test_a_family_without_a_row_in_our_tables_is_judged_like_any_other(tmp_path):
    words = word_tokenizer(WORDS)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("gpt_neox", vocab_size=len(words), max_position_embeddings=CONTEXT, **sizes)
    plain = AutoModelForCausalLM.from_config(config).eval()
    plain.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    pair = Pair(open_language(tmp_path, "cpu"), plain)
    context, continuation = [3, 4, 5, 6], [7, 8, 9]
    (scored,) = pair.ours.logprobs([context], [[continuation]])[0]
    np.testing.assert_allclose(scored.token_logprobs, alone(pair, context, continuation)[0], atol=1e-4)


@pytest.mark.parametrize("quiet", [False, True])
def test_transformers_shows_its_bar_only_where_this_process_is_not_quiet(tmp_path, capfd, quiet: bool):
    hub("llama", tmp_path)
    capfd.readouterr()
    with quietly(quiet):
        open_language(tmp_path / "llama", "cpu")
    assert ("Loading weights" in capfd.readouterr().err) is not quiet
    with quietly(False):
        open_language(tmp_path / "llama", "cpu")
    assert "Loading weights" in capfd.readouterr().err, "what was hidden is shown again"


def test_a_model_that_thinks_is_not_judged_as_a_plain_one():
    with pytest.raises(BadInput, match="workings codi"):
        open_language("bundled", "cpu")


def test_reduced_precision_is_close(tmp_path):
    pair = hub("gpt2", tmp_path)
    other = open_language(tmp_path / "gpt2", "cpu", precision="bf16")
    np.testing.assert_allclose(scores(other), scores(pair.ours), rtol=0.05)
    tokenizer = Tokenizer.build("embedded", "facts")
    model = GPT2(GPT2Config(n_layers=2, n_heads=2, d_model=16, block=64, vocab=tokenizer.embedding_width)).init(0)
    checkpoint = save_gpt2(model, tokenizer, tmp_path / "own")
    small, full = open_language(checkpoint, "cpu", precision="bf16"), open_language(checkpoint, "cpu")
    np.testing.assert_allclose(scores(small), scores(full), rtol=0.05)
    assert len(small.generate([[5, 6], [7]], 8)) == 2
