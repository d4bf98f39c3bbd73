"""Runs: make them, list them, show them, compare them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workings import judging
from workings.cli.options import Command, Given, Printing, Running, config_fields, option, positional
from workings.errors import BadInput
from workings.experiment import (
    Scale,
    available,
    experiment_of,
    finished,
    load,
    new_experiment,
    report_runs,
    run_experiment,
)
from workings.files import plain, to_json
from workings.launch import Launcher, job_settings
from workings.run import SHIPPED_RUNS, RunRecord, question_of, runs_in


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Read the thoughts of the bundled model, and judge the reading.

    The last line printed is the path of report.html.
    """

    out: str = option("runs", "folder for the run")

    def __call__(self) -> None:
        print(report_runs(run_experiment("read-thoughts", scale="mini", root=self.out)))


def _config_in(words: Sequence[str]) -> type | None:
    """The Config of the experiment named among the words behind `run`: a known one, a file, or else the first word."""
    known = available()
    named = next((word for word in words if word in known or word.endswith(".py")), words[0] if words else "-")
    return None if named.startswith("-") else load(named).module.Config


@dataclass(frozen=True, kw_only=True)
class RunExperiment(Running):
    """Run an experiment's arms, one run for each arm and seed.

    Prints the path of the report. Every field of the experiment's Config that lies in no group is a flag:
    workings run EXPERIMENT --help lists them.

    One run on several devices: torchrun --nproc-per-node N -m workings run fact-tokens --arm facts --seeds 0 …
    """

    experiment: str = positional(help="experiment: a name that workings list shows, or the path of a .py file")
    arm: tuple[str, ...] = option((), "arms to run, by default all")
    scale: Scale = option("mini", "scale: smoke takes seconds, mini minutes, full gives the seed's own numbers")
    seeds: tuple[int, ...] = option((), "random seeds, one run for each; by default the seed of the config")
    jobs: int = option(1, "number of runs at once, each in its own process", at_least=1)
    launcher: Launcher = option("local", "launcher: local for processes on this machine, slurm for jobs of a cluster")
    slurm: tuple[str, ...] = option(
        (), "settings of each Slurm job: timeout_min=240 gpus_per_node=1 slurm_partition=gpu"
    )
    given: Given = config_fields(_config_in)

    def __call__(self) -> None:
        self.run_and_report(
            self.experiment,
            self.arm,
            scale=self.scale,
            seeds=self.seeds,
            launcher=self.launcher,
            jobs=self.jobs,
            slurm=job_settings(self.slurm),
        )


@dataclass(frozen=True, kw_only=True)
class New(Command):
    """Write a small experiment that runs at once, to start yours from.

    Prints its path.
    """

    name: str = positional(help="name of the experiment, as in longer-chains; the file is longer_chains.py")
    folder: str = option(".", "folder to write the file into")

    def __call__(self) -> None:
        print(new_experiment(self.name, self.folder))


@dataclass(frozen=True, kw_only=True)
class InRuns(Command):
    """The folder in which runs are found by name."""

    root: str = option("runs", "folder that holds the runs")


@dataclass(frozen=True, kw_only=True)
class ListAll(InRuns, Printing):
    """List the experiments, each with its question, and the runs so far."""

    def __call__(self) -> None:
        if Path(self.root).exists() and not Path(self.root).is_dir():
            raise BadInput(f"--root {self.root} is a file: name the folder that holds the runs")
        experiments = {name: question_of(file) for name, file in available().items()}
        runs = {str(path): _status(path) for path in runs_in(self.root)}
        if self.json:
            print(json.dumps({"experiments": experiments, "runs": runs}, indent=1))
            return
        _print_pairs("experiments", experiments)
        _print_pairs(f"runs in {self.root}/", runs)


def _status(path: Path) -> str:
    if not (path / "manifest.json").exists():
        return "killed before it began"
    try:
        return RunRecord(path).status
    except BadInput:
        return "unreadable"


def _print_pairs(title: str, lines: Mapping[str, str]) -> None:
    width = max(map(len, lines), default=0)
    print(title if lines else f"{title}: none")
    for name, about in lines.items():
        print(f"  {name:{width}}  {about}")


@dataclass(frozen=True, kw_only=True)
class Show(InRuns, Printing):
    """Show what a run was and what came out of it."""

    run: str = positional(help="run: its path, or an unambiguous part of its name")

    def __call__(self) -> None:
        record = RunRecord.find(self.run, self.root)
        manifest = record.manifest
        about: dict[str, Any] = {"experiment": manifest.experiment, "status": record.status}
        if record.question:
            about["question"] = record.question
        for name in ("arm", "seed", "scale", "started", "ended", "commit", "dirty"):
            about[name] = getattr(manifest, name)
        about["not as the arm has it"] = ", ".join(manifest.overrides) or "nothing"
        about["spent"] = plain(manifest.spent)
        if manifest.reason:
            about["reason"] = manifest.reason
        if record.headline:
            about["result"] = record.headline
        if self.json:
            print(to_json(about | {"manifest": manifest}), end="")
            return
        lines: dict[str, str] = {}
        for name, value in about.items():
            for key, item in value.items() if isinstance(value, dict) else [("", value)]:
                lines[f"{name} {key}".strip()] = item if isinstance(item, str) else json.dumps(item)
        _print_pairs(record.path.name, lines)


@dataclass(frozen=True, kw_only=True)
class Report(InRuns):
    """Write the report on finished runs of one experiment again, pooled over their training seeds.

    Prints the path of report.html. `workings report bundled` shows the trainings of the bundled pair, all seeds.
    """

    runs: tuple[str, ...] = positional(
        help="finished runs of one experiment: paths, or unambiguous parts of names; or bundled"
    )
    out: str | None = option(None, "folder for the report; by default the run, or one beside several runs")

    def __call__(self) -> None:
        if self.runs == ("bundled",):
            records = [RunRecord(path.parent) for path in sorted(SHIPPED_RUNS.glob("*/manifest.json"))]
            print(report_runs(records, self.out or Path(self.root) / "bundled"))
            return
        print(report_runs([RunRecord.find(run, self.root) for run in self.runs], self.out))


@dataclass(frozen=True, kw_only=True)
class Compare(InRuns):
    """Compare finished runs of one experiment, paired by example.

    Refuses what cannot be compared.
    """

    runs: tuple[str, ...] = positional(help="two or more finished runs: paths, or unambiguous parts of names")

    def __call__(self) -> None:
        records = [RunRecord.find(run, self.root) for run in self.runs]
        finished(records)
        print(judging.compare(records, experiment_of(records[0]).module.Config).text())
