"""kill -9 at moments that nobody chose, again and again: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workings.experiment import run_experiment
from workings.run import RunRecord
from workings.text.corpus import Corpus

PRETRAINING = {
    "training.steps": 120,
    "training.save_every": 3,
    "training.log_every": 1,
    "training.validate_every": 7,
    "training.sample_every": 11,
    "training.keep_every": 40,
}
DISTILLATION = {
    "limit": 200,
    "training.epochs": 9,
    "training.save_every": 3,
    "training.log_every": 1,
    "training.validate_every": 17,
    "training.validation_problems": 4,
    "training.precision": "fp32",
}
TIMES = ("seconds", "tokens_per_second", "examples_per_second")


def lines(run: Path, name: str) -> list[dict[str, object]]:
    read = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read]


def killed_once(words: list[str], run: Path | None, draw: random.Random) -> Path | None:
    """Start or resume; kill once it has trained a little further. The run's directory while it is unfinished."""
    command = [sys.executable, "-m", "workings", *words, *(["--resume", str(run)] if run else [])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    root = Path(words[words.index("--out") + 1])
    began, steps = run and (run / "metrics.jsonl").stat().st_size, 0
    while process.poll() is None and not steps:
        time.sleep(0.005)
        logs = list(root.glob("*/*/metrics.jsonl"))
        steps = logs[0].stat().st_size > (began or 0) if logs else 0
    time.sleep(draw.uniform(0.0, 0.6))
    process.kill()
    code = process.wait()
    [found] = root.glob("*/*")
    assert code in (0, -signal.SIGKILL)
    return found if code else None


def killed_and_straight(
    experiment: str, arm: str, overrides: list[str], folder: Path, seed: int, kills: int
) -> tuple[Path, Path]:
    """The directory of a run that was killed so often and resumed to its end, and of one that was not."""
    root, draw = str(folder / "killed"), random.Random(seed)
    first = ["run", experiment, "--arm", arm, "--scale", "smoke", "--out", root, "--quiet", "--set", *overrides]
    again = ["run", experiment, "--out", root, "--quiet"]
    run = killed_once(first, None, draw)
    assert run, "it ended before it was killed"
    for _ in range(kills - 1):
        run = run and killed_once(again, run, draw)
    [path] = Path(root).glob("*/*")
    if run:
        subprocess.run([sys.executable, "-m", "workings", *again, "--resume", str(path)], check=True, timeout=600)
    [straight] = run_experiment(experiment, [arm], "smoke", [0], overrides, root=folder / "whole", quiet=True)
    return path, straight.path


OFTEN = [(0, 2), *(pytest.param(seed, 8, marks=pytest.mark.slow) for seed in (1, 2, 3))]


@pytest.mark.parametrize(("seed", "kills"), OFTEN)
def test_a_pretraining_killed_at_any_moment_ends_as_one_that_was_not(
    corpus: Corpus, tmp_path: Path, seed: int, kills: int
) -> None:
    overrides = [f"{name}={value}" for name, value in PRETRAINING.items()] + [f"corpus={corpus.folder}"]
    path, straight = killed_and_straight("pretrain-gpt2", "mini", overrides, tmp_path, seed, kills)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(path, name) == lines(straight, name), name
    for name in ("model", "step_000040", "step_000080"):
        weights = [one / "checkpoint" / name / "model.safetensors" for one in (path, straight)]
        assert weights[0].read_bytes() == weights[1].read_bytes(), name
    assert RunRecord(path).verify() == []


@pytest.mark.parametrize(("seed", "kills"), OFTEN)
def test_a_distillation_killed_at_any_moment_ends_as_one_that_was_not(tmp_path: Path, seed: int, kills: int) -> None:
    overrides = [f"{name}={value}" for name, value in DISTILLATION.items()]
    path, straight = killed_and_straight("train-codi", "small", overrides, tmp_path, seed, kills)
    assert lines(path, "metrics.jsonl") == lines(straight, "metrics.jsonl"), "each step once, with the same numbers"
    weights = [one / "checkpoint" / "model" / "model.safetensors" for one in (path, straight)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert RunRecord(path).verify() == [] and not (path / "checkpoint" / "state").exists()
