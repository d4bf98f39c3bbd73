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
from workings.reading.lens import Fitted, Lens
from workings.reading.lens_files import open_lens, save_lens
from workings.reading.lens_kinds import (
    KINDS,
    HybridLens,
    LogitLens,
    LowRankLens,
    MlpLens,
    PerPositionLens,
    PositionBiasLens,
    PositionEmbeddingLens,
    PositionGainLens,
    PositionHeadLens,
    TunedLens,
    lens_of,
)
from workings.reading.recipe import FitConfig


def states(*shape, seed=0):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


SPECS = (
    "logit",
    "tuned",
    "per-position",
    "hybrid(embed,block2)",
    "low-rank(3)",
    "position-embedding",
    "position-gain",
    "position-bias",
    "position-head(3)",
    "mlp(8)",
)


def of(spec: str, model: ToyThinker, final_norm: bool = False) -> Lens:
    return lens_of(spec, model, positions=model.positions(), final_norm=final_norm)


def trained(model: ToyThinker, spec: str = "tuned", final_norm: bool = False) -> Lens:
    lens = of(spec, model, final_norm)
    with torch.no_grad():
        for parameter in lens.parameters():
            parameter.copy_(torch.randn(parameter.shape) / WIDTH**0.5)
    return lens


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_lens_of_any_kind_is_the_logit_lens_bit_for_bit(dtype, spec, final_norm):
    model = ToyThinker()
    model.unembedding = model.unembedding.to(dtype)
    h = states(5, 4).to(dtype)
    new = of(spec, model, final_norm)
    for layer in model.layers:
        found, logit = new.read(h, layer, "t2"), LogitLens.of(model).read(h, layer)
        assert torch.equal(found, logit)
        assert found.shape == (5, 4, len(model.unembedding.weight))


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_one_layer_is_read_as_it_is_among_all(spec, final_norm):
    model = ToyThinker()
    lens = trained(model, spec, final_norm)
    h, position = states(len(lens.translated), 9), torch.arange(9) % 4
    together = lens.translate(h, position)
    for at, layer in enumerate(lens.translated):
        torch.testing.assert_close(lens.translate(h[at : at + 1], position, slice(at, at + 1))[0], together[at])
        for place, name in enumerate(model.positions()):
            x = together[at, position == place]
            x = x if layer == "final_norm" else model.unembedding.norm(x)
            [x] = lens.scale(x[None], position[position == place])
            logits, added = x @ model.unembedding.weight.T, lens.columns(x, position[position == place])
            logits = logits if added is None else logits + added.features @ added.weight.T
            torch.testing.assert_close(lens.read(h[at, position == place], layer, name), logits)


def test_each_position_has_a_translator_of_its_own():
    model = ToyThinker()
    lens, h = trained(model, "per-position"), states(7)
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
    for spec in SPECS:
        lens = trained(ToyThinker(), spec)
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


def test_every_kind_has_a_short_name_and_is_tried_here():
    assert {type(of(spec, ToyThinker())) for spec in SPECS} == set(KINDS.values())
    assert len(SPECS) == len(KINDS)


@pytest.mark.parametrize(
    ("kind", "options", "n_parameters"),
    [
        (LogitLens, {}, 0),
        (TunedLens, {}, 67_141_632),
        (PerPositionLens, {}, 402_849_792),
        (HybridLens, {"critical": ("block6", "block9", "block14", "block15"), "norm": "own"}, 151_072_768),
        (LowRankLens, {"rank": 16}, 67_141_632 + 16 * 6 * 2 * 16 * 2048),
        (PositionEmbeddingLens, {}, 67_141_632 + 6 * 2048),
        (PositionGainLens, {}, 67_141_632 + 6 * 2048),
        (PositionBiasLens, {}, 67_141_632 + 6 * 128_256),
        (PositionHeadLens, {"rank": 16}, 67_141_632 + 6 * 16 * (128_256 + 2048)),
        (MlpLens, {"width": 256}, 67_141_632 + 16 * (2 * 256 * 2048 + 256)),
    ],
)
def test_the_parameters_are_counted(kind, options, n_parameters):
    """Llama-3.2-1B: 16 translated layers, width 2,048, 128,256 tokens; bot and five thoughts."""
    with torch.device("meta"):
        unembedding = Unembedding(nn.RMSNorm(2048), torch.empty(128_256, 2048))
        lens = kind(unembedding, layer_names(16), "llama", ("bot", "t1", "t2", "t3", "t4", "t5"), **options)
    assert lens.n_parameters == n_parameters
    assert len(lens.translated) == 16


def test_a_whole_head_for_each_position_is_refused_with_its_memory():
    with torch.device("meta"):
        unembedding = Unembedding(nn.RMSNorm(2048), torch.empty(128_256, 2048))
        with pytest.raises(BadInput, match=r"1,576,009,728 numbers, 25.2 GB with AdamW"):
            PositionHeadLens(unembedding, layer_names(16), "llama", [f"t{k}" for k in range(6)], rank="full")


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "logit"])
def test_a_kind_started_from_a_tuned_lens_reads_as_it(spec):
    model = ToyThinker()
    shared, h = trained(model), states(7)
    lens = of(spec, model).start_from(shared)
    for layer in model.layers:
        for position in model.positions():
            torch.testing.assert_close(lens.read(h, layer, position), shared.read(h, layer))
    with pytest.raises(BadInput, match="cannot start from a lens for"):
        TunedLens.of(model).start_from(TunedLens.of(model, ["block1"]))


def test_the_hybrid_of_the_note_reads_through_a_norm_of_its_own():
    model = ToyThinker()
    lens = HybridLens.of(model, positions=model.positions(), critical=("block1",), norm="own")
    with torch.no_grad():
        lens.own_norm.weight.mul_(2)
    h = states(7)
    own = nn.functional.layer_norm(h, (WIDTH,)) * 2 @ model.unembedding.weight.T
    torch.testing.assert_close(lens.read(h, "block1", "t1"), own)


def test_groups_are_the_translators():
    model, position = ToyThinker(), torch.tensor([0, 1, 1, 3])
    assert of("tuned", model).groups(position).tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert of("per-position", model).groups(position).tolist() == [[0, 1, 1, 3], [4, 5, 5, 7], [8, 9, 9, 11]]
    assert of("hybrid(block1)", model).groups(position).tolist() == [[0] * 4, [4, 5, 5, 7], [8] * 4]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tune", "did you mean 'tuned'"),
        ("glasses", "there are logit, tuned, per-position"),
        ("tuned(3)", "has no option, and '3' was given"),
        ("low-rank(0)", "a number from 1 to 32, not 0"),
        ("low-rank(x)", "a number from 1 to 32, not 'x'"),
        ("low-rank(33)", "a number from 1 to 32, not 33"),
        ("mlp(-1)", "a number from 1, not '-1'"),
        ("hybrid(block9)", "no layer block9 among the translated ones"),
    ],
)
def test_a_kind_that_is_none_is_refused(spec, message):
    with pytest.raises(BadInput, match=message):
        of(spec, ToyThinker())
    with pytest.raises(BadInput, match=r"has no option 'rang' \(did you mean 'rank'"):
        LowRankLens.of(ToyThinker(), positions=("t1",), rang=3)


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_a_lens_of_any_kind_is_saved_and_read_back_without_the_models_head(tmp_path, spec, final_norm):
    model = ToyThinker()
    lens = trained(model, spec, final_norm)
    lens.fitted = Fitted(FitConfig(lr=0.002), "uniform split", "ab", "cd", best_epoch=3, validation=1.25, n_epochs=8)
    save_lens(lens, tmp_path / "lens")
    again = open_lens(tmp_path / "lens", model)
    assert (
        type(again) is type(lens)
        and again.options == lens.options
        and again.positions == lens.positions
        and again.final_norm == final_norm
    )
    assert again.fitted == lens.fitted
    assert (tmp_path / "lens" / "lens.safetensors").stat().st_size < 4 * lens.n_parameters + 1000
    for layer in model.layers:
        assert torch.equal(again.read(states(3), layer, "t1"), lens.read(states(3), layer, "t1"))


def test_another_model_is_refused_by_name(tmp_path):
    save_lens(TunedLens.of(ToyThinker()), tmp_path)
    other = ToyThinker(seed=1)
    with pytest.raises(BadInput, match=r"fitted on the model toy-.*-0, and the model given is toy-.*-1"):
        open_lens(tmp_path, other)
    other.fingerprint = ToyThinker().fingerprint  # the same name, and other weights
    with pytest.raises(BadInput, match="another head or final norm"):
        open_lens(tmp_path, other)


def test_what_is_no_lens_is_refused(tmp_path):
    model = ToyThinker()
    with pytest.raises(BadInput, match="no lens in"):
        open_lens(tmp_path / "nowhere", model)
    save_lens(TunedLens.of(model), tmp_path)
    about = json.loads((tmp_path / "lens.json").read_text())
    (tmp_path / "lens.json").write_text("[]")
    with pytest.raises(BadInput, match="does not describe"):
        open_lens(tmp_path, model)
    (tmp_path / "lens.json").write_text(json.dumps(about))
    weights = tmp_path / "lens.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BadInput, match=r"lens.safetensors was changed"):
        open_lens(tmp_path, model)


def test_an_unknown_layer_is_named():
    with pytest.raises(BadInput, match="tuned lens has no layer 'block7'; it has embed, block1"):
        TunedLens.of(ToyThinker()).read(states(1), "block7")
