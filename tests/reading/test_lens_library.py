"""Folders of the tuned-lens library: both ways, against the library itself where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.reading.toy import WIDTH, ToyThinker
from workings.errors import BadInput
from workings.models.anatomy import Unembedding, layer_names
from workings.reading.lens_kinds import PerPositionLens, TunedLens
from workings.reading.lens_library import export_to_library, import_from_library


class Bare:
    """The parts of a GPT-2 that a lens needs."""

    fingerprint = "bare"
    layers = layer_names(3)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=3, n_head=2, bos_token_id=0, eos_token_id=0)
        ).eval()
        self.unembedding = Unembedding(self.model.transformer.ln_f, self.model.lm_head.weight)


def trained(model: object) -> TunedLens:
    lens = TunedLens.of(model)  # type: ignore[arg-type]
    with torch.no_grad():
        for i, parameter in enumerate(lens.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) / 4)
    return lens


def test_a_lens_goes_out_and_comes_back(tmp_path: Path) -> None:
    model = ToyThinker()
    lens = trained(model)
    export_to_library(lens, tmp_path / "library", "toy", 3)
    again = import_from_library(tmp_path / "library", model)
    assert torch.equal(again.weight, lens.weight) and torch.equal(again.bias, lens.bias)
    assert set(torch.load(tmp_path / "library" / "params.pt")) == {
        f"{i}.{part}" for i in range(3) for part in ("weight", "bias")
    }


def test_the_library_itself_opens_what_is_written_and_gives_the_same_logits_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    library = pytest.importorskip("tuned_lens", reason="make setup-interp installs the tuned-lens library")
    model = Bare()
    lens = trained(model)
    export_to_library(lens, tmp_path / "ours", "bare", 3)
    theirs = library.TunedLens.from_model_and_pretrained(model.model, str(tmp_path / "ours"))
    with torch.no_grad():
        states = model.model(torch.tensor([[3, 1, 4, 1, 5]]), output_hidden_states=True).hidden_states
        for i, layer in enumerate(model.layers[:-1]):
            torch.testing.assert_close(lens.read(states[i], layer), theirs(states[i], i), rtol=1e-6, atol=1e-6)
    theirs.save(tmp_path / "theirs")
    again = import_from_library(tmp_path / "theirs", model)
    assert torch.equal(again.weight, lens.weight) and torch.equal(again.bias, lens.bias)


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = ToyThinker()
    for lens, message in (
        (PerPositionLens.of(model, positions=("t1",)), "has no per-position tuned lens"),
        (TunedLens.of(model, final_norm=True), "no translator at final_norm"),
        (TunedLens.of(model, ["block1", "final_norm"]), "a translator for each of embed, block1, block2"),
    ):
        with pytest.raises(BadInput, match=message):
            export_to_library(lens, tmp_path / "out", "toy", 3)
        assert not (tmp_path / "out").exists()


def test_a_lens_of_another_model_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model = ToyThinker()
    folder = export_to_library(trained(model), tmp_path / "library", "toy", 3)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"d_model": 64}, "d_model is 64, and the model given has 32"),
        ({"num_hidden_layers": 4}, "num_hidden_layers is 4"),
        ({"lens_type": "square"}, "lens_type is 'square'"),
        ({"unembed_hash": "0" * 64}, "another unembedding"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput, match=message):
            import_from_library(folder, model)
    (folder / "config.json").write_text(json.dumps(config))
    state = torch.load(folder / "params.pt")
    for broken, message in (
        ({name: value for name, value in state.items() if name != "2.bias"}, r"lacks 1 tensor\(s\): 2.bias"),
        (state | {"3.bias": torch.zeros(WIDTH)}, "no place for: 3.bias"),
        (state | {"0.bias": torch.zeros(WIDTH + 1)}, "0.bias has shape"),
        (state | {"0.bias": torch.full((WIDTH,), torch.nan)}, "0.bias holds numbers that are not finite"),
    ):
        torch.save(broken, folder / "params.pt")
        with pytest.raises(BadInput, match=message):
            import_from_library(folder, model)
    (folder / "params.pt").unlink()
    with pytest.raises(BadInput, match=r"has no params\.pt"):
        import_from_library(folder, model)
