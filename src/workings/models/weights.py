"""Files ⇄ tensors ⇄ the parameters of a model, strictly: the whole set or an error that names the tensor.

Every model of every kind passes through here, in both directions. On the way out, a folder takes its name only once everything
in it is written, and the sha256 of the weights lies beside them. On the way in, a file that no longer has that sha256 is
refused, and so are tensors that are missing, left over, of the wrong shape, or not finite. A checkpoint written before there
were digests has none and is not checked against one.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import zipfile
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from glob import escape
from os import getpid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workings.errors import BadInput, explained, first_line, is_disk_full, listed
from workings.files import digest_beside, digests_of, is_locked, lock, read_sealed, sha256_file, sha256_of, unchanged

WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
"""In a folder that was exported for transformers: what it was made from, and the digests of its files."""
EXPORT_FORMAT = "workings export"

# ── tensors → parameters ─────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, *, tied: Collection[str] = ()) -> None:
    """Copy tensors into a model: every one that it needs, and nothing else. An error leaves the model as it was.

    Args:
        model: Its `state_dict` says which tensors are needed, and in which shapes; values are cast to its dtypes.
        tensors: Named as in the `state_dict`.
        source: Where they come from, for messages.
        tied: Names that may not be given, because their parameter is another one's; the caller ties it again.

    Raises:
        BadInput: A tensor is missing, left over, of another shape, no float where one is needed, or not finite.
    """
    places = {name: place for name, place in model.state_dict().items() if name not in tied}
    refuse_incomplete(
        source,
        missing=places.keys() - tensors.keys(),
        surplus=tensors.keys() - places.keys(),
        misshapen={
            name: (tuple(tensors[name].shape), tuple(place.shape))
            for name, place in places.items()
            if name in tensors and tensors[name].shape != place.shape
        },
    )
    for name, place in places.items():
        if place.is_floating_point() and not tensors[name].is_floating_point():
            raise BadInput(f"{source}: {name} holds {tensors[name].dtype}, not floating-point numbers")
    refuse_not_finite(source, tensors)
    for name, place in places.items():
        place.copy_(tensors[name])


def refuse_incomplete(
    source: str | Path,
    missing: Collection[str] = (),
    surplus: Collection[str] = (),
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
) -> None:
    """Raise BadInput unless a set of tensors is the one a model needs; `misshapen` gives shapes found and expected."""
    if missing:
        raise BadInput(
            f"{source} lacks {len(missing)} tensor(s): {listed(missing)}. It is not a whole checkpoint of this model: "
            "copy, download or export it again."
        )
    if surplus:
        raise BadInput(f"{source} has {len(surplus)} tensor(s) that this model has no place for: {listed(surplus)}")
    for name, (found, expected) in (misshapen or {}).items():
        raise BadInput(f"{source}: {name} has shape {found}, expected {expected}")


def refuse_not_finite(source: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise BadInput if a tensor holds NaN or infinity."""
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.numel():
            continue
        # The extremes are NaN or infinite if any number is; unlike isfinite().all() this writes no tensor of flags.
        low, high = (value if value.dtype.itemsize > 1 else value.float()).aminmax()  # there is none for 8 bits
        if not (low.isfinite() and high.isfinite()):
            raise BadInput(
                f"{source}: {name} holds numbers that are not finite: the training that wrote it had gone wrong"
            )


# ── tensors ⇄ files ──────────────────────────────────────────────────────────────────────────────────────────────────


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a .safetensors file, and its sha256 beside it in the format of `sha256sum`."""
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes it readable by its owner only
    sha256_file(file).write_text(f"{sha256_of(file)}  {file.name}\n")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a .safetensors or torch.save file, on the CPU.

    Raises:
        BadInput: The file is missing or damaged, was changed since it was written, or needs code to be read.
    """
    if file.suffix != ".safetensors":
        return read_saved(file)[0]
    check_digest(file)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{file} cannot be read as weights: {first_line(error)}. Copy or download the whole folder again."
        ) from error


def check_digest(file: Path) -> None:
    """Raise BadInput if a file has a sha256 beside it and is missing, or has another content."""
    beside = sha256_file(file)
    if beside.is_file():
        remedy = f"copy the folder again, or delete {beside.name} if you changed the file on purpose"
        unchanged(file, digest_beside(file), beside.name, remedy)


def check_manifest(folder: Path, required: bool = False) -> None:
    """Raise BadInput if a file is missing or not as the manifest of its export says."""
    file = folder / MANIFEST
    if not file.is_file():
        if required:
            raise BadInput(f"{folder} has no {MANIFEST}: it is no folder that 'workings export' wrote")
        return
    about = read_sealed(file)
    if about.get("format") != EXPORT_FORMAT:
        if required:
            raise BadInput(f"{file} is not the manifest of a folder that 'workings export' wrote")
        return
    for name, digest in digests_of(about).items():
        if name == "README.md" and not required:
            continue  # it decides nothing
        unchanged(folder / name, digest, MANIFEST, "export or pull again")


def fingerprint_of(path: Path) -> str:
    """sha256 (hex) over the names and contents of the files that decide what a checkpoint computes: file or folder."""
    sha256 = hashlib.sha256()
    kinds = ("*.safetensors", "*.bin", "config.json", "thinking.json", "tokenizer.json")
    files = [path] if path.is_file() else sorted({file for kind in kinds for file in path.glob(kind)})
    for file in files:
        sha256.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                sha256.update(chunk)
    return sha256.hexdigest()


class _Fields:
    """Stands in for whatever config class a trainer pickled: holds its fields, runs none of its code."""

    def __setstate__(self, state: object) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


def read_saved(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of torch.save without running code from it.

    Returns:
        Its tensors (at the top of the file, or under `model` or `state_dict`), and what it says about its model (`config` and
        `model_args`, as plain fields even where they were an object of the trainer's own class).

    Raises:
        BadInput: The file needs code to be read, cannot be read, or holds no mapping of tensors.
    """
    content = _unpickled(file)
    if not isinstance(content, Mapping):
        raise BadInput(f"{file} holds a {type(content).__name__}, not a mapping of tensors")
    tensors = content.get("model", content.get("state_dict", content))
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadInput(f"{file} holds no mapping of tensors, neither at its top nor under 'model'")
    about: dict[str, Any] = {}
    for said in (content.get("config"), content.get("model_args")):
        about |= said if isinstance(said, Mapping) else getattr(said, "__dict__", {})
    return dict(tensors), about


def _unpickled(file: Path) -> object:
    try:
        zipped = zipfile.is_zipfile(file)  # files of older torch are read if they hold plain values only
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(str(file)) if zipped else []
        foreign = sorted(name for name in classes if not name.endswith("Config"))
        if foreign:
            raise BadInput(
                f"{file} holds Python objects ({', '.join(foreign[:3])}) beside its weights: loading them could run any "
                "code, so it is refused. Where it was trained, save the weights alone: "
                "torch.save({'model': model.state_dict()}, file)"
            )
        with torch.serialization.safe_globals([(_Fields, name) for name in classes]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(f"{file} is no file of torch.save that can be read safely: {first_line(error)}") from error


# ── folders that appear whole or not at all ──────────────────────────────────────────────────────────────────────────


@contextmanager
def appearing(folder: str | Path) -> Generator[Path]:
    """A new folder beside `folder` to write into: it takes the name when all went well and is removed when not.

    What a killed process left half-written is removed by the next one that writes to the same place.

    Raises:
        BadInput: There is something at `folder` already, or it cannot be written to.
        Failed: The disk is full.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already; name a new folder, so that nothing is overwritten")
    for abandoned in folder.parent.glob(f".{escape(folder.name)}.*.partial"):
        if not is_locked(abandoned):  # a lock goes with its process, however that ends
            shutil.rmtree(abandoned, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        with lock(partial) as held:
            yield partial
            Path(held.name).unlink()
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except Exception as error:
        if isinstance(error, OSError) or is_disk_full(error):
            raise explained(error, folder) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
