"""What every model that thinks must satisfy before a number of it is printed."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from tests.models.conftest import ALL_FAMILIES, FAMILIES, tiny_base
from workings.errors import BadInput
from workings.judging.ablation import self_check
from workings.models.anatomy import Edit, anatomy_of
from workings.models.codi import CODI

CLOSE = 1e-4


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_question_does_not_depend_on_its_batch_or_order(thinker, questions, family):
    model = thinker(family)
    together, answers = model.think_and_answer(questions, batch_size=4)
    backwards = model.think(questions[::-1], batch_size=3).hidden.flip(0)
    assert (together.hidden - backwards).abs().max() < CLOSE
    for i, question in enumerate(questions):
        alone, answer = model.think_and_answer([question])
        assert (alone.hidden[0] - together.hidden[i]).abs().max() < CLOSE
        assert (alone.projected[0] - together.projected[i]).abs().max() < CLOSE
        assert (alone.question[0] - together.question[i]).abs().max() < CLOSE
        assert answer[0].token_ids == answers[i].token_ids


# Windows shorter than the prompt, so that its first tokens are out of sight; every kind of positions that rotary knows.
WINDOW = {"sliding_window": 5}
SLIDING = {"sliding_window": 5, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.3], "long_factor": [2.0, 4.0], "factor": 3.0}
LONG |= {"rope_theta": 1e4, "original_max_position_embeddings": 64}
OPTIONS = [
    *((family, {}) for family in ALL_FAMILIES),
    *((family, WINDOW) for family in ("mistral", "phi3")),
    ("qwen3_moe", WINDOW | {"use_sliding_window": True}),
    *((family, SLIDING) for family in ("qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3")),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}),
    ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 64}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"}),
    ("olmo", {"clip_qkv": 0.1}),
    ("smollm3", {"no_rope_layers": [1, 0]}),
]


@pytest.mark.parametrize(("family", "options"), OPTIONS)
def test_the_cached_steps_equal_one_pass_over_the_whole_sequence(thinker, questions, family, options):
    """Parity with Hugging Face's own forward: embed question, fed vectors and eot, run once, no cache, no mask of ours."""
    model = thinker(family, base=options)
    question = questions[1]
    thoughts = model.think([question])
    ids = torch.tensor([model.question_ids([question])[0]])
    fed = thoughts.projected[:, :-1]
    eot = model.embed(torch.tensor([model.closing()]))
    with torch.no_grad():
        out = model.base(inputs_embeds=torch.cat([model.embed(ids), fed, eot], 1), output_hidden_states=True)
        state = model.begin(model.prompt([question]))
        for _ in range(model.n_thoughts):
            state = model.step(state)
        closed, _ = model.close(state, torch.empty(1, 0, dtype=torch.long))
    stacked = torch.stack(out.hidden_states, 2)[:, len(ids[0]) - 1 : -1]
    torch.testing.assert_close(thoughts.hidden, stacked, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.unembed(closed[-1], "final_norm")[0, -1], out.logits[0, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        model.unembedding(closed[-1][0, -1], normed=True), out.logits[0, -1], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("family", "options"), [("mistral", WINDOW), ("qwen2", SLIDING), ("gemma3_text", SLIDING)])
def test_a_window_changes_the_states_and_neither_batch_nor_padding_does(thinker, questions, family, options):
    model, wide = thinker(family, base=options), thinker(family, base=options | {"sliding_window": 96})
    together = model.think(questions).hidden
    alone = torch.cat([model.think([question]).hidden for question in questions])
    assert (together - alone).abs().max() < CLOSE
    assert (together - wide.think(questions).hidden).abs().max() > 0.01


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("llama", {"sliding_window": 8}, "sliding_window is 8"),
        ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("qwen3", {"attention_chunk_size": 16}, "attention_chunk_size is 16"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("mistral", {"is_causal": False}, "is_causal is False"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
)
def test_an_option_that_the_engine_does_not_reproduce_is_refused_by_its_name(words, family, options, said):
    base = tiny_base(family, len(words))
    for name, value in options.items():
        setattr(base.config, name, value)
    base.config.name_or_path = "somewhere"
    with pytest.raises(BadInput, match=f"somewhere/config.json: {said}.*does not reproduce for {family}"):
        CODI.wrap(base, words)


def test_an_option_of_a_later_transformers_is_refused_once_it_is_set(words):
    base = tiny_base("llama", len(words))
    later = type(
        "LlamaConfig",
        (type(base.config),),
        {"to_dict": lambda self: super(later, self).to_dict() | {"new": self.new}, "new": 1},
    )
    base.config.__class__ = later
    CODI.wrap(base, words)
    base.config.new = 2
    with pytest.raises(BadInput, match="new is 2"):
        CODI.wrap(base, words)


def test_a_family_that_is_not_in_the_table_is_refused(words):
    with pytest.raises(BadInput, match="model family 'bloom' is not known here; known: gpt2, llama"):
        anatomy_of(AutoConfig.for_model("bloom"))


def test_positions_whose_meaning_would_change_later_are_not_used(thinker):
    """Beyond the original length longrope turns every position, those already read too, by another angle."""
    model = thinker("phi3", base={"rope_parameters": LONG, "original_max_position_embeddings": 64})
    assert model.context_length == 64
    with pytest.raises(BadInput, match="does not fit the context of 64"):
        model.think(["a has 3 pens . " * 15])


@pytest.mark.parametrize("fields", [{}, {"remove_eos": False}])
def test_the_mean_over_a_question_is_over_its_own_tokens_alone(thinker, questions, fields):
    model = thinker("llama", **fields)
    thoughts = model.think(questions)
    for i, question in enumerate(questions):
        ids = torch.tensor([model.question_ids([question])[0]])
        own = model.tokenizer(question, add_special_tokens=False)["input_ids"]
        assert ids[0, : len(own)].tolist() == own  # what follows opens the thoughts
        with torch.no_grad():
            hidden = model.base(inputs_embeds=model.embed(ids), output_hidden_states=True).hidden_states
        mean = torch.stack(hidden, 2)[0, : len(own)].mean(0)
        assert (mean - thoughts.question[i]).abs().max() < CLOSE
    assert thoughts.question.shape == (4, 2 + 1, 16)


def test_the_shapes_are_as_documented(thinker, questions):
    model = thinker("llama", n_thoughts=5)
    thoughts = model.think(questions)
    assert thoughts.hidden.shape == (4, 1 + 5, 2 + 1, 16)
    assert thoughts.projected.shape == (4, 1 + 5, 16)
    assert model.layers == ("embed", "block1", "final_norm")
    assert model.positions() == ("bot", "t1", "t2", "t3", "t4", "t5")
    assert model.think(questions, n_thoughts=2).hidden.shape[1] == 3
    assert model.think(questions, n_thoughts=0).hidden.shape[1] == 1


def test_the_embed_state_of_a_thought_is_the_vector_that_was_fed(thinker, questions):
    thoughts = thinker("llama").think(questions)  # a Llama adds no position to its input
    assert torch.equal(thoughts.hidden[:, 1:, 0], thoughts.projected[:, :-1])


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("sees", ["everything", "thoughts"])
def test_edits_that_must_change_nothing_change_nothing(thinker, questions, family, sees):
    changes = self_check(thinker(family, answer_sees=sees), questions)
    assert changes == {"replace by itself": 0.0, "last state": 0.0}


@pytest.mark.parametrize("layer", ["block1", "block2", "final_norm"])
def test_an_edit_changes_its_own_position_and_later_ones_but_nothing_before(thinker, questions, layer):
    model = thinker("gpt2")
    with torch.no_grad():
        first = model.step(model.begin(model.prompt(questions)))
        clean, edited = model.step(first), model.step(first, edits=[Edit(layer, lambda h: h * 2 + h.flip(-1))])
        after_clean, after_edited = model.step(clean), model.step(edited)
    assert not torch.allclose(clean.final, edited.final)
    assert not torch.allclose(after_clean.final, after_edited.final)
    before = first.visible.shape[1]
    for (k, v), (k2, v2) in zip(clean.cache, edited.cache, strict=True):
        assert torch.equal(k[:, :, :before], k2[:, :, :before]) and torch.equal(v[:, :, :before], v2[:, :, :before])


def test_an_edit_of_a_block_is_what_the_states_above_it_see(thinker, questions):
    model = thinker("gpt2")
    with torch.no_grad():
        state = model.begin(model.prompt(questions))
        edited = model.step(state, edits=[Edit("block1", lambda h: torch.full_like(h, 2.0))])
    assert torch.equal(edited.hidden[:, 1], torch.full_like(edited.hidden[:, 1], 2.0))
    assert model.step(state).hidden[:, 1].ne(2.0).all(), "the hook must be gone"


def test_a_later_thought_cannot_change_an_earlier_one(thinker, questions):
    """Gradients of the k-th state are zero with respect to what is fed after it, and not with respect to what is fed before."""
    model = thinker("llama")
    fed = [torch.randn(len(questions), model.width, requires_grad=True) for _ in range(model.n_thoughts)]
    state, states = model.begin(model.prompt(questions)), []
    for z in fed:
        state = model.step(state, z)
        states.append(state)
    for k, state in enumerate(states):
        gradients = torch.autograd.grad(state.hidden.square().sum(), fed, allow_unused=True, retain_graph=True)
        moved = [g is not None and bool(g.abs().sum() > 0) for g in gradients]
        assert moved == [j <= k for j in range(len(fed))]


def test_a_state_is_never_changed_in_place(thinker, questions):
    model = thinker("gpt2")
    with torch.no_grad():
        state = model.begin(model.prompt(questions))
        kept = [(k.clone(), v.clone()) for k, v in state.cache]
        one, other = model.step(state), model.step(state, z=torch.zeros(4, model.width))
    assert not torch.allclose(one.final, other.final)
    assert all(
        torch.equal(a, b) for pair, copy in zip(state.cache, kept, strict=True) for a, b in zip(pair, copy, strict=True)
    )


def test_forking_selects_rows(thinker, questions):
    model = thinker("qwen2")
    with torch.no_grad():
        state = model.step(model.begin(model.prompt(questions)))
        forked = model.step(model.fork(state, [2, 0, 2]))
        whole = model.step(state)
    assert torch.allclose(forked.hidden, whole.hidden[[2, 0, 2]], atol=1e-5)


@pytest.mark.parametrize("sees", ["everything", "thoughts"])
def test_scores_are_those_of_generated_answers(thinker, questions, sees):
    """The tokens greedy decoding picks are the ones with the largest log p when the same answer is scored."""
    model = thinker("gpt2", answer_sees=sees)
    with torch.no_grad():
        state = model.begin(model.prompt(questions))
        for _ in range(model.n_thoughts):
            state = model.step(state)
        said = model.greedy_answer(state, 5)
        width = max(map(len, said))
        answers = torch.tensor([s + [0] * (width - len(s)) for s in said])
        mask = torch.tensor([[True] * len(s) + [False] * (width - len(s)) for s in said])
        score = model.score(state, answers, mask)
        other = model.score(state, torch.where(mask, (answers + 1) % 20, answers), mask)
    assert (score[:, 0] >= other[:, 0]).all()
    assert (score[~mask] == 0).all() and (score <= 0).all()


def test_an_answer_that_sees_only_thoughts_is_blind_to_the_question(thinker, questions):
    """With the fed vectors clamped and positions beyond the first block cut off from the question, the answer cannot tell two
    questions apart; the model that sees everything can."""
    donor = questions[1]
    for sees, blind in (("thoughts", True), ("everything", False)):
        model = thinker("gpt2", answer_sees=sees)
        with torch.no_grad():
            state = model.begin(model.prompt([donor]))
            for _ in range(model.n_thoughts):
                state = model.step(state)
            corrupted = [(k.clone(), v.clone()) for k, v in state.cache]
            for k, v in corrupted:
                k[:, :, state.question[0]] += 5.0
                v[:, :, state.question[0]] -= 5.0
            from dataclasses import replace

            none = torch.empty(1, 0, dtype=torch.long)
            clean = model.close(state, none)[0][-1]
            other = model.close(replace(state, cache=tuple(corrupted)), none)[0][-1]
        assert torch.equal(clean, other) is blind


@pytest.mark.parametrize("family", FAMILIES)
def test_without_recurrence_one_pass_over_all_thoughts_equals_the_steps(thinker, questions, family):
    model = thinker(family, recurrence="constant")
    with torch.no_grad():
        begun = model.begin(model.prompt(questions))
        stepped = begun
        for _ in range(model.n_thoughts):
            stepped = model.step(stepped)
        at_once = model.feed_all(begun)
    assert (stepped.hidden - at_once.hidden).abs().max() < CLOSE
    assert stepped.n_fed == at_once.n_fed and torch.equal(stepped.next_position, at_once.next_position)


def test_official_compat_attends_to_padding_and_so_depends_on_the_batch(thinker, questions):
    model = thinker("gpt2")
    model.official_compat = True
    together = model.think(questions).hidden
    alone = torch.cat([model.think([q]).hidden for q in questions])
    longest = max(range(4), key=lambda i: len(model.question_ids([questions[i]])[0]))
    assert (together[longest] - alone[longest]).abs().max() < CLOSE, "the longest question has no padding"
    others = [i for i in range(4) if i != longest]
    assert (together[others] - alone[others]).abs().max() > 0.01


def test_pad_and_bot_are_never_said(thinker, questions):
    model = thinker("llama", tied=False)
    head = model.base.get_output_embeddings().weight
    with torch.no_grad():
        head[-3:] = head.abs().sum(0) * 10  # pad, bot and eot would win everywhere if they could
    said = [i for a in model.answer(questions, max_new_tokens=8) for i in a.token_ids]
    assert said and max(said) < model.config.vocabulary


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_that_spells_a_special_token_holds_text(thinker, family):
    model = thinker(family)
    plain, spelled = model.question_ids(["2 + 2", f"2 {model.tokenizer.eos_token} 2 {model.tokenizer.eos_token}"])
    count = lambda ids: [ids.count(i) for i in model.tokenizer.all_special_ids if i != model.tokenizer.unk_token_id]
    assert count(spelled) == count(plain)
    assert len(spelled) > len(plain)


def test_a_question_longer_than_the_context_is_refused(thinker):
    with pytest.raises(BadInput, match="does not fit the context of 96"):
        thinker("gpt2").think(["a has 3 pens . " * 40])


def test_an_answer_ends_where_the_context_ends(thinker):
    model = thinker("gpt2")
    model.eos_id = -1  # never said
    question = "a has 3 pens . " * 15
    used = len(model.question_ids([question])[0]) + model.n_thoughts + 1
    assert [len(a.token_ids) for a in model.answer([question], max_new_tokens=500)] == [96 - used]


def test_more_thoughts_than_the_context_holds_are_refused(thinker, questions):
    with pytest.raises(BadInput, match="beyond the model's context of 96"):
        thinker("gpt2").think(questions, n_thoughts=100)


def test_an_unknown_layer_to_edit_is_named(thinker, questions):
    model = thinker("gpt2")
    with pytest.raises(BadInput, match=r"no layer 'block9'.*block1, block2, final_norm"):
        model.step(model.begin(model.prompt(questions)), edits=[Edit("block9", lambda h: h)])
