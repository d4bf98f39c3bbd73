"""GPT2 × tokenizer ⇄ a folder that holds all that is needed to run it: config.json, model.safetensors, tokenizer/.

Other layouts are elsewhere: Hugging Face's in `export.py`, nanoGPT's files in `nanogpt.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from workings.config import from_dict, to_dict
from workings.errors import BadInput
from workings.files import explained, is_disk_full, to_json
from workings.models.gpt2 import GPT2, GPT2Config
from workings.text.tokenizer import Tokenizer

FAMILY = "workings-gpt2"


def save_gpt2(model: GPT2, tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write a checkpoint; it appears whole or not at all. BadInput if the folder already holds something."""
    check_widths(model.config, tokenizer)
    with appearing(Path(folder)) as partial:
        (partial / "config.json").write_text(to_json({"family": FAMILY} | to_dict(model.config)))
        write_tensors(model.state_dict(), partial / "model.safetensors")
        tokenizer.save(partial / "tokenizer")
    return Path(folder)


def load_gpt2(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[GPT2, Tokenizer]:
    """What `save_gpt2` wrote, in evaluation mode. BadInput names the tensor or file that is not as it should be."""
    folder = Path(folder)
    if not is_gpt2(folder):
        raise BadInput(f"{folder} is no GPT-2 checkpoint of ours: it has no config.json with the family {FAMILY}")
    fields = json.loads((folder / "config.json").read_text())
    del fields["family"]
    model = GPT2(from_dict(GPT2Config, fields))
    fill(model, read_tensors(folder / "model.safetensors"), str(folder))
    tokenizer = Tokenizer.load(folder / "tokenizer")
    check_widths(model.config, tokenizer)
    return model.to(device, dtype).eval(), tokenizer


def is_gpt2(folder: str | Path) -> bool:
    """Whether this is a folder of `save_gpt2`, whole or not."""
    try:
        return json.loads((Path(folder) / "config.json").read_text()).get("family") == FAMILY
    except (OSError, ValueError, AttributeError):
        return False


def check_widths(config: GPT2Config, tokenizer: Tokenizer) -> None:
    """BadInput if the tokenizer has ids that the model has no row for."""
    if tokenizer.width > config.vocab:
        raise BadInput(
            f"the tokenizer has {tokenizer.width} ids and the model {config.vocab} embedding rows: they do not belong together"
        )


def fill(model: GPT2, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy weights in. BadInput unless every tensor of the model is there, of its shape, and floating, and no other is."""
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing:
        raise BadInput(f"{source} lacks {len(missing)} tensor(s): {listed(missing)}. It is not a whole GPT-2.")
    if extra:
        raise BadInput(f"{source} has {len(extra)} tensor(s) that a GPT-2 has no place for: {listed(extra)}")
    for name, place in wanted.items():
        given = tensors[name]
        if given.shape != place.shape:
            raise BadInput(f"{source}: {name} has shape {tuple(given.shape)}, expected {tuple(place.shape)}")
        if not given.is_floating_point():
            raise BadInput(f"{source}: {name} holds {given.dtype}, not floating-point numbers")
        place.copy_(given)


def listed(names: list[str]) -> str:
    """A few names in a sentence."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """A .safetensors file that others may read."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)  # it is made readable by its owner only


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file. BadInput where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{file} cannot be read as weights ({error}): copy the whole folder again") from error


@contextmanager
def appearing(folder: Path) -> Generator[Path, None, None]:
    """A folder beside `folder` to write into, which takes its name when all went well and is removed when not.

    BadInput if there is something at `folder` already; what the disk refused is explained.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already; name a new folder, so that nothing is overwritten")
    partial = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        _take_the_name(partial, folder)
    except Exception as error:
        if isinstance(error, OSError) or is_disk_full(error):
            raise explained(error, folder) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_the_name(partial: Path, folder: Path) -> None:
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
