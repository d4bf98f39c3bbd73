"""The read side of a run: one directory → its manifest, config, metrics, outcomes, results, all intact or not."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from workings.config import from_dict, from_yaml
from workings.errors import BadInput
from workings.files import is_locked
from workings.provenance import digests_in

if TYPE_CHECKING:
    import polars as pl

C = TypeVar("C")
Status = Literal["running", "finished", "failed", "killed"]
REPORT = ("report.html", "report.md", "figures/")  # made from the record afterwards, so no part of it


class RunRecord:
    """The read side of one run directory. Reads when asked, changes nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)

    @classmethod
    def find(cls, path_or_prefix: str | Path, root: str | Path = "runs") -> RunRecord:
        """The run at a path, or the only one below `root` whose name starts so. BadInput for none or several."""
        if (Path(path_or_prefix) / "manifest.json").is_file():
            return cls(path_or_prefix)
        if Path(path_or_prefix).is_dir():
            raise BadInput(f"{path_or_prefix} is not a run: it has no manifest.json")
        wanted = str(path_or_prefix)
        known = [path.parent for path in sorted(Path(root).glob("*/*/manifest.json"))]
        found = [path for path in known if wanted == path.name]  # else X could not be named where X-2 exists
        found = found or [path for path in known if f"{path.parent.name}/{path.name}".startswith(wanted)]
        found = found or [path for path in known if path.name.startswith(wanted)]
        if not found:
            raise BadInput(
                f"no run '{wanted}': neither a path nor one of the {len(known)} runs in {root}/ (workings list)"
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:5])
            raise BadInput(f"'{wanted}' could be any of {len(found)} runs: {names}; write more of the name")
        return cls(found[0])

    @property
    def status(self) -> Status:
        """What the manifest says, but "killed" where it says "running" and nobody holds the lock."""
        status = self.manifest["status"]
        return "killed" if status == "running" and not is_locked(self.path) else status

    @property
    def question(self) -> str:
        """The first line of the experiment's docstring, as the run's copy of its file has it."""
        sources = sorted((self.path / "source").glob("*.py"))
        return question_of(sources[0]) if sources else ""

    def config(self, cls: type[C]) -> C:
        """The resolved config, as an instance of the experiment's `Config`."""
        return from_yaml(cls, self.path / "config.yaml")

    def metrics(self) -> pl.DataFrame:
        """One row a `log`: step, seconds and what was logged. A last line that a kill cut short is left out."""
        import polars as pl

        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return pl.from_dicts(rows, infer_schema_length=None) if rows else pl.DataFrame()

    def outcomes(self, name: str) -> pl.DataFrame:
        """The frame that `Run.outcomes` wrote."""
        import polars as pl

        return pl.read_parquet(self._existing("outcomes", f"{name}.parquet"))

    @overload
    def result(self, name: str) -> Any: ...
    @overload
    def result(self, name: str, cls: type[C]) -> C: ...
    def result(self, name: str, cls: type | None = None) -> Any:
        """What `Run.results` wrote: an instance of the dataclass `cls`, or, without one, what JSON gives back.

        BadInput where there is no such file, or it does not hold what `cls` asks for (a run of another version).
        """
        path = self._existing("results", f"{name}.json")
        content = json.loads(path.read_text(encoding="utf-8"))
        if cls is None:
            return content
        try:
            return from_dict(cls, content)
        except BadInput as error:
            raise BadInput(
                f"{path} was not written by this version of workings ({error}): run the experiment again, or open the run "
                "with the version in its manifest"
            ) from None

    def verify(self) -> list[str]:
        """One line for every file that is not as it was when the run finished; no line means the record is whole."""
        if self.status != "finished":
            return [f"the run is {self.status}: only a finished run has digests to compare with"]
        then = self.manifest["artifacts"]
        now = {name: sha for name, sha in digests_in(self.path).items() if is_recorded(name)}
        return (
            [f"{name}: missing" for name in then if name not in now]
            + [f"{name}: changed" for name in then if name in now and now[name] != then[name]]
            + [f"{name}: not part of the run" for name in now if name not in then]
        )

    def _existing(self, folder: str, name: str) -> Path:
        path = self.path / folder / name
        if not path.is_file():
            there = sorted(p.stem for p in (self.path / folder).glob("*"))
            raise BadInput(
                f"{self.path} has no {folder}/{name}; it has {', '.join(there) or 'none'} (status {self.status})"
            )
        return path


def question_of(file: Path) -> str:
    """The first line of the docstring of an experiment's file, read without running it."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.strip().partition("\n")[0]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is not a run: it has no manifest.json") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}/manifest.json cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        raise BadInput(f"{path}/manifest.json is not the manifest of a run")
    return manifest


def is_recorded(name: str) -> bool:
    """Whether a file is part of what a finished run vouches for."""
    return name != "manifest.json" and not name.startswith(REPORT)
