"""A run is a directory: `Run` writes it, `RunRecord` reads it back, and a report reads nothing else.

The manifest is written first ("running") and last ("finished" or "failed"); every other file appears whole or not at
all. A lock that the operating system drops with its process keeps a second writer out, and tells a run that was killed
from one that is running.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, Self

from workings.config import digest, to_yaml
from workings.errors import BadInput, Failed
from workings.files import (
    drop_half_written,
    explained,
    is_disk_full,
    lock,
    plain,
    to_json,
    write_atomic,
    write_with,
)
from workings.provenance import code_state, device, digests_in, input_digest, sha256_of, versions
from workings.record import RunRecord, is_recorded

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Run", "RunRecord", "sha256_of", "write_atomic"]

Folder = Literal["checkpoint", "lens", "thoughts", "figures"]
_SITTING = ("pid", "argv", "versions", "device", "commit", "dirty", "diff_digest")
_SAVE_EVERY = 10.0  # seconds between writes of the manifest while a run counts what it spends


class Run:
    """The write side of one run directory; use it in a `with`. Start one with `Run.start`, go on with `Run.resume`."""

    def __init__(self, path: Path, manifest: dict[str, Any], held: IO[str]) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = held
        self._metrics: IO[str] | None = None
        self._began = time.monotonic()
        self._seconds_before = manifest["spent"]["seconds"]
        self._saved = 0.0
        self._old_handler: Any = None

    @classmethod
    def start(
        cls,
        root: str | Path,
        experiment: str,
        arm: str,
        seed: int,
        config: Any,
        *,
        source: Path | None = None,
        inputs: Mapping[str, str | Path] | None = None,
        overrides: Iterable[str] = (),
        scale: str = "",
    ) -> Run:
        """A new directory <root>/<experiment>/<time>_<arm>_s<seed>_<digest6>, locked, its manifest "running".

        `inputs` are hashed now: files and folders by content, anything else (a hub id) as text. `source` is copied.
        """
        inputs = inputs or {}
        manifest = {
            "format": 1,
            "status": "running",
            "experiment": experiment,
            "arm": arm,
            "seed": seed,
            "scale": scale,
            "overrides": list(overrides),
            "config_digest": digest(config),
            "inputs": {name: input_digest(value) for name, value in inputs.items()},
            # Absolute: a run is read from other folders than the one it was started in.
            "input_places": {k: str(v.absolute() if isinstance(v, Path) else v) for k, v in inputs.items()},
            "started": _now(),
            "spent": {"tokens": 0, "bytes": 0, "flops": 0, "seconds": 0.0},
            "earlier": [],
        }
        try:
            path = _new_folder(Path(root) / experiment, arm, seed, manifest["config_digest"])
            run = cls(path, manifest, lock(path))
            run._begin_sitting(source)
            write_atomic(path / "config.yaml", to_yaml(config))
            if source is not None:
                (path / "source").mkdir()
                write_atomic(path / "source" / source.name, source.read_bytes())
        except OSError as error:
            raise explained(error, Path(root)) from error
        return run

    @classmethod
    def resume(cls, path: str | Path) -> Run:
        """Reopen a run that failed or was killed. BadInput if it is finished or another process is writing it."""
        record = RunRecord(path)
        held = lock(record.path)
        manifest = RunRecord(path).manifest  # read again: nobody can change it any more
        if manifest["status"] == "finished":
            held.close()
            raise BadInput(f"{record.path} is finished; there is nothing to resume")
        drop_half_written(record.path)
        run = cls(record.path, manifest, held)
        sources = sorted((record.path / "source").glob("*.py"))
        run._begin_sitting(sources[0] if sources else None)
        return run

    def log(self, step: int, **metrics: Any) -> None:
        """Append one line to metrics.jsonl and flush it. A number that is not finite is written as null."""
        if self._metrics is None:
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        line = {"step": step, "seconds": round(self._seconds(), 3)} | plain(metrics)
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()

    def outcomes(self, name: str, frame: pl.DataFrame) -> Path:
        """Write outcomes/<name>.parquet, one row an example: enough to redo every statistic without a model."""
        return write_with(self._inside("outcomes", f"{name}.parquet"), frame.write_parquet)

    def results(self, name: str, result: Any) -> Path:
        """Write results/<name>.json; a dataclass is read back by `RunRecord.result(name, its class)`."""
        return write_atomic(self._inside("results", f"{name}.json"), to_json(result))

    def folder(self, name: Folder) -> Path:
        """A folder of the run for a self-describing artifact; its files are hashed when the run finishes."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def spend(self, *, tokens: int = 0, flops: float = 0, bytes: int = 0) -> None:
        """Add to the budget spent; saved every few seconds, so that a resumed run counts what a killed one spent."""
        for name, amount in (("tokens", tokens), ("flops", flops), ("bytes", bytes)):
            self.manifest["spent"][name] += amount
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGTERM, _terminate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problem = error or self._close_metrics()
        try:
            self._end(problem)
        except OSError as unwritten:  # the manifest goes on saying "running", which reads as killed
            problem = error or unwritten
        finally:
            if self._old_handler is not None:
                signal.signal(signal.SIGTERM, self._old_handler)
            self._lock.close()
        if error is not None:
            error.add_note(f"the run is in {self.path}")
        if problem is not None and (problem is not error or is_disk_full(problem)):
            raise explained(problem, self.path) from problem

    # ── one sitting: from start or resume to the end of the process's part ──────────────────────────────────────────

    def _begin_sitting(self, source: Path | None) -> None:
        """The manifest describes the sitting that is on; those before it move to `earlier`."""
        if "pid" in self.manifest:
            self.manifest["earlier"].append(
                {name: self.manifest[name] for name in (*_SITTING, "status", "reason", "ended")}
            )
        sitting = {
            "pid": os.getpid(),
            "argv": sys.argv,
            "versions": versions(),
            "device": device(),
            **code_state(source),
        }
        self.manifest |= sitting
        self.manifest |= {"status": "running", "reason": None, "traceback": None, "ended": None, "artifacts": {}}
        self._save()

    def _close_metrics(self) -> OSError | None:
        try:
            if self._metrics is not None:
                self._metrics.close()
        except OSError as error:
            return error
        return None

    def _end(self, error: BaseException | None) -> None:
        self.manifest["ended"] = _now()
        self.manifest["device"] = device()  # by now torch is in use, if it ever is
        if error is None:
            digests = digests_in(self.path)
            self.manifest["artifacts"] = {name: sha for name, sha in digests.items() if is_recorded(name)}
            self.manifest["status"] = "finished"
        else:
            self.manifest["status"] = "failed"
            self.manifest["reason"] = _reason(error)
            self.manifest["traceback"] = "".join(traceback.format_exception(error))
        self._save()

    def _save(self) -> None:
        self.manifest["spent"]["seconds"] = round(self._seconds(), 3)
        write_atomic(self.path / "manifest.json", to_json(self.manifest))
        self._saved = time.monotonic()

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _inside(self, folder: str, name: str) -> Path:
        path = self.path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _new_folder(parent: Path, arm: str, seed: int, config_digest: str) -> Path:
    """A directory nobody has: several runs of one arm may start within a second, or in several processes."""
    parent.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    arm_name = re.sub(r"[^\w.-]+", "-", arm)
    name = f"{started}_{arm_name}_s{seed}_{config_digest[:6]}"
    for again in range(1, 10_000):
        path = parent / (name if again == 1 else f"{name}-{again}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise Failed(f"{parent} has thousands of runs of this second")


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    return f"{type(error).__name__}: {error}"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
