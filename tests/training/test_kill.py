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

SETTINGS = {
    "steps": 120,
    "save_every": 3,
    "log_every": 1,
    "validate_every": 7,
    "sample_every": 11,
    "keep_every": 40,
}
TIMES = ("seconds", "tokens_per_second")


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
    [found] = root.glob("pretrain-gpt2/*")
    assert code in (0, -signal.SIGKILL)
    return found if code else None


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 2), *(pytest.param(seed, 8, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(
    corpus: Corpus, tmp_path: Path, seed: int, kills: int
) -> None:
    overrides = [f"training.{name}={value}" for name, value in SETTINGS.items()] + [f"corpus={corpus.folder}"]
    root, draw = str(tmp_path / "killed"), random.Random(seed)
    first = ["run", "pretrain-gpt2", "--arm", "mini", "--scale", "smoke", "--out", root, "--quiet", "--set", *overrides]
    again = ["run", "pretrain-gpt2", "--out", root, "--quiet"]
    run = killed_once(first, None, draw)
    assert run, "it ended before it was killed"
    for _ in range(kills - 1):
        run = run and killed_once(again, run, draw)
    [path] = Path(root).glob("pretrain-gpt2/*")
    if run:
        subprocess.run([sys.executable, "-m", "workings", *again, "--resume", str(path)], check=True, timeout=600)
    [straight] = run_experiment("pretrain-gpt2", ["mini"], "smoke", [0], overrides, root=tmp_path / "whole", quiet=True)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(path, name) == lines(straight.path, name), name
    for name in ("model", "step_000040", "step_000080"):
        weights = [one / "checkpoint" / name / "model.safetensors" for one in (path, straight.path)]
        assert weights[0].read_bytes() == weights[1].read_bytes(), name
    assert RunRecord(path).verify() == []
