"""Checkpoints out and in: what Hugging Face makes of an export, what a damaged one is called, what comes back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel
from transformers import GPT2Config as TheirConfig

from workings.cli import main
from workings.errors import BadInput, Failed
from workings.files import digests_in
from workings.models import checkpoint as checkpoints
from workings.models import exchange
from workings.models.checkpoint import checkpoint_in, import_gpt2, load_gpt2, save_gpt2
from workings.models.configs import GPT2Config
from workings.models.exchange import check_export, export_hf, pull, push
from workings.models.gpt2 import GPT2
from workings.text.tokenizer import VOCABULARIES, Tokenizer

SQUARE = "transformer.h.0.attn.c_proj.weight"


def loud(config: GPT2Config) -> GPT2:
    """Weights far from zero, biases too, so that nothing wrong is small."""
    model = GPT2(config).init(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.build("embedded", "facts")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> GPT2:
    return loud(GPT2Config(n_layers=2, n_heads=2, d_model=16, block=48, vocab=tokenizer.embedding_width))


@pytest.fixture(scope="module")
def checkpoint(model: GPT2, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(model, tokenizer, tmp_path_factory.mktemp("models") / "checkpoint")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_hf(checkpoint, tmp_path_factory.mktemp("models") / "exported")


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy")


def same(a: Path, b: Path) -> bool:
    return digests_in(a) == digests_in(b)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ── our own folder ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_comes_back_bit_for_bit(checkpoint: Path, model: GPT2, tokenizer: Tokenizer, tmp_path: Path):
    found, reader = load_gpt2(checkpoint)
    assert found.config == model.config and reader.digest == tokenizer.digest and not found.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.state_dict().items())
    assert same(save_gpt2(found, reader, tmp_path / "again"), checkpoint)


def test_a_folder_that_holds_something_is_not_written_over(model: GPT2, tokenizer: Tokenizer, tmp_path: Path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="taken is there already"):
        save_gpt2(model, tokenizer, tmp_path / "taken")
    assert left_in(tmp_path / "taken") == ["thesis.txt"]


def test_a_tokenizer_wider_than_the_model_is_refused(tokenizer: Tokenizer, tmp_path: Path):
    narrow = GPT2(GPT2Config(1, 1, 8, 8, vocab=tokenizer.width - 1))
    with pytest.raises(
        BadInput, match=f"needs {tokenizer.width} embedding rows and the model has {tokenizer.width - 1}"
    ):
        save_gpt2(narrow, tokenizer, tmp_path / "x")
    assert left_in(tmp_path) == []


def spoil(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, file, metadata={"format": "pt"})
    file.with_name("model.safetensors.sha256").unlink(missing_ok=True)  # the tensors are what is judged, not the bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("h.1.mlp.c_fc.bias"), r"lacks 1 tensor\(s\): h.1.mlp.c_fc.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), r"has 1 tensor\(s\) .* no place for: extra"),
        (
            lambda t: t.update({"wpe.weight": torch.zeros(3, 16)}),
            r"wpe.weight has shape \(3, 16\), expected \(48, 16\)",
        ),
        (lambda t: t.update({"ln_f.bias": torch.zeros(16, dtype=torch.int32)}), "ln_f.bias holds torch.int32"),
        (lambda t: t["h.1.mlp.c_fc.weight"][3, 4].fill_(torch.nan), "h.1.mlp.c_fc.weight holds .* not finite"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_its_tensor(change, said: str, checkpoint: Path, tmp_path: Path):
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    spoil(damaged / "model.safetensors", change)
    with pytest.raises(BadInput, match=said):
        load_gpt2(damaged)


def test_a_truncated_file_and_a_missing_one_are_named(checkpoint: Path, tmp_path: Path):
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"model.safetensors was changed after it was written"):
        load_gpt2(damaged)
    (damaged / "model.safetensors.sha256").unlink()
    with pytest.raises(BadInput, match=r"model.safetensors cannot be read as weights"):
        load_gpt2(damaged)
    file.unlink()
    with pytest.raises(BadInput, match=r"model.safetensors cannot be read as weights"):
        load_gpt2(damaged)


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_hugging_face_loads_an_export_and_computes_the_same(vocabulary, tmp_path: Path):
    tokenizer = Tokenizer.build("embedded", vocabulary)
    model = loud(GPT2Config(n_layers=1, n_heads=4, d_model=32, block=32, vocab=tokenizer.embedding_width))
    folder = export_hf(save_gpt2(model, tokenizer, tmp_path / "ours"), tmp_path / "theirs")
    theirs, reader = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == "GPT2LMHeadModel" and theirs.dtype == torch.float32
    assert theirs.config.vocab_size == model.config.vocab == theirs.get_input_embeddings().weight.shape[0]
    text = tokenizer.prepare("There are 6*9=54 pens, <MUL_2_3_6> <|endoftext|> and more.")
    ids = torch.tensor([tokenizer.encode(text)])[:, :32]
    assert reader(text, add_special_tokens=False)["input_ids"][:32] == ids[0].tolist()
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), rtol=1e-5, atol=1e-4)


def test_hugging_faces_generate_never_writes_a_dead_id(exported: Path, model: GPT2, tokenizer: Tokenizer):
    theirs = AutoModelForCausalLM.from_pretrained(exported)
    dead = theirs.generation_config.suppress_tokens
    assert dead == sorted({*range(model.config.vocab)} - {i for ids in tokenizer.live for i in ids}) and dead
    with torch.no_grad():  # a model that wants nothing but dead ids
        theirs.transformer.ln_f.weight.zero_()
        theirs.transformer.ln_f.bias.copy_(100 * theirs.transformer.wte.weight[dead[3]])
    prompt = torch.tensor([[tokenizer.eot, 1, 2]])
    assert theirs(prompt).logits[0, -1].argmax() in dead
    for settings in ({"do_sample": False}, {"do_sample": True, "top_k": 0}):
        written = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, **settings)[0, 3:]
        before_end = [i for i in written.tolist() if i != theirs.generation_config.pad_token_id]
        assert before_end and not set(before_end) & set(dead)


def test_an_export_vouches_for_its_files_and_says_what_it_is(exported: Path, checkpoint: Path, tokenizer: Tokenizer):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["files"] == {
        name: digest for name, digest in digests_in(exported).items() if name != "manifest.json"
    }
    assert manifest["checkpoint"] == digests_in(checkpoint) and manifest["tokenizer"] == tokenizer.digest
    assert 0 <= manifest["parity"]["difference"] < 1e-4 * manifest["parity"]["largest"]
    card = (exported / "README.md").read_text()
    assert "<MUL_6_9_54>" in card and "suppress_tokens" in card and "facts rewrite --mode strict" in card


def test_rows_without_an_id_to_pad_with_are_padded_by_the_end_of_text(tmp_path: Path):
    """GPT-2's own 50,257 rows: the id after them, with which our tokenizers pad, has none."""
    tokenizer = Tokenizer.build("embedded", "digits")
    model = loud(GPT2Config(1, 2, 8, 32, vocab=tokenizer.base_size))
    folder = export_hf(save_gpt2(model, tokenizer, tmp_path / "ours"), tmp_path / "theirs")
    reader = AutoTokenizer.from_pretrained(folder)
    batch = reader(["6 pens", "six pens and nine more"], padding=True, return_tensors="pt")
    assert int(batch["input_ids"].max()) < tokenizer.base_size
    AutoModelForCausalLM.from_pretrained(folder)(**batch)
    assert Tokenizer.load(folder).digest == tokenizer.digest


# ── what must not get out ────────────────────────────────────────────────────────────────────────────────────────────


def swap_blocks(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if ".h.0." in name]:
        other = name.replace(".h.0.", ".h.1.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


MUTATIONS = {
    "a tensor dropped": (lambda t: t.pop("transformer.h.1.ln_2.bias"), "lacks 1 .*transformer.h.1.ln_2.bias"),
    "a tensor too many": (
        lambda t: t.update({"transformer.h.2.ln_1.bias": torch.ones(16)}),
        "too many: transformer.h.2",
    ),
    "the square one untransposed": (lambda t: t.update({SQUARE: t[SQUARE].T}), f"{SQUARE}: it is not transposed"),
    "two blocks swapped": (swap_blocks, r"wrong in transformer.h.\d.* it holds the values of h.\d.* instead of h.\d"),
    "another number format": (
        lambda t: t.update({SQUARE: t[SQUARE].half()}),
        f"{SQUARE}: it is stored as torch.float16",
    ),
    "one number changed": (
        lambda t: t["transformer.wpe.weight"][47, 3].add_(1e-3),
        "transformer.wpe.weight: its values",
    ),
    "the head untied": (lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"] + 1}), "too many: lm_head"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutated_export_does_not_pass_the_gate(mutation: str, copy: Path, model: GPT2, tokenizer: Tokenizer):
    check_export(copy, model, tokenizer)
    change, said = MUTATIONS[mutation]
    spoil(copy / "model.safetensors", change)
    with pytest.raises(Failed, match=said):
        check_export(copy, model, tokenizer)


@pytest.mark.parametrize(
    "settings",
    [{"n_head": 4}, {"layer_norm_epsilon": 1e-2}, {"activation_function": "relu"}, {"scale_attn_weights": False}],
)
def test_settings_with_which_it_computes_something_else_do_not_pass(
    settings, copy: Path, model: GPT2, tokenizer: Tokenizer
):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(Failed, match="logits differ"):
        check_export(copy, model, tokenizer)


def test_another_tokenizer_does_not_pass(copy: Path, model: GPT2, tokenizer: Tokenizer):
    Tokenizer.build("embedded", "digits").save(copy)
    with pytest.raises(Failed, match=r"tokenizer reads .* otherwise from token"):
        check_export(copy, model, tokenizer)


@pytest.mark.parametrize("forgotten", checkpoints.MAPS)
def test_a_writer_that_forgets_to_turn_a_matrix_writes_nothing(
    forgotten: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The fault of the original: with the square matrix left out of the list, everything loads and nothing is right."""
    monkeypatch.setattr(checkpoints, "MAPS", tuple(name for name in checkpoints.MAPS if name != forgotten))
    with pytest.raises(Failed, match=forgotten + ": it is not transposed"):
        export_hf(checkpoint, tmp_path / "out")
    assert left_in(tmp_path) == []


def test_a_full_disk_leaves_nothing_that_looks_whole(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange, "check_export", full)
    with pytest.raises(Failed, match="disk is full"):
        export_hf(checkpoint, tmp_path / "out")
    assert left_in(tmp_path) == []


# ── back ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_export_and_import_are_each_others_inverse(exported: Path, checkpoint: Path, tmp_path: Path):
    back = import_gpt2(exported, tmp_path / "back")
    assert same(back, checkpoint)
    assert same(export_hf(back, tmp_path / "exported"), exported)


def nanogpt(model: GPT2, wrapper: str = "", masks: bool = False) -> dict[str, Tensor]:
    """As nanoGPT and its kin store it: maps as [out, in], the head once more, maybe the causal masks."""
    state = {f"transformer.{name}": value for name, value in model.state_dict().items()}
    state["lm_head.weight"] = model.wte.weight.detach()
    if masks:
        state |= {f"transformer.h.{i}.attn.bias": torch.ones(48, 48).tril()[None, None] for i in range(2)}
    return {wrapper + name: value for name, value in state.items()}


@dataclasses.dataclass
class GPTConfig:
    block_size: int = 48
    vocab_size: int = 2176
    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 16


ARGS = dataclasses.asdict(GPTConfig())
FILES = {
    "nanoGPT": lambda model: {
        "model": nanogpt(model, masks=True),
        "model_args": ARGS,
        "iter_num": 3,
        "config": {"lr": 1.0},
    },
    "compiled": lambda model: {"model": nanogpt(model, "_orig_mod."), "model_args": ARGS, "optimizer": {"state": {}}},
    "compiled and parallel": lambda model: {"model": nanogpt(model, "module._orig_mod."), "model_args": ARGS},
    "build-nanogpt": lambda model: {"model": nanogpt(model), "config": GPTConfig(), "step": 5, "val_loss": 3.2},
    "a mapping as config": lambda model: {"model": nanogpt(model, "_orig_mod."), "config": ARGS, "step": 5},
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_nanogpt_and_its_kin_are_read(kind: str, model: GPT2, checkpoint: Path, tmp_path: Path):
    torch.save(FILES[kind](model), tmp_path / "model.pt")
    back = import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer")
    assert same(back, checkpoint)


def test_files_of_an_older_torch_are_read(model: GPT2, checkpoint: Path, tmp_path: Path):
    content = {"model": nanogpt(model), "model_args": ARGS}
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    back = import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer")
    assert same(back, checkpoint)
    torch.save({"model": Shell(tmp_path / "touched")}, tmp_path / "bad.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(BadInput, match=r"no file of torch.save that can be read safely"):
        import_gpt2(tmp_path / "bad.pt", tmp_path / "other")
    assert left_in(tmp_path) == ["back", "bad.pt", "model.pt"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("n_layer", 3, "n_layer = 3, its tensors 2"),
        ("block_size", 24, "= 24, its tensors 48"),
        ("n_embd", 8, "8, .* 16"),
    ],
)
def test_a_config_of_another_model_is_refused(field, value, said, model: GPT2, checkpoint: Path, tmp_path: Path):
    """Its number of heads could not be believed either, and no tensor shows that."""
    torch.save({"model": nanogpt(model), "model_args": ARGS | {field: value}}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match=said):
        import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer")


def test_the_heads_are_asked_for_where_nothing_says_them(model: GPT2, checkpoint: Path, tmp_path: Path):
    torch.save(nanogpt(model), tmp_path / "model.pt")
    with pytest.raises(BadInput, match="--heads"):
        import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer")
    back = import_gpt2(tmp_path / "model.pt", tmp_path / "back", n_heads=2, tokenizer=checkpoint / "tokenizer")
    assert same(back, checkpoint)
    torch.save({"model": nanogpt(model), "model_args": ARGS}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match="it has 2 attention heads, not 4: leave --heads out"):
        import_gpt2(tmp_path / "model.pt", tmp_path / "other", n_heads=4)


@pytest.mark.parametrize("rows", ["base_size", "first_fact", "width"])
def test_every_width_of_the_embedding_is_kept(rows: str, tmp_path: Path):
    """50,257, 50,304 and 50,349 in the originals; here the embedded tokenizer's, which are the same places."""
    tokenizer = Tokenizer.build("embedded", "digits")
    n_rows = {"base_size": tokenizer.base_size, "first_fact": tokenizer.facts.first_id, "width": tokenizer.width}[rows]
    model = loud(GPT2Config(2, 2, 16, 48, vocab=n_rows))
    torch.save({"model": nanogpt(model), "model_args": ARGS | {"vocab_size": n_rows}}, tmp_path / "model.pt")
    source, options = tmp_path / "model.pt", {"tokenizer": "embedded"}
    if rows == "width":
        with pytest.raises(BadInput, match="--vocabulary"):
            import_gpt2(source, tmp_path / "back", **options)
        options["vocabulary"] = "facts"
    found, reader = load_gpt2(import_gpt2(source, tmp_path / "back", **options))
    assert found.config.vocab == n_rows and reader.vocabulary == options.get("vocabulary", "digits")
    assert torch.equal(found.wte.weight, model.wte.weight)


def test_gpt2s_own_vocabulary_goes_all_the_way_round(shared_data: Path, tmp_path: Path):
    """Its 50,257 rows, which have none for the id that pads; the wider ones are tested with the embedded vocabulary."""
    model = loud(GPT2Config(2, 2, 16, 48, vocab=50257))
    torch.save({"model": nanogpt(model, "_orig_mod."), "config": ARGS | {"vocab_size": 50257}}, tmp_path / "model.pt")
    ours = import_gpt2(tmp_path / "model.pt", tmp_path / "ours", tokenizer=shared_data.parent / "tokenizers" / "gpt2")
    assert same(import_gpt2(export_hf(ours, tmp_path / "theirs"), tmp_path / "back"), ours)


def test_what_was_trained_without_biases_gets_zeros(model: GPT2, checkpoint: Path, tmp_path: Path):
    bare = {name: value for name, value in nanogpt(model).items() if not name.endswith("bias")}
    torch.save({"model": bare, "model_args": ARGS | {"bias": False}}, tmp_path / "model.pt")
    found, _ = load_gpt2(import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer"))
    assert all(bool((value == 0).all()) for name, value in found.state_dict().items() if name.endswith("bias"))
    torch.save({"model": bare, "model_args": ARGS}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match=r"has no biases at all: .* say so with --no-bias"):
        import_gpt2(tmp_path / "model.pt", tmp_path / "other", tokenizer=checkpoint / "tokenizer")
    torch.save(bare, tmp_path / "bare.pt")
    words = ("--heads", "2", "--tokenizer", checkpoint / "tokenizer")
    assert run("import-gpt2", tmp_path / "bare.pt", "--to", tmp_path / "bare", "--no-bias", *words) == 0
    assert same(tmp_path / "bare", tmp_path / "back")
    torch.save(nanogpt(model), tmp_path / "biased.pt")
    assert run("import-gpt2", tmp_path / "biased.pt", "--to", tmp_path / "other", "--no-bias", *words) == 2


class Shell:
    """A pickle that would touch a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_pickle_is_refused_and_not_run(model: GPT2, checkpoint: Path, tmp_path: Path):
    torch.save({"model": nanogpt(model), "config": Shell(tmp_path / "touched")}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match=r"holds Python objects .* refused"):
        import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer")
    assert left_in(tmp_path) == ["model.pt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("transformer.h.1.attn.c_proj.bias"), "lacks 1 .*h.1.attn.c_proj.bias"),
        (lambda t: t.update({"transformer.h.0.attn.rotary": torch.ones(2)}), "no place for: h.0.attn.rotary"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}), "lm_head.weight differs from the embedding"),
        (
            lambda t: t.update({"_orig_mod.transformer.ln_f.bias": torch.ones(16)}),
            "two tensors that both mean transformer.ln_f.bias",
        ),
        (lambda t: t.pop("transformer.h.0.attn.c_attn.weight"), "lacks h.0.attn.c_attn.weight: it is no GPT-2"),
        (lambda t: t.pop("transformer.wpe.weight"), "lacks the matrix wpe.weight"),
        (
            lambda t: [t.pop(name) for name in list(t) if ".h.1." in name],
            "n_layer = 2, its tensors 1: tensors are missing",
        ),
        (dict.clear, "lacks h.0.attn.c_attn.weight: it is no GPT-2"),
    ],
)
def test_a_file_that_is_not_quite_a_gpt2_is_refused(change, said: str, model: GPT2, checkpoint: Path, tmp_path: Path):
    tensors = nanogpt(model)
    change(tensors)
    torch.save({"model": tensors, "model_args": ARGS}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match=said):
        import_gpt2(tmp_path / "model.pt", tmp_path / "back", tokenizer=checkpoint / "tokenizer")
    assert left_in(tmp_path) == ["model.pt"]


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(BadInput, match=r"no file of torch.save"):
        import_gpt2(tmp_path / "model.pt", tmp_path / "back")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"n_inner": 20}, "n_inner is 20"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ],
)
def test_a_model_that_computes_something_else_is_not_imported(settings, said: str, copy: Path, tmp_path: Path):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(BadInput, match=said):
        import_gpt2(copy, tmp_path / "back")


@pytest.mark.parametrize("kind", ["safetensors", "bin", "sharded"])
def test_what_hugging_face_saves_computes_the_same_here(kind: str, tokenizer: Tokenizer, tmp_path: Path):
    torch.manual_seed(0)
    config = TheirConfig(
        vocab_size=tokenizer.width, n_positions=32, n_embd=24, n_layer=2, n_head=3, initializer_range=0.5
    )
    theirs = GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB" if kind == "sharded" else "1GB")
    if kind == "bin":
        (tmp_path / "theirs" / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == (kind == "sharded")
    tokenizer.save(tmp_path / "tokenizer")
    ours, reader = load_gpt2(import_gpt2(tmp_path / "theirs", tmp_path / "ours", tokenizer=tmp_path / "tokenizer"))
    ids = torch.randint(tokenizer.width, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-4)
    assert reader.digest == tokenizer.digest and ours.config.n_heads == 3


def test_a_hugging_face_model_of_old_is_imported(model: GPT2, tokenizer: Tokenizer, exported: Path, tmp_path: Path):
    """As the first GPT-2 was uploaded: no prefix, causal masks among the tensors."""
    folder = shutil.copytree(exported, tmp_path / "old")

    def age(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 48, 48).tril()
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    spoil(folder / "model.safetensors", age)
    found, _ = load_gpt2(import_gpt2(folder, tmp_path / "back"))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.state_dict().items())


# ── the hub, and the verbs ───────────────────────────────────────────────────────────────────────────────────────────


def test_pushing_offline_says_so(exported: Path):
    with pytest.raises(
        BadInput, match=r"'me/model' is not a local path, and the hub cannot be reached: HF_HUB_OFFLINE"
    ):
        push(exported, "me/model")


def test_a_name_that_is_no_repository_is_refused(exported: Path):
    with pytest.raises(BadInput, match="not a/b/c a name"):
        push(exported, "not a/b/c a name")


def test_what_was_changed_since_its_export_is_not_pushed(copy: Path):
    (copy / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"config.json was changed"):
        push(copy, "me/model")


def test_what_was_not_exported_is_not_pushed(checkpoint: Path):
    with pytest.raises(BadInput, match=r"has no manifest.json"):
        push(checkpoint, "me/model")


@pytest.fixture
def hub_cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub as if somebody had downloaded `me/model` before."""
    from huggingface_hub import constants

    place = tmp_path / "cache" / "models--me--model"
    shutil.copytree(exported, place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return place / "snapshots" / ("a" * 40)


def test_pulling_gives_the_folder_that_was_pushed(hub_cache: Path, exported: Path, tmp_path: Path):
    assert same(pull("me/model", tmp_path / "pulled"), exported)
    with pytest.raises(BadInput, match=r"'me/other' .* the hub cannot be reached"):
        pull("me/other", tmp_path / "other")
    assert "other" not in left_in(tmp_path)


def test_a_download_that_is_not_what_was_exported_is_refused(hub_cache: Path, tmp_path: Path):
    (hub_cache / "model.safetensors").write_bytes(b"half")
    with pytest.raises(BadInput, match=r"model.safetensors was changed"):
        pull("me/model", tmp_path / "pulled")
    assert "pulled" not in left_in(tmp_path)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_verbs_go_there_and_back(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("export", checkpoint, "--to", tmp_path / "out") == 0
    assert run("import-gpt2", tmp_path / "out", "--to", tmp_path / "back") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out"), str(tmp_path / "back")]
    assert same(tmp_path / "back", checkpoint)


def test_a_run_is_exported_by_its_checkpoint(checkpoint: Path, tmp_path: Path):
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint" / "model")
    assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "/nowhere", "--to", "x"), "no GPT-2 checkpoint of ours"),
        (("import-gpt2", "/nowhere/model.pt", "--to", "x"), "no such file or folder"),
        (("import-gpt2", "{checkpoint}", "--to", "x"), "a checkpoint of ours already"),
        (("export", "{checkpoint}", "--to", "{checkpoint}"), "is there already"),
        (("pull", "me/absent", "--to", "x"), "the hub cannot be reached"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(words, said: str, checkpoint: Path, capsys):
    assert run(*(word.format(checkpoint=checkpoint) for word in words)) == 2
    assert said in capsys.readouterr().err


def test_a_model_wider_than_one_matrix_keeps_its_shape(tokenizer: Tokenizer, tmp_path: Path):
    """Where 3·width is also a width of something: orientation must not be guessed from the wrong shape."""
    model = loud(GPT2Config(n_layers=1, n_heads=1, d_model=8, block=24, vocab=tokenizer.embedding_width))
    wide = loud(replace(model.config, d_model=24, block=8))
    for n, one in enumerate((model, wide)):
        ours = save_gpt2(one, tokenizer, tmp_path / f"ours{n}")
        assert same(import_gpt2(export_hf(ours, tmp_path / f"out{n}"), tmp_path / f"back{n}"), ours)


def test_the_gate_names_the_folder_it_does_not_write(checkpoint: Path, exported: Path):
    with pytest.raises(BadInput, match="is there already"):
        export_hf(checkpoint, exported)
    assert checkpoint_in(checkpoint) == checkpoint
