"""Runs of a study of lenses → their report: the cells beside what sees no thought, and the pairs that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import polars as pl

from workings.experiments.default_report import FAMILY_INTERVALS, curves, estimate_of, report_on_runs
from workings.judging.lens_study import FittedCell, Study, by_problem
from workings.judging.paired import PairedDifference, paired_difference, with_holm
from workings.judging.scores import score
from workings.judging.statistics import Measure
from workings.report import Column, Conclusion, Estimate, HeatMap, Row, Section, Table
from workings.report.wording import number
from workings.run import RunRecord

SAME_TARGET = {"top1": "top-1", "bits": "bits"}
"""What lenses for one target are compared in."""
OTHER_TARGET = {"beyond_structure": "top-1 beyond the structure", "beyond_structure_bits": "bits beyond the structure"}
"""What lenses for different targets are compared in: a target that is easy to guess is read more often for nothing."""


@dataclass(frozen=True)
class _Runs:
    """The runs of one experiment, with what each says of a cell."""

    records: Sequence[RunRecord]
    studies: Sequence[Study]

    def cell(self, name: str) -> FittedCell:
        return next(cell for cell in self.studies[0].cells if cell.name == name)

    def values(self, name: str, pooled: bool = False) -> list[pl.DataFrame]:
        """`by_problem` of a cell in each run, at its best layer or over all of them."""
        found = []
        for record, study in zip(self.records, self.studies, strict=True):
            cell = next(cell for cell in study.cells if cell.name == name)
            readings = record.outcomes("readings").filter(cell=name)
            controls = record.outcomes("controls").filter(target_rule=cell.target)
            found.append(by_problem(readings, controls, record.outcomes("problems"), None if pooled else cell.layer))
        return found

    def difference(self, new: str, old: str, value: str) -> PairedDifference:
        """new − old over the problems that both have a target of, paired; over the runs, where there are several."""
        pairs = [
            a.join(b, on="problem", suffix="_old") for a, b in zip(self.values(new), self.values(old), strict=True)
        ]
        clusters = pairs[0]["structure"].to_numpy() if len(pairs) == 1 else None
        return paired_difference(
            [pair[value].to_numpy() for pair in pairs],
            [pair[f"{value}_old"].to_numpy() for pair in pairs],
            clusters,
            same_items=False,
        )


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Show what every cell reads, and the difference of every compared pair, over all runs."""
    runs = _Runs(records, [record.result("study", Study) for record in records])
    study = runs.studies[0]
    found = _compared(runs)
    return report_on_runs(
        records,
        out,
        title=records[0].manifest.experiment,
        conclusion=_conclusion(runs, found),
        sections=[
            _differences(runs, found),
            *(_cells(runs, target) for target in dict.fromkeys(cell.target for cell in study.cells)),
            *_maps(runs),
            *curves(records, "validation loss", {"validation": "validation loss"}),
        ],
        limits=[
            "The lens reads; whether a thought is used is asked by edits. The judge of thoughts is `workings judge`.",
            "Every lens is taken at the layer where it names most on validation.",
        ],
    )


Found = dict[tuple[str, str, str], PairedDifference]


def _compared(runs: _Runs) -> Found:
    """{(new, old, value): difference}; interval and p are those of the whole family."""
    keys = []
    for new, old in runs.studies[0].comparisons:
        same = runs.cell(new).target == runs.cell(old).target
        keys += [(new, old, value) for value in (SAME_TARGET if same else OTHER_TARGET)]
    return dict(zip(keys, with_holm([runs.difference(*key) for key in keys]), strict=True))


def _differences(runs: _Runs, found: Found) -> Table:
    words, rows = SAME_TARGET | OTHER_TARGET, []
    for (new, old, value), one in found.items():
        a, b = (mean(mean(frame[value].to_list()) for frame in runs.values(name)) for name in (new, old))
        parameters = [float(runs.cell(name).n_parameters) for name in (new, old)]
        is_bits = "bits" in value
        shown = estimate_of(one)
        cells = [words[value], *(number(x, "bits" if is_bits else "share") for x in (a, b))]
        difference = "{} [{}, {}]".format(
            *(number(x, "bits" if is_bits else "points", signed=True) for x in (shown.value, shown.low, shown.high))
        )
        rows.append(Row(f"{new} − {old}", [*cells, difference, one.p_holm, *parameters], one.n_items))
    columns = [
        Column("measure"),
        Column("new"),
        Column("old"),
        Column("difference"),
        Column("p, Holm", "p"),
        Column("parameters, new", "count"),
        Column("parameters, old", "count"),
    ]
    caption = (
        f"Test problems, means over a problem's slots; shares in per cent and points. {len(runs.records)} training seed"
        f"{'s' * (len(runs.records) > 1)}; {FAMILY_INTERVALS}"
    )
    return Table("What is compared", columns, rows, caption, rows_are="pair")


def _cells(runs: _Runs, target: str) -> Table:
    """Every lens for one target, then the predictors that see no thought."""
    cells = [cell for cell in runs.studies[0].cells if cell.target == target]
    rows = []
    for cell in cells:
        frames = runs.values(cell.name)
        joined = pl.concat(frames)
        shares = [_estimate(joined, key) for key in ("top1", "top5", "top10", "skill", "beyond_structure")]
        rows.append(
            Row(cell.name, [*shares, float(cell.n_parameters), cell.layer, float(cell.best_epoch)], len(joined))
        )
    controls = pl.concat([record.outcomes("controls").filter(target_rule=target) for record in runs.records])
    for scored in score(controls.drop("target_rule")).iter_rows(named=True):
        shares = [
            Estimate(scored[key], scored[f"{key}_low"], scored[f"{key}_high"]) for key in ("top1", "top5", "top10")
        ]
        rows.append(Row(scored["reader"], [*shares, None, None, None, "", None], scored["n_problems"]))
    columns = [
        *(Column(name, "share") for name in ("top-1", "top-5", "top-10")),
        Column("over the majority", "points", signed=True),
        Column("over the structure", "points", signed=True),
        Column("parameters", "count"),
        Column("layer"),
        Column("best epoch", "count"),
    ]
    caption = "Test problems; means over a problem's slots, intervals over problems. What stands below the lenses sees no thought."
    return Table(f"Target: {cells[0].rule}", columns, rows, caption, rows_are="lens", drawn="top-1")


def _estimate(values: pl.DataFrame, key: str) -> Estimate:
    return estimate_of(Measure.mean(values[key].to_numpy()))


def _maps(runs: _Runs) -> list[Section]:
    """Cells × positions, one map for each target with several cells."""
    made: list[Section] = []
    record, study = runs.records[0], runs.studies[0]
    readings = record.outcomes("readings")
    for target in dict.fromkeys(cell.target for cell in study.cells):
        cells = [cell for cell in study.cells if cell.target == target]
        at_best = {cell.name: readings.filter(cell=cell.name, layer=cell.layer) for cell in cells}
        scores = {name: score(rows.drop("cell"), ("position",)) for name, rows in at_best.items()}
        positions = [p for p in study.positions if any((one["position"] == p).any() for one in scores.values())]
        grid = [[next(iter(scores[cell.name].filter(position=p)["top1"]), None) for p in positions] for cell in cells]
        n = max(one["n_problems"].to_list()[0] for one in scores.values())
        title = f"Top-1 by lens and position: {cells[0].rule}"
        caption = "The first run's test problems." if len(runs.records) > 1 else "Test problems."
        made.append(
            HeatMap(
                title,
                [cell.name for cell in cells],
                positions,
                grid,
                n,
                caption=caption,
                rows_are="lens",
                limits=(0.0, 1.0),
            )
        )
    return made


def _conclusion(runs: _Runs, found: Found) -> Conclusion:
    """What the first pair says in its first measure; a gain of a lens that names no more than the structure is no reading."""
    (new, old, value), one = next(iter(found.items()))
    difference = one.in_points if "bits" not in value else f"{number(one.difference, 'bits', signed=True)} bits"
    if not one.differs:
        return Conclusion(f"No evidence of a difference between {new} and {old}: {difference}.", "undecided")
    if one.difference < 0:
        return Conclusion(f"{new} is worse than {old}: {difference}.", "fails")
    beyond = _estimate(pl.concat(runs.values(new)), "beyond_structure")
    if value in SAME_TARGET and beyond.low is not None and beyond.low <= 0:
        return Conclusion(
            f"{new} beats {old} ({difference}), and is not shown to name more than position and length of the chain.",
            "explained by a control",
        )
    return Conclusion(f"{new} beats {old}: {difference}.", "holds")
