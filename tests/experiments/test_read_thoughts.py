"""The main job, end to end, on small models: a run, its outcomes, its verdict, its report."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.experiments.test_judged_report import says_too_much, sentences
from tests.forged import vouched_for
from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.cli import main
from workings.experiment import report_runs, run_experiment
from workings.experiments.judged_report import in_order, target_name
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
    Predictor("linear probe"),
    *(Predictor(name, "", "Q") for name in ("majority", "structure only", "copy from question")),
}


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    root = tmp_path_factory.mktemp("runs")
    settings = ["limit=120", "n_ablated=20", "n_transplanted=12", "n_planted=1", "n_samples=2", "fit.max_epochs=2"]
    settings += ["targets=[step2, step1, uniform]"]
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
    assert [splits.count(name) for name in ("train", "val", "test")] == [60, 24, 36]


def test_the_engine_was_checked_before_anything_was_printed(record):
    assert record.result("model")["self_check"] == {"replace by itself": 0.0, "last state": 0.0}


def test_the_run_is_whole_and_its_report_needs_nothing_else(record, tmp_path):
    assert not record.verify()
    page = report_runs([record], tmp_path).read_text()
    plain = lambda text: " ".join(
        html.unescape(text).split()
    )  # a number and its unit are held together by another space
    assert plain(record.result("headline")["sentence"]) in plain(page)
    for words in ("structure only", "untrained model", "control model", "Are the thoughts used?", "items only"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_the_first_screen_is_a_sentence_a_table_and_a_figure_and_the_rest_folds_away(record, tmp_path):
    markdown = report_runs([record], tmp_path).with_suffix(".md").read_text()
    chapters = re.findall(r"(?m)^## (.*)", markdown)
    family = [target_name(rule) for rule in in_order(record.manifest.declared["family"])]
    assert chapters[:2] == ["What the thoughts hold", "What the thoughts add to the question"]
    assert [chapter.lower() for chapter in chapters[2 : 2 + len(family)]] == family
    page = (tmp_path / "report.html").read_text()
    links = re.findall(r'<a href="#[^"]*">([^<]*)</a>', page)
    assert [link.lower() for link in links if link.lower() in family] == family
    assert "headline, named beforehand" in markdown


def test_no_sentence_of_the_report_says_too_much_and_no_backslash_is_astray(record, tmp_path):
    markdown = report_runs([record], tmp_path).with_suffix(".md").read_text()
    assert [sentence for sentence in sentences(markdown) if says_too_much(sentence)] == []
    assert "\\" not in re.sub(r"(?s)```.*?```|`[^`]*`", "", markdown)
    assert "does as well" not in markdown and "embed (what was fed)" in markdown


def test_a_run_from_before_the_judge_says_so_and_shows_its_lens(record, tmp_path):
    former = copied(record, tmp_path / "former", declared={})
    markdown = report_runs([former], tmp_path / "out").with_suffix(".md").read_text()
    assert "**Verdict: not judged.**" in markdown and "older than the judge" in markdown
    assert "### The lens beside its controls" in markdown and "What the thoughts hold" not in markdown


def test_runs_of_several_models_on_the_same_problems_are_seeds_and_others_are_not_pooled(record, tmp_path):
    other = copied(record, tmp_path / "other", fingerprint="another")
    markdown = report_runs([record, other], tmp_path / "pooled").with_suffix(".md").read_text()
    assert "2 training seeds are pooled" in markdown and "items only" not in markdown
    again = report_runs([record, copied(record, tmp_path / "again")], tmp_path / "same").with_suffix(".md").read_text()
    assert "1 of the runs are not shown" in again and "items only" in again


def copied(record: RunRecord, to: Path, fingerprint: str | None = None, **of_manifest: object) -> RunRecord:
    """The same run elsewhere, with another fingerprint of its model or other fields in its manifest."""
    shutil.copytree(record.path, to)
    if fingerprint:
        model = to / "results" / "model.json"
        model.write_text(json.dumps(json.loads(model.read_text()) | {"fingerprint": fingerprint}))
    return vouched_for(to, **of_manifest)


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
    assert "not judged" in record.result("headline")["sentence"] and not record.manifest.declared
    assert "was not judged" in report_runs([record], tmp_path / "report").read_text()


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
    assert record.result("headline")["answer"] != "yes"
