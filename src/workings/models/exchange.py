"""GPT2 × tokenizer ⇄ a folder that holds all that is needed to run it: config.json, model.safetensors, tokenizer/.

Beside it, what goes to the hub and comes from there. Other layouts: `export.py` writes them, `importing.py` reads them.
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
from workings.errors import BadInput, Failed
from workings.files import explained, is_disk_full, sha256_of, to_json
from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.text.tokenizer import Tokenizer

FAMILY = "workings-gpt2"
MANIFEST = "manifest.json"


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


def checkpoint_in(place: str | Path) -> Path:
    """The checkpoint folder that `place` is, or that the run at `place` holds. BadInput if there is none."""
    for folder in (Path(place), Path(place) / "checkpoint" / "model"):
        if is_gpt2(folder):
            return folder
    raise BadInput(
        f"{place} is no GPT-2 checkpoint of ours and no run that holds one: name a folder that training wrote"
    )


def check_widths(config: GPT2Config, tokenizer: Tokenizer) -> None:
    """BadInput if the tokenizer gives ids that the model has no row for (ids of its width that nothing encodes to may lack one)."""
    needed = max(tokenizer.live[-1].stop, tokenizer.eot + 1)
    if needed > config.vocab:
        raise BadInput(
            f"the tokenizer needs {needed} embedding rows and the model has {config.vocab}: they do not belong together"
        )


def fill(model: GPT2, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy weights in. BadInput unless every tensor of the model is there, of its shape, in finite numbers, and no other is."""
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
        if not bool(given.isfinite().all()):
            raise BadInput(
                f"{source}: {name} holds numbers that are not finite: the training that wrote it had gone wrong"
            )
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


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def push(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload an exported folder to `owner/name`, made if it is not there; its address. BadInput before a byte is sent.

    What lies in the folder must be what its manifest vouches for. Failed where the hub or the network refuses.
    """
    from huggingface_hub import HfApi

    check_manifest(Path(folder), required=True)
    with _hub_in_words(repository):
        api = HfApi()
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Exported with workings")
    return str(made)


def pull(repository: str, folder: str | Path) -> Path:
    """Download `owner/name[@revision]` into a new folder, whole or not at all; offline, what the local cache has.

    A manifest that comes with it is checked, file by file.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    with appearing(Path(folder)) as partial:
        with _hub_in_words(repository):
            snapshot = snapshot_download(name, revision=revision or None)
        shutil.copytree(snapshot, partial, dirs_exist_ok=True)  # the cache holds links
        check_manifest(partial)
    return Path(folder)


def check_manifest(folder: Path, required: bool = False) -> None:
    """BadInput if a file is not as the manifest of its export says, or is missing."""
    file = folder / MANIFEST
    if not file.is_file():
        if required:
            raise BadInput(f"{folder} has no {MANIFEST}: it is no folder that 'workings export' wrote")
        return
    try:
        vouched = json.loads(file.read_text())["files"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{file} cannot be read: export or pull again") from None
    for name, digest in vouched.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise BadInput(f"{folder / name} is missing or was changed since it was exported: export or pull again")


@contextmanager
def _hub_in_words(repository: str) -> Generator[None, None, None]:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise BadInput(
            f"'{repository}' is out of reach: HF_HUB_OFFLINE is set, or there is no network, and the local cache has it not"
        ) from error
    except LocalTokenNotFoundError as error:
        raise BadInput("you are not logged in to the hub: run 'hf auth login', or set HF_TOKEN") from error
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BadInput(f"the hub has no '{repository}' that you may use: {_first_line(error)}") from error
    except (HfHubHTTPError, ConnectionError) as error:
        raise Failed(f"the hub refused '{repository}': {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
