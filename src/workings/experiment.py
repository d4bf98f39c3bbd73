"""An experiment file → runs: its arms × seeds, one after another or several at once, each in a directory of its own.

An experiment is a module: a docstring whose first line is the question, a frozen `Config`, `ARMS` (name → Config),
`SCALES` (smoke, mini, full → the fields they set), `inputs(config)`, `run_arm(config, run)`, `report(records, out)`; and, where
several processes can carry out one run (torchrun), `follow(config)`: what all but the first of them do.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from workings.config import (
    changed,
    differing,
    from_dict,
    leaves,
    names_of,
    override,
    read_mapping,
    suggestion,
    to_dict,
    to_yaml,
)
from workings.errors import BadInput, Failed
from workings.files import sha256_of
from workings.launch import Launcher, in_processes, on_slurm, processes_here, rank_here
from workings.run import Run, RunRecord

Scale = Literal["smoke", "mini", "full"]
_PARTS = ("Config", "ARMS", "SCALES", "inputs", "run_arm")


@dataclass(frozen=True)
class Experiment:
    """An experiment file that has been imported and has all its parts."""

    name: str
    file: Path
    module: ModuleType

    @property
    def question(self) -> str:
        """The first line of the docstring."""
        return (self.module.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class Planned:
    """One run to be: an arm, a seed, the resolved config, and how it departs from the arm as the file has it."""

    arm: str
    seed: int
    config: Any
    departures: tuple[str, ...]

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Job:
    """A planned run as another process is told of it: an experiment file of the user's own cannot be pickled."""

    experiment: str
    arm: str
    seed: int
    config: Mapping[str, Any]
    departures: tuple[str, ...]
    scale: Scale
    root: str
    quiet: bool


def available() -> dict[str, Path]:
    """{name: file} of the experiments in the package, found without importing them."""
    package = importlib.util.find_spec("workings.experiments")
    folders = list(package.submodule_search_locations or []) if package else []
    modules = [(module.name, folder) for folder in folders for module in pkgutil.iter_modules([folder])]
    public = [(name, folder) for name, folder in modules if not name.endswith("_report") and name != "fact_arms"]
    return {name.replace("_", "-"): Path(folder) / f"{name}.py" for name, folder in public}


def load(name: str | Path) -> Experiment:
    """An experiment by its name (read-thoughts) or the path of its file."""
    known = available()
    if str(name) in known:
        module = importlib.import_module(f"workings.experiments.{known[str(name)].stem}")
        return _complete(Experiment(str(name), known[str(name)], module))
    if Path(name).suffix == ".py":
        return _complete(_from_file(Path(name), known))
    hint = suggestion(str(name), known) or f"; there are {', '.join(known) or 'none yet'}"
    raise BadInput(f"no experiment '{name}'{hint}; a file of your own is named by its path, ending in .py")


def plan(
    experiment: Experiment,
    arms: Sequence[str] | None = None,
    scale: Scale = "mini",
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    config_path: str | Path | None = None,
) -> list[Planned]:
    """What would be run. Later wins: the arm, the scale, the fields the config file names, the overrides, the seed."""
    from_file = read_mapping(config_path) if config_path else {}
    planned = list(_planned(experiment, arms, _scale(experiment, scale), from_file, overrides, seeds))
    for i, one in enumerate(planned):
        same = [other.arm for other in planned[:i] if other.config == one.config]
        if same:
            raise BadInput(f"so set, {one.arm} and {same[0]} (seed {one.seed}) are the same run; name one of them")
    return planned


def run_experiment(
    name: str | Path,
    arms: Sequence[str] | None = None,
    scale: Scale = "mini",
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    config_path: str | Path | None = None,
    root: str | Path = "runs",
    dry_run: bool = False,
    quiet: bool = False,
    launcher: Launcher = "local",
    jobs: int = 1,
    slurm: Mapping[str, Any] | None = None,
) -> list[RunRecord]:
    """Run arms × seeds and return their records, in the order of the plan; without `seeds`, each config's own.

    In turn here; with `jobs` > 1 so many local processes at once; with `launcher="slurm"` a job each (`slurm`: settings of
    submitit). An arm that fails does not stop the others. With several runs planned, the error at the end names those.
    Under torchrun one run is carried out by all processes, and only the first has a record to return.
    """
    experiment = load(name)
    planned = plan(experiment, arms, scale, seeds, overrides, config_path)
    if dry_run:
        for one in planned:
            print(_described(experiment, one, root))
        return []
    if jobs < 1:
        raise BadInput(f"jobs is {jobs}, and at least one is needed")
    if _followed(experiment, planned[0].config, len(planned), launcher, jobs):
        return []
    if launcher == "local" and (jobs == 1 or len(planned) == 1):
        ended = _in_turn(experiment, planned, scale, root, quiet)
    else:
        ended = _elsewhere(experiment, planned, scale, root, quiet, launcher, jobs, slurm or {})
    return _collected(experiment, planned, ended)


def carry_out(job: Job) -> Path:
    """One planned run, in whatever process this is; the path of its directory."""
    experiment = load(job.experiment)
    config = from_dict(experiment.module.Config, job.config)
    one = Planned(job.arm, job.seed, config, job.departures)
    if _followed(experiment, config):
        return Path()  # the first process's answer is the one that counts
    return _run_one(experiment, one, job.scale, job.root, job.quiet).path


def resume_run(
    path_or_prefix: str | Path, root: str | Path = "runs", quiet: bool = False, name: str | Path | None = None
) -> RunRecord:
    """Go on with a run that failed or was killed, by the experiment file it began with (`name`: if that moved)."""
    record = RunRecord.find(path_or_prefix, root)
    experiment = load(name) if name else experiment_of(record)
    recorded = record.path / "source" / experiment.file.name
    if not recorded.is_file() or sha256_of(recorded) != sha256_of(experiment.file):
        raise BadInput(f"{experiment.file} is not what {record.path.name} began with (its source/): start a new run")
    config = record.config(experiment.module.Config)
    if _followed(experiment, config):
        return record
    with Run.resume(record.path) as run:
        _say(f"{experiment.name}: going on with {run.path}", quiet)
        experiment.module.run_arm(config, run)
    return RunRecord(record.path)


def report_runs(records: Sequence[RunRecord], out: str | Path | None = None) -> Path:
    """The experiment's report on finished runs of one experiment; the path of its report.html.

    Written into the run itself, or, for several, into a folder beside them that is named after their digests.
    """
    finished(records)
    experiment = experiment_of(records[0])
    folder = Path(out) if out else _report_folder(records)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(_reporter(experiment)(list(records), folder))


def _reporter(experiment: Experiment) -> Callable[[list[RunRecord], Path], Path]:
    """`report(records, out)`: the experiment's own, or that of the <name>_report.py beside it."""
    if hasattr(experiment.module, "report"):
        return experiment.module.report
    beside = experiment.file.with_name(f"{experiment.file.stem}_report.py")
    if not beside.is_file():
        raise BadInput(f"{experiment.file} has no report(records, out), and there is no {beside.name} beside it")
    return importlib.import_module(f"workings.experiments.{beside.stem}").report


def finished(records: Sequence[RunRecord]) -> None:
    """BadInput unless there are records, all of one experiment and all finished: others prove nothing yet."""
    if not records:
        raise BadInput("no run was named")
    for record in records:
        if record.status != "finished":
            raise BadInput(f"{record.path} is {record.status}, not finished: resume it, or leave it out")
    names = sorted({record.manifest.experiment for record in records})
    if len(names) > 1:
        raise BadInput(f"these runs belong to different experiments: {', '.join(names)}")


def experiment_of(record: RunRecord) -> Experiment:
    """The experiment a run belongs to: the package's own, or the copy of the user's file that lies in the run."""
    name = record.manifest.experiment
    copies = sorted((record.path / "source").glob("*.py"))
    if name in available():
        return load(name)
    if not copies:
        raise BadInput(
            f"{record.path} is a run of '{name}', which is no experiment here, and holds no copy of its file"
        )
    return load(copies[0])


def _scale(experiment: Experiment, scale: str) -> Mapping[str, Any]:
    scales = experiment.module.SCALES
    if scale not in scales:
        raise BadInput(f"{experiment.name} has no scale '{scale}'; it has {', '.join(scales)}")
    return scales[scale]


def _planned(
    experiment: Experiment,
    arms: Sequence[str] | None,
    scale: Mapping[str, Any],
    from_file: Mapping[str, Any],
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
) -> Iterator[Planned]:
    known = experiment.module.ARMS
    for arm in dict.fromkeys(arms or known):
        if arm not in known:
            hint = suggestion(arm, known) or f"; it has {', '.join(known)}"
            raise BadInput(f"{experiment.name} has no arm '{arm}'{hint}")
        config = override(changed(changed(known[arm], scale), from_file), overrides)
        for seed in dict.fromkeys(seeds or (config.seed,)):
            seeded = changed(config, {"seed": seed})
            yield Planned(arm, seed, seeded, _departures(known[arm], seeded))


def _departures(default: Any, config: Any) -> tuple[str, ...]:
    """field=value for every field but the seed that is not as the arm has it."""
    values = leaves(config)
    names = [name for name in differing(default, config) if name in values and name != "seed"]
    return tuple(f"{name}={v if isinstance(v := values[name], str) else json.dumps(v)}" for name in names)


def _run_one(experiment: Experiment, one: Planned, scale: Scale, root: str | Path, quiet: bool) -> RunRecord:
    with Run.start(
        root,
        experiment.name,
        one.arm,
        one.seed,
        one.config,
        source=experiment.file,
        inputs=experiment.module.inputs(one.config),
        overrides=one.departures,
        scale=scale,
    ) as run:
        _say(f"  → {run.path}", quiet)
        experiment.module.run_arm(one.config, run)
    return RunRecord(run.path)


def _followed(
    experiment: Experiment, config: Any, n_runs: int = 1, launcher: Launcher = "local", jobs: int = 1
) -> bool:
    """Whether this process (torchrun) has taken its part in a run that the first process keeps, and is done.

    BadInput where several processes cannot carry out together what is asked for.
    """
    if processes_here() == 1:
        return False
    if not hasattr(experiment.module, "follow"):
        raise BadInput(f"a run of {experiment.name} is carried out by one process: start it without torchrun")
    if n_runs > 1 or jobs > 1 or launcher != "local":
        raise BadInput(
            f"under torchrun all processes carry out one run, and {n_runs} are asked for, {jobs} at once, by {launcher}: "
            "name one arm and one seed (--arm facts --seeds 0), and leave --jobs and --launcher out"
        )
    if rank_here():
        experiment.module.follow(config)
    return rank_here() > 0


def _in_turn(
    experiment: Experiment, planned: Sequence[Planned], scale: Scale, root: str | Path, quiet: bool
) -> Iterator[tuple[int, Path | Exception]]:
    for i, one in enumerate(planned):
        _say(f"{experiment.name}: {one.label} ({i + 1} of {len(planned)})", quiet)
        try:
            yield i, _run_one(experiment, one, scale, root, quiet).path
        except Exception as error:
            if len(planned) == 1:
                raise
            yield i, error


def _elsewhere(
    experiment: Experiment,
    planned: Sequence[Planned],
    scale: Scale,
    root: str | Path,
    quiet: bool,
    launcher: Launcher,
    jobs: int,
    slurm: Mapping[str, Any],
) -> Iterator[tuple[int, Path | Exception]]:
    name = experiment.name if experiment.name in available() else str(experiment.file.resolve())
    told = [
        Job(name, one.arm, one.seed, to_dict(one.config), one.departures, scale, str(Path(root).resolve()), quiet)
        for one in planned
    ]
    _say(f"{experiment.name}: {len(told)} runs, {'by Slurm' if launcher == 'slurm' else f'{jobs} at once'}", quiet)
    if launcher == "local":
        return in_processes(carry_out, told, jobs)
    return on_slurm(carry_out, told, Path(root) / experiment.name / "slurm", slurm)


def _collected(
    experiment: Experiment, planned: Sequence[Planned], ended: Iterator[tuple[int, Path | Exception]]
) -> list[RunRecord]:
    records: dict[int, RunRecord] = {}
    failures: dict[str, Exception] = {}
    for i, outcome in ended:
        if isinstance(outcome, Exception):
            failures[planned[i].label] = outcome
            _report_failure(planned[i].label, outcome)
        else:
            records[i] = RunRecord(outcome)
    in_order = [records[i] for i in sorted(records)]
    if failures:
        raise _summary(experiment, failures, in_order)
    return in_order


def _described(experiment: Experiment, one: Planned, root: str | Path) -> str:
    """The resolved config as YAML that `--config` accepts, with where it comes from in comments."""
    lines = [f"{experiment.name}: {one.arm}, seed {one.seed}, into {Path(root) / experiment.name}"]
    lines += [f"input {name}: {value}" for name, value in experiment.module.inputs(one.config).items()]
    lines += [f"not as the arm has it: {setting}" for setting in one.departures]
    return "\n".join(f"# {line}" for line in lines) + "\n" + to_yaml(one.config)


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)


def _report_failure(label: str, error: Exception) -> None:
    """On stderr, at once; with the traceback where the mistake may be in the code."""
    if not isinstance(error, BadInput | Failed):
        traceback.print_exception(error)
    print(f"{label} failed: {error}", file=sys.stderr, flush=True)


def _summary(experiment: Experiment, failures: dict[str, Exception], records: list[RunRecord]) -> Exception:
    lines = [f"{experiment.name}: {len(failures)} of {len(failures) + len(records)} runs failed"]
    lines += [f"  {label}: {type(error).__name__}: {error}" for label, error in failures.items()]
    lines += [f"  finished: {record.path}" for record in records]
    if records:
        lines.append("a report on what finished: workings report, with these directories")
    mistakes_only = all(isinstance(error, BadInput) for error in failures.values())
    return (BadInput if mistakes_only else Failed)("\n".join(lines))


def _report_folder(records: Sequence[RunRecord]) -> Path:
    if len(records) == 1:
        return records[0].path
    names = "\n".join(sorted(record.path.name for record in records))
    return records[0].path.parent / f"report_{hashlib.sha256(names.encode()).hexdigest()[:6]}"


def _from_file(file: Path, known: Mapping[str, Path]) -> Experiment:
    name = file.stem.replace("_", "-")
    if not file.is_file():
        raise BadInput(f"no experiment file {file}")
    if name in known:
        raise BadInput(f"{file}: the package has an experiment '{name}' already; give the file another name")
    unique = f"workings_experiment_{file.stem}_{sha256_of(file)[:8]}"
    if unique in sys.modules:  # a second import would make a second, unequal Config
        return Experiment(name, file, sys.modules[unique])
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise BadInput(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return Experiment(name, file, module)


def _complete(experiment: Experiment) -> Experiment:
    missing = [part for part in _PARTS if part not in vars(experiment.module)]
    if missing:
        raise BadInput(f"{experiment.file} is no experiment: it lacks {', '.join(missing)}")
    if "seed" not in names_of(experiment.module.Config):
        raise BadInput(f"{experiment.file}: its Config needs a field 'seed'")
    return experiment
