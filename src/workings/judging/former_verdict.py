"""Skill over the controls, with its intervals → one of four answers, and the sentence that says it.

*Read* needs an interval that excludes no skill, over the best control and over the control without recurrence. *Explained* needs
one that excludes a skill worth having (`MARGIN`). An interval that excludes neither leaves it undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from workings.judging.scores import TUNED_LENS, at_one_layer, choose_layer, controls_of, score, skill
from workings.judging.statistics import ONE_SEED
from workings.reading.readings import Predictor
from workings.report.wording import interval, number

Kind = Literal["read", "explained by a control", "nothing read", "undecided"]
MARGIN = 0.05  # the smallest skill worth having: 5 points
WITHOUT_RECURRENCE = str(Predictor("tuned lens", "control"))

_DOES_AS_WELL = {
    "majority": "always naming each position's commonest token",
    "structure only": "knowing the position and the length of the chain, and no thought,",
    "copy from question": "copying numbers out of the question",
    str(Predictor("tuned lens", targets="shuffled")): "the same lens fitted on shuffled targets",
    str(Predictor("tuned lens", "untrained")): "the same lens on an untrained model",
    WITHOUT_RECURRENCE: "a matched model without recurrence",
}


@dataclass(frozen=True)
class Skill:
    """The lens's difference to one control at one measure, with its 95 % interval (fractions, or bits)."""

    control: str
    value: float
    low: float
    high: float
    control_value: float

    @classmethod
    def of(cls, readings: pl.DataFrame, lens: Predictor, controls: list[Predictor] | None, measure: str) -> Skill:
        """The least certain skill over some controls, by default over all; readings are at one layer."""
        rows = skill(readings, lens, controls=controls).filter(measure=measure)
        row = min(rows.iter_rows(named=True), key=lambda row: row["low"])
        control = Predictor(*(row[name] for name in Predictor._fields))
        return cls(str(control), row["skill"], row["low"], row["high"], row["control_value"])

    def in_points(self) -> str:
        return f"{number(self.value, 'points')} points {interval(self.low, self.high, 'share')}"

    def in_bits(self) -> str:
        return f"{number(self.value, 'bits', signed=True)} bits {interval(self.low, self.high, 'bits')}"


@dataclass(frozen=True)
class Verdict:
    """The answer (`kind`), the sentence for the top of a report, and what both rest on: the lens at one layer, and its skill.

    Attributes:
        n_seeds: Training runs that the readings stand for.
        score: The lens's row of `score`.
        points, bits: Skill over the best control, at top-1 and in bits.
        majority: Skill over the majority token.
        recurrence: Skill over the matched control without recurrence, where there is one.
        others: Skill over the best of the other controls, where there is one without recurrence.
    """

    lens: str
    layer: str
    n_seeds: int
    score: Mapping[str, float]
    points: Skill
    bits: Skill
    majority: Skill | None
    recurrence: Skill | None
    others: Skill | None

    @property
    def decisive(self) -> Skill:
        """The less certain one, of the skill over the best control and over the control without recurrence."""
        return min((each for each in (self.points, self.recurrence) if each), key=lambda each: each.low)

    @property
    def kind(self) -> Kind:
        if self.decisive.low > 0:
            return "read"
        if self.majority and self.majority.high < 0:
            return "nothing read"
        if self.bits.low > 0 or self.decisive.high > MARGIN:
            return "undecided"
        return "explained by a control"

    @property
    def sentence(self) -> str:
        return " ".join(filter(None, (_headline(self), _on_recurrence(self), ONE_SEED if self.n_seeds == 1 else "")))

    @property
    def numbers(self) -> dict[str, str | float]:
        """Every number of the sentence by name, ready for JSON; a skill has its ends, its control and the control's value."""
        of_score = {name: self.score[name] for name in ("n_problems", "n_rows", "ce", "top1", "top1_low", "top1_high")}
        found: dict[str, str | float] = {"lens": self.lens, "layer": self.layer, "n_seeds": self.n_seeds}
        found |= {"margin": MARGIN, **of_score}
        skills = {"skill": self.points, "bits": self.bits, "over_majority": self.majority}
        skills |= {"over_no_recurrence": self.recurrence, "over_the_others": self.others}
        for name, one in skills.items():
            if one:
                found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
                found |= {f"{name}_control": one.control, f"{name}_control_value": one.control_value}
        return found


def verdict(
    readings: pl.DataFrame,
    lens: Predictor = TUNED_LENS,
    *,
    n_seeds: int = 1,
) -> Verdict:
    """Judge a lens on the test rows: did it read the thoughts, or does a control explain it?

    The lens is taken at the layer chosen on validation, each control at the layer where it does best on validation.

    Args:
        readings: READINGS rows of the lens and its controls, on validation and test.
        lens: The reader that is judged.
        n_seeds: Training runs that the readings stand for; the intervals cover problems, not runs.
    """
    layer = choose_layer(readings, lens)
    at_top1, at_bits = (at_one_layer(readings, lens, layer, metric) for metric in ("top1", "bits"))

    def over(*names: str) -> Skill | None:
        present = [control for control in controls if str(control) in names]
        return Skill.of(at_top1, lens, present, "top1") if present else None

    controls = controls_of(readings, lens)
    recurrence = over(WITHOUT_RECURRENCE)
    return Verdict(
        str(lens),
        layer,
        n_seeds,
        score=score(at_top1.filter(**lens._asdict())).row(0, named=True),
        points=Skill.of(at_top1, lens, None, "top1"),
        bits=Skill.of(at_bits, lens, None, "bits"),
        majority=over("majority"),
        recurrence=recurrence,
        others=over(*(name for name in map(str, controls) if name != WITHOUT_RECURRENCE)) if recurrence else None,
    )


def _headline(found: Verdict) -> str:
    share, best = found.score, found.points
    named = lambda control: "a matched model without recurrence" if control == WITHOUT_RECURRENCE else control
    at = f" at {found.layer}" if found.layer else ""
    over = f" over {named(found.bits.control)}" if found.bits.control != best.control else ""
    return (
        f"The {found.lens} names the target {number(share['top1'], 'share')} % "
        f"{interval(share['top1_low'], share['top1_high'], 'share')} of the time{at} "
        f"(n = {share['n_problems']:,} problems); the best control ({named(best.control)}) "
        f"{number(best.control_value, 'share')} %; skill {best.in_points()}, {found.bits.in_bits()}{over}: "
        f"{_conclusion(found)}."
    )


def _conclusion(found: Verdict) -> str:
    best = found.points
    if found.kind == "read":
        return "the thoughts hold more than the controls explain"
    if found.kind == "nothing read" and found.majority:
        commonest = number(found.majority.control_value, "share")
        return f"always naming each position's commonest token does better ({commonest} %), so nothing was read"
    if found.decisive is not best:
        return "this control is beaten" if best.low > 0 else "this control is not clearly beaten"
    if found.kind == "explained by a control":
        return f"{_DOES_AS_WELL.get(best.control, best.control)} does {'better' if best.high < 0 else 'as well'}"
    if best.high <= MARGIN:
        return "the lens names no more targets than the control and yet finds them likelier, so this stays undecided"
    worth_having = number(MARGIN, "share", 0)
    return f"the interval excludes neither no skill nor {worth_having} points of it, so more problems are needed"


def _on_recurrence(found: Verdict) -> str:
    over_it, others = found.recurrence, found.others
    if over_it is None or found.kind == "nothing read":
        return ""
    is_best = found.points.control == WITHOUT_RECURRENCE
    reads = f"{number(over_it.control_value, 'share')} % (difference {over_it.in_points()})"
    if over_it.low > 0:
        return "" if is_best else f"A matched model without recurrence reads {reads}."
    over = f"Over the best other control ({others.control}) the skill is {others.in_points()}. " if others else ""
    if over_it.high > MARGIN:
        says = f"Whether this needs recurrence stays open: a matched model without it reads {reads}."
    else:
        says = f"A matched model without recurrence reads as well, {reads}: what is read needs no recurrence."
    return (over if is_best else "") + says
