"""Weights go in and out whole or not at all, whatever the kind of model, and whatever happens meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.models.conftest import tiny_base
from workings.errors import BadInput, Failed
from workings.files import lock
from workings.models import weights
from workings.models.checkpoint import load_gpt2, save_gpt2
from workings.models.codi import CODI, open_model
from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.models.language import open_language
from workings.models.weights import appearing, fill
from workings.text.tokenizer import Tokenizer

DIGEST = "model.safetensors.sha256"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spoiled(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """Change tensors as a training that went wrong would have: before their digest was taken."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    (folder / DIGEST).unlink(missing_ok=True)
    return folder


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.build("embedded", "digits")
    model = GPT2(GPT2Config(n_layers=1, n_heads=1, d_model=8, block=16, vocab=tokenizer.embedding_width)).init(0)
    return save_gpt2(model, tokenizer, tmp_path / "gpt2")


# ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["prj.1.weight", "base.transformer.h.1.mlp.c_fc.weight"])
def test_a_codi_with_a_number_that_is_not_finite_is_refused(thinker, tmp_path, name: str, value: float):
    folder = spoiled(thinker().save(tmp_path / "saved"), lambda tensors: tensors[name][1, 2].fill_(value))
    with pytest.raises(BadInput, match=f"{name} holds numbers that are not finite"):
        CODI.load(folder)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_base_with_a_number_that_is_not_finite_is_refused(words, tmp_path, family: str):
    base = tiny_base(family, len(words))
    next(iter(base.parameters())).data[3, 4] = torch.nan
    base.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    for opened in (open_model, open_language):
        with pytest.raises(BadInput, match="not finite"):
            opened(tmp_path)


def test_a_base_with_a_tensor_missing_is_not_wrapped(words, tmp_path):
    """transformers would draw it at random and go on."""
    tiny_base("gpt2", len(words)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    spoiled(tmp_path, lambda tensors: tensors.pop("transformer.ln_f.bias"))
    with pytest.raises(BadInput, match=r"lacks 1 tensor\(s\): transformer.ln_f.bias"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("0.bias"), r"here lacks 1 tensor\(s\): 0.bias"),
        (lambda t: t.update(more=torch.ones(1)), r"here has 1 tensor\(s\) that this model has no place for: more"),
        (lambda t: t.update({"1.weight": torch.ones(2, 3)}), r"1.weight has shape \(2, 3\), expected \(2, 2\)"),
        (lambda t: t.update({"1.bias": torch.ones(2, dtype=torch.int64)}), "1.bias holds torch.int64"),
        (lambda t: t["1.bias"].fill_(torch.inf), "1.bias holds numbers that are not finite"),
    ],
)
def test_an_error_leaves_the_model_as_it_was(change, said: str):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = {name: value + 1 for name, value in before.items()}
    change(tensors)
    with pytest.raises(BadInput, match=said):
        fill(model, tensors, "here")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["codi", "gpt2"])
def test_weights_that_were_changed_are_refused_and_without_a_digest_open_as_before(thinker, gpt2, tmp_path, kind: str):
    """A checkpoint written before there were digests has none."""
    folder = gpt2 if kind == "gpt2" else thinker().save(tmp_path / "codi")
    opened = load_gpt2 if kind == "gpt2" else CODI.load
    opened(folder)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # still a finite number of a tensor of the right shape
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"model.safetensors was changed after it was written.*delete .*sha256"):
        opened(folder)
    (folder / DIGEST).unlink()
    opened(folder)


# ── what goes out ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["save_file", "sha256_of"])
def test_a_full_disk_leaves_nothing_of_a_codi(thinker, tmp_path, monkeypatch: pytest.MonkeyPatch, what: str):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, what, full)
    with pytest.raises(Failed, match="disk is full"):
        thinker().save(tmp_path / "saved")
    assert left_in(tmp_path) == []


KILLED = """
import os, signal, sys
from workings.models import codi
model = codi.CODI.load("bundled")
write = codi.write_tensors
def killed(tensors, file):
    write(tensors, file)
    os.kill(os.getpid(), signal.SIGKILL)
codi.write_tensors = killed
model.save(sys.argv[1])
"""


def test_a_killed_save_leaves_nothing_that_looks_whole_and_the_next_one_cleans_up(thinker, tmp_path):
    place = tmp_path / "saved"
    done = subprocess.run([sys.executable, "-c", KILLED, place], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not place.exists() and len(left_in(tmp_path)) == 1
    thinker().save(place)
    assert left_in(tmp_path) == ["saved"]


def test_what_another_process_is_writing_now_is_left_alone(tmp_path):
    written, abandoned = (tmp_path / f".here.{pid}.partial" for pid in (1, 2))
    written.mkdir(), abandoned.mkdir()
    with lock(written), appearing(tmp_path / "here") as partial:
        (partial / "mine").write_text("1")
    assert left_in(tmp_path) == [".here.1.partial", "here"]
    assert left_in(tmp_path / "here") == ["mine"]
