"""Files ⇄ tensors ⇄ the parameters of a model, strictly: the whole set or an error that names the tensor.

Every model of every kind passes through here, in both directions. On the way out, a folder takes its name only once everything
in it is written, and the sha256 of the weights lies beside them. On the way in, a file that no longer has that sha256 is
refused, and so are tensors that are missing, left over, of the wrong shape, or not finite. A checkpoint written before there
were digests has none and is not checked against one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from glob import escape
from os import getpid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workings.errors import BadInput, explained, first_line, is_disk_full, listed
from workings.files import digest_beside, digests_of, is_locked, lock, read_sealed, sha256_file, sha256_of, unchanged
from workings.models.pickles import read_saved

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
        raise _damaged(file, error) from error


def read_weights(place: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, of the files that an index names, or of a folder whose weights have a usual name.

    Raises:
        BadInput: There are none, one of the files is missing or damaged, or a tensor is not in the file that the index says.
    """
    files, indexed = weight_files(place)
    tensors = {name: value for file in files for name, value in read_tensors(file).items()}
    refuse_incomplete(place, missing=indexed - tensors.keys())
    return tensors


def weight_files(place: Path) -> tuple[list[Path], set[str]]:
    """The files of the weights at a place, and the names of the tensors in them where an index says so.

    Raises:
        BadInput: There are none, or an index cannot be read or names a file that is missing.
    """
    if place.is_dir():
        known = [place / name for name in (*_WHOLE, *(f"{name}{_INDEX}" for name in _WHOLE), *ADAPTER_WEIGHTS)]
        found = next((file for file in known if file.is_file()), None)
        if found is None:
            others = [file.name for file in place.glob("*.*") if file.suffix in _ENDINGS]
            hint = f"name the file itself ({listed(others)})" if others else "copy or download the whole folder again"
            raise BadInput(f"{place} holds no weights (no {WEIGHTS}, pytorch_model.bin, or index of several): {hint}")
        place = found
    if not place.name.endswith(_INDEX):
        return [place], set()
    try:
        placed = json.loads(place.read_text())["weight_map"]
        files = [place.parent / Path(name).name for name in sorted(set(placed.values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{place} is no index of weights that can be read: copy or download it again") from None
    if gone := [file.name for file in files if not file.is_file()]:
        raise BadInput(
            f"{place.parent} lacks {listed(gone)}, which its index names: copy or download the whole folder again"
        )
    return files, set(placed)


def tensor_names(place: Path) -> Collection[str]:
    """The names of the tensors that `read_weights` gives, read from a header or an index where there is one."""
    files, indexed = weight_files(place)
    if indexed or files[0].suffix != ".safetensors":
        return indexed or read_tensors(files[0]).keys()
    try:
        with safe_open(files[0], "pt") as opened:
            return set(opened.keys())
    except (OSError, SafetensorError) as error:
        raise _damaged(files[0], error) from error


def _damaged(file: Path, error: Exception) -> BadInput:
    return BadInput(f"{file} cannot be read as weights: {first_line(error)}. Copy or download the whole folder again.")


_WHOLE = (WEIGHTS, "pytorch_model.bin")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_INDEX = ".index.json"
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# What training frameworks wrap modules in: torch.compile, DDP and DeepSpeed, FSDP, activation checkpointing.
_WRAPPER = re.compile(r"(?<![^.])(_orig_mod|module|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module)\.")


def plain_names(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Tensors named without the wrappers of training frameworks. BadInput where two then have one name."""
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = _WRAPPER.sub("", name)
        if short in plain:
            raise BadInput(f"{source} has two tensors that both mean {short}, one of them {name}")
        plain[short] = value
    return plain


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


def fingerprint_of(*places: Path) -> str:
    """sha256 (hex) over the names and contents of the files that decide what a checkpoint computes: of files or folders."""
    sha256 = hashlib.sha256()
    kinds = ("*.safetensors", "*.bin", "config.json", "thinking.json", "adapter_config.json", "tokenizer.json")
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else sorted({file for kind in kinds for file in place.glob(kind)}))
    ]
    for file in files:
        sha256.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                sha256.update(chunk)
    return sha256.hexdigest()


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
