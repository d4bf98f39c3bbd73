"""The main job, end to end, on small models: a run, its outcomes, its verdict, its report."""

from __future__ import annotations

import html
import json

import pytest

from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.cli import main
from workings.experiment import report_runs, run_experiment
from workings.judging.scores import predictors
from workings.reading.readings import Predictor
from workings.reading.store import ThoughtStore
from workings.run import RunRecord

LENS = Predictor("tuned lens")
READERS = {
    LENS,
    LENS._replace(targets="shuffled"),
    LENS._replace(subject="untrained"),
    LENS._replace(subject="control"),
    Predictor("logit lens"),
    *(Predictor(name, "", "Q") for name in ("majority", "structure only", "copy from question")),
}


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    root = tmp_path_factory.mktemp("runs")
    settings = ["limit=120", "n_ablated=20", "n_samples=2", "fit.max_epochs=2"]
    return run_experiment("read-thoughts", scale="mini", overrides=settings, root=root, quiet=True)[0]


def test_every_reader_was_asked_the_same(record):
    readings = record.outcomes("readings_step1")
    assert set(predictors(readings)) == READERS
    by_reader = readings.group_by(Predictor._fields)
    slots = {reader: set(rows.select("problem", "position").rows()) for reader, rows in by_reader}
    assert len(set(map(frozenset, slots.values()))) == 1
    assert set(readings["split"]) == {"val", "test"}


def test_the_splits_have_the_shares_that_the_config_names(record):
    splits = ThoughtStore.open(record.path / "thoughts" / "model").splits
    assert [splits.count(name) for name in ("train", "val", "test")] == [60, 12, 48]


def test_the_engine_was_checked_before_anything_was_printed(record):
    assert record.result("model")["self_check"] == {"replace by itself": 0.0, "last state": 0.0}


def test_the_run_is_whole_and_its_report_needs_nothing_else(record, tmp_path):
    assert not record.verify()
    page = report_runs([record], tmp_path).read_text()
    plain = lambda text: " ".join(html.unescape(text).split())  # a number and its % are held together by another space
    assert plain(record.result("headline")["sentence"]) in plain(page)
    for words in ("structure only", "untrained model", "control model", "Are the thoughts used?", "items only"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "/no/such/model"], "no such file or folder"),
        (["--problems", "/no/such/file.jsonl"], "no such file"),
        (["--set", "targets=[step0]"], "no step 0"),
        (["--set", "targets=[telepathy]"], "no target rule 'telepathy'"),
        (["--set", "layers=[block77]"], "no layer block77"),
        (["--set", "limmit=3"], "limit"),
        (["--device", "abacus"], "no device 'abacus'"),
    ],
)
def test_a_mistake_is_named_and_ends_with_exit_code_2(arguments, says, tmp_path, capsys):
    assert main(["run", "read-thoughts", "--scale", "smoke", "--out", str(tmp_path), "--quiet", *arguments]) == 2
    shown = capsys.readouterr().err
    assert says in shown and "Traceback" not in shown


def test_problems_that_cannot_be_read_are_counted(tmp_path):
    rows = [
        {"question": f"a has {i} pens . then {i} more . how many now ?", "answer": f"<<{i}+{i}={2 * i}>>\n#### {2 * i}"}
        for i in range(1, 15)
    ]
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    settings = [f"problems={path}", "n_ablated=0", "untrained=false", "fit.max_epochs=1", "targets=[step1]"]
    record = run_experiment("read-thoughts", overrides=settings, root=tmp_path / "runs", quiet=True)[0]
    counts = record.result("problems")
    assert counts["n_used"] == 14 and len(counts["malformed"]) == 1 and ":15:" in counts["malformed"][0]


def test_a_plain_language_model_is_read_as_an_untrained_codi(words, tmp_path, shared_data):
    base = tiny_base("llama", len(words))  # noqa: F405
    base.config.max_position_embeddings = 512
    base.save_pretrained(tmp_path / "lm")
    words.save_pretrained(tmp_path / "lm")
    settings = [
        f"model={tmp_path / 'lm'}",
        f"problems={shared_data / 'gsm8k' / 'test.jsonl'}",
        "limit=60",
        "n_ablated=10",
    ]
    settings += ["targets=[uniform, step1]", "fit.max_epochs=1", "n_samples=1", "max_new_tokens=4"]
    record = run_experiment("read-thoughts", overrides=settings, root=tmp_path / "runs", quiet=True)[0]
    assert record.result("model")["trained"] is False
    assert record.result("headline")["kind"] != "read"
