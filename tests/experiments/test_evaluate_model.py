"""Evaluations as runs: one model or all checkpoints of a training, several tasks, resumed, compared, reported, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.evals import test_gsm8k, test_hellaswag
from tests.evals.tiny import save_tiny, write_rows
from tests.forged import vouched_for
from workings.cli import main
from workings.config import changed, from_dict
from workings.errors import BadInput
from workings.evals import hellaswag
from workings.evals.evaluation import TaskResult
from workings.evals.settings import Settings
from workings.experiment import report_runs, run_experiment
from workings.experiments import pretrain_gpt2
from workings.experiments.evaluate_model import (
    UNTRAINED,
    Config,
    evaluate_model,
    kept_checkpoints,
    named_after,
    open_judged,
)
from workings.experiments.evaluate_model_report import TITLES, Judged, curves, report
from workings.models.language import open_language
from workings.run import Run, RunRecord

PROBES = 12


def settings(place: Path, **fields) -> Settings:
    named = {"hellaswag_data": str(place / "h.jsonl"), "gsm8k_data": str(place / "test.jsonl"), "max_new_tokens": 12}
    return changed(Settings(), named | {"limit": PROBES} | fields)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two models, a training run that kept two checkpoints, and data."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_rows(folder / "h.jsonl", test_hellaswag.rows(20))
    write_rows(folder / "test.jsonl", test_gsm8k.rows(15))
    for seed, name in enumerate(("one", "other")):
        save_tiny(folder / name, context=320, seed=seed)
    with Run.start(folder / "runs", "pretrain-gpt2", "facts", 3, Config(model="none")) as run:
        for step in (2, 10):
            save_tiny(run.folder("checkpoint") / f"step_{step:06d}", context=320, seed=step)
        (run.path / "checkpoint" / "state").mkdir()
        (run.path / "checkpoint" / "step_000004").mkdir()  # one that is not whole
    return folder


@pytest.fixture(scope="module")
def records(place) -> list[RunRecord]:
    """Both models, judged on everything."""
    asked = Config(settings=settings(place), device="cpu")
    return [evaluate_model(changed(asked, {"model": str(place / name)}), place / "runs") for name in ("one", "other")]


def execute(*words: str) -> int:
    return main(list(words))


# ---- one model ---------------------------------------------------------------------------------------------------


def test_a_run_holds_every_items_outcome_and_results_with_n(records):
    record = records[0]
    assert record.status == "finished" and record.verify() == []
    assert (record.manifest.arm, record.manifest.experiment) == ("one", "evaluate-model")
    for task, n_all, rows in (("hellaswag", 20, 2 * PROBES), ("gsm8k", 15, PROBES), ("probes", 444, PROBES)):
        result = record.result(task, TaskResult)
        assert (result.n, result.n_all, result.limit) == (PROBES, n_all, PROBES)
        assert len(record.outcomes(task)) == rows
        assert result.measures and all(
            one.low <= one.value <= one.high and one.n > 0 for one in result.measures.values()
        )


def test_its_lm_eval_files_are_of_the_same_items(records):
    folder = records[0].path / "lm_eval"
    (results,) = folder.glob("results_*.json")
    content = json.loads(results.read_text())
    names = {"hellaswag", "hellaswag_karpathy", "gsm8k_chat", "arithmetic_probes"}
    assert set(content["results"]) == names
    assert content["n-samples"]["gsm8k_chat"] == {"original": 15, "effective": PROBES}
    assert content["config"]["limit"] == PROBES
    for name in names:
        (file,) = folder.glob(f"samples_{name}_2*.jsonl")
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        assert {one["doc_id"] for one in samples} == set(range(PROBES))
    frame = records[0].outcomes("hellaswag").filter(condition="lm-eval")
    assert content["results"]["hellaswag"]["acc_norm,none"] == pytest.approx(frame["correct"].mean())


def test_lm_eval_shows_our_results_as_its_own(records):
    utils = pytest.importorskip("lm_eval.utils", reason="tested with lm-eval itself: install workings[eval]")
    (results,) = (records[0].path / "lm_eval").glob("results_*.json")
    shown = utils.make_table(json.loads(results.read_text()))
    assert "gsm8k_chat" in shown and "exact_match" in shown


def test_two_models_are_compared_item_by_item(records, capsys):
    assert execute("compare", *(str(record.path) for record in records)) == 0
    said = capsys.readouterr().out
    for name in (
        "gsm8k",
        "hellaswag karpathy",
        "hellaswag lm-eval",
        "probes table",
        "probes_worked",
        "probes_value_choice",
    ):
        assert name in said
    assert "one → other" in said and f"n = {PROBES} paired" in said and "McNemar" in said


def test_models_asked_otherwise_are_not_compared(place, records):
    other = Config(str(place / "other"), settings=settings(place, prompt="lm-eval", num_fewshot=0), device="cpu")
    record = evaluate_model(changed(other, {"tasks": ["gsm8k"]}), place / "runs")
    with pytest.raises(BadInput, match="prompt"):
        runs_compared(records[0], record)


def runs_compared(*records: RunRecord):
    from workings.judging.comparison import compare

    return compare(records, Config)


def test_the_report_says_how_many_items_a_limit_left(records, tmp_path):
    page = report(records, tmp_path)
    text = page.with_suffix(".md").read_text()
    assert f"limited to its first {PROBES} of 444 items" in text and f"{PROBES} of 15 items" in text
    assert "25.0" in text and "Compared item by item" in text and "names no corpus" in text
    assert page.stat().st_size > 10_000


# ---- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training(place) -> Path:
    (found,) = (place / "runs" / "pretrain-gpt2").iterdir()
    return found


@pytest.fixture(scope="module")
def trained(place, training) -> RunRecord:
    asked = Config(checkpoints=str(training), settings=settings(place), device="cpu")
    return evaluate_model(changed(asked, {"tasks": ["hellaswag", "probes"]}), place / "runs")


def test_every_whole_checkpoint_is_judged_and_named_after_its_training(trained):
    assert (trained.manifest.arm, trained.manifest.seed) == ("facts", 3)
    by_step = Judged.of(trained).by_step
    assert list(by_step) == [2, 10]
    for step, results in by_step.items():
        frame = trained.outcomes(f"hellaswag_step_{step:06d}").filter(condition="karpathy")
        (found,) = [result.measures["karpathy.acc_norm"] for result in results if result.task == "hellaswag"]
        assert found.value == frame["correct"].mean() and found.low < found.value < found.high and found.n == PROBES


def test_curves_have_one_series_an_arm_with_intervals(trained, tmp_path):
    text = report([trained], tmp_path).with_suffix(".md").read_text()
    assert "step 10, the last" in text
    (figure,) = [one for one in curves({"facts": Judged.of(trained)}) if one.title == TITLES["karpathy.acc_norm"]]
    series, guessing = figure.series
    assert (guessing.name, list(guessing.x), list(guessing.y)) == ("chance", [2, 10], [0.25, 0.25])
    assert f"n = {PROBES} items" in figure.caption
    assert (list(series.x), series.name) == ([2, 10], "facts")
    assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))
    assert list(tmp_path.glob("figures/*acc-norm*.svg"))


def test_two_trainings_of_one_recipe_are_named_after_their_corpora_and_compared_at_the_last_step(place, tmp_path):
    asked = changed(Config(settings=settings(place), device="cpu"), {"tasks": ["hellaswag"]})
    judged = []
    for seed, corpus in enumerate(("digits", "facts")):
        inputs: dict = {"corpus": tmp_path / "corpora" / corpus / "manifest.json"}
        inputs["corpus"].parent.mkdir(parents=True)
        inputs["corpus"].write_text("{}")
        with Run.start(tmp_path, "pretrain-gpt2", "mini", 0, Config(model=corpus), inputs=inputs) as run:
            for step in (2, 10):
                save_tiny(run.folder("checkpoint") / f"step_{step:06d}", context=320, seed=step + seed)
        judged.append(evaluate_model(changed(asked, {"checkpoints": str(run.path)}), tmp_path / "judged"))
    text = report(judged, tmp_path / "report").with_suffix(".md").read_text()
    assert "hellaswag_step_000010 karpathy, mini-digits → mini-facts" in text
    assert "hellaswag_step_000002" not in text and "any of 2 paired comparisons" in text
    other = judged[1]
    for path in [*other.path.glob("*/*_step_000010.*")]:
        path.rename(str(path).replace("000010", "000012"))
    for path in [*other.path.glob("*/*_step_000002.*")]:
        path.unlink()
    result = other.path / "results" / "hellaswag_step_000012.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"step": 12}))
    text = report([judged[0], vouched_for(other.path)], tmp_path / "other").with_suffix(".md").read_text()
    assert "kept no step in common" in text and "Compared item by item" not in text


def test_a_folder_without_checkpoints_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no kept checkpoints"):
        kept_checkpoints(tmp_path)


def test_a_run_that_was_stopped_goes_on_without_judging_again(place, training, monkeypatch):
    asked = changed(Config(checkpoints=str(training), settings=settings(place), device="cpu"), {"tasks": ["hellaswag"]})
    judged, judge = [], hellaswag.judge_items

    def stopped(model, *rest):
        judged.append(model.name)
        if len(judged) == 2:
            raise RuntimeError("the machine went down")
        return judge(model, *rest)

    monkeypatch.setattr(hellaswag, "judge_items", stopped)
    with pytest.raises(RuntimeError):
        evaluate_model(asked, place / "stopped")
    (run,) = (place / "stopped" / "evaluate-model").iterdir()
    from workings.experiment import resume_run

    record = resume_run(run, place / "stopped", True)
    assert [Path(name).name for name in judged] == ["step_000002", "step_000010", "step_000010"]
    whole = evaluate_model(asked, place / "whole")
    for name in ("hellaswag_step_000002", "hellaswag_step_000010"):
        assert record.outcomes(name).equals(whole.outcomes(name))


# ---- while training ----------------------------------------------------------------------------------------------


def test_a_training_logs_the_same_numbers_that_an_evaluation_finds(place, records, tmp_path):
    asked = pretrain_gpt2.Config(hellaswag=str(place / "h.jsonl"), n_judged=PROBES)
    with Run.start(tmp_path, "pretrain-gpt2", "mini", 0, asked) as run:
        (evaluation,) = pretrain_gpt2.evaluations(asked, run)
        logged = evaluation(open_language(place / "one", device="cpu"), 5)
    for name in ("acc", "acc_norm"):
        expected = records[0].result("hellaswag", TaskResult).measures[f"karpathy.{name}"]
        assert logged[f"hellaswag.{name}"] == expected.value and logged[f"hellaswag.{name}.n"] == PROBES
        assert (logged[f"hellaswag.{name}.low"], logged[f"hellaswag.{name}.high"]) == (expected.low, expected.high)
    assert len(logged) == 8


# ---- the verb ----------------------------------------------------------------------------------------------------


def test_the_verb_judges_several_tasks_and_prints_the_report(place, capsys):
    data = [f"hellaswag={place / 'h.jsonl'}", f"gsm8k={place}"]
    words = ["eval", "hellaswag", "gsm8k", "--model", str(place / "one"), "--data", *data, "--limit", "3"]
    words += [
        "--max-new-tokens",
        "4",
        "--custom",
        "karpathy",
        "--device",
        "cpu",
        "--out",
        str(place / "verb"),
        "--quiet",
    ]
    assert execute(*words) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert execute(*words, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {result["task"]: result["n"] for result in said["results"]} == {"hellaswag": 3, "gsm8k": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "hellaswak", "--model", "x"], "did you mean 'hellaswag'"),
        (["eval", "probes"], "name one model"),
        (["eval", "probes", "--model", "no-such-model-here"], "no-such-model-here"),
        (["eval", "gsm8k", "hellaswag", "--model", "x", "--data", "d.jsonl"], "for which task"),
        (["eval", "gsm8k", "--model", "x", "--data", "hellaswag=d.jsonl"], "none of the tasks"),
        (["eval", "gsm8k", "--model", "x", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["eval", "probes", "--model", "x", "--checkpoints", "y"], "not both"),
        (["eval", "probes", "--model", "x", "--limit", "0"], "must be at least 1"),
    ],
)
def test_a_mistake_is_said_in_words_and_ends_with_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert execute(*words, "--device", "cpu") == 2
    assert message in capsys.readouterr().err


def test_a_run_is_resumed_as_it_was_configured_or_not_at_all(place, tmp_path, monkeypatch, capsys):
    words = ["eval", "hellaswag", "--out", str(tmp_path), "--quiet"]
    new = ["--model", str(place / "one"), "--data", str(place / "h.jsonl"), "--limit", "3", "--device", "cpu"]

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(hellaswag, "judge_items", stopped)
        assert execute(*words, *new) == 130
    (run,) = (tmp_path / "evaluate-model").iterdir()
    assert execute(*words, "--resume", str(run), "--limit", "2") == 2
    assert "leave the other settings out" in capsys.readouterr().err
    assert execute("eval", "probes", "--out", str(tmp_path), "--resume", str(run)) == 2
    assert "that run judges hellaswag" in capsys.readouterr().err
    assert execute(*words, "--resume", str(run)) == 0 and RunRecord(run).result("hellaswag", TaskResult).n == 3


def test_a_malformed_row_is_found_before_any_model_is_opened(place, tmp_path, capsys):
    broken = write_rows(tmp_path / "b.jsonl", [{"question": "How many?", "answer": "none"}])
    words = ["eval", "gsm8k", "--data", str(broken), "--model", "there-is-no-such-model", "--out", str(tmp_path)]
    assert execute(*words) == 2
    assert "b.jsonl:1" in capsys.readouterr().err


def test_missing_worked_examples_are_found_before_any_model_is_opened(tmp_path, capsys):
    alone = write_rows(tmp_path / "only.jsonl", test_gsm8k.rows(3))
    words = ["eval", "probes", "gsm8k", "--data", f"gsm8k={alone}", "--num-fewshot", "2", "--model", "no-such-model"]
    assert execute(*words, "--out", str(tmp_path)) == 2
    assert "no train.jsonl lies beside" in capsys.readouterr().err


def test_a_model_is_named_after_its_run_or_the_end_of_its_name(training):
    assert named_after(str(training / "checkpoint" / "step_000002")) == ("facts", 3)
    assert named_after(str(training)) == ("facts", 3)
    assert named_after("openai-community/gpt2@main") == ("gpt2", None)


def test_few_positions_lose_no_task_and_the_report_says_what_they_cost(tmp_path):
    rows = test_hellaswag.rows(6)
    rows[2]["endings"][1] = "café " * 90
    write_rows(tmp_path / "h.jsonl", rows)
    write_rows(tmp_path / "test.jsonl", test_gsm8k.rows(3))
    asked = settings(tmp_path, limit=6, max_new_tokens=256)
    record = evaluate_model(
        Config(model=str(save_tiny(tmp_path / "model", context=96)), settings=asked, device="cpu"), tmp_path / "runs"
    )
    assert [record.result(task, TaskResult).n for task in ("hellaswag", "gsm8k", "probes")] == [6, 3, 6]
    assert record.outcomes("gsm8k")["n_tokens"].to_numpy().max() <= 48
    page = (report([record], tmp_path / "report").parent / "report.md").read_text()
    assert "1 of 6 items (karpathy) were not judged" in page
    assert "at most 48 new tokens where 256 were asked for" in page


# ---- without a model of one's own --------------------------------------------------------------------------------


def test_the_smoke_scale_needs_no_model_and_ends_in_a_report(tmp_path):
    (record,) = run_experiment("evaluate-model", scale="smoke", root=tmp_path)
    assert record.result("probes", TaskResult).model == UNTRAINED
    text = report_runs([record]).with_suffix(".md").read_text()
    assert "no evidence that it is better than chance" in text


def test_the_untrained_model_is_that_of_its_seed_and_no_other_scale_takes_it_unasked(tmp_path):
    asked = Config(model=UNTRAINED, device="cpu")
    same, again, other = (open_judged(changed(asked, {"seed": seed})).fingerprint for seed in (0, 0, 1))
    assert same == again != other
    with pytest.raises(BadInput, match="name one model"):
        run_experiment("evaluate-model", scale="mini", root=tmp_path)


# ---- as runs were written before ---------------------------------------------------------------------------------


def test_a_result_without_what_was_added_later_is_read(records, tmp_path):
    """Before results had a class, absent measures and overlaps were left out, and so were counts of means."""

    def bare(value):
        if isinstance(value, dict):
            ends = ("low", "high")  # of which null says that few items leave an end open
            kept = {name: one for name, one in value.items() if one is not None or name in ends}
            return {name: bare(one) for name, one in kept.items() if name != "overlap"}
        return value

    results = tmp_path / "run" / "results"
    shutil.copytree(records[0].path, results.parent)
    for path in results.iterdir():
        content = json.loads(path.read_text())
        path.write_text(json.dumps(bare(content) | {"step": None, "notes": content["notes"]}))
    vouched_for(results.parent)
    assert "k" not in json.loads((results / "gsm8k.json").read_text())["summary"]["tokens_per_response"]
    for task in ("hellaswag", "gsm8k", "probes"):
        assert RunRecord(results.parent).result(task, TaskResult) == records[0].result(task, TaskResult)


def test_a_config_that_calls_the_conventions_customs_is_read(records):
    config = (records[0].path / "config.yaml").read_text()
    assert "conventions:" in config
    former = changed(Config(), {"model": "x"})
    assert from_dict(Config, {"model": "x", "settings": {"customs": ["karpathy", "lm-eval"]}}) == former
