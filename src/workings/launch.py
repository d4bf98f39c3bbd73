"""A function and its jobs → results, each job in a process of its own: on this machine, or on a Slurm cluster.

A job that fails, or whose process is killed, is a failure among the results: it takes no other job with it. A job of several
tasks is one function in so many processes, which find each other as if torchrun had started them. Why no library starts the
local processes: docs/decisions/0014.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal, TypeVar

from workings.config import read_text
from workings.errors import BadInput, Failed, ours
from workings.progress import is_quiet, say, set_quiet

Launcher = Literal["local", "slurm"]
Job = TypeVar("Job")
Result = TypeVar("Result")
Ended = Iterator[tuple[int, Result | Exception]]
"""(number of the job, its result or why there is none), as the jobs end."""


def rank_here() -> int:
    """This process's number among those that torchrun, or a job of several tasks, started; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def processes_here() -> int:
    """How many processes carry out one run together, by torchrun's word: 1 where this one is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


# ── on this machine ──────────────────────────────────────────────────────────────────────────────────────────────────


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], at_once: int, threads: int | None = None
) -> Ended[Result]:
    """Yield (number of the job, result or error) as the jobs end, at most `at_once` of them running.

    Leaving the loop early, by Ctrl-C too, ends what is running (SIGTERM); so does the death of this process.

    Args:
        function: A function of a module; it and its jobs are pickled.
        threads: Threads that each process computes with; by default its share of the cores.
    """
    threads = threads or max(1, len(os.sched_getaffinity(0)) // at_once)
    waiting = list(enumerate(jobs))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}  # by the end of a pipe, which closes as the process ends
    context = get_context("spawn")  # a fork of a process in which torch has threads hangs
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, job = waiting.pop(0)
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(function, job, threads, is_quiet(), writer))
                process.start()
                writer.close()  # so that the process has the only one
                running[reader] = number, process
            for reader in connection.wait(list(running)):
                number, process = running.pop(reader)  # ty: ignore[invalid-argument-type]
                yield number, _outcome(reader, process)  # ty: ignore[invalid-argument-type]
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _outcome(reader: Connection, process: SpawnProcess) -> Any:
    try:
        (outcome,) = reader.recv()
    except EOFError:
        process.join()
        code = str(process.exitcode).replace("-", "−")
        outcome = Failed(f"worker died (exit code {code}) without an error message")
    process.join()
    reader.close()
    return outcome


def _work(function: Callable[[Any], Any], job: Any, threads: int, quiet: bool, writer: Connection) -> None:
    """Carry out a job in the process that was started for it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # thread pools read it when they are first loaded, so before the job
    set_quiet(quiet)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome = function(job)
    except Exception as error:
        known = ours(error)
        if known is None:
            traceback.print_exc()
        outcome = type(known)(str(known)) if known else Failed(f"{type(error).__name__}: {error}")
    writer.send((outcome,))


def _end_with_parent() -> None:
    """Once the parent is gone, however it ended, stop as if told to, so that a run says that it was interrupted."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


# ── on a cluster ─────────────────────────────────────────────────────────────────────────────────────────────────────


def on_slurm(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    folder: Path,
    parameters: Mapping[str, Any],
    cluster: str = "slurm",
) -> Ended[Result]:
    """Submit the jobs by submitit and yield (number, result or error), in order; their logs go to `folder`.

    They go on when whoever waits for them is stopped.

    Args:
        parameters: submitit's: timeout_min=240, gpus_per_node=1, slurm_partition=gpu, … With tasks_per_node=8 a job is
            eight processes, and the first one's result counts.
    """
    submitit = _submitit()
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    try:
        executor.update_parameters(**parameters)
    except Exception as error:  # submitit raises whatever the name or value deserved
        raise BadInput(f"submitit does not take these settings of a job: {error}") from error
    submitted = [executor.submit(_in_task, function, job, is_quiet()) for job in jobs]
    say(f"{len(submitted)} jobs submitted: {', '.join(str(job.job_id) for job in submitted)}; logs in {folder}")
    for number, job in enumerate(submitted):
        try:
            yield number, job.results()[0]
        except Exception as error:
            yield number, _as_ours(error, job.paths.stderr)


def check_launcher(launcher: Launcher) -> None:
    """BadInput where jobs cannot be started in this way from here: off a cluster, or without submitit."""
    if launcher == "slurm":
        _submitit()
        if shutil.which("sbatch") is None:
            raise BadInput(
                "there is no Slurm here (no sbatch): start this on the cluster, or leave out --launcher slurm"
            )


def job_settings(words: Sequence[str]) -> dict[str, Any]:
    """["timeout_min=240", "slurm_partition=gpu"] → {"timeout_min": 240, "slurm_partition": "gpu"}."""
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadInput(f"'{word}' sets nothing about a job; write name=value, as in timeout_min=240")
        settings[name] = read_text(Any, text, name)
    return settings


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError:
        raise BadInput("Slurm jobs are submitted by submitit: pip install 'workings[slurm]'") from None


def _in_task(function: Callable[[Job], Result], job: Job, quiet: bool) -> Result:
    """Carry out a task of a job; several find each other as under torchrun."""
    submitit = _submitit()
    if submitit.JobEnvironment().num_tasks > 1:
        # All GPUs stay visible: each process takes the one of its own number.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    set_quiet(quiet)
    return function(job)


def _as_ours(error: Exception, log: Path) -> Exception:
    """submitit gives the traceback of the job as text; where it names one of our errors, that is what happened."""
    text = str(error).strip()
    for kind in (BadInput, Failed):
        name = f"{kind.__module__}.{kind.__qualname__}: "
        if name in text:
            return kind(text.rpartition(name)[2].strip().rstrip('"').strip())
    return Failed(f"{text}\n(its log: {log})")
