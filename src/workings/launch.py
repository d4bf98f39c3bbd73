"""A function and its jobs → results, each job in a process of its own: on this machine, or on a Slurm cluster.

A job that fails, or whose process is killed, is a failure among the results: it takes no other job with it. A job of several
tasks is one function in so many processes, which find each other as if torchrun had started them.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from workings.errors import BadInput, Failed

Launcher = Literal["local", "slurm"]
Job = TypeVar("Job")
Result = TypeVar("Result")


def rank_here() -> int:
    """This process's number among those that torchrun, or a job of several tasks, started; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def processes_here() -> int:
    """How many processes carry out one run together, by torchrun's word: 1 where this one is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], at_once: int, threads: int | None = None
) -> Iterator[tuple[int, Result | Exception]]:
    """(number of the job, result or error) as the jobs end, at most `at_once` of them running.

    `function` is a function of a module and jobs can be pickled. Each process computes with `threads` threads, by
    default its share of the cores. Leaving the loop early ends what is running (SIGTERM).
    """
    threads = threads or max(1, len(os.sched_getaffinity(0)) // at_once)
    waiting, running = list(enumerate(jobs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, job = waiting.pop(0)
                running[number] = _started(function, job, threads)
            for number in _ended(running):
                yield number, _outcome(*running.pop(number))
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def on_slurm(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    folder: Path,
    parameters: Mapping[str, Any],
    cluster: str = "slurm",
    say: Callable[[str], None] = print,
) -> Iterator[tuple[int, Result | Exception]]:
    """(number of the job, result or error), in order: submitit submits one job each, its logs go to `folder`.

    `parameters` are submitit's: timeout_min=240, gpus_per_node=1, slurm_partition=gpu, … With tasks_per_node=8 a job is eight
    processes; the first one's result counts. The jobs go on when whoever waits for them is stopped.
    """
    submitit = _submitit()
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    try:
        executor.update_parameters(**parameters)
    except Exception as error:  # submitit raises whatever the name or value deserved
        raise BadInput(f"submitit does not take these settings of a job: {error}") from error
    submitted = [executor.submit(_in_task, function, job) for job in jobs]
    say(f"{len(submitted)} jobs submitted: {', '.join(str(job.job_id) for job in submitted)}; logs in {folder}")
    for number, job in enumerate(submitted):
        try:
            yield number, job.results()[0]
        except Exception as error:
            yield number, _as_ours(error, job.paths.stderr)


def job_settings(words: Sequence[str]) -> dict[str, Any]:
    """["timeout_min=240", "slurm_partition=gpu"] → {"timeout_min": 240, "slurm_partition": "gpu"}."""
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadInput(f"'{word}' sets nothing about a job; write name=value, as in timeout_min=240")
        settings[name] = yaml.safe_load(text)
    return settings


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError:
        raise BadInput("Slurm jobs are submitted by submitit: pip install 'workings[slurm]'") from None


def _in_task(function: Callable[[Job], Result], job: Job) -> Result:
    """What a task of a job does; several are told of each other."""
    submitit = _submitit()
    if submitit.JobEnvironment().num_tasks > 1:
        # All GPUs stay visible: each process takes the one of its own number.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    return function(job)


def _as_ours(error: Exception, log: Path) -> Exception:
    """submitit gives the traceback of the job as text; where it names one of our errors, that is what happened."""
    text = str(error).strip()
    for kind in (BadInput, Failed):
        name = f"{kind.__module__}.{kind.__qualname__}: "
        if name in text:
            return kind(text.rpartition(name)[2].strip().rstrip('"').strip())
    return Failed(f"{text}\n(its log: {log})")


def _started(function: Callable[[Any], Any], job: Any, threads: int) -> tuple[Any, Any]:
    context = get_context("spawn")  # a fork of a process in which torch has threads hangs
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(function, job, threads, writer))
    process.start()
    writer.close()  # so that the end of the process closes the pipe
    return process, reader


def _ended(running: Mapping[int, tuple[Any, Any]]) -> list[int]:
    ready = connection.wait([reader for _, reader in running.values()])
    return [number for number, (_, reader) in running.items() if reader in ready]


def _outcome(process: Any, reader: Any) -> Any:
    try:
        outcome = reader.recv()
    except EOFError:
        outcome = None
    process.join()
    reader.close()
    return outcome[0] if outcome else Failed(f"its process ended with exit code {process.exitcode} and said nothing")


def _work(function: Callable[[Any], Any], job: Any, threads: int, writer: Any) -> None:
    """What runs in the process. Thread pools read the environment when they are first loaded, so it is set before."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        outcome = function(job)
    except (BadInput, Failed) as error:
        outcome = type(error)(str(error))
    except Exception as error:
        traceback.print_exc()
        outcome = Failed(f"{type(error).__name__}: {error}")
    writer.send((outcome,))


def _follow_parent() -> None:
    """Whoever asked is gone, however that came: end as when told to, so that a run says that it was interrupted."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
