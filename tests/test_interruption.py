"""kill -9 before every change that a long verb makes on the disk, one after another: each time the verb can go on, and ends as if
nothing had happened; SIGTERM says how to go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

from workings.cli import main
from workings.files import digests_in
from workings.run import RunRecord, runs_in

CHANGING = {"os.rename", "os.mkdir", "os.rmdir", "os.remove"}
KILLER = get_context("forkserver")  # imports once what every killed process needs
KILLER.set_forkserver_preload(
    [
        "tests.test_interruption",
        *("workings.cli.thoughts", "workings.cli.corpora", "workings.models.codi", "workings.reading.fit"),
        *("workings.reading.collection", "workings.experiments.pretrain_gpt2", "workings.experiments.train_codi"),
        *(
            "workings.training.pretraining",
            "workings.training.distillation",
            "workings.text.build",
            "workings.report.page",
        ),
        *("transformers.models.gpt2.modeling_gpt2", "transformers.models.auto.tokenization_auto"),
        *("pandas", "pyarrow.dataset"),  # which pyarrow imports when it first reads a table
    ]
)


def carry_out(words: Sequence[str], folder: str, kill_before: int) -> None:
    """Carry out a command in this process, which dies before change number `kill_before` below a folder (0: never).

    Prints nothing; the number of changes is left in the file `<folder>.changes`.
    """
    n_changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal n_changes
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (event in CHANGING or writes) or not str(arguments[0]).startswith(folder + os.sep):
            return
        n_changes += 1
        if n_changes == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)  # where the interpreter is about to ask the system for something
    code = main([*words, "--quiet"])
    Path(f"{folder}.changes").write_text(str(n_changes))
    os._exit(code)


def in_a_process(words: Sequence[str], folder: Path, kill_before: int = 0) -> int | None:
    process = KILLER.Process(target=carry_out, args=(words, str(folder), kill_before))
    process.start()
    process.join(120)
    return process.exitcode


# ── the verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """A verb that writes into a folder, what it is told then, and what has to be equal in the end."""

    words: Callable[[Path, Path], Sequence[str]]
    is_run: bool = False
    n_kills: int = 7  # spread evenly over all changes; every one among the slow tests


def collecting(material: Path, out: Path) -> list[str]:
    return ["thoughts", "collect", "--problems", "generated", "--limit", "40", "--out", str(out / "store")]


def fitting(material: Path, out: Path) -> list[str]:
    given = ["--thoughts", str(material / "store"), "--out", str(out / "lens"), "--set", "max_epochs=1"]
    return ["lens", "fit", *given]


def building(material: Path, out: Path) -> list[str]:
    source = ["--documents", "generated", "--documents-limit", "30", "--validation-fraction", "0.2"]
    return ["corpus", "build", *source, "--out", str(out / "corpus"), "--processes", "1"]


def pretraining(material: Path, out: Path) -> list[str]:
    steps = [
        "steps=4",
        "save_every=2",
        "keep_every=2",
        "log_every=1",
        "validate_every=2",
        "sample_every=2",
        "warmup_steps=1",
    ]
    settings = [f"training.{step}" for step in steps] + [f"corpus={material / 'corpus'}"]
    return ["run", "pretrain-gpt2", "--arm", "mini", "--scale", "smoke", "--out", str(out), "--set", *settings]


def distilling(material: Path, out: Path) -> list[str]:
    settings = [
        "limit=40",
        "training.epochs=1",
        "training.save_every=1",
        "training.log_every=1",
        "training.validation_problems=4",
    ]
    return ["run", "train-codi", "--arm", "small", "--scale", "smoke", "--out", str(out), "--set", *settings]


def running(material: Path, out: Path) -> list[str]:
    return ["run", "example", "--arm", "recurrent", "--scale", "smoke", "--out", str(out)]


CASES = {
    "thoughts collect": Case(collecting),
    "lens fit": Case(fitting),
    "corpus build": Case(building),
    "run": Case(running, True, 4),
    "pretrain": Case(pretraining, True, 3),
    "codi train": Case(distilling, True, 3),
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    for words in (collecting(folder, folder), building(folder, folder)):
        assert main([*words, "--quiet"]) == 0
    return folder


EVERY = [pytest.param(verb, True, marks=pytest.mark.slow) for verb in CASES]


@pytest.mark.parametrize(("verb", "each"), [*((verb, False) for verb in CASES), *EVERY])
def test_killed_before_any_change_on_the_disk_a_verb_goes_on_and_ends_as_if_nothing_had_happened(
    verb: str, each: bool, material: Path, tmp_path: Path
) -> None:
    case, whole = CASES[verb], tmp_path / "whole"
    whole.mkdir()
    assert in_a_process(case.words(material, whole), whole) == 0
    n_changes = int(Path(f"{whole}.changes").read_text())
    every = range(1, n_changes + 1)
    for kill_before in every if each else every[:: max(1, -(-n_changes // case.n_kills))]:
        out = tmp_path / "killed"
        out.mkdir()
        words = case.words(material, out)
        assert in_a_process(words, out, kill_before) == -signal.SIGKILL, kill_before
        begun = runs_in(out) if case.is_run else []
        again = [*words[:2], "--out", str(out), "--resume", str(begun[0])] if begun else words
        assert main([*again, "--quiet"]) == 0, f"killed before change {kill_before} of {n_changes}"
        assert said_in(out, case) == said_in(whole, case), f"killed before change {kill_before} of {n_changes}"
        shutil.rmtree(out)


def said_in(out: Path, case: Case) -> object:
    """Everything that has to be the same whenever a verb was killed."""
    if not case.is_run:
        return digests_in(out)
    [run] = runs_in(out)
    record = RunRecord(run)
    assert record.verify() == []
    computed = {
        name: digest
        for name, digest in record.manifest.artifacts.items()
        if name.endswith((".safetensors", ".parquet"))
    }
    lines = [{k: v for k, v in row.items() if "second" not in k} for row in record.metrics().to_dicts()]
    report = sorted(path.name for path in run.glob("report.*")), sorted(path.name for path in run.glob("figures/*"))
    left = [path.name for path in run.rglob(".*") if path.name != ".lock"]
    return computed, sorted(record.manifest.artifacts), lines, report, left


def test_a_killed_report_is_written_by_the_same_command_and_by_resume(tmp_path: Path) -> None:
    assert main([*running(tmp_path, tmp_path / "runs"), "--quiet"]) == 0
    [run] = runs_in(tmp_path / "runs")
    written = lambda: {path.relative_to(run).as_posix() for path in run.rglob("*")} - {".lock"}
    everything = written()
    for again in (["report", str(run)], ["run", "example", "--resume", str(run)]):
        for path in (run / "report.html", run / "report.md"):
            path.unlink()
        shutil.rmtree(run / "figures")
        assert in_a_process(["report", str(run)], run, 3) == -signal.SIGKILL
        assert not (run / "report.html").exists()
        assert main([*again, "--quiet"]) == 0
        assert written() == everything


# ── SIGTERM ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def stopped(words: Sequence[str], is_under_way: Callable[[], bool]) -> str:
    """What a command says on stderr when it is told to stop once it is under way."""
    process = subprocess.Popen([sys.executable, "-m", "workings", *words], stderr=subprocess.PIPE, text=True)
    while not is_under_way():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    return said.rpartition("workings: stopped")[2]


def test_a_collection_that_is_told_to_stop_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [
        "thoughts",
        "collect",
        "--problems",
        "generated",
        "--limit",
        "4000",
        "--out",
        str(tmp_path / "store"),
        "--quiet",
    ]
    said = stopped(words, (tmp_path / "store" / "shard_00000.safetensors").exists)
    assert "the same command goes on" in said and str(tmp_path / "store") in said


def test_a_training_that_is_told_to_stop_says_how_to_go_on(tmp_path: Path) -> None:
    words = [
        "codi",
        "train",
        "--base",
        "embedded",
        "--from-scratch",
        "--limit",
        "400",
        "--out",
        str(tmp_path / "runs"),
        "--quiet",
    ]
    settings = ["--set", "training.epochs=400", "training.log_every=1", "n_validation=20"]
    said = stopped([*words, *settings], lambda: any((tmp_path / "runs").glob("*/*/metrics.jsonl")))
    [run] = runs_in(tmp_path / "runs")
    assert f"--resume {run} goes on with it" in said
    assert RunRecord(run).manifest.reason == "interrupted"
