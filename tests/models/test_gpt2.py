"""Our GPT-2: Hugging Face's numbers, gradients that show what sees what, and the cache against the whole row."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

from workings.errors import BadInput
from workings.models import kernels
from workings.models.checkpoint import to_hf
from workings.models.configs import GPT2_SIZES, GPT2Config
from workings.models.gpt2 import GPT2, Inference, KVCache, restarting
from workings.models.kernels import linear

TINY = GPT2Config(n_layers=2, n_heads=2, d_model=16, block=24, vocab=61)


def loud(config: GPT2Config = TINY, seed: int = 0) -> GPT2:
    """Weights far from zero, biases too: a wrong mask, position or orientation shows in the logits."""
    model = GPT2(config).init(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.25)
    return model.eval()


def theirs_with(model: GPT2) -> GPT2LMHeadModel:
    shape = model.config
    config = TheirConfig(
        vocab_size=shape.vocab,
        n_positions=shape.block,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = GPT2LMHeadModel(config)
    left = theirs.load_state_dict(to_hf(model.state_dict()), strict=False)
    assert left.missing_keys == ["lm_head.weight"] and not left.unexpected_keys
    theirs.tie_weights()
    return theirs.eval()


def some_ids(*size: int, vocab: int = TINY.vocab, seed: int = 1) -> torch.Tensor:
    return torch.randint(vocab, size, generator=torch.Generator().manual_seed(seed))


# ── size and start ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_124m_model_has_as_many_parameters_as_the_published_recipe_says():
    with torch.device("meta"):
        model = GPT2(replace(GPT2_SIZES["124M"], vocab=50349))
    decayed, rest = model.decayed(), model.not_decayed()
    assert model.n_parameters == 124_510_464
    assert (len(decayed), sum(p.numel() for p in decayed.values())) == (50, 124_389_120)
    assert (len(rest), sum(p.numel() for p in rest.values())) == (98, 121_344)


def test_flops_follow_the_palm_convention():
    with torch.device("meta"):
        model = GPT2(replace(GPT2_SIZES["124M"], vocab=50304))
    # nanoGPT's estimate for this shape: 6 · 123,689,472 (without positions) + 12 · 12 · 768 · 1024
    assert model.flops_per_token(1024) == 6 * (model.n_parameters - 1024 * 768) + 12 * 12 * 768 * 1024


def test_initial_weights_have_the_published_spread():
    model = GPT2(replace(GPT2_SIZES["mini"], d_model=256, vocab=2000)).init(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            assert bool((parameter == (1.0 if name.endswith("weight") else 0.0)).all()), name
        else:
            wanted = 0.02 / math.sqrt(8) if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(wanted, rel=0.03), name
            assert abs(parameter.mean().item()) < 5 * wanted / math.sqrt(parameter.numel()), name


def test_initial_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (GPT2(TINY).init(seed).state_dict() for seed in (3, 3, 4))
    wider = GPT2(replace(TINY, vocab=99)).init(3).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator was asked"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])
    assert all(torch.equal(first[name], wider[name]) for name in first if name != "wte.weight")
    assert not torch.equal(first["h.0.mlp.c_fc.weight"], first["h.1.mlp.c_fc.weight"])


@pytest.mark.parametrize("wrong", [{"n_heads": 3}, {"n_layers": 0}, {"vocab": -1}])
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, int]):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        replace(TINY, **wrong)


def test_a_row_longer_than_the_block_is_refused():
    for read in (GPT2(TINY), Inference(GPT2(TINY)).read):
        with pytest.raises(BadInput, match=r"25 tokens .* 24 positions"):
            read(some_ids(1, 25))


# ── Hugging Face's numbers ───────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 3), heads=st.sampled_from([1, 2, 4]), rows=st.integers(1, 3), length=st.integers(1, 24),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_logits_are_hugging_faces(layers: int, heads: int, rows: int, length: int, seed: int):
    model = loud(GPT2Config(layers, heads, 16, 24, 61), seed)
    ids = some_ids(rows, length, seed=seed)
    with torch.no_grad():
        ours, theirs = model(ids), theirs_with(model)(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_loss_and_gradients_are_hugging_faces():
    model = loud().train()
    theirs = theirs_with(model).train()
    ids, targets = some_ids(3, 12), some_ids(3, 12, seed=2)
    ours, loss = model.loss(ids, targets), theirs(ids, labels=targets, shift_labels=targets).loss
    torch.testing.assert_close(ours, loss)
    ours.backward()
    loss.backward()
    wanted = to_hf({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=1e-4, atol=2e-6, msg=lambda text, n=name: n + text
        )


def test_bf16_logits_are_hugging_faces_to_the_precision_of_bf16():
    model = loud()
    theirs = theirs_with(model).bfloat16()
    exact = model(some_ids(2, 20))
    with torch.no_grad():
        ours = model.bfloat16()(some_ids(2, 20)).float()
        other = theirs(some_ids(2, 20)).logits.float()
    # Each is some roundings of 2⁻⁸ away from the exact logits; they may not be farther from each other than from the truth.
    error = (other - exact).abs().max()
    assert (ours - other).abs().max() < 2 * error and (ours - exact).abs().max() < 2 * error
    assert error < 0.05 * exact.abs().max()


def test_one_step_from_seed_0_has_the_golden_loss():
    """The two losses were computed once with Hugging Face's GPT2LMHeadModel on these weights, then held."""
    model = GPT2(TINY).init(0)
    ids = some_ids(4, 25)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for _ in range(2):
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == pytest.approx([4.128126, 4.028090], abs=2e-5)


# ── what sees what ───────────────────────────────────────────────────────────────────────────────────────────────────


def reach(model: GPT2, ids: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
    """[T, T]: the gradient of the logits at one position (row) by the embedded token at another (column), its largest entry."""
    embedded = []
    hook = model.wte.register_forward_hook(
        lambda _, __, out: embedded.append(out.detach().requires_grad_()) or embedded[-1]
    )
    logits = model.logits(model.hidden(ids, documents))
    hook.remove()
    return torch.stack(
        [
            torch.autograd.grad(at.sum(), embedded[0], retain_graph=True)[0][0].abs().amax(-1)
            for at in logits[0].square()
        ]
    )


def test_no_logit_depends_on_a_later_token_and_each_on_every_earlier_one():
    found = reach(loud(), some_ids(1, 9))
    assert bool((found.triu(1) == 0).all())
    assert bool((found[torch.ones(9, 9).tril().bool()] > 0).all())


def test_no_gradient_crosses_from_one_document_into_another():
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    found = reach(loud(), some_ids(1, 9), documents)
    own = (documents[0][:, None] == documents[0]).tril()
    assert bool((found[~own] == 0).all()), "a later document saw an earlier one, or a token the future"
    assert bool((found[own] > 0).all())


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=3), seed=st.integers(0, 9))
def test_a_packed_document_computes_what_it_computes_alone(lengths: list[int], seed: int):
    model = loud(seed=seed)
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    ids = some_ids(1, sum(lengths), seed=seed)
    packed = model(ids, documents)[0].split(lengths)
    for part, alone in zip(packed, ids.split(lengths, 1), strict=True):
        torch.testing.assert_close(part, model(alone)[0], rtol=1e-5, atol=3e-5)


def test_positions_restart_with_each_document():
    documents = torch.tensor([[4, 4, 4, 5, 9, 9], [0, 1, 1, 1, 1, 0]])
    assert restarting(documents).tolist() == [[0, 1, 2, 0, 0, 1], [0, 0, 1, 2, 3, 0]]


# ── loss ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rows", [1, 7, 256])
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_change_neither_the_loss_nor_its_gradients(rows: int, masked: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "ROWS", rows)
    monkeypatch.setattr(kernels, "PIECE", 4 * 40 * 5)  # four rows
    hidden, head = torch.randn(3, 11, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)
    targets = some_ids(3, 11, vocab=30)
    targets[0, :4] = kernels.IGNORED
    bias = torch.where(torch.arange(40) < 30, 0.0, -torch.inf) if masked else None
    logits = hidden @ head.T + (0.0 if bias is None else bias)
    wanted = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    found = kernels.mean_nll(hidden, head, targets, bias)
    torch.testing.assert_close(found, wanted)
    for mine, true in zip(
        torch.autograd.grad(3 * found, (hidden, head)), torch.autograd.grad(3 * wanted, (hidden, head)), strict=True
    ):
        torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-7)
    each = kernels.token_nll(hidden, head, targets, bias)
    assert bool((each[0, :4] == 0).all())
    torch.testing.assert_close(each.sum() / (targets != kernels.IGNORED).sum(), wanted.detach())


def test_the_gradients_are_those_of_differences():
    """Against nobody's formula: torch's own check by small differences, in float64."""
    hidden = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    head = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 6, kernels.IGNORED, 2, 2])
    for parameter in (hidden, head):
        step = torch.randn_like(parameter)
        (slope,) = torch.autograd.grad(kernels.mean_nll(hidden, head, targets), parameter)
        with torch.no_grad():
            saved = parameter.clone()
            ends = []
            for sign in (1, -1):
                parameter.copy_(saved + sign * 1e-2 * step)
                ends.append(kernels.mean_nll(hidden, head, targets))
            parameter.copy_(saved)
        assert float((slope * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=2e-3, abs=1e-5)


def test_an_impossible_target_costs_what_it_costs_and_is_still_a_number():
    head = torch.tensor([[300.0], [-300.0]])
    assert kernels.token_nll(torch.ones(1, 1), head, torch.tensor([1])).item() == pytest.approx(600.0)


def test_dead_rows_get_no_probability_and_no_gradient():
    model = loud().train()
    bias = torch.where(torch.arange(61) < 50, 0.0, -torch.inf)
    ids = some_ids(2, 9, vocab=50)
    live = F.cross_entropy(model(ids)[..., :50].flatten(0, 1), ids.flatten())
    loss = model.loss(ids, ids, logit_bias=bias)
    torch.testing.assert_close(loss, live)
    loss.backward()
    assert bool((model.wte.weight.grad[50:] == 0).all()) and bool((model.wte.weight.grad[:50] != 0).any())


def test_autocast_reaches_the_head():
    hidden, head = torch.randn(9, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)
    targets = some_ids(9, vocab=40)
    exact = kernels.mean_nll(hidden, head, targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = kernels.mean_nll(hidden, head, targets)
        wanted = F.cross_entropy(F.linear(hidden, head), targets)
    assert found.dtype == torch.float32 and found != exact
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(found, (hidden, head))
    for mine, true in zip(gradients, torch.autograd.grad(wanted, (hidden, head)), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, true, rtol=0.05, atol=2e-3)


# ── the cache ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Reading:
    """Logits of a model that reads in pieces, as `Inference` does it."""

    def __init__(self, model: GPT2, ids: torch.Tensor, padding: torch.Tensor | None = None, capacity: int = 24) -> None:
        self.model, self.run = model, Inference(model)
        padding = torch.zeros(len(ids), dtype=torch.long) if padding is None else padding
        states, self.cache = self.run.begin(ids, padding, capacity)
        self.first = model.logits(states)

    def more(self, ids: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        return self.model.logits(self.run.extend(ids, cache or self.cache))


def lengths(cache: KVCache) -> list[int]:
    """Real tokens that each row has read: the position of the next one."""
    return cache.next_position[:, 0].tolist()


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.integers(1, 7), min_size=1, max_size=5), data=st.data())
@torch.no_grad()
def test_extending_piece_by_piece_is_the_forward_pass_on_each_row_alone(steps: list[int], data: st.DataObject):
    """Rows of different length are aligned at their ends; what fills them up is seen by nobody."""
    model, total = loud(), min(sum(steps), 24)
    filling = [data.draw(st.integers(0, steps[0] - 1), label="padding") for _ in range(3)]
    ids = some_ids(3, total)
    pieces = ids.split([min(step, total - sum(steps[:i])) for i, step in enumerate(steps) if sum(steps[:i]) < total], 1)
    reading = Reading(model, pieces[0], torch.tensor(filling), total)
    found = torch.cat([reading.first, *map(reading.more, pieces[1:])], 1)
    assert lengths(reading.cache) == [total - fill for fill in filling]
    for row, fill in enumerate(filling):
        alone = model(ids[row : row + 1, fill:])[0]
        torch.testing.assert_close(found[row, fill:], alone, rtol=1e-5, atol=3e-5)


@torch.no_grad()
def test_what_fills_a_row_changes_nothing_bit_for_bit():
    model, padding = loud(), torch.tensor([3, 0])
    ids = some_ids(2, 8)
    other = ids.clone()
    other[0, :3] = 7
    found = [Reading(model, x, padding).first[0, 3:] for x in (ids, other)]
    assert torch.equal(*found)


@torch.no_grad()
def test_a_forked_cache_goes_on_as_its_row_would_and_leaves_the_others_alone():
    model = loud()
    context, padding = some_ids(2, 6), torch.tensor([2, 0])
    endings = some_ids(4, 3, seed=5)
    reading = Reading(model, context, padding)
    forked = reading.cache.select(torch.tensor([0, 0, 1, 1]), capacity=12)
    found = reading.more(endings, forked)
    for row, ending in enumerate(endings):
        own = context[row // 2, padding[row // 2] :]
        alone = model(torch.cat([own, ending])[None])[0, -3:]
        torch.testing.assert_close(found[row], alone, rtol=1e-5, atol=3e-5)
    assert lengths(reading.cache) == [4, 6] and lengths(forked) == [7, 7, 9, 9]
    once_more = reading.more(endings[:2])
    torch.testing.assert_close(
        once_more[1], model(torch.cat([context[1], endings[1]])[None])[0, -3:], rtol=1e-5, atol=3e-5
    )


@torch.no_grad()
def test_dropping_the_longest_row_gives_back_its_room():
    model = loud()
    ids = some_ids(2, 24)
    reading = Reading(model, ids, torch.tensor([0, 20]))
    with pytest.raises(BadInput, match="24"):
        reading.more(ids[:, :1])
    left = reading.cache.select(torch.tensor([1]))
    assert lengths(left) == [4] and left.n_slots == 4 and left.starts is None
    found = reading.more(ids[1:, :5], left)
    alone = model(torch.cat([ids[1, 20:], ids[1, :5]])[None])[:, -5:]
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=3e-5)


@torch.no_grad()
def test_rows_that_are_kept_in_place_go_on_as_they_would():
    model = loud()
    ids, padding = some_ids(4, 6), torch.tensor([0, 3, 1, 2])
    reading = Reading(model, ids, padding)
    order = [0, 3, 2]  # the last has moved into the place of the second
    found = reading.more(ids[:3, :2], reading.cache.keep(torch.tensor(order)))
    for at, row in enumerate(order):
        alone = model(torch.cat([ids[row, padding[row] :], ids[at, :2]])[None])[0, -2:]
        torch.testing.assert_close(found[at], alone, rtol=1e-5, atol=3e-5)


@torch.no_grad()
def test_generation_step_by_step_is_hugging_faces_greedy_text():
    model = loud()
    prompt = some_ids(3, 5)
    reading = Reading(model, prompt)
    written = [reading.first[:, -1].argmax(-1)]
    while len(written) < 12:
        written.append(reading.more(written[-1][:, None])[:, -1].argmax(-1))
    wanted = theirs_with(model).generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    assert torch.stack(written, 1).tolist() == wanted[:, 5:].tolist()


# ── products by oneDNN ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("shape", "n_in", "n_out"), [((3, 5), 7, 11), ((4,), 9, 3), ((2, 3, 4), 8, 8), ((1, 1), 5, 6)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_our_linear_map_is_torchs_forward_and_backward(shape: tuple[int, ...], n_in: int, n_out: int, with_bias: bool):
    x = torch.randn(*shape, n_in).transpose(0, len(shape) - 1).requires_grad_()  # in no natural layout
    weight = torch.randn(n_out, n_in, requires_grad=True)
    inputs = (x, weight, *([torch.randn(n_out, requires_grad=True)] if with_bias else []))
    ours, torchs = linear(*inputs), F.linear(*inputs)
    torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-5)
    d_out = torch.randn_like(torchs)
    wanted = torch.autograd.grad(torchs, inputs, d_out)
    for mine, true in zip(torch.autograd.grad(ours, inputs, d_out), wanted, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-5)


def test_our_linear_map_obeys_autocast_and_no_grad():
    x, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.no_grad():
        assert not linear(x, weight).requires_grad
    assert linear(x, weight).requires_grad
    assert linear(torch.empty(0, 4), weight).shape == (0, 5)


WITHOUT = """
import types
import torch
torch.ops.mkldnn = types.SimpleNamespace()
from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.models.gpt2 import Inference
model = GPT2(GPT2Config(1, 1, 8, 8, 11)).init(0)
ids = torch.arange(8)[None]
model.loss(ids, ids).backward()
torch.testing.assert_close(Inference(model).read(ids), model.hidden(ids))
"""


def test_a_build_of_torch_without_onednn_does_without():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
