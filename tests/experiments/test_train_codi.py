"""`train-codi` from nothing named to a report, and killed at the moments at which it has almost ended."""

from __future__ import annotations

import json

import pytest

from workings import training
from workings.arithmetic.problems import ChainCounts
from workings.errors import BadInput, Failed
from workings.experiment import report_runs, resume_run, run_experiment
from workings.experiments import train_codi
from workings.experiments.train_codi import Config, inputs
from workings.models.codi import CODI


def run(root, *more):
    settings = ["limit=80", "n_validation=12", "training.validation_problems=4", *more]
    [record] = run_experiment("train-codi", ["small"], "smoke", [0], settings, root=root, quiet=True)
    return record


def test_the_smoke_scale_needs_nothing_named_and_ends_in_a_report(tmp_path):
    record = run(tmp_path)
    counts = record.result("problems", train_codi.Problems)
    assert (counts.n_train, counts.n_validation, counts.malformed) == (68, 12, [])
    assert record.verify() == [] and record.manifest.spent.tokens > 0
    assert CODI.load(record.path / "checkpoint" / "model").answer(["Ann has 3 pens. How many?"])
    assert "Validation accuracy" in report_runs([record]).with_suffix(".md").read_text()


def test_words_are_the_chain_where_there_are_no_steps_and_what_has_none_is_said(tmp_path, capsys):
    rows = [{"ask": f"{n} and 1?", "why": f"One more than {n}. So {n + 1}.", "gold": str(n + 1)} for n in range(70)]
    rows += [{"ask": f"{n} and 2?", "why": "", "gold": f"{n + 2} or 0"} for n in range(10)]
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    record = run(tmp_path, "limit=null", f"problems={path}", "fields=[question=ask, answer=gold, chain=why]")
    counts = record.result("problems", train_codi.Problems)
    assert counts.chains == ChainCounts(68, 0, 68) and counts.without_chain == 0 and len(counts.malformed) == 1
    assert record.curve("without_chain")["without_chain"].to_list() == [0]
    said = capsys.readouterr()
    assert "0 of 68 problems have steps" in said.err and "teacher: 0 and 1? «One more than 0.\n" in said.out
    assert "0, 68 of 68" in report_runs([record]).with_suffix(".md").read_text()


def test_problems_that_leave_the_teacher_no_chain_are_counted(tmp_path, capsys):
    path = tmp_path / "bare.jsonl"
    path.write_text(
        "".join(f'{{"question": "{n} and 1?", "answer": "<<{n}+1={n + 1}>>#### {n + 1}"}}\n' for n in range(80))
    )
    record = run(tmp_path, f"problems={path}")
    assert record.result("problems", train_codi.Problems).without_chain == 68
    assert "68 of 68 training problems leave the teacher no chain" in capsys.readouterr().out


def test_no_base_is_an_error_that_says_what_can_be_named():
    with pytest.raises(BadInput, match=r"--base path.* or take --base embedded"):
        inputs(Config())


@pytest.mark.parametrize("moment", ["before the resume point goes", "after the resume point went"])
def test_what_was_killed_at_its_end_is_finished_and_not_trained_again(tmp_path, monkeypatch, moment):
    def killed(folder):
        if moment.startswith("after"):
            drop(folder)
        raise Failed("killed")

    drop = training.drop_resume_point
    with monkeypatch.context() as patch, pytest.raises(Failed, match="killed"):
        patch.setattr(training, "drop_resume_point", killed)
        run(tmp_path)
    [path] = (tmp_path / "train-codi").iterdir()
    metrics = (path / "metrics.jsonl").read_bytes()
    record = resume_run(path, quiet=True)
    assert (path / "metrics.jsonl").read_bytes() == metrics, "its clock would have gone on"
    assert record.status == "finished" and record.verify() == [] and not (path / "checkpoint" / "state").exists()
