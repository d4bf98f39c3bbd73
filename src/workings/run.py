"""A run is a directory: `Run` writes it, `RunRecord` reads it back, and a report reads nothing else.

    manifest.json          what was run, by which code, on which machine, how it ended, and the digest of every file below
    config.yaml, source/   the resolved config and the experiment's file
    metrics.jsonl          one line a step
    outcomes/*.parquet     one row an example
    results/*.json         what the run found, in a few numbers

The directory appears with manifest ("running"), config and source in it; every later file appears whole or not at all. The
manifest is written last, too ("finished" or "failed"), and then holds the digest of every file: whoever reads a finished run
reads what it wrote, or is told which file has changed. A run that ends by a mistake in what it was given, before it has
recorded anything, is taken away. A lock that the operating system drops with its process keeps a second
writer out, and tells a run that was killed from one that is running.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from workings.config import digest, from_yaml, read_value, to_yaml
from workings.errors import BadInput, explained, is_disk_full, ours
from workings.files import (
    changes,
    drop_half_written,
    files_in,
    input_digest,
    is_locked,
    lock,
    plain,
    sealed,
    sha256_of,
    to_json,
    unchanged,
    write_atomic,
    write_with,
)
from workings.provenance import Manifest, now, stamp
from workings.stopping import interruptible

if TYPE_CHECKING:
    import polars as pl

C = TypeVar("C")
Folder = Literal["checkpoint", "lens", "thoughts", "figures"]
Status = Literal["running", "finished", "failed", "killed"]

SHIPPED_RUNS = Path(__file__).parent / "bundled" / "seeds"
"""Records, without weights, of the trainings of the bundled pair."""
_SAVE_EVERY = 10.0  # seconds between writes of the manifest while a run counts what it spends
_READ_FROM = ("source/", "outcomes/", "results/")
_REPORT = ("report.html", "report.md", "figures/")  # made from the record afterwards, so no part of it


class Run:
    """The write side of one run directory; use it in a `with`. Start one with `Run.start`, go on with `Run.resume`.

    Example:
        >>> from workings.experiments.example import Config
        >>> with Run.start("runs", "sums", "recurrent", 0, Config()) as run:
        ...     run.log(1, loss=0.5)
        ...     path = run.results("headline", {"accuracy": 0.75})
        >>> record = RunRecord(run.path)
        >>> record.status, record.headline, record.verify()
        ('finished', {'accuracy': 0.75}, [])
    """

    def __init__(self, path: Path, manifest: Manifest, held: IO[str]) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = held
        self._metrics: IO[str] | None = None
        self._earlier_lines: set[Hashable] = set()  # what earlier sittings measured
        self._began = time.monotonic()
        self._seconds_before = manifest.spent.seconds
        self._saved = 0.0
        self._until_told = interruptible()

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
        inputs: Mapping[str, str | Path | None] | None = None,
        overrides: Iterable[str] = (),
        scale: str = "",
        sweep: str = "",
    ) -> Run:
        """Make a directory <root>/<experiment>/<time>_<arm>_s<seed>_<digest6> and lock it. It appears ready to be resumed.

        Args:
            source: The experiment's file; it is copied into the run, with the <name>_report.py beside it.
            inputs: What is read from outside. Files and folders are hashed now, anything else (a hub id) as text;
                what is empty or None is left out.
            overrides: How the config departs from the arm's, as field=value.
            sweep: The name of the sweep that it is one run of.

        Raises:
            BadInput: Where the directory cannot be written.
            Failed: Where the disk is full.
        """
        given = resolved(inputs or {})
        manifest = Manifest(
            experiment=experiment,
            arm=arm,
            seed=seed,
            scale=scale,
            sweep=sweep,
            overrides=list(overrides),
            config_digest=digest(config),
            inputs={name: input_digest(value) for name, value in given.items()},
            # Absolute: a run is read from other folders than the one it was started in.
            input_places={k: str(v.absolute() if isinstance(v, Path) else v) for k, v in given.items()},
            started=now(),
        )
        manifest.begin_sitting(source)
        parent, name = Path(root) / experiment, _name(arm, seed, manifest.config_digest)
        place = parent / f".{name}.{os.getpid()}.partial"
        try:
            place.mkdir(parents=True)
            run = cls(place, manifest, lock(place))
            run._save()
            write_atomic(place / "config.yaml", to_yaml(config))
            if source is not None:
                (place / "source").mkdir()
                for file in (source, source.with_name(f"{source.stem}_report.py")):
                    if file.is_file():
                        write_atomic(place / "source" / file.name, file.read_bytes())
            run.path = _appear(place, parent / name)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise explained(error, Path(root)) from error
        return run

    @classmethod
    def resume(cls, path: str | Path) -> Run:
        """Reopen a run that failed or was killed. BadInput if it is finished or another process is writing it."""
        record = RunRecord(path)
        held = lock(record.path)
        manifest = RunRecord(path).manifest  # read again: nobody can change it any more
        if manifest.status == "finished":
            held.close()
            raise BadInput(f"{record.path} is finished; there is nothing to resume")
        drop_half_written(record.path)
        metrics = record.path / "metrics.jsonl"
        if metrics.exists():
            write_atomic(metrics, "".join(_lines(metrics)))
        run = cls(record.path, manifest, held)
        manifest.begin_sitting(record.source)
        run._save()
        return run

    def log(self, step: int, **metrics: Any) -> None:
        """Append one line to metrics.jsonl and flush it. A number that is not finite is written as null.

        A resumed run that measures again what an earlier sitting measured replaces that line: same step, same names, same texts.
        """
        line = {"step": step, "seconds": round(self._seconds(), 3)} | plain(metrics)
        path, about = self.path / "metrics.jsonl", _measured(line)
        if self._metrics is None:
            self._metrics = path.open("a", encoding="utf-8")
            if self.manifest.earlier:
                self._earlier_lines = {_measured(json.loads(one)) for one in _lines(path)}
        if about in self._earlier_lines:
            self._earlier_lines.remove(about)
            self._metrics.close()
            write_atomic(path, "".join(one for one in _lines(path) if _measured(json.loads(one)) != about))
            self._metrics = path.open("a", encoding="utf-8")
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()

    def outcomes(self, name: str, frame: pl.DataFrame) -> Path:
        """Write outcomes/<name>.parquet, one row an example: enough to redo every statistic without a model."""
        return write_with(self._inside("outcomes", f"{name}.parquet"), frame.write_parquet)

    def results(self, name: str, result: Any) -> Path:
        """Write results/<name>.json; a dataclass is read back by `RunRecord.result(name, its class)`.

        The result called "headline" is a mapping of the run's own labels to numbers or text, for `workings show` and
        the default report to print.
        """
        return write_atomic(self._inside("results", f"{name}.json"), to_json(result))

    def declare(self, **claims: Any) -> None:
        """Write into the manifest, with the time, what will be tested and how, before the data that test it are looked at.

        A resumed run may declare the same again, and keeps the first time.

        Raises:
            BadInput: The run has declared something else before.
        """
        said, claims = self.manifest.declared, plain(claims)
        if said and claims != {name: value for name, value in said.items() if name != "at"}:
            raise BadInput(f"{self.path} has declared {said}, and a declaration is not changed; start a new run")
        if not said:
            self.manifest.declared = {"at": now(), **claims}
            self._save()

    def folder(self, name: Folder) -> Path:
        """A folder of the run for a self-describing artifact; its files are hashed when the run finishes."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def spend(self, *, tokens: int = 0, flops: float = 0, bytes: int = 0) -> None:
        """Add to the budget spent; saved every few seconds, so that a resumed run counts what a killed one spent."""
        spent = self.manifest.spent
        spent.tokens, spent.flops, spent.bytes = spent.tokens + tokens, spent.flops + flops, spent.bytes + bytes
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    def __enter__(self) -> Self:
        self._until_told.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._is_mistake(error):
            self._until_told.__exit__(None, None, None)
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()
            return error.add_note("nothing was recorded, so no run is left of it")
        problem = error
        try:
            if self._metrics is not None:
                self._metrics.close()
        except OSError as unwritten:
            problem = error or unwritten
        try:
            self.manifest.end_sitting(problem)
            if problem is None:
                self.manifest.artifacts = {name: sha256_of(self.path / name) for name in _recorded_files(self.path)}
            self._save()
        except OSError as unwritten:  # the manifest goes on saying "running", which reads as killed
            problem = error or unwritten
        finally:
            self._until_told.__exit__(None, None, None)
            self._lock.close()
        if error is not None:
            error.add_note(f"the run is in {self.path}; --resume {self.path} goes on with it")
        if problem is not None and (problem is not error or is_disk_full(problem)):
            raise explained(problem, self.path) from problem

    def _is_mistake(self, error: BaseException) -> bool:
        """Whether nothing came of the run because of what it was given (a misspelt model): it is taken away again."""
        recorded = [
            name for name in _recorded_files(self.path) if name != "config.yaml" and not name.startswith("source/")
        ]
        return isinstance(ours(error), BadInput) and not recorded and not self.manifest.earlier

    def _save(self) -> None:
        self.manifest.spent.seconds = round(self._seconds(), 3)
        write_atomic(self.path / "manifest.json", sealed(self.manifest))
        self._saved = time.monotonic()

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _inside(self, folder: str, name: str) -> Path:
        path = self.path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class RunRecord:
    """The read side of one run directory. Reads when asked, changes nothing.

    A file of a finished run is compared with its digest when it is first read: BadInput where it was changed, removed, or added.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)

    @classmethod
    def find(cls, path_or_name: str | Path, root: str | Path = "runs") -> RunRecord:
        """The run at a path, or the only one below `root` of which this is the name or a part of it.

        A whole name comes first, then the beginning of one, then any part of <experiment>/<name>.

        Raises:
            BadInput: Where there is none, or several.
        """
        if (Path(path_or_name) / "manifest.json").is_file():
            return cls(path_or_name)
        if is_run(Path(path_or_name)):  # of an earlier version, killed in its first milliseconds
            raise BadInput(
                f"{path_or_name} was killed before it had a manifest.json: remove it, and start the run again"
            )
        if Path(path_or_name).is_dir():
            raise BadInput(f"{path_or_name} is not a run: it has no manifest.json")
        wanted = str(path_or_name)
        known = {"/".join(path.parts[-2:]): path for path in runs_in(root)}
        fitting = (
            [path for path in known.values() if path.name == wanted],  # else X could not be named where X-2 exists
            [path for name, path in known.items() if name.startswith(wanted) or path.name.startswith(wanted)],
            [path for name, path in known.items() if wanted in name],
        )
        found = next(filter(None, fitting), [])
        if not found:
            raise BadInput(
                f"no run '{wanted}': neither a path nor one of the {len(known)} runs in {root}/ (workings list)"
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:5])
            raise BadInput(f"'{wanted}' could be any of {len(found)} runs: {names}; write more of the name")
        return cls.find(found[0])

    @property
    def status(self) -> Status:
        """What the manifest says, but "killed" where it says "running" and nobody holds the lock."""
        status = self.manifest.status
        return "killed" if status == "running" and not is_locked(self.path) else status

    def file(self, name: str) -> Path:
        """The path of a file of the run, which need not be there.

        Raises:
            BadInput: The run is finished, and the file is missing, changed, or none of its files.
        """
        path, digests = self.path / name, self.manifest.artifacts
        if name in digests:
            return unchanged(path, digests[name], "manifest.json", "restore the run from a copy, or run it again")
        if digests and path.exists():
            raise BadInput(f"{path} is none of the files with which the run finished: remove it")
        return path

    def check(self) -> None:
        """BadInput where a file that a report or a comparison may read is not as it was when the run finished.

        Not read are the artifacts in the run's folders: they vouch for themselves.
        """
        for name in self.manifest.artifacts:
            if "/" not in name or name.startswith(_READ_FROM):
                self.file(name)

    def names(self, folder: str, ending: str) -> list[str]:
        """The names, without their ending, of the files with this ending in one of the run's folders."""
        files = self.manifest.artifacts or files_in(self.path)
        found = re.compile(re.escape(f"{folder}/") + "([^/]+)" + re.escape(ending))
        return sorted(match[1] for match in map(found.fullmatch, files) if match)

    @property
    def source(self) -> Path | None:
        """The run's copy of its experiment's file; the report beside it sorts after it."""
        return next((self.file(f"source/{name}.py") for name in self.names("source", ".py")), None)

    @property
    def question(self) -> str:
        """The first line of the experiment's docstring, as the run's copy of its file has it."""
        return question_of(self.source) if self.source else ""

    def config(self, cls: type[C]) -> C:
        """The resolved config, as an instance of the experiment's `Config`."""
        return from_yaml(cls, self.file("config.yaml"))

    def metrics(self) -> pl.DataFrame:
        """One row a `log`: step, seconds and what was logged. A last line that a kill cut short is left out."""
        import polars as pl

        rows = [json.loads(line) for line in _lines(self.file("metrics.jsonl"))]
        return pl.from_dicts(rows, infer_schema_length=None) if rows else pl.DataFrame()

    def curve(self, column: str) -> pl.DataFrame:
        """Columns step and `column`: what was logged under this name, where it was; no rows where it never was."""
        import polars as pl

        metrics = self.metrics()
        if column not in metrics.columns:
            return pl.DataFrame(schema={"step": pl.Int64, column: pl.Float64})
        return metrics.select(pl.col("step").cast(pl.Int64), pl.col(column).cast(pl.Float64)).drop_nulls(column)

    def outcomes(self, name: str) -> pl.DataFrame:
        """The frame that `Run.outcomes` wrote."""
        import polars as pl

        return pl.read_parquet(self._existing("outcomes", name, ".parquet"))

    def has_result(self, name: str) -> bool:
        """Whether the run has written results/<name>.json."""
        return name in self.names("results", ".json")

    def has_outcomes(self, name: str) -> bool:
        """Whether the run has written outcomes/<name>.parquet."""
        return name in self.names("outcomes", ".parquet")

    @property
    def headline(self) -> dict[str, object]:
        """What the run calls its result: label → number, text or a mapping of these; nothing where it names none."""
        # Labels are free, and nothing is computed from them: every experiment measures something else, and a user's own
        # reaches `show` and the default report without a class for it.
        found = self.result("headline") if self.has_result("headline") else {}
        return found if isinstance(found, dict) else {"": found}

    @overload
    def result(self, name: str) -> Any: ...
    @overload
    def result(self, name: str, cls: type[C]) -> C: ...
    def result(self, name: str, cls: type | None = None) -> Any:
        """What `Run.results` wrote, as `cls` (a dataclass, or a dict of one), or, without it, what JSON gives back.

        Raises:
            BadInput: Where there is no such file, or it does not hold what `cls` asks for (a run of another version).
        """
        path = self._existing("results", name, ".json")
        content = json.loads(path.read_text(encoding="utf-8"))
        if cls is None:
            return content
        try:
            return read_value(cls, content, name)
        except BadInput as error:
            raise BadInput(
                f"{path} was not written by this version of workings ({error}): run the experiment again, or open the run "
                "with the version in its manifest"
            ) from None

    def verify(self) -> list[str]:
        """One line for every file that is not as it was when the run finished; no line means the record is whole."""
        if self.status != "finished":
            return [f"the run is {self.status}: only a finished run has digests to compare with"]
        then = self.manifest.artifacts
        added = [f"{name}: not part of the run" for name in _recorded_files(self.path) if name not in then]
        return changes(self.path, then) + added

    def _existing(self, folder: str, name: str, ending: str) -> Path:
        path = self.file(f"{folder}/{name}{ending}")
        if not path.is_file():
            there = self.names(folder, ending)
            raise BadInput(
                f"{self.path} has no {folder}/{path.name}; it has {', '.join(there) or 'none'} (status {self.status})"
            )
        return path


def resolved(inputs: Mapping[str, str | Path | None]) -> dict[str, str | Path]:
    """Inputs without those that are not given; the path where one is local, else the text (a hub id, a recipe)."""
    given = {name: value for name, value in inputs.items() if value}
    # os.path.exists, because a text too long for a file name is no error here
    local = {name: Path(value) for name, value in given.items() if os.path.exists(os.path.expanduser(value))}
    return given | {name: path.expanduser() for name, path in local.items()}


def _lines(path: Path) -> list[str]:
    """The whole lines of a file, which need not be there; one that a kill cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]


def _measured(line: Mapping[str, Any]) -> Hashable:
    """What a line is about, apart from the numbers."""
    return frozenset(
        (name, value) if isinstance(value, str) or name == "step" else name for name, value in line.items()
    )


def is_run(folder: Path) -> bool:
    """Whether this is the directory of a run: it has a manifest, or its name says that it was killed before it had one."""
    named = re.fullmatch(r"\d{8}-\d{6}_.+_s-?\d+_[0-9a-f]{6}(-\d+)?", folder.name)
    return (folder / "manifest.json").is_file() or (named is not None and folder.is_dir())


def runs_in(root: str | Path, experiment: str = "*") -> list[Path]:
    """The directories of the runs in a folder, of one experiment or of all, sorted; not those that have not appeared yet."""
    return [path for path in sorted(Path(root).glob(f"{experiment}/*")) if path.name[0] != "." and is_run(path)]


def question_of(file: Path) -> str:
    """The first line of the docstring of an experiment's file, read without running it."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.strip().partition("\n")[0]


# ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _name(arm: str, seed: int, config_digest: str) -> str:
    arm_name = re.sub(r"[^\w.-]+", "-", arm)
    return f"{stamp()}_{arm_name}_s{seed}_{config_digest[:6]}"


def _appear(folder: Path, wanted: Path) -> Path:
    """Give a folder a name nobody has: several runs of one arm may start within a second, or in several processes."""
    path, n_tries = wanted, 1
    while True:
        try:
            return folder.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            n_tries += 1
            path = wanted.with_name(f"{wanted.name}-{n_tries}")


def _recorded_files(run: Path) -> list[str]:
    """The names of what a finished run vouches for."""
    return [name for name in files_in(run) if name != "manifest.json" and not name.startswith(_REPORT)]
