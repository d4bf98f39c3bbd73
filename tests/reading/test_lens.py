"""Lenses: a lens that has learned nothing is the logit lens, and no lens reads a model it was not fitted on."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.reading.toy import WIDTH, ToyThinker
from workings.errors import BadInput
from workings.models.anatomy import Unembedding, layer_names
from workings.reading.lens import Fitted, LogitLens, TunedLens
from workings.reading.recipe import FitConfig


def states(*shape, seed=0):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def trained(model: ToyThinker) -> TunedLens:
    lens = TunedLens.of(model)
    with torch.no_grad():
        lens.weight.copy_(torch.randn(lens.weight.shape) / WIDTH)
        lens.bias.copy_(torch.randn(lens.bias.shape))
    return lens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_translators_are_the_logit_lens_bit_for_bit(dtype):
    model = ToyThinker()
    model.unembedding = model.unembedding.to(dtype)
    h = states(5, 4).to(dtype)
    for layer in model.layers:
        tuned, logit = TunedLens.of(model).read(h, layer), LogitLens.of(model).read(h, layer)
        assert torch.equal(tuned, logit)
        assert tuned.shape == (5, 4, len(model.unembedding.weight))


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


def test_a_lens_is_saved_and_read_back_without_the_models_head(tmp_path):
    model = ToyThinker()
    lens = trained(model)
    lens.fitted = Fitted(FitConfig(lr=0.002), "uniform split", "ab", "cd", best_epoch=3, validation=1.25, n_epochs=8)
    lens.save(tmp_path / "lens")
    again = TunedLens.load(tmp_path / "lens", model)
    assert again.fitted == lens.fitted
    assert (tmp_path / "lens" / "lens.safetensors").stat().st_size < 4 * lens.n_parameters + 1000
    for layer in model.layers:
        assert torch.equal(again.read(states(3), layer), lens.read(states(3), layer))


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
    with pytest.raises(BadInput, match="not the file that"):
        TunedLens.load(tmp_path, model)


def test_an_unknown_layer_is_named():
    with pytest.raises(BadInput, match="tuned lens has no layer 'block7'; it has embed, block1"):
        TunedLens.of(ToyThinker()).read(states(1), "block7")
