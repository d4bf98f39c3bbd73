"""An experiment file → runs: its arms × seeds, one after another or several at once, each in a directory of its own.

An experiment is a module with a docstring whose first line is the question, and

    Config                 a frozen dataclass with a field `seed`
    ARMS                   name → Config
    run_arm(config, run)   carry out one arm, and write what it finds into the run

It may also have

    SCALES                 smoke, mini, full → the fields they set; without it only mini, which sets nothing
    inputs(config)         name → path, hub id or text that is read from outside (None: not given), hashed by content where
                           it is local; by default the fields that name existing local paths
    report(records, out)   here or in <name>_report.py beside it; by default experiments/default_report.py
    follow(config)         where several processes can carry out one run (torchrun): what all but the first of them do
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from workings.config import (
    changed,
    differing,
    field_of,
    from_dict,
    leaves,
    names_of,
    read_mapping,
    settings_in,
    several,
    to_dict,
    to_yaml,
)
from workings.errors import BadInput, Failed, ours, suggestion
from workings.files import sha256_of
from workings.launch import Ended, Launcher, check_launcher, in_processes, on_slurm, processes_here, rank_here
from workings.progress import quietly, say
from workings.run import Run, RunRecord, resolved
from workings.sweep import Planned, Scale, Sweep

_FOLDER = Path(__file__).parent / "experiments"


@dataclass(frozen=True)
class Experiment:
    """An experiment file that has been imported and has the parts that it must have."""

    name: str
    file: Path
    module: ModuleType

    @property
    def scales(self) -> Mapping[str, Mapping[str, Any]]:
        """The fields that each scale sets."""
        scales = getattr(self.module, "SCALES", {})
        return scales if "mini" in scales else {**scales, "mini": {}}

    def inputs(self, config: Any) -> dict[str, str | Path]:
        """What a run reads from outside, by name: paths where it is local."""
        if hasattr(self.module, "inputs"):
            return resolved(self.module.inputs(config))
        named = {name: value for name, value in leaves(config).items() if isinstance(value, str)}
        return {name: value for name, value in resolved(named).items() if isinstance(value, Path)}

    @property
    def report(self) -> Callable[[list[RunRecord], Path], Path]:
        """`report(records, out)` of the file, of the <name>_report.py beside it, or the default one."""
        if hasattr(self.module, "report"):
            return self.module.report
        beside = self.file.with_name(f"{self.file.stem}_report.py")
        return _module_of(beside if beside.is_file() else _FOLDER / "default_report.py").report


# ── which experiments there are ──────────────────────────────────────────────────────────────────────────────────────


def available() -> dict[str, Path]:
    """{name: file} of the experiments in the package, found without importing them."""
    files = [file for file in sorted(_FOLDER.glob("*.py")) if not file.stem.endswith(("_report", "__"))]
    return {_name_of(file): file for file in files}


def load(name: str | Path) -> Experiment:
    """Import an experiment, by its name (read-thoughts) or the path of its file.

    Raises:
        BadInput: Where there is no such experiment, or the file lacks a part that one must have.
    """
    known, file = available(), Path(name)
    if str(name) in known:
        file = known[str(name)]
    elif file.suffix != ".py":
        hint = suggestion(str(name), known) or f"; there are {', '.join(known)}"
        raise BadInput(f"no experiment '{name}'{hint}; a file of your own is named by its path, ending in .py")
    elif not file.is_file():
        raise BadInput(f"no experiment file {file}")
    elif _name_of(file) in known:
        raise BadInput(f"{file}: the package has an experiment '{_name_of(file)}' already; give the file another name")
    module = _module_of(file)
    missing = [part for part in ("Config", "ARMS", "run_arm") if part not in vars(module)]
    if missing:
        raise BadInput(f"{file} is no experiment: it lacks {', '.join(missing)}")
    if "seed" not in names_of(module.Config):
        raise BadInput(f"{file}: its Config needs a field 'seed'")
    return Experiment(_name_of(file), file, module)


def experiment_of(record: RunRecord) -> Experiment:
    """The experiment a run belongs to: the package's own, or the copy of the user's file that lies in the run."""
    name = record.manifest.experiment
    if name in available():
        return load(name)
    if record.source is None:
        raise BadInput(
            f"{record.path} is a run of '{name}', which is no experiment here, and holds no copy of its file"
        )
    return load(record.source)


def new_experiment(name: str, folder: str | Path = ".") -> Path:
    """Write a small experiment that runs at once, as a start for one's own; the path of the file.

    It is the package's experiment `example` with its own name, and with today's date at its prediction.

    Args:
        name: Its name, as in "longer-chains"; the file is longer_chains.py.

    Raises:
        BadInput: Where the name is no name or is taken, or the file exists already.
    """
    file = Path(folder) / f"{name.removesuffix('.py').replace('-', '_')}.py"
    if "/" in name or not file.stem.isidentifier():
        raise BadInput(f"'{name}' cannot name an experiment: use letters, digits and -, as in longer-chains")
    if _name_of(file) in available():
        raise BadInput(f"the package has an experiment '{name}' already; choose another name")
    if file.exists():
        raise BadInput(f"{file} exists already; choose another name, or remove it first")
    text = (
        (_FOLDER / "example.py")
        .read_text(encoding="utf-8")
        .replace("workings run example", f"workings run {file.name}")
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(re.sub(r"(?<=Prediction \()\d{4}-\d\d-\d\d", date.today().isoformat(), text), encoding="utf-8")
    return file


def _name_of(file: Path) -> str:
    return file.stem.replace("_", "-")


def _module_of(file: Path) -> ModuleType:
    """The module in a file, imported once: a second import would make a second, unequal Config."""
    if file.parent == _FOLDER:
        return importlib.import_module(f"workings.experiments.{file.stem}")
    unique = f"workings_experiment_{file.stem}_{sha256_of(file)[:8]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise BadInput(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[unique]
        raise BadInput(f"{error.filename or file}, line {error.lineno or 1}: {error.msg}") from error
    except BaseException:
        del sys.modules[unique]
        raise
    return module


# ── which runs are meant ─────────────────────────────────────────────────────────────────────────────────────────────


def plan(
    experiment: Experiment,
    arms: str | Sequence[str] | None = None,
    scale: Scale = "mini",
    seeds: Sequence[int] | None = None,
    overrides: str | Sequence[str] = (),
    config_path: str | Path | None = None,
) -> list[Planned]:
    """Resolve the config of every run that is asked for.

    Later wins: the arm, the scale, the fields the config file names, the overrides, the seed.

    Raises:
        BadInput: For an arm, scale or field that there is not, and where two arms are made equal.
    """
    known, scales = experiment.module.ARMS, experiment.scales
    if scale not in scales:
        raise BadInput(f"{experiment.name} has no scale '{scale}'; it has {', '.join(scales)}")
    chosen = leaves(read_mapping(config_path) if config_path else {}) | settings_in(experiment.module.Config, overrides)
    planned: list[Planned] = []
    for arm in dict.fromkeys(several(arms or known)):
        if arm not in known:
            hint = suggestion(arm, known) or f"; it has {', '.join(known)}"
            raise BadInput(f"{experiment.name} has no arm '{arm}'{hint}")
        at_scale = changed(known[arm], scales[scale])
        config = changed(at_scale, chosen)
        parts = [name for name in leaves(config) if field_of(type(config), name)[0].metadata.get("share_of")]
        fitted = tuple(
            one for one in _departures(at_scale, config) if one.partition("=")[0] in set(parts) - set(chosen)
        )
        for seed in dict.fromkeys(seeds or (config.seed,)):
            seeded = changed(config, {"seed": seed})
            same = [one.arm for one in planned if one.config == seeded]
            if same:
                raise BadInput(f"so set, {arm} and {same[0]} (seed {seed}) are the same run; name one of them")
            planned.append(Planned(arm, seed, scale, seeded, _departures(known[arm], seeded), fitted))
    return planned


def _departures(default: Any, config: Any) -> tuple[str, ...]:
    """field=value for every field but the seed that is not as the arm has it."""
    values = leaves(config)
    names = [name for name in differing(default, config) if name in values and name != "seed"]
    return tuple(f"{name}={v if isinstance(v := values[name], str) else json.dumps(v)}" for name in names)


# ── carrying them out ────────────────────────────────────────────────────────────────────────────────────────────────


def run_experiment(
    name: str | Path,
    arms: str | Sequence[str] | None = None,
    scale: Scale = "mini",
    seeds: Sequence[int] | None = None,
    overrides: str | Sequence[str] = (),
    config_path: str | Path | None = None,
    root: str | Path = "runs",
    dry_run: bool = False,
    quiet: bool = False,
    launcher: Launcher = "local",
    jobs: int = 1,
    slurm: Mapping[str, Any] | None = None,
) -> list[RunRecord]:
    """Run arms × seeds and return their records, in the order of the plan.

    An arm that fails does not stop the others; with several runs planned, the error at the end names those that failed.
    Under torchrun one run is carried out by all processes, and only the first has a record to return.

    Args:
        arms: By default all.
        seeds: By default each config's own.
        overrides: field=value, dotted for groups.
        config_path: A YAML file of fields.
        dry_run: Print the resolved configs, run nothing.
        jobs: Number of runs at a time, each in a local process; 1 means in this process, in turn.
        launcher: "slurm" submits every run as a job of its own; `slurm` holds submitit's settings.
    """
    experiment = load(name)
    planned = plan(experiment, arms, scale, seeds, overrides, config_path)
    if dry_run:
        for one in planned:  # YAML that --config accepts, with where it comes from in comments
            lines = [f"{experiment.name}: {one.label}, into {Path(root) / experiment.name}"]
            lines += [f"input {name}: {value}" for name, value in experiment.inputs(one.config).items()]
            lines += [f"not as the arm has it: {setting}" for setting in one.departures]
            print("\n".join(f"# {line}" for line in lines), to_yaml(one.config), sep="\n")
        return []
    if jobs < 1:
        raise BadInput(f"jobs is {jobs}, and at least one is needed")
    with quietly(quiet):
        for setting in dict.fromkeys(setting for one in planned for setting in one.fitted):
            say(f"note: {setting}, so that it fits what you set; name it to choose another value")
        if _followed(experiment, planned[0].config, len(planned), launcher, jobs):
            return []
        check_launcher(launcher)
        for one in planned:
            experiment.inputs(one.config)  # what is missing is said once, and before anything is written
        if len(planned) > 1:
            sweep = Sweep.begin(root, experiment.name, experiment.file, planned)
            planned = [replace(one, sweep=sweep.name) for one in planned]
            say(
                f"{experiment.name}: {len(planned)} runs, the sweep {sweep.name}; --resume {sweep.path} goes on with all of them"
            )
            try:
                return _carried_out(experiment, planned, root, launcher, jobs, slurm)
            except BadInput:
                if not sweep.records():
                    sweep.path.unlink(missing_ok=True)
                raise
        return _carried_out(experiment, planned, root, launcher, jobs, slurm)


def _carried_out(
    experiment: Experiment,
    planned: Sequence[Planned],
    root: str | Path,
    launcher: Launcher,
    jobs: int,
    slurm: Mapping[str, Any] | None,
) -> list[RunRecord]:
    if launcher == "local" and (jobs == 1 or len(planned) == 1):
        return _collected(experiment, planned, _in_turn(experiment, planned, root))
    say(f"{len(planned)} runs, {'by Slurm' if launcher == 'slurm' else f'{jobs} at once'}")
    # by its name where it has one: another machine may have the package elsewhere
    place = experiment.name if experiment.name in available() else str(experiment.file.resolve())
    function = partial(_carry_out, place, str(Path(root).resolve()))
    # a Config of the user's own file cannot be pickled
    sent = [replace(one, config=to_dict(one.config)) for one in planned]
    if launcher == "slurm":
        ended = on_slurm(function, sent, Path(root) / experiment.name / "slurm", slurm or {})
    else:
        ended = in_processes(function, sent, jobs)
    return _collected(experiment, planned, ended)


def _carry_out(place: str, root: str, planned: Planned) -> Path:
    """Carry out a run, whose config is a mapping, in a process of its own; the path of its directory."""
    experiment = load(place)
    one = replace(planned, config=from_dict(experiment.module.Config, planned.config))
    if _followed(experiment, one.config):
        return Path()  # the first process's answer is the one that counts
    return _run_one(experiment, one, root)


def resume(
    path_or_name: str | Path,
    root: str | Path = "runs",
    quiet: bool = False,
    name: str | Path | None = None,
    launcher: Launcher = "local",
    jobs: int = 1,
    slurm: Mapping[str, Any] | None = None,
) -> list[RunRecord]:
    """Go on with a run, or with a sweep: with every run of it that is not finished, whether or not it was begun.

    Args:
        path_or_name: The run as `RunRecord.find` takes it, or the sweep's file or its name.
        name: The experiment, if its file has moved.
        launcher, jobs, slurm: How the runs of a sweep are carried out, as in `run_experiment`.

    Returns:
        The records, in the order of the plan; those that were finished already as they are.

    Raises:
        BadInput: Where a run is being written, or the experiment's file has changed since.
        Failed: Where runs fail; the error names them.
    """
    check_launcher(launcher)
    sweep = Sweep.find(path_or_name, root)
    if sweep is None:
        return [resume_run(path_or_name, root, quiet, name)]
    experiment = load(name or (sweep.experiment if sweep.experiment in available() else sweep.file))
    begun = sweep.records()
    done = {arm_and_seed for arm_and_seed, record in begun.items() if record.status == "finished"}
    rest = [
        replace(
            one,
            config=from_dict(experiment.module.Config, one.config),
            sweep=sweep.name,
            unfinished=str(begun[arm_and_seed].path.absolute()) if arm_and_seed in begun else "",
        )
        for one in sweep.runs
        if (arm_and_seed := (one.arm, one.seed)) not in done
    ]
    if rest and sweep.source != sha256_of(experiment.file):
        raise BadInput(f"{experiment.file} is not what the sweep {sweep.name} began with: start a new one")
    with quietly(quiet):
        say(f"{experiment.name}: {len(sweep.runs) - len(rest)} of {len(sweep.runs)} runs of {sweep.name} are finished")
        if rest:
            if _followed(experiment, rest[0].config, len(rest), launcher, jobs):
                return []
            _carried_out(experiment, rest, sweep.path.parents[1], launcher, jobs, slurm)
    records = sweep.records()
    return [records[one.arm, one.seed] for one in sweep.runs]


def resume_run(
    path_or_name: str | Path, root: str | Path = "runs", quiet: bool = False, name: str | Path | None = None
) -> RunRecord:
    """Go on with a run that failed or was killed, by the experiment file it began with. A finished one is left as it is.

    Args:
        path_or_name: The run, as `RunRecord.find` takes it.
        name: The experiment, if its file has moved.

    Raises:
        BadInput: Where the run is being written, or the experiment's file has changed since.
    """
    record = RunRecord.find(path_or_name, root)
    experiment = load(name) if name else experiment_of(record)
    with quietly(quiet):
        if record.status == "finished" and record.manifest.experiment == experiment.name:
            say(f"{record.path} is finished: there is nothing left to compute")
            return record
        if _followed(experiment, record.config(experiment.module.Config)):
            return record
        return RunRecord(_go_on(experiment, record))


def _go_on(experiment: Experiment, record: RunRecord) -> Path:
    recorded = record.path / "source" / experiment.file.name
    if not recorded.is_file() or sha256_of(recorded) != sha256_of(experiment.file):
        raise BadInput(f"{experiment.file} is not what {record.path.name} began with (its source/): start a new run")
    with Run.resume(record.path) as run:
        say(f"{experiment.name}: going on with {run.path}")
        experiment.module.run_arm(record.config(experiment.module.Config), run)
    return record.path


def _run_one(experiment: Experiment, one: Planned, root: str | Path) -> Path:
    if one.unfinished:
        return _go_on(experiment, RunRecord(one.unfinished))
    with Run.start(
        root,
        experiment.name,
        one.arm,
        one.seed,
        one.config,
        source=experiment.file,
        inputs=experiment.inputs(one.config),
        overrides=one.departures,
        scale=one.scale,
        sweep=one.sweep,
    ) as run:
        say(f"  → {run.path}")
        experiment.module.run_arm(one.config, run)
    return run.path


def _in_turn(experiment: Experiment, planned: Sequence[Planned], root: str | Path) -> Ended[Path]:
    for i, one in enumerate(planned):
        say(f"{experiment.name}: {one.label} ({i + 1} of {len(planned)})")
        try:
            yield i, _run_one(experiment, one, root)
        except Exception as error:
            if len(planned) == 1:
                raise
            yield i, error


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


def _collected(experiment: Experiment, planned: Sequence[Planned], ended: Ended[Path]) -> list[RunRecord]:
    """The records in the order of the plan; at the end one error for all that failed."""
    done: dict[int, RunRecord] = {}
    failed: dict[str, Exception] = {}
    for i, outcome in ended:
        if isinstance(outcome, Path):
            done[i] = RunRecord(outcome)
            continue
        known = ours(outcome)
        if known is None:  # the mistake may be in the code
            traceback.print_exception(outcome)
        failed[planned[i].label] = known or outcome
        print(f"{planned[i].label} failed: {known or outcome}", file=sys.stderr, flush=True)
    records = [done[i] for i in sorted(done)]
    if not failed:
        return records
    lines = [f"{experiment.name}: {len(failed)} of {len(failed) + len(records)} runs failed"]
    lines += [f"  {label}: {type(error).__name__}: {error}" for label, error in failed.items()]
    lines += [f"  finished: {record.path}" for record in records]
    if records:
        lines.append("a report on what finished: workings report, with these directories")
    mistakes_only = all(isinstance(error, BadInput) for error in failed.values())
    if planned[0].sweep and (records or not mistakes_only):  # a mistake would be resumed as it was configured
        lines.append(f"to go on with what failed: workings run {experiment.name} --resume {planned[0].sweep}")
    raise (BadInput if mistakes_only else Failed)("\n".join(lines))


# ── reporting on them ────────────────────────────────────────────────────────────────────────────────────────────────


def report_runs(records: Sequence[RunRecord], out: str | Path | None = None) -> Path:
    """Write the experiment's report on finished runs of one experiment; the path of its report.html.

    It goes into the run itself, or, for several, into a folder beside them that is named after their digests.
    """
    finished(records)
    folder = Path(out) if out else records[0].path
    if out is None and len(records) > 1:
        names = "\n".join(sorted(record.path.name for record in records))
        folder = records[0].path.parent / f"report_{hashlib.sha256(names.encode()).hexdigest()[:6]}"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(experiment_of(records[0]).report(list(records), folder))


def finished(records: Sequence[RunRecord]) -> None:
    """BadInput unless there are records, all of one experiment, finished, and as they were then: others prove nothing."""
    if not records:
        raise BadInput("no run was named")
    for record in records:
        if record.status != "finished":
            raise BadInput(f"{record.path} is {record.status}, not finished: resume it, or leave it out")
        record.check()
    names = sorted({record.manifest.experiment for record in records})
    if len(names) > 1:
        raise BadInput(f"these runs belong to different experiments: {', '.join(names)}")
