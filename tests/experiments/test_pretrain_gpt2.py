"""`workings pretrain` from a corpus to a report: what is recorded, what it says it costs, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from workings.cli import main
from workings.config import from_dict
from workings.errors import BadInput, Failed
from workings.experiment import report_runs, resume_run, run_experiment
from workings.experiments import pretrain_gpt2
from workings.experiments.pretrain_gpt2 import Config, described_budget, inputs
from workings.models.checkpoint import load_gpt2
from workings.text import Corpus, CorpusConfig, SourceConfig, build_corpus
from workings.training.recipes import PRETRAIN_PRESETS

TINY = {"shape.n_layers": 1, "steps": 4, "tokens_per_step": 64, "pass_rows": 2, "warmup_steps": 1, "log_every": 2}


def made(folder: Path, **settings) -> Corpus:
    config = CorpusConfig(
        documents=(SourceConfig("generated"),), documents_limit=120, validation_fraction=0.1, **settings
    )
    return build_corpus(config, folder, processes=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("facts") / "corpus")


def overrides(corpus: Corpus, **more) -> list[str]:
    return [f"corpus={corpus.folder}", *(f"training.{name}={value}" for name, value in (TINY | more).items())]


def run(corpus: Corpus, root: Path, *more: str, **training):
    settings = overrides(corpus, **training) + list(more)
    [record] = run_experiment("pretrain-gpt2", ["mini"], "smoke", [0], settings, root=root, quiet=True)
    return record


def verb(*words: object) -> int:
    return main(["pretrain", *map(str, words)])


def hellaswag_file(folder: Path) -> Path:
    rows = [
        {"ctx": f"{n} pens and", "endings": [f" {n + k} more" for k in range(4)], "label": n % 4, "ind": n}
        | {"activity_label": "Counting", "ctx_a": f"{n} pens", "ctx_b": "and"}
        for n in range(3)
    ]
    path = folder / "hellaswag.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_records_its_cost_its_judges_and_its_checkpoint(corpus, tmp_path):
    judged = [f"hellaswag={hellaswag_file(tmp_path)}", "probes=true", "n_judged=5"]
    record = run(corpus, tmp_path / "runs", *judged, keep_every=2, **{"shape.block": 64, "tokens_per_step": 128})
    budget, logged = record.result("budget"), record.metrics()
    assert set(budget) == {"parameters", "steps", "raw_bytes", "tokens", "flops"} and budget["tokens"] == 4 * 128
    assert (record.manifest.spent.tokens, record.manifest.spent.flops) == (512, budget["flops"])
    assert record.manifest.spent.bytes == pytest.approx(budget["raw_bytes"], abs=2)
    hellaswag = logged.drop_nulls("hellaswag.acc_norm")
    assert hellaswag["step"].to_list() == [4] and hellaswag["hellaswag.acc_norm.n"].to_list() == [3]
    assert len(record.outcomes("hellaswag")) == 3 and len(record.outcomes("probes")) == 5
    model, tokenizer = load_gpt2(record.path / "checkpoint" / "model")
    assert model.n_parameters == budget["parameters"] and tokenizer.digest == corpus.tokenizer.digest
    kept = sorted(path.name for path in (record.path / "checkpoint").iterdir())
    assert kept == ["model", "step_000002", "step_000004"], "the resume point is gone, it is not part of the result"
    assert record.verify() == []
    read = record.outcomes("validation")
    bits = read["nats"].sum() / np.log(2) / read["bytes"].sum()
    [found] = record.result("validation").values()
    assert found["value"] == pytest.approx(bits) and found["low"] < bits < found["high"] and found["n"] == len(read)
    page = report_runs([record]).with_suffix(".md").read_text()
    assert "bits per byte" in page and f"{budget['parameters']:,}" in page


def test_a_corpus_without_validation_documents_still_gives_a_report(tmp_path):
    record = run(made(tmp_path / "corpus", validation_documents=0), tmp_path / "runs")
    assert "nothing was measured on text not trained on" in report_runs([record]).with_suffix(".md").read_text()


def test_training_goes_on_from_a_checkpoint_of_the_same_tokenizer_only(corpus, tmp_path):
    first = run(corpus, tmp_path / "first")
    start = first.path / "checkpoint" / "model"
    second = run(corpus, tmp_path / "second", f"start={first.path}")
    losses = [record.metrics().drop_nulls("loss")["loss"].to_list() for record in (first, second)]
    assert losses[1][0] < losses[0][0]
    other = made(tmp_path / "digits", vocabulary="digits")
    with pytest.raises(BadInput, match=r"reads facts: .*was written in digits: .*build the corpus again"):
        run(other, tmp_path / "third", f"start={start}")


def test_a_changed_shard_is_found_by_its_length_and_by_verify_by_a_single_id(corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus.folder, folder)
    [shard] = folder.glob("train_*.bin")
    ids = np.fromfile(shard, corpus.dtype)
    ids[7] = 5 if ids[7] != 5 else 6
    ids.tofile(shard)
    with pytest.raises(BadInput, match=r"not as it was built: .*train_000000\.bin"):
        run(Corpus.open(folder), tmp_path / "runs")
    with pytest.raises(BadInput, match=r"train_000000\.bin was changed"):  # when it is first read
        run(Corpus.open(folder), tmp_path / "believed", "verify=false")
    ids[:-3].tofile(shard)
    with pytest.raises(BadInput, match=r"train_000000\.bin"):
        inputs(Config(corpus=str(folder)))


def test_the_smoke_scale_needs_nothing_named_and_ends_in_a_report(tmp_path):
    [record] = run_experiment("pretrain-gpt2", ["mini"], "smoke", [0], root=tmp_path, quiet=True)
    assert {"english", "problems"} <= set(record.result("validation")) and record.verify() == []
    assert "Bits per byte of raw text" in report_runs([record]).with_suffix(".md").read_text()
    assert any(line.startswith("parameters") for line in described_budget(Config(corpus="embedded"), 1, 1e9))


def test_a_missing_corpus_says_how_to_make_one(tmp_path):
    with pytest.raises(BadInput, match="workings corpus build"):
        inputs(Config())
    with pytest.raises(BadInput, match="is no corpus"):
        inputs(Config(corpus=str(tmp_path)))


def test_a_missing_tracker_is_named_before_there_is_a_run(corpus):
    with pytest.raises(BadInput, match=r"no_such_tracker is not installed"):
        inputs(Config(corpus=str(corpus.folder), track=("no_such_tracker",)))  # ty: ignore[invalid-argument-type]


def test_a_dry_run_prints_the_cost_and_warns_of_repetition(corpus, tmp_path, capsys):
    words = ["--corpus", corpus.folder, "--dry-run", "--out", tmp_path / "runs"]
    assert verb(*words, "--flops-per-second", 1e9, "--steps", 300, "--tokens-per-step", 8192) == 0
    said = capsys.readouterr().out
    tokens = 300 * 8192
    assert f"{tokens:,} = {tokens / corpus.n_tokens:.2f} epochs over {corpus.n_tokens:,} unique ones" in said
    assert "WARNING: the corpus is repeated" in said and "at 1.00e+09 FLOP/s (as given)" in said
    assert "training.steps" in said or "steps: 300" in said
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_counts_the_model_that_is_started_from(corpus, tmp_path):
    first = run(corpus, tmp_path / "first")
    lines = described_budget(Config(corpus=str(corpus.folder), start=str(first.path), device="cpu"), 1, 1e9)
    assert f"parameters      {first.result('budget')['parameters']:,}" in lines


def test_what_was_killed_before_it_could_be_closed_is_not_trained_again(corpus, tmp_path, monkeypatch):
    def killed(*given):
        finish(*given)
        raise Failed("killed")

    finish = pretrain_gpt2._finish
    with monkeypatch.context() as patch, pytest.raises(Failed, match="killed"):
        patch.setattr(pretrain_gpt2, "_finish", killed)
        run(corpus, tmp_path)
    [path] = (tmp_path / "pretrain-gpt2").iterdir()
    metrics = (path / "metrics.jsonl").read_bytes()
    record = resume_run(path, quiet=True)
    assert (path / "metrics.jsonl").read_bytes() == metrics, "its clock would have gone on"
    assert record.status == "finished" and record.verify() == [] and len(record.outcomes("validation"))


def test_hours_follow_from_a_rate_that_is_measured_where_no_peak_is_known(corpus):
    lines = described_budget(Config(corpus=str(corpus.folder), device="cpu"), 1, None)
    assert any("40%, assumed, of what a matrix product reaches here" in line for line in lines)


def resolved(said: str) -> Config:
    """The config that a dry run prints."""
    return from_dict(Config, yaml.safe_load(said.partition("\n\n")[0]))


def test_what_the_command_line_does_not_say_is_as_the_preset_and_the_config_file_have_it(corpus, tmp_path, capsys):
    (tmp_path / "some.yaml").write_text("seed: 3\ndevice: cpu\nprobes: true\n")
    dry = ("--corpus", corpus.folder, "--dry-run", "--flops-per-second", "1e9")
    assert verb(*dry, "--preset", "124M-10B", "--steps", 1000, "--config", tmp_path / "some.yaml") == 0
    found = resolved(capsys.readouterr().out)
    assert found.training == replace(PRETRAIN_PRESETS["124M-10B"], steps=1000) and found.training.compile
    assert (found.seed, found.device, found.probes) == (3, "cpu", True)
    assert verb(*dry, "--compile", "--seed", 0, "--config", tmp_path / "some.yaml") == 0
    found = resolved(capsys.readouterr().out)
    assert found.training == replace(PRETRAIN_PRESETS["mini"], compile=True) and found.seed == 0


@pytest.mark.parametrize("more", [("--steps", 9), ("--seed", 1), ("--preset", "124M-10B"), ("--compile",)])
def test_a_resumed_run_takes_no_other_settings(more, corpus, tmp_path, capsys):
    record = run(corpus, tmp_path / "runs")
    assert verb("--resume", record.path, *more) == 2
    assert "leave the other settings out" in capsys.readouterr().err
