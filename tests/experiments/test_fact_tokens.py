"""The fact-token experiments end to end at their smallest, and what their verdicts say of planted differences."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from workings.errors import BadInput
from workings.experiment import report_runs, resume_run, run_experiment
from workings.experiments import fact_rate, fact_tokens
from workings.experiments.fact_tokens_report import Contrast, conclusion
from workings.judging.comparison import compare
from workings.judging.paired import PairedDifference, paired_difference
from workings.judging.statistics import Interval
from workings.run import RunRecord
from workings.text.corpus import Corpus


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    root = tmp_path_factory.mktemp("runs")
    return run_experiment("fact-tokens", scale="smoke", root=root, quiet=True)


def test_every_arm_reads_the_same_raw_text_at_the_same_cost(arms: list[RunRecord]) -> None:
    corpora = {r.manifest.arm: Corpus.open(r.path / "corpus").train for r in arms}
    assert len({train.raw_sha256 for train in corpora.values()}) == 1
    budgets = {r.manifest.arm: r.result("budget") for r in arms}
    assert len({(b["parameters"], b["steps"]) for b in budgets.values()}) == 1
    for arm in ("facts", "shuffled"):
        assert corpora[arm].n_tokens < corpora["digits"].n_tokens == corpora["reserved"].n_tokens
        assert budgets[arm]["raw_bytes"] == pytest.approx(budgets["digits"]["raw_bytes"], rel=0.01)
    assert corpora["facts"].n_facts == corpora["shuffled"].n_facts > 0 == corpora["digits"].n_facts


def test_arms_are_judged_on_the_same_items(arms: list[RunRecord]) -> None:
    for name in ("probes", "text"):
        ids = [r.outcomes(name)["id"].to_list() for r in arms]
        assert all(one == ids[0] for one in ids) and len(set(ids[0])) == len(ids[0])
    said = compare(arms, fact_tokens.Config).text()
    assert "facts" in said and "Warning: One training seed" in said


def test_the_report_has_a_verdict_curves_costs_and_the_pairs(arms: list[RunRecord], tmp_path: Path) -> None:
    page = report_runs(arms, tmp_path).read_text(encoding="utf-8")
    for part in ("facts − digits", "Bits per byte", "What each arm cost", "While training", "One training seed"):
        assert part in page


def test_two_runs_of_one_arm_and_seed_are_refused(arms: list[RunRecord], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the same arm and seed: leave one out"):
        report_runs([*arms, RunRecord(arms[0].path)], tmp_path)


def test_runs_of_another_cost_are_refused(arms: list[RunRecord], tmp_path: Path) -> None:
    longer = run_experiment(
        "fact-tokens", ["facts"], "smoke", root=tmp_path, quiet=True, overrides=["training.steps=10", "limit=4"]
    )
    digits = next(r for r in arms if r.manifest.arm == "digits")
    with pytest.raises(BadInput, match="not matched in steps"):
        report_runs([digits, *longer], tmp_path)


@pytest.mark.parametrize("moment", ["evaluate", "headline"])
def test_a_run_killed_after_its_training_is_judged_and_not_trained_again(
    arms: list[RunRecord], tmp_path: Path, moment: str
) -> None:
    root = tmp_path / "runs"
    code = KILLED.format(moment=moment)
    killed = subprocess.run([sys.executable, "-c", code, str(root)], timeout=600, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [path] = root.glob("*/*")
    before = [(file, file.stat().st_mtime_ns) for file in (path / "checkpoint").rglob("*") if file.is_file()]
    resumed = resume_run(path, quiet=True)
    assert [(file, file.stat().st_mtime_ns) for file in (path / "checkpoint").rglob("*") if file.is_file()] == before
    digits = next(r for r in arms if r.manifest.arm == "digits")
    assert resumed.outcomes("probes").equals(digits.outcomes("probes")) and resumed.verify() == []


KILLED = """
import os, signal, sys
from workings.experiment import run_experiment
from workings.evals import evaluation as evaluate
from workings.experiments import fact_tokens

def die(*given, **more):
    os.kill(os.getpid(), signal.SIGKILL)

for module in (evaluate, fact_tokens):
    if hasattr(module, "{moment}"):
        module.{moment} = die
run_experiment("fact-tokens", ["digits"], "smoke", [0], root=sys.argv[1], quiet=True)
"""


def test_a_changed_corpus_is_not_trained_on(arms: list[RunRecord], tmp_path: Path) -> None:
    named = tmp_path / "facts"
    shutil.copytree(next(r for r in arms if r.manifest.arm == "facts").path / "corpus", named)
    shard = next(file for file in sorted(named.rglob("*")) if "train" in file.name and file.suffix == ".bin")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BadInput, match="is not as it was built"):
        overrides = [f"text.corpus={tmp_path}/{{vocabulary}}"]
        run_experiment("fact-tokens", ["facts"], "smoke", root=tmp_path / "r", quiet=True, overrides=overrides)


def test_rates_are_compared_rate_by_rate(tmp_path: Path) -> None:
    chosen = ["digits-2%", "facts-2%", "digits-0.1%", "facts-0.1%"]
    records = run_experiment("fact-rate", chosen, "smoke", root=tmp_path, quiet=True, overrides=["limit=4"])
    seen = {r.manifest.arm: r.result("text")["sightings_per_fact"] for r in records}
    assert seen["facts-2%"] == pytest.approx(seen["digits-2%"], rel=0.02)
    assert seen["facts-2%"] > 5 * seen["facts-0.1%"]
    assert "sightings of a fact" in report_runs(records).read_text(encoding="utf-8")


def test_the_rates_are_those_of_option_b1() -> None:
    assert sorted({config.fact_rate for config in fact_rate.ARMS.values()}) == [0.00001, 0.001, 0.01, 0.02]


def test_bits_per_byte_have_intervals_and_held_out_facts_stand_apart(arms: list[RunRecord], tmp_path: Path) -> None:
    of = {record.manifest.arm: record.outcomes("text") for record in arms}
    held_out = of["facts"]["held_out_facts"]
    assert held_out.sum() > 0 and (held_out <= of["facts"]["facts"]).all()
    assert all(of[arm]["held_out_facts"].sum() == 0 for arm in ("digits", "shuffled", "reserved"))
    page = (report_runs(arms, tmp_path).parent / "report.md").read_text(encoding="utf-8")
    for line in ("| drills with a held-out fact", "| facts − digits, english without facts"):
        row = next(row for row in page.splitlines() if row.startswith(line))
        assert "[" in row
    whole = next(row for row in page.splitlines() if row.startswith("| english without facts"))
    english = of["digits"].filter(source="english")
    bits = english["nats"].sum() / (np.log(2) * english["bytes"].sum())
    assert f"{bits:.4f} [" in whole and whole.rstrip(" |").endswith(f" {len(english)}")


def test_every_row_of_probes_has_its_own_n(arms: list[RunRecord], tmp_path: Path) -> None:
    page = (report_runs(arms, tmp_path).parent / "report.md").read_text(encoding="utf-8")
    probes = arms[0].outcomes("probes")
    for kind, part in probes.group_by("condition"):
        row = next(row for row in page.splitlines() if row.startswith(f"| {kind[0]} "))
        assert row.rstrip(" |").endswith(f" {len(part)}")


# ---- planted differences -----------------------------------------------------------------------------------------


def planted(difference: float, n_seeds: int = 3, n_items: int = 300) -> PairedDifference:
    draw = np.random.default_rng(0)
    better = draw.random((n_seeds, n_items)) < 0.5 + difference
    return paired_difference(better, draw.random((n_seeds, n_items)) < 0.5)


def contrasts_of(**differences: float) -> dict[Contrast, PairedDifference]:
    return {Contrast(*name.split("_"), "worked"): planted(d) for name, d in differences.items()}


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (contrasts_of(facts_digits=0.3, facts_shuffled=0.3), "holds", "content of the tokens"),
        (contrasts_of(facts_digits=0.3, facts_shuffled=0.0), "explained by a control", "shorter text"),
        (contrasts_of(facts_digits=0.3), "holds", "nothing says why"),
        (contrasts_of(facts_digits=-0.3), "fails", "worse"),
        (contrasts_of(facts_digits=0.0), "undecided", "no evidence of a difference"),
        ({}, "undecided", "run digits and facts"),
    ],
)
def test_the_conclusion_says_what_was_planted(found: dict[Contrast, PairedDifference], kind: str, words: str) -> None:
    said = conclusion(found)
    assert said.kind == kind and words in said.sentence


def test_one_seed_is_over_items_and_several_over_seeds_too() -> None:
    one, three = planted(0.3, 1), planted(0.3, 3)
    assert one.p < 0.001 and (one.n_seeds, one.n_items) == (1, 300)
    assert one.p < three.p < 0.05  # three seeds say less of all seeds than 300 items of all items
    assert three.interval.covers == "seeds and items" and isinstance(three.interval, Interval)


def test_the_text_of_a_run_is_one_row_a_document(arms: list[RunRecord]) -> None:
    for record in arms:
        text = record.outcomes("text")
        corpus = Corpus.open(record.path / "corpus")
        assert text["bytes"].sum() == sum(
            one.n_bytes for source in corpus.sources for one in list(corpus.validation(source))[:4]
        )
        assert text.filter(pl.col("nats") <= 0).is_empty()
