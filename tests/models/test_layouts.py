"""Models as people have them: padded, wrapped, sharded, adapted, half downloaded. Each gives the right states, or is refused."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.models.conftest import ALL_FAMILIES, ALPHA, OWN_SHAPE, TARGETS, Released, tiny_base
from workings.errors import BadInput
from workings.evals.settings import checked_tasks
from workings.experiment import load, plan
from workings.judging.ablation import self_check
from workings.models.checkpoint import import_gpt2, load_gpt2, resolve
from workings.models.codi import CODI, open_model
from workings.models.language import open_language
from workings.models.pickles import read_saved
from workings.models.pretrained import load_base, load_transformers
from workings.models.weights import fingerprint_of
from workings.reading import PerPositionLens, TunedLens
from workings.text.tokenizer import Tokenizer, word_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 548105171\n"


@torch.no_grad()
def matches(model: CODI, released: Released, question: str) -> bool:
    """Whether the states are those of the model that was saved, which is asked with the ids that the official code has."""
    ids = torch.tensor([[*model.tokenizer(question)["input_ids"], len(model.tokenizer) + 1]])
    expected = torch.stack(released.states(ids), 1)
    return bool((model.think(question).hidden[:, :, -1] - expected).abs().max() < 1e-3)  # other ids give 0.1


# ── special ids ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("multiple", [1, 8, 64, 128])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_padded_to_a_multiple_do_not_move_the_special_ids(words, tmp_path, questions, family, multiple):
    needed = len(words) + 3
    released = Released(family, words, tmp_path, rows=-(-needed // multiple) * multiple)
    file = released.write(tmp_path / "ckpt" / "model.safetensors")
    model = CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)
    assert (model.config.pad_id, model.config.bot_id, model.config.eot_id) == (needed - 3, needed - 2, needed - 1)
    assert matches(model, released, questions[1])
    again = CODI.load(model.save(tmp_path / "saved"))
    assert again.config == model.config and matches(again, released, questions[1])
    back = CODI.load(again.save_released(tmp_path / "out"), base=tmp_path / "base", lora_alpha=ALPHA)
    assert back.config == model.config and matches(back, released, questions[1])


@pytest.mark.parametrize("more", [-1, 1, 2])
def test_another_number_of_rows_is_refused_with_both_numbers(words, tmp_path, more):
    needed = len(words) + 3
    released = Released("gpt2", words, tmp_path, rows=needed + more)
    file = released.write(tmp_path / "ckpt" / "model.safetensors")
    with pytest.raises(BadInput, match=f"has {needed + more} embedding rows, and its base needs {needed}"):
        CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)


# ── scales of LoRA ───────────────────────────────────────────────────────────────────────────────────────────────────

SCALES = [
    {"lora_alpha": 5},
    {"use_rslora": True},
    {"alpha_pattern": {"c_fc": 11, "h.1.attn.c_attn": 2}},
    {"rank_pattern": {"c_attn": 5, "h.0.mlp.c_proj": 2}},
    {"rank_pattern": {"c_attn": 5}, "alpha_pattern": {"c_attn": 1}, "use_rslora": True},
]


@pytest.mark.parametrize("fields", SCALES)
def test_the_adapter_config_beside_the_weights_decides_how_factors_count(words, tmp_path, questions, fields):
    released = Released("gpt2", words, tmp_path, lora=fields)
    file = released.write(tmp_path / "ckpt" / "model.safetensors")
    released.model.peft_config["default"].save_pretrained(file.parent)
    model = CODI.load(file.parent, base=tmp_path / "base")
    assert matches(model, released, questions[1])
    out = model.save_released(tmp_path / "out")  # there is no adapter_config.json in this layout
    back = CODI.load(out, base=tmp_path / "base", lora_alpha=model.config.lora_alpha)
    assert (back.think(questions).hidden - model.think(questions).hidden).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "use_dora is 'True', which is not supported"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"something_new": 3}, "something_new is '3'"),
        ({"r": 4}, r"has rank 4, its factors have 3: another adapter's"),
        ({"lora_alpha": "many"}, "cannot be read as the config of a LoRA adapter"),
        ({"lora_alpha": 5}, r"says lora_alpha = 5, and 7 was given: leave --lora-alpha out"),
    ],
)
def test_an_adapter_config_that_asks_for_something_else_is_refused(words, tmp_path, fields, said):
    file = Released("gpt2", words, tmp_path).write(tmp_path / "ckpt" / "model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": ALPHA,
        "qalora_group_size": 16,
        "megatron_core": "megatron.core",
    }
    (file.parent / "adapter_config.json").write_text(json.dumps(config | fields))
    with pytest.raises(BadInput, match=said):
        CODI.load(file.parent, base=tmp_path / "base", lora_alpha=ALPHA)


def test_what_thinks_differently_has_another_fingerprint(words, tmp_path):
    released = Released("gpt2", words, tmp_path)
    file = released.write(tmp_path / "ckpt" / "model.safetensors")
    opened = [CODI.load(file, base=tmp_path / "base", lora_alpha=alpha).fingerprint for alpha in (32, 7, 8)]
    assert opened[0] == fingerprint_of(file), "as in earlier versions"
    for fields in ({"lora_alpha": 7}, {"lora_alpha": 7, "use_rslora": True}):
        (file.parent / "adapter_config.json").write_text(json.dumps({"r": 3} | fields))
        opened.append(CODI.load(file, base=tmp_path / "base").fingerprint)
    assert len({*opened}) == 4 and opened[1] == opened[3]


# ── what frameworks put round a released CODI ────────────────────────────────────────────────────────────────────────


def renamed(state: dict, change) -> dict:
    return {change(name): value for name, value in state.items()}


def sharded(state: dict, folder: Path, ending: str = "safetensors") -> Path:
    """Two files and an index, as transformers names them."""
    names, stem = sorted(state), "model" if ending == "safetensors" else "pytorch_model"
    placed = {name: f"{stem}-0000{1 + i % 2}-of-00002.{ending}" for i, name in enumerate(names)}
    for file in set(placed.values()):
        some = {name: state[name] for name in names if placed[name] == file}
        (save_file if ending == "safetensors" else torch.save)(some, folder / file)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


LAYOUTS = {
    "sharded": lambda state, folder: sharded(state, folder).parent,
    "sharded bin": lambda state, folder: sharded(state, folder, "bin").parent,
    "the index itself": sharded,
    "parallel": lambda state, folder: saved(renamed(state, lambda n: f"module.{n}"), folder / "model.safetensors"),
    "compiled": lambda state, folder: saved(renamed(state, lambda n: f"_orig_mod.{n}"), folder / "model.safetensors"),
    "compiled parts": lambda state, folder: saved(
        renamed(state, lambda n: n.replace("codi.", "codi._orig_mod.", 1)), folder / "pytorch_model.bin"
    ),
    "fsdp": lambda state, folder: saved(
        renamed(state, lambda n: f"_fsdp_wrapped_module.{n.replace('.h.', '.h._fsdp_wrapped_module.')}"),
        folder / "pytorch_model.bin",
    ),
    "lightning": lambda state, folder: saved(
        {
            "state_dict": renamed(state, lambda n: f"model.{n}"),
            "hyper_parameters": argparse.Namespace(lr=np.float32(0.1)),
            "callbacks": defaultdict(list, a=[1]),
        },
        folder / "last.ckpt",
    ),
    "deepspeed": lambda state, folder: saved(
        {"module": renamed(state, lambda n: f"module.{n}"), "ds_version": "0.17", "path": Path("/tmp")},
        folder / "mp_rank_00_model_states.pt",
    ),
    "another adapter name": lambda state, folder: saved(
        renamed(state, lambda n: n.replace(".default.", ".reasoning.")), folder / "model.safetensors"
    ),
}


def saved(content: dict, file: Path) -> Path:
    (save_file if file.suffix == ".safetensors" else torch.save)(content, file)
    return file


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_released_codi_is_read_in_every_layout_it_is_saved_in(words, tmp_path, questions, layout):
    released = Released("gpt2", words, tmp_path)
    (tmp_path / "ckpt").mkdir()
    place = LAYOUTS[layout](released.state, tmp_path / "ckpt")
    assert matches(CODI.load(place, base=tmp_path / "base", lora_alpha=ALPHA), released, questions[1])


def test_two_adapters_in_one_file_are_refused(words, tmp_path):
    released = Released("gpt2", words, tmp_path)
    more = {n.replace(".default.", ".other."): v.clone() for n, v in released.state.items() if ".default." in n}
    file = saved(released.state | more, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"holds 2 adapters \(default, other\)"):
        CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)


def test_a_codi_saved_by_peft_takes_its_other_weights_from_the_base(words, tmp_path, questions):
    """Factors, the embedding with its three rows and the projection are in the adapter's file; the rest is the base's."""
    released = Released("llama", words, tmp_path, dtype=torch.float32)
    kept = {
        name.removeprefix("codi.").replace(".default.", ".").replace(".base_layer.", "."): value
        for name, value in released.state.items()
        if "lora_" in name or "embed_tokens" in name or name.startswith("prj.")
    }
    folder = tmp_path / "adapter"
    folder.mkdir()
    saved(kept, folder / "adapter_model.safetensors")
    released.model.peft_config["default"].save_pretrained(folder)
    assert matches(CODI.load(folder, base=tmp_path / "base"), released, questions[1])
    saved({n: v for n, v in kept.items() if "embed" not in n}, folder / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=f"has {len(words)} embedding rows, and its base needs {len(words) + 3}"):
        CODI.load(folder, base=tmp_path / "base")


# ── bases ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def base(words, tmp_path) -> Path:
    tiny_base("llama", len(words)).save_pretrained(tmp_path / "base")
    words.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_base_of_every_family_opens_and_thinks_and_is_judged(words, tmp_path, questions, family):
    base = tiny_base(family, len(words))
    base.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    thoughts = open_model(tmp_path, n_thoughts=2).think(questions)
    assert thoughts.hidden.isfinite().all() and thoughts.hidden.std() > 0.01
    ids = [5, 6, 7, 8]
    with torch.no_grad():
        expected = base(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(open_language(tmp_path, "cpu").next_logprobs([ids])[0], expected, rtol=1e-5, atol=1e-5)
    assert set(OWN_SHAPE) <= set(ALL_FAMILIES)


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe", "gpt_neox"])
def test_a_codi_of_a_family_is_saved_and_opened_again(words, tmp_path, questions, family):
    model = CODI.wrap(tiny_base(family, len(words)), words, n_thoughts=2).eval()
    again = CODI.load(model.save(tmp_path / "saved"))
    assert torch.equal(again.think(questions).hidden, model.think(questions).hidden)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "learner.network."])
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_base_is_read_whatever_wraps_its_names(base, questions, wrapper, ending):
    expected = open_model(base).think(questions).hidden
    tensors = renamed(load_file(base / "model.safetensors"), lambda name: wrapper + name)
    (base / "model.safetensors").unlink()
    saved(tensors, base / ("model.safetensors" if ending == "safetensors" else "pytorch_model.bin"))
    assert torch.equal(open_model(base).think(questions).hidden, expected)
    tensors.pop(f"{wrapper}model.norm.weight")
    saved(tensors, base / ("model.safetensors" if ending == "safetensors" else "pytorch_model.bin"))
    with pytest.raises(BadInput, match=r"lacks 1 tensor\(s\): model.norm.weight"):
        open_model(base)


def strict(base: Path, change) -> None:
    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_nothing_that_a_base_lacks_is_drawn_at_random(words, tmp_path, family, tied):
    tiny_base(family, len(words), tied=tied, layers=1).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    kinds = {re.sub(r"\d+", "0", name): name for name in whole}
    for gone in kinds.values():
        save_file(
            {k: v for k, v in whole.items() if k != gone}, tmp_path / "model.safetensors", metadata={"format": "pt"}
        )
        with pytest.raises(BadInput):
            load_base(tmp_path)
    name = sorted(kinds.values())[-1]
    save_file(
        whole | {name: torch.full_like(whole[name], torch.nan)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(BadInput, match="not finite"):
        load_base(tmp_path)


@pytest.mark.parametrize("fields", [{"lora_alpha": 5}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_peft_folder_is_its_base_with_the_adapter_added(words, tmp_path, family, fields):
    base = tiny_base(family, len(words), tied=False)
    base.save_pretrained(tmp_path / "base")
    words.save_pretrained(tmp_path / "base")
    config = LoraConfig(**({"r": 3, "target_modules": TARGETS[family], "fan_in_fan_out": family == "gpt2"} | fields))
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = adapted(ids).logits
        torch.testing.assert_close(
            load_transformers(tmp_path / "adapter")[0](ids).logits, expected, rtol=1e-5, atol=1e-5
        )
    judged, plain = open_language(tmp_path / "adapter", "cpu"), open_language(tmp_path / "base", "cpu")
    torch.testing.assert_close(
        judged.next_logprobs(ids.tolist())[0], expected[0, -1].log_softmax(-1), rtol=1e-5, atol=1e-5
    )
    assert judged.fingerprint != plain.fingerprint
    assert open_model(tmp_path / "adapter").fingerprint != open_model(tmp_path / "base").fingerprint
    shutil.move(tmp_path / "base", tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"is an adapter of .*base.*no such file or folder"):
        open_model(tmp_path / "adapter")
    open_model(tmp_path / "adapter", base=tmp_path / "elsewhere")


# ── what is not a model ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_called_by_its_name(base, name):
    (base / name).write_bytes(POINTER)
    for opened in (open_model, open_language, resolve):
        with pytest.raises(BadInput, match=rf"{name} is a Git LFS pointer, not the file itself: run 'git lfs pull'"):
            opened(base)


def own_code(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    auto = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    (base / "config.json").write_text(json.dumps(config | {"model_type": "theirs", "auto_map": auto}))
    (base / "theirs.py").write_text("raise SystemExit('this was run')")


DAMAGE = {
    "code of its own": (own_code, r"it needs code of its own \(auto_map\), which is not run"),
    "no config": (lambda base: (base / "config.json").unlink(), "A plain model needs its config.json"),
    "a list as config": (lambda base: (base / "config.json").write_text("[]"), "names no model_type"),
    "half a config": (lambda base: (base / "config.json").write_text('{"model_'), "cannot be read as JSON"),
    "an unknown family": (
        lambda base: (base / "config.json").write_text('{"model_type": "telepathy"}'),
        "this version of transformers has no such model_type",
    ),
    "no tokenizer": (lambda base: [f.unlink() for f in base.glob("tokenizer*")], "no tokenizer that can be read: it has neither"),
    "half a tokenizer": (lambda base: (base / "tokenizer.json").write_text('{"a": 1}'), "has no tokenizer that can be read"),
    "no weights": (lambda base: (base / "model.safetensors").unlink(), "holds no weights .* copy or download"),
    "other weights": (
        lambda base: (base / "model.safetensors").rename(base / "last.ckpt"),
        r"holds no weights .* name the file itself \(last.ckpt\)",
    ),
    "half of the weights": (lambda base: (base / "model.safetensors").write_bytes(b"12345678{"), "can load|cannot be read"),
    "a shard gone": (
        lambda base: [sharded(load_file(base / "model.safetensors"), base), (base / "model.safetensors").unlink(),
                      (base / "model-00002-of-00002.safetensors").unlink()],
        "lacks model-00002-of-00002.safetensors, which its index names",
    ),
    "an empty index": (
        lambda base: [(base / "model.safetensors").unlink(), (base / "model.safetensors.index.json").write_text("{}")],
        "is no index of weights that can be read",
    ),
    "a pickle": (
        lambda base: [(base / "model.safetensors").unlink(), torch.save(SimpleNamespace(a=print), base / "pytorch_model.bin")],
        r"holds Python objects \(builtins.print\)",
    ),
    "packed weights": (
        lambda base: strict(base, lambda t: t.update({"model.norm.weight": torch.zeros(3)})),
        r"model.norm.weight has shape \(3,\), expected \(16,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("opened", [open_model, load_base, open_language])
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_whole_base_is_refused_in_a_sentence(base, damage, opened, capsys):
    change, said = DAMAGE[damage]
    change(base)
    with pytest.raises(BadInput, match=said if opened is open_model else None) as error:
        opened(base)
    text = str(error.value)
    assert "weights_only" not in text and "trust_remote_code" not in text and not text.rstrip().endswith(":")
    assert "[y/N]" not in capsys.readouterr().out


# ── files of torch.save ──────────────────────────────────────────────────────────────────────────────────────────────


class TrainingArguments:
    """A trainer's settings, which are no Config by name."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


class AttributeDict(dict):
    """As Lightning's."""


SETTINGS = {
    "numpy scalars": {"best_val_loss": np.float32(1.5), "iter_num": np.int64(3)},
    "numpy arrays": {"rng": np.arange(3)},
    "a namespace": {"args": argparse.Namespace(lr=0.1)},
    "a simple namespace": {"args": SimpleNamespace(lr=0.1, inner=SimpleNamespace(a=1))},
    "a path": {"out_dir": Path("/tmp/out")},
    "a defaultdict": {"history": defaultdict(list, loss=[1.0])},
    "an object": {"training_args": TrainingArguments(path=Path("/tmp"), number=np.float64(2))},
    "a mapping of a class": {"hyper_parameters": AttributeDict(lr=0.1)},
    "a dtype": {"dtype": np.dtype("int32"), "kind": np.float32},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_beside_the_weights_are_held_by_stand_ins(tmp_path, settings):
    torch.save({"model": {"a.weight": torch.ones(2)}} | SETTINGS[settings], tmp_path / "model.pt")
    tensors, _ = read_saved(tmp_path / "model.pt")
    assert torch.equal(tensors["a.weight"], torch.ones(2))


def test_numbers_of_numpy_in_a_config_are_numbers(tmp_path):
    config = argparse.Namespace(n_head=np.int64(2), bias=np.bool_(False), lr=np.dtype(">f4").type(0.5), name="tiny")
    torch.save({"model": {"a": torch.ones(1)}, "config": config}, tmp_path / "model.pt")
    assert read_saved(tmp_path / "model.pt")[1] == {"n_head": 2, "bias": False, "lr": 0.5, "name": "tiny"}


class Caller:
    def __init__(self, function, *given) -> None:
        self.call = function, given

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call", [(eval, "1/0"), (getattr, Path, "touch"), (shutil.rmtree, "/nowhere"), (pickle.loads, b"")]
)
def test_a_function_that_a_file_wants_called_is_not(tmp_path, call):
    torch.save({"model": {"a": torch.ones(1)}, "config": Caller(*call)}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match=r"holds Python objects .* so it is refused"):
        read_saved(tmp_path / "model.pt")


def test_a_whole_module_is_no_mapping_of_tensors(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(BadInput) as error:
        read_saved(tmp_path / "model.pt")
    assert "state_dict()" in str(error.value) and "weights_only" not in str(error.value)


def test_a_gpt2_inside_a_lightning_module_is_imported(tmp_path):
    tokenizer = Tokenizer.build("embedded", "digits")
    torch.manual_seed(0)
    base = tiny_base("gpt2", tokenizer.embedding_width)
    tokenizer.save(tmp_path / "tokenizer")
    content = {
        "state_dict": {f"model.{k}": v for k, v in base.state_dict().items()},
        "hyper_parameters": AttributeDict(n_head=np.int64(4)),
    }
    torch.save(content, tmp_path / "last.ckpt")
    own, _ = load_gpt2(import_gpt2(tmp_path / "last.ckpt", tmp_path / "own", tokenizer=tmp_path / "tokenizer"))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(own(ids), base(ids).logits, rtol=1e-5, atol=1e-4)
    assert own.config.n_heads == 4


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_string_is_one_question(thinker, questions):
    model, question = thinker(), questions[1]
    assert model.answer(question) == model.answer([question])
    assert model.write_and_answer(question) == model.write_and_answer([question])
    assert torch.equal(model.think(question).hidden, model.think([question]).hidden)
    assert torch.equal(model.prompt(question).ids, model.prompt([question]).ids)
    assert model.question_ids(question) == model.question_ids([question])
    assert model.think_and_answer(question)[1] == model.answer([question])


def test_one_string_is_one_name_or_text_everywhere(thinker, toy):
    model, tokenizer = thinker(), Tokenizer.build("embedded", "digits")
    assert PerPositionLens.of(model, "block1", positions="t1").positions == ("t1",)
    assert TunedLens.of(model, "block1").layers == ("block1",)
    assert self_check(model, "a has 3 pens .") == self_check(model, ["a has 3 pens ."])
    assert [ids.tolist() for ids in tokenizer.encode_batch("6 * 9")] == [tokenizer.encode("6 * 9")]
    assert word_tokenizer("pens").get_vocab() == word_tokenizer(["pens"]).get_vocab()
    assert checked_tasks("probes") == ["probes"]
    assert plan(load(toy), "steady", overrides="n=3") == plan(load(toy), ["steady"], overrides=["n=3"])


def test_words_that_the_vocabulary_lacks_are_said_once(thinker, recwarn):
    model = thinker()
    model.answer("a has 3 pens . how many now ?")
    assert not recwarn.list
    for _ in range(2):
        model.answer(["a has 3 pens .", "Zorglub has 3 quuxes . how many now ?"])
    (warning,) = [w for w in recwarn.list if "vocabulary" in str(w.message)]
    assert "lacks 'Zorglub', 'quuxes' (of 'Zorglub has 3 quuxes" in str(warning.message)
