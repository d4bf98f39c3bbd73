"""Runs: make them, list them, show them, compare them, check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from workings.cli.options import AsJson, Quiet, Root, refuse_beside_resume
from workings.errors import BadInput
from workings.files import plain, to_json

if TYPE_CHECKING:
    from workings.run import RunRecord


def demo(*, out: Annotated[str, "the folder that the run goes into"] = "runs", quiet: Quiet = False) -> None:
    """Read the thoughts of the bundled model and judge the reading; the last line is the path of report.html."""
    from workings.experiment import report_runs, run_experiment

    records = run_experiment("read-thoughts", scale="mini", root=out, quiet=quiet)
    print(report_runs(records))


def list_all(*, root: Root = "runs", json_: AsJson = False) -> None:
    """List the experiments there are, each with its question, and the runs so far."""
    from workings.experiment import available
    from workings.run import question_of

    experiments = {name: question_of(file) for name, file in available().items()}
    runs = {str(path.parent): _status(path.parent) for path in sorted(Path(root).glob("*/*/manifest.json"))}
    if json_:
        print(json.dumps({"experiments": experiments, "runs": runs}, indent=1))
        return
    for title, lines in (("experiments", experiments), (f"runs in {root}/", runs)):
        width = max(map(len, lines), default=0)
        print(title if lines else f"{title}: none")
        for name, about in lines.items():
            print(f"  {name:{width}}  {about}")


def run(
    experiment: Annotated[str, "a name (see list), or the path of a .py file"],
    /,
    *,
    arm: Annotated[list[str] | None, "the arms to run, instead of all"] = None,
    scale: Annotated[Literal["smoke", "mini", "full"], "seconds, minutes, or the seed's own numbers"] = "mini",
    seeds: Annotated[list[int] | None, "one run a seed, instead of the config's own"] = None,
    set_: Annotated[list[str] | None, "field=value, dotted for groups: optim.lr=3e-4"] = None,
    config: Annotated[str | None, "a YAML file of fields, such as the config.yaml of a run"] = None,
    model: Annotated[str | None, "the same as --set model=…: bundled, a path, or a hub id"] = None,
    problems: Annotated[str | None, "the same as --set problems=…: generated, a path, or a hub id"] = None,
    limit: Annotated[int | None, "the same as --set limit=…"] = None,
    device: Annotated[str | None, "the same as --set device=…: auto, cpu, cuda or mps"] = None,
    precision: Annotated[str | None, "the same as --set precision=…: fp32 or bf16"] = None,
    batch_size: Annotated[int | None, "the same as --set batch_size=…"] = None,
    out: Annotated[str, "the folder that runs go into"] = "runs",
    resume: Annotated[str | None, "go on with this unfinished run, as it was configured"] = None,
    jobs: Annotated[int, "so many runs at once, each in a process of its own"] = 1,
    launcher: Annotated[Literal["local", "slurm"], "where runs are carried out"] = "local",
    slurm: Annotated[list[str] | None, "of each job: timeout_min=240 gpus_per_node=1 slurm_partition=gpu"] = None,
    dry_run: Annotated[bool, "print the resolved configs and inputs, run nothing"] = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment's arms, one run for each arm and seed, and write its report; prints the path of report.html.

    One run on several devices: torchrun --nproc-per-node N -m workings run fact-tokens --arm facts --seeds 0 …
    """
    from workings.experiment import report_runs, resume_run, run_experiment
    from workings.launch import job_settings, rank_here

    shortcuts = {
        "model": model,
        "problems": problems,
        "limit": limit,
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
    }
    overrides = [f"{field}={value}" for field, value in shortcuts.items() if value is not None] + (set_ or [])
    if resume:
        refuse_beside_resume(arm, seeds, config, overrides)
        records = [resume_run(resume, out, quiet, experiment)]
    else:
        job = job_settings(slurm or [])
        records = run_experiment(
            experiment, arm, scale, seeds, overrides, config, out, dry_run, quiet, launcher, jobs, job
        )
    if records and not rank_here():
        print(report_runs(records))


def show(
    run: Annotated[str, "the path of a run, or a part of its name"],
    /,
    *,
    root: Root = "runs",
    json_: AsJson = False,
) -> None:
    """Show what a run was and what came out of it."""
    record = _record(run, root)
    about = _about(record)
    if json_:
        print(to_json(about | {"manifest": record.manifest}), end="")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=record.path.name, show_header=False, title_justify="left")
    for name, value in about.items():
        for key, item in value.items() if isinstance(value, dict) else [("", value)]:
            table.add_row(f"{name} {key}".strip(), Text(item if isinstance(item, str) else json.dumps(item)))
    Console().print(table)


def report(
    runs: Annotated[list[str], "finished runs of one experiment"],
    /,
    *,
    out: Annotated[str | None, "the folder to write into, instead of the run's own"] = None,
    root: Root = "runs",
) -> None:
    """Write the experiment's report on finished runs again; prints the path of report.html."""
    from workings.experiment import report_runs

    print(report_runs([_record(run, root) for run in runs], out))


def compare(runs: Annotated[list[str], "two finished runs or more"], /, *, root: Root = "runs") -> None:
    """Compare finished runs, paired by example; refuses what cannot be compared."""
    from workings.experiment import experiment_of, finished
    from workings.judging.comparison import compare as compare_records

    records = [_record(run, root) for run in runs]
    finished(records)
    print(compare_records(records, experiment_of(records[0]).module.Config).text())


def verify(
    run: Annotated[str, "the path of a run, a part of its name, or the folder of a corpus"],
    /,
    *,
    root: Root = "runs",
) -> int:
    """Check that every file of a run, or of a corpus, is as it was when it was finished; exit code 1 if any is not."""
    from workings.cli.corpus import is_corpus, verify_corpus

    if is_corpus(Path(run)):
        return verify_corpus(run)
    record = _record(run, root)
    differences = record.verify()
    for line in differences:
        print(line)
    if not differences:
        print(f"{record.path}: all {len(record.manifest.artifacts)} files are as they were")
    return 1 if differences else 0


def _record(path_or_prefix: str, root: str) -> RunRecord:
    from workings.run import RunRecord

    return RunRecord.find(path_or_prefix, root)


def _status(path: Path) -> str:
    from workings.run import RunRecord

    try:
        return RunRecord(path).status
    except BadInput:
        return "unreadable"


def _about(record: RunRecord) -> dict[str, Any]:
    """What `show` prints, in its order."""
    manifest = record.manifest
    about: dict[str, Any] = {"experiment": manifest.experiment, "status": record.status}
    if record.question:
        about["question"] = record.question
    about |= {name: getattr(manifest, name) for name in ("arm", "seed", "scale", "started", "ended", "commit", "dirty")}
    about["not as the arm has it"] = ", ".join(manifest.overrides) or "nothing"
    about["spent"] = plain(manifest.spent)
    if manifest.reason:
        about["reason"] = manifest.reason
    if (record.path / "results" / "headline.json").is_file():
        headline = record.result("headline")
        about["result"] = headline if isinstance(headline, dict) else {"": headline}
    return about
