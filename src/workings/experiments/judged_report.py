"""Verdicts and the tables behind them → parts of a report: the table of answers, the figure of gains, each target in full.

Reports on judged thoughts share these. Every number is one of `judging.verdict`, or a share of the table that it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from workings.judging.detection import DetectionCurve
from workings.judging.paired import share_over_seeds
from workings.judging.statistics import Measure
from workings.judging.transplant import SWAPS, Used
from workings.judging.verdict import IN_WORDS, MARGIN, QUESTIONS, RUNGS, WHAT_IT_KNOWS, WORTH_BITS, Answer, Verdict
from workings.report import (
    Badge,
    Block,
    Column,
    Conclusion,
    ControlRow,
    Estimate,
    HeatMap,
    Intervals,
    Panel,
    Row,
    Table,
    number,
)
from workings.report.sections import Cell

FED = "what was fed"  # the vector that a thought was made of stands at its layer `embed`, before any block has seen it
NOT_ASKED = Badge("not asked", "not asked")

_HEADERS = {
    "before": "before the first thought",
    "read": "read",
    "of_this_step": "of this step",
    "in_the_thoughts": "in the thoughts",
    "needs_the_recurrence": "needs the recurrence",
}
_COMPARED = {
    "before": "question and states before the thoughts − question",
    "read": "question and thoughts − question, and − every control",
    "of_this_step": "question, neighbours' results and thoughts − without the thoughts",
    "in_the_thoughts": "question, states before and thoughts − without the thoughts",
    "needs_the_recurrence": "question and thoughts − question and the control's thoughts",
}
_PREDICTORS = {  # (subject, features, targets) of the rows that stand beside the question readers
    ("", "S", "real"): "the question",
    ("model", "S+B", "real"): "the question and the states before the first thought",
    ("model", "S+T", "real"): "the question and the thoughts",
    ("model", "S+T", "shuffled"): "the same, fitted to shuffled targets",
    ("control", "S+T", "real"): "the question and the matched control's thoughts",
    ("untrained", "S+T", "real"): "the question and an untrained model's thoughts",
    ("model", "S+B+T", "real"): "the question, the states before and the thoughts",
    ("", "S+N", "real"): "the question and the neighbours' results",
    ("model", "S+N+T", "real"): "the question, the neighbours' results and the thoughts",
    ("model", "T", "real"): "the thoughts alone",
}
_KEYS = ("reader", "subject", "features", "targets")


def target_name(rule: str) -> str:
    """The short name of a target: `step2` → `step 2`."""
    return {"uniform": "the chain's tokens"}.get(rule, rule.replace("step", "step "))


def in_order(rules: Sequence[str]) -> list[str]:
    """Targets as a reader expects them: steps by their number, then the answer, then the rest."""
    steps = {rule: int(rule[4:]) for rule in rules if rule.startswith("step")}
    return [*sorted(steps, key=lambda rule: steps[rule]), *sorted(rule for rule in rules if rule not in steps)]


def place_name(layer: str, position: str) -> str:
    """A place in words: `embed, t3` is what was fed at t3."""
    where = {"all": "all thoughts together"}.get(position, position)
    return f"{FED if layer == 'embed' else layer}, {where}" if layer else ""


def conclusion(found: Verdict) -> Conclusion:
    """The verdict of one target as the conclusion of a report."""
    if found.read.answer == "yes":
        return Conclusion(found.sentence, "read")
    if found.rung is not None:
        return Conclusion(found.sentence, "read in part")
    return Conclusion(found.sentence, "not read" if found.read.answer == "no" else "undecided")


# ---- the first screen ------------------------------------------------------------------------------------------------


def used_badge(found: Used) -> Badge:
    """Whether the answer uses a target, in a word: in part where it is shown of the first vector fed and of no later one."""
    anywhere, later = found.anywhere.answer, found.after_first.answer
    if anywhere.answer == "yes" and later.answer != "yes":
        return Badge("the first vector", "in part", f"from the second on: {later.answer}")
    return Badge(anywhere.answer, anywhere.answer)


def first_screen(found: Mapping[str, Verdict], headline: str, used: Mapping[str, Badge] | None = None) -> list[Block]:
    """What a reader sees before opening anything: one table of answers, one figure of gains.

    Args:
        found: Verdicts by target, in the order of the rows.
        headline: The target that was named beforehand.
        used: By target, whether the answer uses it; "not asked" for the others.
    """
    return [_answers(found, headline, used or {}), _gains(found)]


def _answers(found: Mapping[str, Verdict], headline: str, used: Mapping[str, Badge]) -> Table:
    rows = []
    for rule, one in found.items():
        cells = [_read(one) if question == "read" else _badge(getattr(one, question)) for question in QUESTIONS]
        note = "headline, named beforehand" if rule == headline else ""
        rows.append(Row(target_name(rule), [*cells, used.get(rule, NOT_ASKED)], note=note))
    n_seeds = next(iter(found.values())).n_seeds
    pooled = f"{n_seeds} training seeds are pooled. " if n_seeds > 1 else ""
    caption = (
        f"{pooled}Each answer is a paired test on problems that no reader was fitted on, corrected for the number of targets. "
        "Headline, targets and question readers were declared before the test problems were read."
    )
    columns = [Column(name) for name in (*_HEADERS.values(), "used")]
    highlight = target_name(headline) if headline in found else None
    return Table("What the thoughts hold", columns, rows, caption, rows_are="target", highlight=highlight)


def _badge(answer: Answer) -> Badge:
    return Badge(answer.answer, answer.answer, f"but {answer.why}" if answer.answer == "yes" and answer.why else "")


def _read(found: Verdict) -> Badge:
    """Beyond which question readers; where only beyond weaker ones than were declared, what is said of those too."""
    if found.rung is None:
        return _badge(found.read)
    beyond = f"beyond {WHAT_IT_KNOWS[found.rung]}"
    if found.read.answer == "yes":
        return Badge(beyond, "yes", _badge(found.read).note)
    return Badge(beyond, "in part", f"beyond {WHAT_IT_KNOWS[found.declared]}: {found.read.answer}")


def _gains(found: Mapping[str, Verdict]) -> Intervals:
    """The answers that are gains of question and thoughts over something: over each rung, and over the matched control."""
    over: dict[str, list[Answer]] = {
        WHAT_IT_KNOWS[rung]: [one.by_rung.get(rung, Answer("not asked")) for one in found.values()]
        for rung in RUNGS
        if any(rung in one.by_rung for one in found.values())
    }
    control = [one.needs_the_recurrence for one in found.values()]
    if any(one.answer != "not asked" for one in control):
        over["the matched control"] = control
    answers = list(zip(*over.values(), strict=True))
    panels = [
        Panel("named more", "points", [[_points(one) for one in row] for row in answers], {"margin": MARGIN}),
        Panel("likelier by", "bits", [[_bits(one) for one in row] for row in answers], {"worth having": WORTH_BITS}),
    ]
    caption = (
        "How many more results question and thoughts name together than each of these, and how much likelier they find them. "
        f"A yes needs an interval right of the dashed {number(WORTH_BITS, 'bits')} bits; {number(MARGIN, 'share', 0)} points are "
        "the smallest gain worth having."
    )
    rows = [target_name(rule) for rule in found]
    return Intervals(
        "What the thoughts add to the question", rows, list(over), panels, caption, ["the matched control"]
    )


def _points(answer: Answer) -> Estimate:
    return Estimate(answer.points, answer.low, answer.high)


def _bits(answer: Answer) -> Estimate:
    return Estimate(answer.bits, answer.bits_low, answer.bits_high)


# ---- one target in full ----------------------------------------------------------------------------------------------


def in_full(found: Verdict, tables: Sequence[pl.DataFrame]) -> list[Block]:
    """Everything behind the answers about one target: gains, rungs, and who names how many.

    Args:
        found: The verdict.
        tables: The tables of `conditional.judged` that it was made from, one a training seed.
    """
    named = _Named(tables)
    return [_in_numbers(found), _ladder(found, named), _question_readers(named), _predictors(found, named)]


def detection(curve: DetectionCurve) -> Table:
    """How strongly the target would have to be carried to be read: the share of planted draws that were, by strength."""
    rows = [
        Row(number(strength, "number", 2), [Estimate(share, around.low, around.high)], curve.n_draws)
        for strength, (share, around) in zip(curve.strengths, curve.shares, strict=True)
    ]
    caption = (
        f"Values planted into copies of the real states at {place_name(curve.layer, curve.position)}, in standard deviations of "
        "these states, and judged by the same rule. A target carried more weakly than this may be there and not be read. n counts "
        "draws."
    )
    return Table(
        "What would have been read", [Column("read", "share")], rows, caption, rows_are="strength", drawn="read"
    )


def _in_numbers(found: Verdict) -> Table:
    rows = [
        Row(
            IN_WORDS[question],
            [Badge(one.answer, one.answer, one.why), _points(one), _bits(one), one.over or "–"],
            one.n or None,
            _COMPARED[question],
        )
        for question in QUESTIONS
        if (one := getattr(found, question))
    ]
    place = place_name(found.layer, found.position) or "another place in each fold"
    caption = (
        f"Differences on the same {found.read.n_problems:,} problems; n counts structures. The last column names what decides. "
        f"The thoughts are read at: {place}."
    )
    if found.unknown:
        share = number(found.unknown, "share")
        caption += f" {share} % of the tested values were never seen in training, so every reader misses them."
    columns = [
        Column("answer"),
        Column("named more", "points", signed=True),
        Column("likelier by", "bits", signed=True),
        Column("over"),
    ]
    return Table("The answers in full", columns, rows, caption, rows_are="question")


def _ladder(found: Verdict, named: _Named) -> Table:
    rows = [
        Row(
            f"beyond {WHAT_IT_KNOWS[rung]}",
            [
                Badge(one.answer, one.answer, one.why),
                named.share((rung, "", "S", "real")),
                named.share((rung, "model", "S+T", "real")),
                _points(one),
                _bits(one),
                one.over,
            ],
            one.n,
            f"rung: {rung}" + ", declared" * (rung == found.declared),
        )
        for rung, one in found.by_rung.items()
    ]
    columns = [
        Column("answer"),
        Column("the question names", "share"),
        Column("with the thoughts", "share"),
        Column("named more", "points", signed=True),
        Column("likelier by", "bits", signed=True),
        Column("over"),
    ]
    caption = (
        "Question readers up to each rung, stacked, alone and together with the thoughts. The gain is over what is hardest to beat "
        "there: the stack, one of its readers, an untrained model or shuffled targets."
    )
    return Table("Read beyond each rung of question readers", columns, rows, caption, rows_are="read")


def _question_readers(named: _Named) -> Table:
    rows = [
        Row(key[0], [named.share(key), named.bits(key), named.rung(key)], named.n)
        for key in named.keys
        if key[2] == "Q"
    ]
    columns = [Column("names", "share"), Column("log₂ p", "bits"), Column("rung")]
    caption = "Each reader of the question by itself: none of them sees a state. log₂ p is that of the true value, on average."
    return Table("Question readers one by one", columns, rows, caption)


def _predictors(found: Verdict, named: _Named) -> Table:
    rows = [
        Row(name, [named.share(key), named.bits(key), named.place(key)], named.n)
        for (subject, features, targets), name in _PREDICTORS.items()
        for reader in ("linear probe" if features == "T" else found.declared,)
        if (key := (reader, subject, features, targets)) in named.keys
    ]
    columns = [Column("names", "share"), Column("log₂ p", "bits"), Column("read at")]
    caption = f"The question is the stack of its readers up to the rung declared ({found.declared}); states are read linearly."
    highlight = _PREDICTORS["model", "S+T", "real"]
    return Table("With and without states", columns, rows, caption, highlight=highlight, drawn="names")


class _Named:
    """How many of the tested problems each predictor names, from the tables of all seeds."""

    def __init__(self, tables: Sequence[pl.DataFrame]) -> None:
        self._tables = [table.partition_by(_KEYS, as_dict=True, maintain_order=True) for table in tables]
        self.keys = [key for key in self._tables[0] if all(key in table for table in self._tables)]
        self.n = int(tables[0]["structure"].n_unique())

    def _rows(self, key: tuple) -> list[pl.DataFrame]:
        return [table[key] for table in self._tables]

    def share(self, key: tuple) -> Estimate:
        """The share named; its interval is over structures, and over seeds where there are several."""
        rows = self._rows(key)
        hits, structures = np.array([one["hit"] for one in rows], np.float64), rows[0]["structure"].to_numpy()
        measured = Measure.share(hits[0], structures) if len(rows) == 1 else share_over_seeds(hits, structures)
        return Estimate(measured.value, measured.low, measured.high)

    def bits(self, key: tuple) -> float:
        """The mean of log₂ p over the problems whose value was known."""
        return float(pl.concat([one["bits"] for one in self._rows(key)]).drop_nulls().to_numpy().mean())

    def rung(self, key: tuple) -> str:
        return self._rows(key)[0]["rung"][0]

    def place(self, key: tuple) -> str:
        places = {
            place_name(*place) for one in self._rows(key) for place in one.select("layer", "position").unique().rows()
        }
        return places.pop() or "–" if len(places) == 1 else "several places"


# ---- use -------------------------------------------------------------------------------------------------------------


def use_in_full(found: Mapping[str, Used], outcomes: pl.DataFrame) -> list[Block]:
    """What the swaps of thoughts found, by target, by chain length and by position.

    Args:
        found: What `transplant.used` says, by target.
        outcomes: The outcomes of `transplant.swap_thoughts` on test problems.
    """
    return [_followed(found), *(_by_position(outcomes, condition) for condition in SWAPS)]


def _followed(found: Mapping[str, Used]) -> Table:
    rows = []
    for rule in in_order(list(found)):
        name = target_name(rule)
        for of, gain in (("", found[rule].anywhere), (", from the second vector on", found[rule].after_first)):
            rows.append(_followed_row(name + of, gain.answer, gain.follows, gain.by_chance, ""))
        for n_steps, answer in found[rule].anywhere.by_length.items():
            position, condition = found[rule].anywhere.places[n_steps]
            where = f"{position} and all later" if condition == "swapped on" else f"{position} alone"
            rows.append(_followed_row(f"{name}, {n_steps} steps in the chain", answer, None, None, where))
    columns = [
        Column("used"),
        Column("follow the donor", "share"),
        Column("by chance", "share"),
        Column("follow more", "points", signed=True),
        Column("swapped at"),
    ]
    caption = (
        "A thought is swapped with that of a donor: the same problem but for one step. The answer follows if it becomes the "
        "donor's. Chance is a random donor's thought. Positions are chosen on validation, for each chain length; n counts "
        "structures."
    )
    return Table("Does the answer follow a donor's thought?", columns, rows, caption, rows_are="target")


def _followed_row(name: str, answer: Answer, follows: Cell, by_chance: Cell, where: str) -> Row:
    return Row(
        name,
        [Badge(answer.answer, answer.answer, answer.why), follows, by_chance, _points(answer), where],
        answer.n or None,
    )


def _by_position(outcomes: pl.DataFrame, condition: str) -> HeatMap:
    """How often the answer follows the donor, by step and chain length, and by the position that is swapped."""
    at_risk = outcomes.filter("at_risk")
    cell = ["n_steps", "step", "position"]
    swapped = dict(at_risk.filter(condition=condition).group_by(cell, maintain_order=True))
    steps, positions = sorted({key[:2] for key in swapped}), sorted({str(key[2]) for key in swapped})
    chance = {key: rows for (key,), rows in at_risk.filter(condition=SWAPS[condition]).group_by("position")}
    shares = [[_follow(swapped.get((*step, position))) for position in positions] for step in steps]
    of_chance = [_follow(chance.get(position)) for position in positions]
    what = "one thought" if condition == "swapped" else "a thought and all later ones"
    return HeatMap(
        f"Answers that follow the donor, {what} swapped",
        [f"step {step} of {n_steps}" for n_steps, step in steps],
        positions,
        [[one.value for one in row] for row in shares],
        [[one.n for one in row] for row in shares],
        lows=[[one.low for one in row] for row in shares],
        highs=[[one.high for one in row] for row in shares],
        controls=[
            ControlRow(
                "a random donor",
                [one.value for one in of_chance],
                [one.low for one in of_chance],
                [one.high for one in of_chance],
                [one.n for one in of_chance],
            )
        ],
        limits=(0.0, 1.0),
        caption="Test problems that model and donor answer right at the start.",
        rows_are="step",
    )


def _follow(rows: pl.DataFrame | None) -> Measure:
    if rows is None:
        return Measure(float("nan"), float("nan"), float("nan"), 0)
    return Measure.share(rows["follows"], rows["structure"])
