"""Studies of lenses: equal lenses do not differ, equal cells are not ranked, and no choice is made on test problems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from workings.errors import BadInput
from workings.experiments import lens_study_report, position_specific, target_choice
from workings.experiments.lens_study_report import SAME_TARGET, _Runs
from workings.judging.lens_study import Study, best_of, by_problem, carry_out
from workings.reading.recipe import FitConfig
from workings.reading.study import Cell, StudyConfig
from workings.run import Run, RunRecord

FIT = FitConfig(max_epochs=2, batch_problems=64, precision="fp32")
CONFIG = StudyConfig(limit=150, fit=FIT)


def study(root: Path, cells: list[Cell], pairs: list[tuple[str, str]], config: StudyConfig = CONFIG) -> RunRecord:
    with Run.start(root, "position-specific", "study", config.seed, config) as run:
        carry_out(config, run, cells, pairs)
    return RunRecord(run.path)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    cells = [
        Cell("one", "tuned", "uniform", fit=FIT),
        Cell("the same", "tuned", "uniform", fit=FIT),
        Cell("started", "per-position", "uniform", fit=replace(FIT, decay_to="start"), start="one"),
        Cell("half", "tuned", "uniform", fit=FIT, share=0.5),
        Cell("every", "tuned", "uniform", fit=FIT, read="uniform:every"),
        Cell("one layer", "tuned", "step2", ("block1",), FIT),
    ]
    pairs = [("the same", "one"), ("started", "one"), ("half", "one"), ("one layer", "one")]
    return study(tmp_path_factory.mktemp("runs"), cells, pairs)


def test_equal_lenses_differ_by_nothing_with_p_one(record: RunRecord) -> None:
    runs = _Runs([record], [record.result("study", Study)])
    for value in SAME_TARGET:
        found = runs.difference("the same", "one", value)
        assert (found.difference, found.p) == (0.0, 1.0)


def test_a_cell_says_what_it_was_fitted_on_and_read_against(record: RunRecord) -> None:
    about = {cell.name: cell for cell in record.result("study", Study).cells}
    assert about["half"].n_train == pytest.approx(about["one"].n_train / 2, abs=1)
    assert about["every"].rule == "uniform split, every token" and about["every"].target == "uniform:every"
    assert about["one layer"].layer == "block1" and about["one layer"].n_parameters == about["one"].n_parameters / 2
    assert about["started"].n_parameters == 7 * about["one"].n_parameters
    assert record.manifest.declared["headline"] == ["the same", "one"]


def test_values_of_problems_are_means_over_their_slots(record: RunRecord) -> None:
    readings = record.outcomes("readings").filter(cell="one")
    controls = record.outcomes("controls").filter(target_rule="uniform")
    values = by_problem(readings, controls, record.outcomes("problems"), "block1")
    row = values.row(3, named=True)
    own = readings.filter(problem=row["problem"], layer="block1", split="test")
    guessed = controls.filter(problem=row["problem"], reader="majority")
    assert row["top1"] == pytest.approx((own["rank"] < 1).mean())
    assert row["bits"] == pytest.approx(-own["nll"].mean() / np.log(2), rel=1e-5)
    assert row["skill"] == pytest.approx((own["rank"] < 1).mean() - (guessed["rank"] < 1).mean())
    assert (
        set(values["problem"]) == set(readings.filter(split="test")["problem"])
        and values["structure"].null_count() == 0
    )


def test_lenses_for_different_targets_are_compared_beyond_the_structure_alone(record: RunRecord) -> None:
    runs = _Runs([record], [record.result("study", Study)])
    found = lens_study_report._compared(runs)
    assert {value for new, _, value in found if new == "one layer"} == {"beyond_structure", "beyond_structure_bits"}
    assert {value for new, _, value in found if new == "started"} == set(SAME_TARGET)
    assert {one.n_family for one in found.values()} == {8}


def test_no_choice_is_made_on_test_problems(tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the states of test problems replaced by noise, the same epochs and layers are chosen."""
    import torch

    from workings.judging import lens_study
    from workings.reading import ThoughtStore

    collected = lens_study.collected

    def poisoned(*given):
        store: ThoughtStore = collected(*given)
        hidden, test = store.hidden, torch.tensor([split == "test" for split in store.splits])

        def noisy(layer, rows=None):
            found, here = hidden(layer, rows).clone(), test if rows is None else test[rows]
            found[here] = torch.randn(found[here].shape, generator=torch.Generator().manual_seed(0))
            return found

        store.hidden = noisy  # type: ignore[method-assign]
        return store

    monkeypatch.setattr(lens_study, "collected", poisoned)
    again = study(tmp_path, [Cell("one", "tuned", "uniform", fit=FIT)], [("one", "one")])
    one, other = (next(c for c in r.result("study", Study).cells if c.name == "one") for r in (record, again))
    assert (one.layer, one.best_epoch, one.validation) == (other.layer, other.best_epoch, other.validation)
    scores = [
        r.outcomes("readings").filter(cell="one", split="test", layer="block1")["nll"].mean() for r in (record, again)
    ]
    assert scores[0] != scores[1]


def test_the_report_of_several_seeds_pools_them(tmp_path: Path) -> None:
    cells = [Cell("shared", "tuned", "step2", fit=FIT), Cell("low rank", "low-rank(4)", "step2", fit=FIT)]
    records = [study(tmp_path, cells, [("low rank", "shared")], replace(CONFIG, seed=seed)) for seed in (0, 1)]
    page = lens_study_report.report(records, tmp_path / "report")
    text = page.with_suffix(".md").read_text()
    assert "2 training seeds" in text and "low rank − shared" in text


def test_what_cannot_be_studied_is_refused(tmp_path: Path) -> None:
    for cell, message in (
        (Cell("a", "tuned", "step9"), "does not stand in every split"),
        (Cell("a", "monocle", "uniform"), "no kind of lens"),
        (Cell("a", "tuned", "uniform", start="b"), "cannot start from 'b'"),
        (Cell("a", "logit", "uniform"), "nothing to fit"),
    ):
        with pytest.raises(BadInput, match=message):
            study(tmp_path, [cell], [("a", "a")])


def test_random_layers_are_never_the_critical_ones() -> None:
    config = replace(position_specific.Config(), critical=("b1", "b2"), among=("b1", "b2", "b3", "b4"), n_random=9)
    drawn = position_specific._drawn(config)
    assert len(drawn) == len(set(drawn)) == 5 and ("b1", "b2") not in drawn
    assert position_specific._drawn(replace(config, among=("b1", "b2"))) == []


def test_every_target_of_the_choice_is_one() -> None:
    from workings.reading.target_rules import TargetRule

    assert all(TargetRule.of(name) for name in target_choice.Config().targets)


# ---- the best of several -----------------------------------------------------------------------------------------------


def draws(means: list[float], n: int, seed: int, spread: float = 0.3) -> pl.DataFrame:
    """Right and wrong in cells of the same problems, some of which are easy everywhere."""
    random = np.random.default_rng(seed)
    easy = random.normal(0, spread, (n, 1))
    hits = random.random((n, len(means))) < np.clip(np.array(means) + easy, 0, 1)
    return pl.DataFrame({f"layer {i}": hits[:, i].astype(float) for i in range(len(means))})


def test_the_best_of_equal_layers_is_found_to_be_best_in_one_of_twenty_studies() -> None:
    names = [f"layer {i}" for i in range(16)]
    found = [best_of(draws([0.18] * 16, 200, seed), names, n_draws=200) for seed in range(120)]
    assert np.mean([one.p <= 0.05 for one in found]) <= 0.1  # 95 % of such samples are below
    assert abs(np.mean([one.largest - one.expected for one in found])) < 0.01


def test_a_layer_that_is_better_is_found_to_be_best() -> None:
    names = [f"layer {i}" for i in range(16)]
    for seed in range(5):
        one = best_of(draws([0.18] * 9 + [0.4] + [0.18] * 6, 200, seed), names, n_draws=200)
        assert one.best == "layer 9" and one.p < 0.01


def test_nothing_is_ranked_without_cells() -> None:
    with pytest.raises(BadInput, match="nothing to rank"):
        best_of(pl.DataFrame({"a": [1.0]}), ["a"])
    with pytest.raises(BadInput, match="nothing to rank: 0 problems"):
        best_of(pl.DataFrame({"a": [1.0, None], "b": [None, 1.0]}), ["a", "b"])
