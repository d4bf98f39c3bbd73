"""Checkpoints in every layout that exists, against models built by the libraries that wrote them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.models.conftest import ALPHA, TARGETS, Released, tiny_base
from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.codi import CODI, open_model
from workings.models.pretrained import load_base
from workings.training.distillation import distil
from workings.training.recipes import DistilConfig


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("prefix", ["codi", "coconut"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_released_checkpoint_thinks_as_the_model_that_was_saved(words, tmp_path, family, prefix, name, questions):
    released = Released(family, words, tmp_path, prefix=prefix)
    released.write(tmp_path / "ckpt" / name)
    model = CODI.load(tmp_path / "ckpt", base=tmp_path / "base", lora_alpha=ALPHA)
    thoughts = model.think(questions[:1])
    with torch.no_grad():
        expected = torch.stack(released.states(torch.tensor([model.question_ids(questions[:1])[0]])), 1)
    assert (thoughts.hidden[:, :, -1] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("head", ["present", "absent", "differs"])
def test_a_tied_head_may_be_present_absent_or_different(words, tmp_path, head, questions):
    released = Released("gpt2", words, tmp_path)
    if head == "absent":
        del released.state["codi.base_model.model.lm_head.weight"]
    if head == "differs":
        released.state["codi.base_model.model.lm_head.weight"] *= 2
    file = released.write(tmp_path / "model.safetensors")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)
    table = released.state["codi.base_model.model.transformer.wte.weight"].float()
    expected = table * 2 if head == "differs" else table
    assert torch.equal(model.base.get_input_embeddings().weight, expected)
    assert torch.equal(model.base.get_output_embeddings().weight, expected)
    assert any("lm_head is used for both" in str(w.message) for w in caught) is (head == "differs")


def test_an_untied_model_keeps_two_tables(words, tmp_path):
    released = Released("llama", words, tmp_path, tied=False)
    file = released.write(tmp_path / "model.safetensors")
    model = CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)
    assert not torch.equal(model.base.get_input_embeddings().weight, model.base.get_output_embeddings().weight)


def test_an_auxiliary_decoder_is_ignored_with_a_warning(words, tmp_path):
    released = Released("gpt2", words, tmp_path)
    released.state |= {"decoder.h.0.weight": torch.zeros(3), "pj_in.weight": torch.zeros(3)}
    file = released.write(tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match=r"2 tensor\(s\) of an auxiliary decoder are ignored: decoder.h.0.weight"):
        CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)


@pytest.mark.parametrize(
    "gone",
    [
        "codi.base_model.model.transformer.h.1.attn.c_attn.base_layer.weight",
        "codi.base_model.model.transformer.h.0.mlp.c_fc.lora_B.default.weight",
        "codi.base_model.model.transformer.ln_f.weight",
        "codi.base_model.model.transformer.wpe.weight",
        "prj.3.bias",
    ],
)
def test_a_missing_tensor_is_named(words, tmp_path, gone):
    released = Released("gpt2", words, tmp_path)
    del released.state[gone]
    file = released.write(tmp_path / "model.safetensors")
    with pytest.raises(BadInput) as error:
        CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)
    assert gone.removeprefix("codi.base_model.model.").replace(".base_layer.", ".") in str(error.value).replace(
        ".base_layer.", "."
    )


def test_lora_alpha_must_be_said_or_is_visibly_assumed(words, tmp_path):
    file = Released("gpt2", words, tmp_path).write(tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="lora_alpha; 32 is used"):
        assumed = CODI.load(file, base=tmp_path / "base")
    given = CODI.load(file, base=tmp_path / "base", lora_alpha=32)
    assert all(torch.equal(a, b) for a, b in zip(assumed.parameters(), given.parameters(), strict=True))
    assert assumed.config.lora_alpha == 32


PROBLEMS = [Problem(f"a has {i} pens . then {i} more ?", (Step(f"{i}+{i}", str(2 * i)),), str(2 * i)) for i in range(9)]


@pytest.mark.parametrize("lora_rank", [2, 0])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_trained_model_goes_into_the_released_layout_and_back(thinker, questions, tmp_path, family, lora_rank):
    """Trained, saved, exported, imported: the same states. The layout is the one that PEFT itself writes and reads."""
    recipe = DistilConfig(
        batch_size=3, micro_batch_size=3, learning_rate=0.1, precision="fp32", lora_rank=lora_rank, lora_alpha=7.0
    )
    trained = distil(thinker(family, n_thoughts=6), PROBLEMS, [], recipe, tmp_path / "run")
    assert trained.config.lora_alpha == (7.0 if lora_rank else None)
    saved = CODI.load(trained.save(tmp_path / "saved"))
    assert saved.config == trained.config
    file = saved.save_released(tmp_path / "released") / "model.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is guessed, nothing dropped
        back = CODI.load(file.parent, base=tmp_path / "saved", lora_alpha=7.0)
    expected = trained.think(questions).hidden
    assert (back.think(questions).hidden - expected).abs().max() < 1e-6
    assert (expected - thinker(family, n_thoughts=6).think(questions).hidden).abs().max() > 0.01, "it was trained"
    again = load_file(back.save_released(tmp_path / "again") / "model.safetensors")
    written = load_file(file)
    assert again.keys() == written.keys()
    assert all(torch.allclose(again[name], written[name], atol=1e-6) for name in written)

    base = AutoModelForCausalLM.from_config(saved.base.config)
    lora = LoraConfig(r=2, lora_alpha=7, target_modules=TARGETS[family], fan_in_fan_out=family == "gpt2")
    official = get_peft_model(base, lora).eval()
    theirs = {f"codi.{name}" for name in official.state_dict()} | {f"prj.{name}" for name in saved.prj.state_dict()}
    left = {name for name in theirs if ".lora_" in name} if not lora_rank else set()
    assert written.keys() == theirs - left
    official.load_state_dict(
        {k.removeprefix("codi."): v for k, v in written.items() if k.startswith("codi.")}, strict=False
    )
    row = torch.tensor(saved.question_ids(questions[:1]))
    with torch.no_grad():
        last = official(input_ids=row, output_hidden_states=True).hidden_states[-1][:, -1]
    assert (last - expected[:1, 0, -1]).abs().max() < 1e-5


def test_what_the_released_layout_cannot_hold_is_said(thinker, tmp_path):
    with pytest.raises(BadInput, match="no model with recurrence constant"):
        thinker(recurrence="constant").save_released(tmp_path / "x")
    with pytest.raises(BadInput, match="whose answer sees thoughts"):
        thinker(answer_sees="thoughts").save_released(tmp_path / "x")
    flags = thinker(n_thoughts=5, remove_eos=False).official_flags().split(" --")
    assert {"num_latent 5", "inf_latent_iterations 5", "remove_eos False", "use_prj True"} <= set(flags)


def test_factors_that_do_not_fit_their_model_are_refused(thinker, tmp_path):
    model = thinker()
    model.adapters = {"base.transformer.h.0.attn.c_attn.lora_A": torch.zeros(2, 16)}
    with pytest.raises(BadInput, match=r"no lora_alpha in its thinking\.json"):
        model.save_released(tmp_path / "x")
    model.config = replace(model.config, lora_alpha=7.0)
    with pytest.raises(BadInput, match=r"lacks 1 tensor\(s\): base.transformer.h.0.attn.c_attn.lora_B"):
        model.save_released(tmp_path / "x")


def test_weights_without_a_base_are_refused(words, tmp_path):
    file = Released("gpt2", words, tmp_path).write(tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="Name the base model"):
        CODI.load(file)


@pytest.mark.parametrize("fields", [{}, {"recurrence": "constant"}, {"projection": False}, {"projection_norm": False}])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_saving_and_loading_changes_nothing(thinker, questions, tmp_path, family, fields):
    model = thinker(family, answer_sees="thoughts", **fields)
    model.save(tmp_path / "saved", card="# card\n")
    again = CODI.load(tmp_path / "saved")
    assert again.config == model.config
    assert torch.equal(again.think(questions).hidden, model.think(questions).hidden)
    assert [a.token_ids for a in again.answer(questions)] == [a.token_ids for a in model.answer(questions)]
    assert len(again.fingerprint) == 64


def test_a_folder_with_something_in_it_is_not_overwritten(thinker, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match="is there already"):
        thinker().save(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("damage", ["tensor", "file", "family", "shape", "truncated"])
def test_a_damaged_folder_is_refused_with_the_reason(thinker, tmp_path, damage):
    folder = thinker().save(tmp_path / "saved")
    weights = folder / "model.safetensors"
    weights.with_name("model.safetensors.sha256").unlink()  # the tensors are what is judged, not the bytes
    if damage in ("tensor", "shape"):
        tensors = load_file(weights)
        if damage == "tensor":
            del tensors["prj.ln.weight"]
        else:
            tensors["prj.ln.weight"] = torch.zeros(5)
        save_file(tensors, weights)
    elif damage == "file":
        (folder / "tokenizer.json").unlink()
    elif damage == "family":
        (folder / "thinking.json").write_text(json.dumps({"family": "telepathy"}))
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    expected = {
        "tensor": "prj.ln.weight",
        "shape": r"prj.ln.weight has shape \(5,\), expected \(16,\)",
        "file": "tokenizer.json is missing",
        "family": "telepathy",
        "truncated": "cannot be read as weights",
    }
    with pytest.raises(BadInput, match=expected[damage]):
        CODI.load(folder)


def test_a_path_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        CODI.load(tmp_path / "nowhere" / "at all")


def test_an_unknown_family_lists_the_known_ones(words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertLMHeadModel"]}))
    with pytest.raises(BadInput):
        load_base(tmp_path)


def test_a_plain_language_model_is_wrapped_as_an_untrained_codi(words, tmp_path, questions):
    base = tiny_base("llama", len(words))
    base.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = open_model(tmp_path, n_thoughts=3, seed=1)
    assert model.think(questions).hidden.shape == (4, 4, 3, 16)
    assert torch.equal(model.base.get_input_embeddings().weight[: len(words)], base.get_input_embeddings().weight)
    same, other = open_model(tmp_path, n_thoughts=3, seed=1), open_model(tmp_path, n_thoughts=3, seed=2)
    assert torch.equal(same.prj[1].weight, model.prj[1].weight) and not torch.equal(
        other.prj[1].weight, model.prj[1].weight
    )
