"""What a run came from and how it ended: its manifest, with the code, the packages and the machine behind the numbers."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from workings.config import from_dict
from workings.errors import BadInput
from workings.files import read_sealed

PACKAGES = (
    *("workings", "torch", "transformers", "tokenizers", "safetensors", "peft", "datasets"),
    *("numpy", "scipy", "polars", "pyarrow"),
)
# The fields of a manifest that describe one sitting of a run.
_SITTING = ("pid", "argv", "versions", "device", "commit", "dirty", "diff_digest", "status", "reason", "ended")


@dataclass
class Spent:
    """What a run has used so far, over all its sittings."""

    tokens: int = 0
    bytes: int = 0
    flops: int | float = 0
    seconds: float = 0.0


@dataclass
class Manifest:
    """The content of manifest.json. Digests are sha256; `commit` is null outside a checkout.

    A run that is resumed has several sittings, each in a process of its own. The fields from `pid` to `diff_digest`, and
    how it ended, describe the last one; those of the sittings before it are in `earlier`.
    """

    format: int = 1
    status: Literal["running", "finished", "failed"] = "running"
    experiment: str = ""
    arm: str = ""
    seed: int = 0
    scale: str = ""
    sweep: str = ""  # the name of the sweep that the run belongs to, if it was planned with others
    overrides: list[str] = field(default_factory=list)
    config_digest: str = ""
    inputs: dict[str, str] = field(default_factory=dict)  # name → digest
    input_places: dict[str, str] = field(default_factory=dict)  # name → path, hub id or text
    started: str = ""
    declared: dict[str, Any] = field(
        default_factory=dict
    )  # what was to be tested, said before the test: see Run.declare
    spent: Spent = field(default_factory=Spent)
    earlier: list[dict[str, Any]] = field(default_factory=list)
    pid: int = 0
    argv: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, str | int | None] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    diff_digest: str | None = None
    reason: str | None = None
    traceback: str | None = None
    ended: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)  # file → digest

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the run in a folder; BadInput where there is none, or it is broken."""
        path = folder / "manifest.json"
        if not path.exists():
            raise BadInput(f"{folder} is not a run: it has no manifest.json")
        content = read_sealed(path, "restore the run from a copy, or run it again")
        if content.get("format") != 1 or not content.get("experiment"):
            raise BadInput(f"{path} is not the manifest of a run")
        known = {one.name for one in fields(cls)}  # a later version may have written more
        try:
            return from_dict(cls, {name: value for name, value in content.items() if name in known})
        except BadInput as error:
            raise BadInput(f"{path} is not the manifest of a run: {error}") from None

    def begin_sitting(self, source: Path | None) -> None:
        """Describe this process, and keep what is said of the one before it.

        Args:
            source: The experiment's file: its checkout counts where the package itself is in none.
        """
        if self.pid:
            self.earlier.append({name: getattr(self, name) for name in _SITTING})
        self.pid, self.argv, self.versions, self.device = os.getpid(), sys.argv, versions(), _device()
        states = (checkout_state(file.resolve()) for file in (Path(__file__), source) if file)
        self.commit, self.dirty, self.diff_digest = next(filter(None, states), (None, None, None))
        self.status, self.artifacts = "running", {}
        self.reason = self.traceback = self.ended = None

    def end_sitting(self, error: BaseException | None) -> None:
        """Say how this process's part of the run ended."""
        self.ended = now()
        self.device = _device()  # by now torch is in use, if it ever is
        self.status = "finished" if error is None else "failed"
        if error is not None:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            self.reason = "interrupted" if stopped else f"{type(error).__name__}: {error}"
            self.traceback = "".join(traceback.format_exception(error))


def now() -> str:
    """The time in UTC, to the second, as a manifest has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stamp() -> str:
    """The time in UTC, to the second, as names on disk begin with it."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def versions() -> dict[str, str]:
    """{package: version} of the main packages that are installed, read without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _device() -> dict[str, str | int | None]:
    """Processor, cores, threads, and the accelerator where torch is in use and sees one; not the machine's name."""
    about: dict[str, str | int | None] = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    torch = sys.modules.get("torch")  # not imported for this
    if torch is not None:
        about["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            about["accelerator"] = torch.cuda.get_device_name()
    return about


def checkout_state(file: Path) -> tuple[str, bool, str | None] | None:
    """The state of the git checkout that a file belongs to; None where it is in none, or is ignored there.

    Returns:
        The commit, whether files differ from it, and the digest of what differs.
    """
    # a package installed into an ignored folder of somebody's checkout is no part of it
    if _git(file.parent, "check-ignore", str(file)) is not None:
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(file.parent, "status", "--porcelain")
    if not changes:
        return commit, False, None
    diff = _git(file.parent, "diff", "HEAD", "--no-ext-diff", "--no-color")
    return commit, True, hashlib.sha256(f"{changes}\n{diff}".encode()).hexdigest()


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
