"""`official_compat` against the official loop, written out again from its description with transformers' own calls.

The description: questions padded on the left, encoded with a two-dimensional mask; every later call has the cache and no mask;
each thought is the projection of the last state; the closing token opens the answer; the likeliest of all ids but the last
row's is said, until the end of text.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.codi import CODI
from workings.reading import collect

QUESTIONS = [
    "a has 3 pens . how many now ?",
    "b has 12 pens . then 4 more . then 5 more . how many now ?",
    "c has 7 pens . then 1 more . how many pens now ?",
    "how many ?",
    "a has 29 pens . then 2 more . then 3 more . then 4 more . how many pens has a now ?",
    "b has 2 pens ?",
    "c has 11 more pens . how many more pens has c now ?",
    "a has 5 pens . b has 6 pens . c has 8 pens . then 1 more . how many pens now ?",
]


@torch.no_grad()
def official(model: CODI, questions: list[str], max_new_tokens: int, padding_sees: str) -> tuple[torch.Tensor, list]:
    """States [n, 1 + K, L + 1, d] and the ids of the answers of one batch."""
    base, config = model.base, model.config
    rows = [model.tokenizer(q)["input_ids"] + [config.bot_id] for q in questions]
    longest = max(map(len, rows))
    ids = torch.tensor([[config.pad_id] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    if padding_sees == "everything":  # what transformers made of that mask before 4.53, on a GPU
        allowed = torch.ones(longest, longest).tril().bool() & mask[:, None, :].bool()
        added = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        mask = (added * ~(added == added.min()).all(-1, keepdim=True))[:, None]
    out = base(input_ids=ids, attention_mask=mask, use_cache=True, output_hidden_states=True)
    states = [torch.stack([h[:, -1] for h in out.hidden_states], 1)]
    for _ in range(model.n_thoughts):
        fed = model.prj(out.hidden_states[-1][:, -1:])
        out = base(inputs_embeds=fed, past_key_values=out.past_key_values, use_cache=True, output_hidden_states=True)
        states.append(torch.stack([h[:, -1] for h in out.hidden_states], 1))
    said: list[list[int]] = [[] for _ in questions]
    tokens, going = torch.full((len(questions),), config.eot_id), set(range(len(questions)))
    for _ in range(max_new_tokens):
        embedded = base.get_input_embeddings()(tokens)[:, None]
        out = base(inputs_embeds=embedded, past_key_values=out.past_key_values, use_cache=True)
        tokens = out.logits[:, -1, : base.config.vocab_size - 1].argmax(-1)
        for row in sorted(going):
            if tokens[row] == model.eos_id:
                going.remove(row)
            else:
                said[row].append(int(tokens[row]))
        if not going:
            break
    return torch.stack(states, 1), said


def talkative(words, family: str, seed: int) -> CODI:
    """A model that would say pad, bot and eot if it could."""
    model = CODI.wrap(tiny_base(family, len(words), tied=False, seed=seed), words, seed=seed).eval()  # noqa: F405
    head, some = model.base.get_output_embeddings().weight, torch.Generator().manual_seed(seed)
    for i in (model.config.pad_id, model.config.bot_id, model.config.eot_id):
        head.data[i] = torch.randn(16, generator=some) * 0.3
    return model


def states_and_tokens(model: CODI, batch_size: int) -> tuple[torch.Tensor, list[list[int]]]:
    thoughts, answers = model.think_and_answer(QUESTIONS, max_new_tokens=24, batch_size=batch_size)
    assert thoughts is not None
    return thoughts.hidden, [answer.token_ids for answer in answers]


@pytest.mark.parametrize("padding_sees", ["nothing", "everything"])
@pytest.mark.parametrize("batch_size", [8, 3])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_compat_gives_the_official_states_and_tokens(words, family, seed, batch_size, padding_sees):
    """Batches are cut in the order given, as the official code cuts them; by length they would be others."""
    model = talkative(words, family, seed)
    parts = [QUESTIONS[i : i + batch_size] for i in range(0, len(QUESTIONS), batch_size)]
    theirs = [official(model, part, 24, padding_sees) for part in parts]
    model.official_compat, model.padding_sees = True, padding_sees
    states, said = states_and_tokens(model, batch_size)
    assert (states - torch.cat([hidden for hidden, _ in theirs])).abs().max() <= 1e-5
    assert said == [ids for _, part in theirs for ids in part]


def test_a_store_has_the_official_batches(words, tmp_path):
    model = talkative(words, "gpt2", 0)
    model.official_compat = True
    problems = [Problem(question, (), "1") for question in QUESTIONS]
    states, _ = states_and_tokens(model, 3)
    stored = collect(model, problems, tmp_path / "store", batch_size=3, shard_problems=6, max_new_tokens=0)
    at = [i for i, position in enumerate(stored.positions) if position != "question"]
    assert (torch.stack([stored.hidden(layer)[:, at] for layer in stored.layers], 2) - states).abs().max() <= 1e-5
    with pytest.raises(BadInput, match="multiple"):
        collect(model, problems, tmp_path / "cut", batch_size=3, shard_problems=7)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_without_compat_states_and_tokens_are_others(words, family):
    """Else the parity above would say nothing: of pads, of batches, of what may be said."""
    model = talkative(words, family, 0)
    right, right_said = states_and_tokens(model, 8)
    model.official_compat = True
    theirs, said = states_and_tokens(model, 8)
    model.padding_sees = "everything"
    earlier, _ = states_and_tokens(model, 8)
    lengths = torch.tensor([len(row) for row in model.question_ids(QUESTIONS)])
    padded = lengths < lengths.max()
    assert (right[~padded] - theirs[~padded]).abs().max() < 1e-4, "the longest questions have no padding"
    assert (right[padded] - theirs[padded]).abs().amax((1, 2, 3)).min() > 0.05
    assert (earlier[padded] - theirs[padded]).abs().amax((1, 2, 3)).min() > 0.01
    assert right_said != said
    special = {model.config.pad_id, model.config.bot_id}
    assert special & {i for ids in said for i in ids} and not special & {i for ids in right_said for i in ids}
    assert model.config.eot_id not in {i for ids in said for i in ids}


def test_compat_is_refused_under_an_attention_that_reads_the_mask_otherwise(words):
    """Eager adds a boolean mask to the scores, where it hides nothing."""
    model = talkative(words, "gpt2", 0)
    model.official_compat = True
    model.base.set_attn_implementation("eager")
    with pytest.raises(BadInput, match=r"defined for sdpa attention.*with eager"):
        model.think(QUESTIONS)


def test_a_loaded_model_computes_compat_with_sdpa(words, tmp_path):
    base = tiny_base("gpt2", len(words))  # noqa: F405
    base.set_attn_implementation("eager")
    CODI.wrap(base, words, n_thoughts=2).save(tmp_path / "saved")
    model = CODI.load(tmp_path / "saved", official_compat=True, padding_sees="everything")
    states, _ = official(model, QUESTIONS, 1, "everything")
    assert (model.think(QUESTIONS).hidden - states).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("text", "ours", "theirs"),
    [
        ("The answer is: 1,234", 1234, 1234),
        ("The answer is: 5 . or 6.", 5, 6),
        ("The answer is: 2.50", Fraction(5, 2), Fraction(5, 2)),
        ("from 5-10", 10, -10),
        ("none", None, None),
    ],
)
def test_compat_reads_an_answer_by_the_official_rule(words, text, ours, theirs):
    model = talkative(words, "gpt2", 0)
    assert model.value_in(text) == ours
    model.official_compat = True
    assert model.value_in(text) == theirs
