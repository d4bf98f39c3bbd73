"""What commit 8a3c136 wrote still opens, and says what it said then: runs, stores, lenses, checkpoints, corpora.

`material/before_2026_11_25.tar.xz` holds what the commands that the tests repeat wrote then.
"""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from workings.cli import main

ARCHIVE = Path(__file__).parent / "material" / "before_2026_11_25.tar.xz"


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def runs(former: Path) -> list[Path]:
    return sorted(path.parent for path in former.glob("runs/*/*/manifest.json"))


def checkpoint(former: Path, experiment: str) -> Path:
    return next(former.glob(f"runs/{experiment}/*_s0_*/checkpoint/model"))


def test_runs_are_whole_shown_and_reported(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in runs(former):
        assert main(["verify", str(run)]) == 0
        assert "written before it had a digest of its own" in capsys.readouterr().out
        assert main(["show", str(run), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["status"] == "finished" and shown["question"].endswith("?")
        assert main(["report", str(run)]) == 0
        page = Path(capsys.readouterr().out.strip())
        assert shown["question"] in page.with_suffix(".md").read_text(encoding="utf-8")


def test_runs_are_compared_as_they_were(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [str(run) for run in runs(former) if run.parent.name == "recurrence"]
    assert main(["compare", *pair]) == 0
    # Since 2026-11-25 interval and p are Holm's, both of them, and a p is written once (docs/decisions/0015).
    anew = re.compile(r"\[.*?\]|, McNemar p .*?(?=: no evidence)")
    now, then = (anew.sub("", text) for text in (capsys.readouterr().out, (former / "compare.txt").read_text("utf-8")))
    assert now == then


def test_a_thinking_model_says_what_it_said(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then = [json.loads(line) for line in (former / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    model = str(next(former.glob("runs/recurrence/*_recurrent_*/checkpoint/model")))
    questions = [line["question"] for line in then]
    assert main(["codi", "answer", *questions, "--model", model, "--max-new-tokens", "6", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == then


def test_a_store_and_a_lens_are_scored(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(next(former.glob("runs/recurrence/*_recurrent_*/checkpoint/model")))
    given = ["--thoughts", str(former / "thoughts"), "--lens", str(former / "lens"), "--model", model]
    assert main(["lens", "score", *given, "--target", "step1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]


def test_a_corpus_is_whole_and_trained_on(former: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(former / "corpus")]) == 0
    start = ["--start", str(checkpoint(former, "pretrain-gpt2")), "--corpus", str(former / "corpus")]
    small = [
        "training.tokens_per_step=64",
        "training.pass_rows=4",
        "training.warmup_steps=1",
        "training.sample_every=0",
    ]
    assert main(["pretrain", *start, "--steps", "1", "--out", str(tmp_path), "--quiet", "--set", *small]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]).is_file()


def test_a_language_model_is_exported(former: Path, tmp_path: Path) -> None:
    assert main(["export", str(checkpoint(former, "pretrain-gpt2")), "--to", str(tmp_path / "hf")]) == 0
    assert (tmp_path / "hf" / "model.safetensors").is_file()
