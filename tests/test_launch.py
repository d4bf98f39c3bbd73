"""Jobs in processes of their own: several at once, none lost to another's end; the same by submitit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workings.errors import BadInput, Failed
from workings.experiment import run_experiment
from workings.launch import in_processes, job_settings, on_slurm, processes_here, rank_here
from workings.progress import is_quiet, quietly
from workings.run import RunRecord

IMPORTABLE = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
"""With it, the processes that are started here find this module."""


def work(job: tuple[str, str]) -> str:
    """What the tests' jobs do: leave a mark, then end as they are told to."""
    kind, folder = job
    Path(folder, f"{kind}-{os.getpid()}").touch()
    if kind == "mistake":
        raise BadInput("the file is not there")
    if kind == "missing":
        Path(folder, "nowhere").read_text()
    if kind == "bug":
        raise ZeroDivisionError("oh")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{kind} with {os.environ['OMP_NUM_THREADS']} threads"


def test_every_job_ends_as_it_ends_and_takes_no_other_with_it(tmp_path: Path) -> None:
    kinds = ["good", "killed", "mistake", "bug", "good", "missing"]
    ended = dict(in_processes(work, [(kind, str(tmp_path)) for kind in kinds], at_once=2, threads=3))
    assert ended[0] == ended[4] == "good with 3 threads"
    assert isinstance(ended[1], Failed) and str(ended[1]) == "worker died (exit code −9) without an error message"
    assert isinstance(ended[2], BadInput) and str(ended[2]) == "the file is not there"
    assert isinstance(ended[3], Failed) and str(ended[3]) == "ZeroDivisionError: oh"
    assert isinstance(ended[5], BadInput) and str(ended[5]) == f"{tmp_path}/nowhere: No such file or directory"
    marks = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert sorted(marks) == sorted(kinds)
    assert str(os.getpid()) not in "".join(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("quiet", [True, False])
def test_a_process_is_as_quiet_as_the_one_that_started_it(quiet: bool) -> None:
    with quietly(quiet):
        assert list(in_processes(is_quiet_here, [0], at_once=1)) == [(0, quiet)]


def is_quiet_here(job: int) -> bool:
    """Whether this process shows no progress."""
    return is_quiet()


def test_leaving_the_loop_ends_what_is_running(tmp_path: Path) -> None:
    loop = in_processes(work, [("good", str(tmp_path))] * 3, at_once=1)
    next(loop)
    loop.close()  # ty: ignore[unresolved-attribute]
    assert len(list(tmp_path.iterdir())) <= 2


def wait_and_say_so(folder: str) -> None:
    """A job that never ends by itself."""
    signal.signal(signal.SIGTERM, lambda number, frame: (Path(folder, "told to end").touch(), os._exit(0)))
    Path(folder, "running").touch()
    while True:
        time.sleep(0.02)


def test_jobs_do_not_outlive_whoever_started_them_even_by_kill_9(tmp_path: Path) -> None:
    code = "from workings.launch import *; from test_launch import *; list(in_processes(wait_and_say_so, [sys.argv[1]], 1))"
    environment = os.environ | {"PYTHONPATH": IMPORTABLE}
    process = subprocess.Popen([sys.executable, "-c", f"import sys; {code}", str(tmp_path)], env=environment)
    appears(tmp_path / "running")
    process.kill()
    process.wait()
    appears(tmp_path / "told to end")


def appears(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


def test_experiment_arms_run_at_once_and_a_failed_one_does_not_lose_the_others(toy: Path) -> None:
    root = toy.parent / "runs"
    records = run_experiment(toy, root=root, quiet=True, seeds=[0, 1], jobs=2)
    assert [(r.manifest.arm, r.manifest.seed) for r in records] == [
        ("steady", 0),
        ("steady", 1),
        ("shaky", 0),
        ("shaky", 1),
    ]
    assert len({r.manifest.pid for r in records} | {os.getpid()}) == 5
    with pytest.raises(Failed, match="2 of 4 runs failed") as failure:
        run_experiment(toy, root=root, quiet=True, seeds=[2, 3], jobs=2, overrides=["trouble=bug"])
    assert "shaky, seed 3: Failed: RuntimeError" in str(failure.value)
    statuses = [RunRecord(path.parent).status for path in root.glob("*/*/manifest.json")]
    assert sorted(statuses) == ["failed"] * 2 + ["finished"] * 6


def test_submitit_carries_out_the_same_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    monkeypatch.setenv("PYTHONPATH", IMPORTABLE)  # where the jobs find this module
    jobs = [("good", str(tmp_path)), ("mistake", str(tmp_path)), ("bug", str(tmp_path))]
    ended = dict(on_slurm(work_alone, jobs, tmp_path / "logs", {"timeout_min": 5}, "local"))
    assert ended[0] == "good"
    assert isinstance(ended[1], BadInput) and "the file is not there" in str(ended[1])
    assert isinstance(ended[2], Failed) and "ZeroDivisionError" in str(ended[2])
    assert "3 jobs submitted" in capsys.readouterr().err


def test_a_job_of_two_tasks_is_two_processes_that_know_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    monkeypatch.setenv("PYTHONPATH", IMPORTABLE)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    settings = {"timeout_min": 5, "tasks_per_node": 2}
    [(_, said)] = on_slurm(place, [str(tmp_path)], tmp_path / "logs", settings, "local")
    assert said == "0 of 2", "the first process answers for the job"
    assert {path.name for path in tmp_path.glob("* of *")} == {"0 of 2", "1 of 2"}


def place(folder: str) -> str:
    """Which process of how many this is."""
    name = f"{rank_here()} of {processes_here()}"
    Path(folder, name).touch()
    return name


def work_alone(job: tuple[str, str]) -> str:
    """As `work`, without the environment that `in_processes` sets."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return work(job).partition(" ")[0]


def test_settings_of_a_job_are_read_as_yaml_and_refused_when_they_are_none(tmp_path: Path) -> None:
    assert job_settings(["timeout_min=240", "slurm_partition=gpu"]) == {"timeout_min": 240, "slurm_partition": "gpu"}
    with pytest.raises(BadInput, match="write name=value"):
        job_settings(["gpus"])
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    with pytest.raises(BadInput, match="does not take these settings"):
        list(on_slurm(work_alone, [], tmp_path, {"no_such_setting": 1}, "local"))
