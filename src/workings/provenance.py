"""The world a result was made in, as plain data: code, versions, machine, and the sha256 of files and folders.

torch is asked about the device only if something else has imported it already.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "workings",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "datasets",
    "numpy",
    "scipy",
    "polars",
    "pyarrow",
)
_CHUNK = 1 << 20


def sha256_of(path: str | Path) -> str:
    """The sha256 (hex) of a file, or of a folder: of the sorted list of its files' names and digests."""
    path = Path(path)
    if path.is_dir():
        lines = (f"{digest}  {name}\n" for name, digest in digests_in(path).items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()


def digests_in(folder: Path) -> dict[str, str]:
    """{relative name: sha256} of every file below `folder`, sorted, but hidden ones (locks, half-written files)."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    return {
        name: sha256_of(folder / name) for name in names if not any(part.startswith(".") for part in name.split("/"))
    }


def input_digest(value: str | Path) -> str:
    """The sha256 of a path that exists, or of the text itself (a hub id with its revision, a generator's recipe)."""
    # os.path.exists, because a text too long for a file name is no error here
    return sha256_of(value) if os.path.exists(value) else hashlib.sha256(str(value).encode()).hexdigest()


def code_state(source: Path | None = None) -> dict[str, Any]:
    """commit, dirty, diff_digest (of what differs from the commit) of the checkout of this package, else of `source`.

    All None where neither is in one; a package installed into an ignored folder of somebody's checkout is in none.
    """
    for file in (Path(__file__), source):
        state = checkout_state(file.resolve()) if file else None
        if state:
            return state
    return {"commit": None, "dirty": None, "diff_digest": None}


def versions() -> dict[str, str]:
    """{package: version} of the main packages that are installed, read without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> dict[str, Any]:
    """Processor, cores, threads, and the accelerator where torch is in use and sees one; not the machine's name."""
    about: dict[str, Any] = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is not None:
        about["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            about["accelerator"] = torch.cuda.get_device_name()
    return about


def checkout_state(file: Path) -> dict[str, Any] | None:
    """`code_state` of the checkout that one file belongs to; None where it is in none, or is ignored there."""
    if _git(file.parent, "check-ignore", str(file)) is not None:
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(file.parent, "status", "--porcelain")
    diff = _git(file.parent, "diff", "HEAD", "--no-ext-diff", "--no-color") if changes else None
    digest = hashlib.sha256(f"{changes}\n{diff}".encode()).hexdigest() if changes else None
    return {"commit": commit, "dirty": bool(changes), "diff_digest": digest}


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
