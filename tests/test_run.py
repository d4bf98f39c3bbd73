"""A run can be trusted afterwards: whole files, one writer, the truth about its end, digests that see a flipped bit."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from workings.config import fixed, scientific
from workings.errors import BadInput, Failed
from workings.files import input_digest, sha256_of, write_atomic
from workings.provenance import checkout_state
from workings.run import Run, RunRecord


@dataclass(frozen=True)
class Config:
    aim: int = scientific(1)
    seed: int = fixed(0)


def start(root: Path, **settings: object) -> Run:
    return Run.start(root, "toy", "steady", 0, Config(), **settings)  # ty: ignore[invalid-argument-type]


def finished(root: Path) -> RunRecord:
    with start(root) as run:
        run.log(0, loss=1.0)
        run.outcomes("items", pl.DataFrame({"id": ["a", "b"], "correct": [True, False]}))
        run.results("headline", {"accuracy": 0.5})
        (run.folder("lens") / "lens.bin").write_bytes(bytes(100))
    return RunRecord(run.path)


CHILD = """
import sys, time
from dataclasses import dataclass
from workings.config import fixed, scientific
from workings.run import Run

@dataclass(frozen=True)
class Config:
    aim: int = scientific(1)
    seed: int = fixed(0)

with Run.start(sys.argv[1], "toy", "steady", 0, Config()) as run:
    run.log(0, loss=1.0)
    run.spend(tokens=7)
    (run.path / ".left.1.half").write_text("half")
    print(run.path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def child(tmp_path: Path):
    """A process in the middle of a run; its path."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    yield process, path
    process.kill()
    process.wait()


# ── the record ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    record = finished(tmp_path)
    assert record.status == "finished"
    assert record.config(Config) == Config()
    assert record.metrics().drop("seconds").to_dicts() == [{"step": 0, "loss": 1.0}]
    assert record.outcomes("items")["correct"].to_list() == [True, False]
    assert record.result("headline") == {"accuracy": 0.5}
    assert record.verify() == []


def test_the_manifest_says_how_the_run_came_about(tmp_path: Path) -> None:
    source = tmp_path / "question.py"
    source.write_text('"""Why?"""')
    data = tmp_path / "data.txt"
    data.write_text("1 + 1")
    with start(
        tmp_path, source=source, inputs={"data": data, "model": "org/name"}, overrides=["aim=1"], scale="mini"
    ) as run:
        run.spend(tokens=3, flops=1e9, bytes=5)
        assert RunRecord(run.path).manifest.status == "running"
    manifest = RunRecord(run.path).manifest
    assert manifest.inputs["data"] == sha256_of(data)
    assert manifest.input_places == {"data": str(data), "model": "org/name"}
    assert (manifest.spent.tokens, manifest.spent.flops, manifest.spent.bytes) == (3, 1e9, 5)
    assert set(manifest.artifacts) == {"config.yaml", "source/question.py"}
    assert manifest.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (manifest.arm, manifest.seed, manifest.scale, manifest.overrides) == (
        "steady",
        0,
        "mini",
        ["aim=1"],
    )
    on_disk = json.loads((run.path / "manifest.json").read_text())
    assert {"commit", "dirty", "diff_digest", "argv", "device", "config_digest", "started", "ended"} <= set(on_disk)


def test_runs_that_start_within_one_second_have_directories_of_their_own(tmp_path: Path) -> None:
    paths = [finished(tmp_path).path for _ in range(4)]
    assert len(set(paths)) == 4
    assert all(path.name.split("_")[1:3] == ["steady", "s0"] for path in paths)


def test_what_is_not_finite_is_null_and_the_lines_stay_json(tmp_path: Path) -> None:
    import numpy as np
    import torch

    with start(tmp_path) as run:
        run.log(0, loss=math.nan, top=math.inf, numpy=np.float32(0.5), torch=torch.tensor(2), name="x")
        run.results("headline", {"loss": math.nan, "nested": [(1, math.inf)]})
    line = json.loads((run.path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert {name: line[name] for name in ("loss", "top", "numpy", "torch", "name")} == {
        "loss": None,
        "top": None,
        "numpy": 0.5,
        "torch": 2.0,
        "name": "x",
    }
    assert RunRecord(run.path).result("headline") == {"loss": None, "nested": [[1, None]]}


def test_a_run_is_found_by_any_part_of_its_name_that_no_other_has(tmp_path: Path) -> None:
    one, two = finished(tmp_path), finished(tmp_path)
    assert RunRecord.find(one.path).path == one.path
    assert RunRecord.find(one.path.name, tmp_path).path == one.path  # though two.path.name may begin with it
    assert RunRecord.find(f"toy/{two.path.name}", tmp_path).path == two.path
    with Run.start(tmp_path, "toy", "shaky", 0, Config()) as run:
        pass
    assert RunRecord.find("shaky_s0", tmp_path).path == run.path
    with pytest.raises(BadInput, match="could be any of 3 runs"):
        RunRecord.find(one.path.name[:8], tmp_path)
    with pytest.raises(BadInput, match="could be any of 2 runs"):
        RunRecord.find("steady", tmp_path)
    with pytest.raises(BadInput, match="nor one of the 3 runs"):
        RunRecord.find("nothing", tmp_path)
    with pytest.raises(BadInput, match="is not a run"):
        RunRecord.find(tmp_path)


def test_a_missing_table_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no outcomes/probes\.parquet; it has items"):
        finished(tmp_path).outcomes("probes")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}'])
def test_a_broken_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        RunRecord(tmp_path)


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["lens/lens.bin", "outcomes/items.parquet", "results/headline.json", "config.yaml", "metrics.jsonl"]
)
def test_verify_finds_one_flipped_byte(tmp_path: Path, name: str) -> None:
    record = finished(tmp_path)
    content = bytearray((record.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (record.path / name).write_bytes(content)
    assert record.verify() == [f"{name}: changed"]


def test_verify_finds_what_is_missing_and_what_was_added_but_lets_a_report_be(tmp_path: Path) -> None:
    record = finished(tmp_path)
    (record.path / "lens" / "lens.bin").rename(record.path / "lens" / "other.bin")
    (record.path / "report.html").write_text("<p>made afterwards</p>")
    assert record.verify() == ["lens/lens.bin: missing", "lens/other.bin: not part of the run"]


def test_verify_vouches_for_no_unfinished_run(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        assert RunRecord(run.path).verify() == ["the run is running: only a finished run has digests to compare with"]


def test_a_folder_is_digested_by_names_and_contents(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text("1")
    (tmp_path / "c" / "x").rename(tmp_path / "c" / "y")
    assert input_digest(tmp_path / "a") == input_digest(tmp_path / "b") != input_digest(tmp_path / "c")
    assert input_digest("hub/id") != input_digest("hub/other")
    assert len(input_digest("long" * 10_000)) == 64


# ── how runs end ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_raises_has_failed_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as error, start(tmp_path) as run:
        run.log(0, loss=1 / 0)
    record = RunRecord(run.path)
    assert record.status == "failed"
    assert record.manifest.reason == "ZeroDivisionError: division by zero"
    assert "loss=1 / 0" in record.manifest.traceback
    assert str(run.path) in error.value.__notes__[0]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_has_failed_and_keeps_its_files(tmp_path: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption), start(tmp_path) as run:
        run.log(0, loss=1.0)
        raise interruption
    record = RunRecord(run.path)
    assert (record.status, record.manifest.reason) == ("failed", "interrupted")
    assert record.metrics().height == 1


def test_sigterm_ends_a_run_as_interrupted(child) -> None:
    process, path = child
    assert RunRecord(path).status == "running"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    record = RunRecord(path)
    assert (record.status, record.manifest.reason) == ("failed", "interrupted")
    assert record.manifest.spent.tokens == 7


def test_a_killed_run_reads_as_killed_and_can_be_resumed(child) -> None:
    process, path = child
    process.kill()
    process.wait()
    assert RunRecord(path).status == "killed"
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')  # what a kill in the middle of a line leaves
    assert RunRecord(path).metrics().height == 1
    with Run.resume(path) as run:
        assert RunRecord(path).status == "running"
        run.log(1, loss=0.5)
    record = RunRecord(path)
    assert record.status == "finished"
    assert record.metrics()["step"].to_list() == [0, 1]
    assert record.manifest.earlier[0]["pid"] == process.pid
    assert record.manifest.pid == os.getpid()
    assert record.verify() == []
    assert list(path.glob(".*.half")) == []


def test_what_a_resumed_run_measures_again_is_recorded_once(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), start(tmp_path) as run:
        for step in range(3):
            run.log(step, loss=1.0, split="val")
            run.log(step, loss=9.0, split="test")
        raise RuntimeError
    with Run.resume(run.path) as again:
        again.log(0, loss=1.0, split="val")
        again.log(2, loss=0.5, split="val")
        again.log(2, loss=0.25, split="val")  # twice in one sitting is meant
        again.log(2, accuracy=0.5)
    rows = RunRecord(run.path).metrics().drop("seconds").to_dicts()
    losses = [(row["step"], row["split"], row["loss"]) for row in rows if row["accuracy"] is None]
    assert losses[:4] == [(0, "test", 9.0), (1, "val", 1.0), (1, "test", 9.0), (2, "test", 9.0)]
    assert losses[4:] == [(0, "val", 1.0), (2, "val", 0.5), (2, "val", 0.25)]
    assert [row["accuracy"] for row in rows][-1] == 0.5


def test_a_second_writer_is_refused(child) -> None:
    _, path = child
    with pytest.raises(BadInput, match="is being written by another process"):
        Run.resume(path)
    assert RunRecord(path).status == "running"


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    record = finished(tmp_path)
    with pytest.raises(BadInput, match="is finished"):
        Run.resume(record.path)
    assert record.verify() == []


def test_what_is_declared_stands_in_the_manifest_at_once_and_is_not_changed_by_a_resume(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), start(tmp_path) as run:
        run.declare(headline="step4", family=("step1", "step4"))
        said = RunRecord(run.path).manifest.declared
        raise RuntimeError
    with Run.resume(run.path) as again:
        again.declare(headline="step4", family=("step1", "step4"))
        assert RunRecord(run.path).manifest.declared == said == again.manifest.declared
        with pytest.raises(BadInput, match="declaration"):
            again.declare(headline="step1", family=("step1", "step4"))
    assert said["headline"] == "step4" and said["family"] == ["step1", "step4"] and said["at"] >= run.manifest.started


def test_budget_and_time_go_on_counting_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), start(tmp_path) as run:
        run.spend(tokens=5)
        time.sleep(0.05)
        raise RuntimeError
    before = RunRecord(run.path).manifest.spent.seconds
    with Run.resume(run.path) as run:
        run.spend(tokens=6)
    spent = RunRecord(run.path).manifest.spent
    assert spent.tokens == 11
    assert spent.seconds >= before >= 0.05


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a device with no space left")
@pytest.mark.parametrize("caught", [False, True])
def test_a_full_disk_is_a_failure_in_plain_words(tmp_path: Path, caught: bool) -> None:
    """Also when the failing write is only noticed as the run ends."""
    with pytest.raises(Failed, match="the disk is full"), start(tmp_path) as run:
        (run.path / "metrics.jsonl").symlink_to("/dev/full")
        try:
            run.log(0, loss=1.0)
        except OSError:
            if not caught:
                raise
    record = RunRecord(run.path)
    assert record.status == "failed"
    assert "No space left" in record.manifest.reason


def test_a_place_that_cannot_be_written_to_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write to"):
        start(tmp_path / "file")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_nobody_sees_half_a_file(tmp_path: Path) -> None:
    """A reader polls while a child process rewrites: every read is one of the whole contents."""
    path = write_atomic(tmp_path / "big.txt", "0" * 1_000_000)
    code = (
        "import sys\nfrom workings.files import write_atomic\n"
        "for i in range(30): write_atomic(sys.argv[1], str(i % 10) * 1_000_000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while writer.poll() is None:
        content = path.read_text()
        assert len(content) == 1_000_000
        assert len(set(content)) == 1
    assert writer.returncode == 0


def test_the_record_names_the_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    """Of a checkout made here: clean, then changed twice."""
    git = lambda *words: (
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True, text=True).stdout
    )
    file = tmp_path / "question.py"
    file.write_text("a = 1\n")
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
    clean = checkout_state(file)
    assert clean == (git("rev-parse", "HEAD").strip(), False, None)
    digests = set()
    for content in ("a = 2\n", "a = 3\n"):
        file.write_text(content)
        state = checkout_state(file)
        assert state is not None
        _, dirty, diff_digest = state
        assert dirty
        digests.add(diff_digest)
    assert len(digests) == 2
    (tmp_path / ".gitignore").write_text("question.py\n")
    git("rm", "-q", "--cached", "question.py")
    assert checkout_state(file) is None
