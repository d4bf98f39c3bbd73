"""The runs that one command plans ⇄ a file beside them, written before the first one starts: so all of them can be gone on with.

    <root>/<experiment>/<time>_sweep_<digest6>.json

The manifest of each run names its sweep. What has become of the runs stands in their own directories and nowhere else.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workings.config import from_dict, to_dict
from workings.errors import BadInput, explained
from workings.files import read_sealed, sealed, sha256_of, write_atomic
from workings.provenance import stamp
from workings.run import RunRecord, runs_in

Scale = Literal["smoke", "mini", "full"]
FORMAT = "workings sweep 1"


@dataclass(frozen=True)
class Planned:
    """One run to be: an arm, a seed, the resolved config, and how it departs from the arm as the file has it.

    Attributes:
        fitted: Fields that follow from settings rather than from the arm, as field=value.
        sweep: The name of the sweep that the run belongs to, if there is one.
        unfinished: The directory of an earlier sitting, to go on with.
    """

    arm: str
    seed: int
    scale: Scale
    config: Any
    departures: tuple[str, ...]
    fitted: tuple[str, ...] = ()
    sweep: str = ""
    unfinished: str = ""

    @property
    def label(self) -> str:
        """The name of the run in messages."""
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """A planned sweep: several runs of one experiment.

    Attributes:
        path: Its file.
        experiment: Name of the experiment.
        file, source: The experiment's file then, and its sha256.
        runs: The runs, their configs as mappings.
    """

    path: Path
    experiment: str
    file: str
    source: str
    runs: tuple[Planned, ...]

    @property
    def name(self) -> str:
        """As the manifests of its runs have it."""
        return self.path.stem

    @classmethod
    def begin(cls, root: str | Path, experiment: str, file: Path, planned: Sequence[Planned]) -> Sweep:
        """Write down the sweep. BadInput or Failed where that is refused."""
        runs = tuple(replace(one, config=to_dict(one.config)) for one in planned)
        content = {
            "format": FORMAT,
            "experiment": experiment,
            "file": str(file.absolute()),
            "source": sha256_of(file),
            "runs": runs,
        }
        text = sealed(content)
        folder = Path(root) / experiment
        path = folder / f"{stamp()}_sweep_{hashlib.sha256(f'{text}{os.getpid()}'.encode()).hexdigest()[:6]}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text)
        except OSError as error:
            raise explained(error, folder) from error
        return cls(path, experiment, content["file"], content["source"], runs)

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """The sweep in a file; BadInput where it is none, or was changed."""
        content = read_sealed(path, "start the sweep again, or resume its runs one by one")
        if content.pop("format", None) != FORMAT:
            raise BadInput(f"{path} is no sweep of runs")
        return from_dict(cls, {"path": path, **content})

    @classmethod
    def find(cls, path_or_name: str | Path, root: str | Path = "runs") -> Sweep | None:
        """The sweep at a path, or the one below `root` of this name or of a beginning of it that goes beyond the time."""
        if Path(path_or_name).is_file():
            return cls.read(Path(path_or_name))
        wanted = Path(path_or_name).name.removesuffix(".json")
        found = [path for path in sorted(Path(root).glob("*/*_sweep_*.json")) if path.stem.startswith(wanted)]
        return cls.read(found[0]) if len(found) == 1 and "_sweep" in wanted else None

    def records(self) -> dict[tuple[str, int], RunRecord]:
        """{(arm, seed): record} of the runs that have been started, in whatever state they are."""
        every = [RunRecord.find(path) for path in runs_in(self.path.parents[1], glob.escape(self.path.parent.name))]
        return {(one.manifest.arm, one.manifest.seed): one for one in every if one.manifest.sweep == self.name}
