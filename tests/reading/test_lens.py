"""Lenses: a lens that has learned nothing is the logit lens, and no lens reads a model it was not fitted on."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from tests.reading.toy import WIDTH, ToyThinker
from workings.errors import BadInput
from workings.models.anatomy import Unembedding, layer_names
from workings.reading.lens import KINDS, Fitted, Lens, LogitLens, PerPositionLens, TunedLens
from workings.reading.recipe import FitConfig


def states(*shape, seed=0):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def trained(model: ToyThinker, kind: type[Lens] = TunedLens, final_norm: bool = False) -> Lens:
    lens = kind.of(model, positions=model.positions(), final_norm=final_norm)
    with torch.no_grad():
        for parameter in lens.parameters():
            parameter.copy_(torch.randn(parameter.shape) / WIDTH**0.5)
    return lens


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_lens_of_any_kind_is_the_logit_lens_bit_for_bit(dtype, kind, final_norm):
    model = ToyThinker()
    model.unembedding = model.unembedding.to(dtype)
    h = states(5, 4).to(dtype)
    new = kind.of(model, positions=model.positions(), final_norm=final_norm)
    for layer in model.layers:
        found, logit = new.read(h, layer, "t2"), LogitLens.of(model).read(h, layer)
        assert torch.equal(found, logit)
        assert found.shape == (5, 4, len(model.unembedding.weight))


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("kind", KINDS.values())
def test_one_layer_is_read_as_it_is_among_all(kind, final_norm):
    model = ToyThinker()
    lens = trained(model, kind, final_norm)
    h, position = states(len(lens.translated), 9), torch.arange(9) % 4
    together = lens.translate(h, position)
    for at, layer in enumerate(lens.translated):
        torch.testing.assert_close(lens.translate(h[at : at + 1], position, slice(at, at + 1))[0], together[at])
        for place, name in enumerate(model.positions()):
            logits = model.unembedding(together[at, position == place], normed=layer == "final_norm")
            torch.testing.assert_close(lens.read(h[at, position == place], layer, name), logits)


def test_each_position_has_a_translator_of_its_own():
    model = ToyThinker()
    lens, h = trained(model, PerPositionLens), states(7)
    i, p = model.layers.index("block2"), model.positions().index("t1")
    moved = h + h @ lens.weight[i, p].T + lens.bias[i, p]
    torch.testing.assert_close(lens.read(h, "block2", "t1"), model.unembedding(moved, normed=False))
    with pytest.raises(BadInput, match="has no position 'question'"):
        lens.read(h, "block2", "question")
    with pytest.raises(BadInput, match="needs the names of the positions"):
        PerPositionLens.of(model)


def test_a_translator_at_the_final_norm_norms_nothing():
    model = ToyThinker()
    lens, normed = trained(model, final_norm=True), model.unembedding.norm(states(7))
    moved = normed + normed @ lens.weight[-1].T + lens.bias[-1]
    torch.testing.assert_close(lens.read(normed, "final_norm"), moved @ model.unembedding.weight.T)


def test_the_models_head_is_no_part_of_a_lens():
    for kind in KINDS.values():
        lens = trained(ToyThinker(), kind)
        again = copy.deepcopy(lens)
        assert again.unembedding is lens.unembedding
        assert set(lens.state_dict()) == {name for name, _ in lens.named_parameters()}
        assert all(a is not b and torch.equal(a, b) for a, b in zip(lens.parameters(), again.parameters(), strict=True))


def test_at_the_final_norm_every_lens_gives_the_models_own_logits():
    model = ToyThinker()
    normed = model.unembedding.norm(states(7))
    own = normed @ model.unembedding.weight.T
    for lens in (LogitLens.of(model), trained(model)):
        assert torch.equal(lens.read(normed, "final_norm"), own)


def test_below_it_the_state_is_translated_normed_once_and_unembedded():
    model = ToyThinker()
    lens, h = trained(model), states(7)
    i = model.layers.index("block2")
    moved = h + h @ lens.weight[i].T + lens.bias[i]
    torch.testing.assert_close(lens.read(h, "block2", "t1"), model.unembedding(moved, normed=False))


def test_the_parameters_are_counted():
    with torch.device("meta"):
        unembedding = Unembedding(nn.RMSNorm(2048), torch.empty(128_256, 2048))
        lens = TunedLens(unembedding, layer_names(16), "llama")
    assert len(lens.translated) == 16
    assert lens.n_parameters == 67_141_632


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("kind", KINDS.values())
def test_a_lens_of_any_kind_is_saved_and_read_back_without_the_models_head(tmp_path, kind, final_norm):
    model = ToyThinker()
    lens = trained(model, kind, final_norm)
    lens.fitted = Fitted(FitConfig(lr=0.002), "uniform split", "ab", "cd", best_epoch=3, validation=1.25, n_epochs=8)
    lens.save(tmp_path / "lens")
    again = Lens.load(tmp_path / "lens", model)
    assert type(again) is kind and again.positions == lens.positions and again.final_norm == final_norm
    assert again.fitted == lens.fitted
    assert (tmp_path / "lens" / "lens.safetensors").stat().st_size < 4 * lens.n_parameters + 1000
    for layer in model.layers:
        assert torch.equal(again.read(states(3), layer, "t1"), lens.read(states(3), layer, "t1"))
    with pytest.raises(BadInput, match=f"holds a {kind.name}, not a"):
        next(other for other in KINDS.values() if other is not kind).load(tmp_path / "lens", model)


def test_another_model_is_refused_by_name(tmp_path):
    TunedLens.of(ToyThinker()).save(tmp_path)
    other = ToyThinker(seed=1)
    with pytest.raises(BadInput, match=r"fitted on the model toy-.*-0, and the model given is toy-.*-1"):
        TunedLens.load(tmp_path, other)
    other.fingerprint = ToyThinker().fingerprint  # the same name, and other weights
    with pytest.raises(BadInput, match="another head or final norm"):
        TunedLens.load(tmp_path, other)


def test_what_is_no_lens_is_refused(tmp_path):
    model = ToyThinker()
    with pytest.raises(BadInput, match="no lens in"):
        TunedLens.load(tmp_path / "nowhere", model)
    TunedLens.of(model).save(tmp_path)
    about = json.loads((tmp_path / "lens.json").read_text())
    (tmp_path / "lens.json").write_text("[]")
    with pytest.raises(BadInput, match="does not describe"):
        TunedLens.load(tmp_path, model)
    (tmp_path / "lens.json").write_text(json.dumps(about))
    weights = tmp_path / "lens.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BadInput, match=r"lens.safetensors was changed"):
        TunedLens.load(tmp_path, model)


def test_an_unknown_layer_is_named():
    with pytest.raises(BadInput, match="tuned lens has no layer 'block7'; it has embed, block1"):
        TunedLens.of(ToyThinker()).read(states(1), "block7")
