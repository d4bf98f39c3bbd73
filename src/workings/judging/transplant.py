"""Model × problems → answers after a thought came from a donor: is what a step decides used, and in which thought?

An ablation (`ablation.py`) says whether thoughts matter at all. Here the vector fed at one position, or at it and all later ones
(`on`), is that of a *matched donor*: a problem with the same chain but for step k. The answer *follows* if it is what the
donor's step k leads to, carried through the problem's other steps. Later thoughts are recomputed, so this is the total effect.
Beside it stands the vector of a random other problem (`resampled`): how often the answer is that value by chance.

| condition | what is fed at the position |
|---|---|
| `own` | its own vector again: must change nothing, and is refused if it does |
| `zero`, `mean` | nothing; the mean vector of this position over other problems |
| `resampled`, `resampled on` | the vector of a random problem with as many steps |
| `swapped`, `swapped on` | the vector of the matched donor |

A donor is the same story with another number in step k (`arithmetic.variants`). Where a file's problems cannot be retold so,
it is another problem with as many steps, and what follows is reckoned by putting its result of step k into the chain.
A step index is not a chain length: rates are for a step of chains of one length, and pooled with these as strata.

What a swap moves is the fed vector, and with it all that the step decides: its operand, its result and what comes of that. The
vector fed at t1 is made before there is a thought, so `used` says apart what holds from t2 on. A model that is fed one constant
feeds the same to all and never follows, whatever its states hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

import polars as pl
import torch

from workings import seeds
from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.arithmetic.variants import Bounds, carried, variants
from workings.errors import BadInput, Failed
from workings.judging.ablation import with_donors
from workings.judging.paired import PairedDifference, paired_difference
from workings.judging.statistics import ALPHA, with_columns
from workings.judging.verdict import MARGIN, Answer
from workings.models.interventions import Condition, Intervention, Value, answers_under
from workings.models.thinking import Answer as Given
from workings.models.thinking import ThoughtModel

IN_WORDS = {
    "own": "its own thought again",
    "zero": "the thought zeroed",
    "mean": "the thought the mean over other problems",
    "resampled": "the thought of a random problem",
    "resampled on": "this and all later thoughts of a random problem",
    "swapped": "the thought of a matched donor",
    "swapped on": "this and all later thoughts of a matched donor",
}
CONDITIONS = tuple(IN_WORDS)
SWAPS = {"swapped": "resampled", "swapped on": "resampled on"}
"""Each swap and what stands beside it."""
RETOLD_ENOUGH = 0.2  # share of the steps for which a variant must exist, for variants to be the donors


# ---- whose thought is fed ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A problem (by its index), the step in which its donor differs, and the answer that follows the donor."""

    problem: int
    step: int
    donor: Problem
    follows: Fraction


@dataclass(frozen=True)
class Pairs:
    """The pairs of a set of problems, how their donors were found, and how many steps have none, by reason."""

    pairs: tuple[Pair, ...]
    retold: bool
    left_out: Mapping[str, int] = field(default_factory=dict)


def matched(problems: Sequence[Problem], seed: int = 0) -> Pairs:
    """A matched donor for every step of every problem that has one, drawn at random from those it might have.

    Args:
        problems: Those that are asked; they also say which numbers a variant may hold.
        seed: Random seed of the choice.
    """
    random, bounds = seeds.python("matched donors", seed), Bounds.of(problems)
    steps = [(i, k) for i, problem in enumerate(problems) for k in range(1, problem.n_steps + 1)]
    told = {(i, k): variants(problems[i], k, bounds) for i, k in steps} if bounds else {}
    retold = sum(map(bool, told.values())) > RETOLD_ENOUGH * len(steps)
    found, left_out = [], Counter[str]()
    for i, k in steps:
        if retold:
            donor = random.choice(told[i, k]) if told[i, k] else None
            pair = Pair(i, k, donor, donor.value) if donor else None
            reason = "no other number fits the step, or the question does not state its numbers in order"
        else:
            pair = _from_the_set(problems, i, k, random.sample(range(len(problems)), len(problems)))
            reason = "no problem with as many steps has a result there that can be carried through the chain"
        left_out[reason] += pair is None
        found += [pair] if pair else []
    return Pairs(tuple(found), retold, {reason: n for reason, n in left_out.items() if n})


def _from_the_set(problems: Sequence[Problem], i: int, k: int, order: Sequence[int]) -> Pair | None:
    own = problems[i]
    for donor in (problems[j] for j in order if problems[j].n_steps == own.n_steps):
        result = donor.steps[k - 1].value
        follows = carried(own, k, result) if result != own.steps[k - 1].value else None
        # before the last step, an answer that is the donor's would not say which of its vectors it comes from
        if follows is not None and follows != own.value and (k == own.n_steps or follows != donor.value):
            return Pair(i, k, donor, follows)
    return None


# ---- answers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transplants:
    """What `swap_thoughts` found.

    Attributes:
        outcomes: One row per problem, step, condition and position: problem, structure, n_steps, step, position ("t3"), condition,
            donor (id), at_risk (the model answers problem and donor right when nothing is replaced), answer, follows (gives
            what follows the matched donor), keeps (gives the answer it gives with its own thoughts), correct. `own` has one row
            per problem and step, without a position.
        retold: Whether donors are variants of the problem; else they are others of the set.
        left_out: Steps without a donor, by reason.
    """

    outcomes: pl.DataFrame
    retold: bool
    left_out: Mapping[str, int]


def swap_thoughts(
    model: ThoughtModel,
    problems: Sequence[Problem],
    others: Sequence[Problem],
    seed: int = 0,
    batch_size: int = 250,
    max_new_tokens: int = 16,
) -> Transplants:
    """Answer problems with a thought, or all from one on, replaced by nothing, by a mean, by a random and by a matched donor's.

    Args:
        model: The model that thinks and answers.
        problems: The problems answered. Those without a random donor (as many steps, another answer) are left out.
        others: Other problems, over which the mean of each thought is taken.
        seed: Random seed of all donors.
        batch_size: Problems answered at once.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        BadInput: Where no step has a matched donor.
        Failed: Where a thought replaced by itself changes an answer.
    """
    problems, drawn = with_donors(problems, seed)
    found = matched(problems, seed)
    if not found.pairs:
        raise BadInput("no step of these problems has a matched donor, so nothing can be swapped; give more problems")
    receiver = torch.tensor([pair.problem for pair in found.pairs])
    asked = [problems[pair.problem] for pair in found.pairs]
    think = partial(model.think_and_answer, batch_size=batch_size, max_new_tokens=max_new_tokens)
    questions = [p.question for p in problems]
    own, own_answers = think(questions)
    given, given_answers = think([pair.donor.question for pair in found.pairs])
    assert own is not None and given is not None
    own_z, given_z = own.projected.to(model.device), given.projected.to(model.device)
    means = model.think([p.question for p in others], batch_size=batch_size).projected.mean(0).to(model.device)
    answered = partial(answers_under, model, batch_size=batch_size, max_new_tokens=max_new_tokens)
    itself = Intervention(lambda moment: own_z[moment.rows, moment.k - 1], tuple(range(1, model.n_thoughts + 1)))
    of_problems = answered(
        questions,
        {
            **_at_each("zero", lambda m: torch.zeros_like(m.value), model.n_thoughts),
            **_at_each("mean", lambda m: means[m.k - 1].expand_as(m.value), model.n_thoughts),
            **_at_each("resampled", lambda m: own_z[drawn[m.rows], m.k - 1], model.n_thoughts),
            **_at_each("resampled on", lambda m: own_z[drawn[m.rows], m.k - 1], model.n_thoughts, on=True),
            _ITSELF: Condition((itself,)),
        },
    )
    _check_itself(of_problems.pop(_ITSELF).answers, own_answers)
    swap: Value = lambda m: given_z[m.rows, m.k - 1]
    of_pairs = answered(
        [p.question for p in asked],
        {
            **_at_each("swapped", swap, model.n_thoughts),
            **_at_each("swapped on", swap, model.n_thoughts, on=True),
        },
    )
    of_each = {name: [found.answers[i] for i in receiver] for name, found in of_problems.items()}
    of_each |= {name: found.answers for name, found in of_pairs.items()}
    clean = [own_answers[i] for i in receiver]
    right = [same_answer(a.value, p.value) for a, p in zip(own_answers, problems, strict=True)]
    at_risk = [
        right[pair.problem] and same_answer(answer.value, pair.donor.value)
        for pair, answer in zip(found.pairs, given_answers, strict=True)
    ]
    rows = partial(_outcomes, found.pairs, asked, clean, at_risk)
    frames = [rows("own", "", clean)]
    frames += [rows(*name.rsplit(" ", 1), said) for name, said in of_each.items()]
    return Transplants(pl.concat(frames), found.retold, found.left_out)


_ITSELF = "replaced by itself"


def _at_each(name: str, value: Value, n_thoughts: int, on: bool = False) -> dict[str, Condition]:
    """{name and position: condition} with the vector at each position replaced, or from there on."""
    last = lambda k: n_thoughts if on else k
    return {
        f"{name} t{k}": Condition((Intervention(value, tuple(range(k, last(k) + 1))),))
        for k in range(1, n_thoughts + 1)
    }


def _check_itself(again: Sequence[Given], answers: Sequence[Given]) -> None:
    changed = sum(a.token_ids != b.token_ids for a, b in zip(answers, again, strict=True))
    if changed:
        raise Failed(f"thoughts replaced by themselves changed {changed:,} answers: the edits of this model are wrong")


def _outcomes(
    pairs: Sequence[Pair],
    asked: Sequence[Problem],
    clean: Sequence[Given],
    at_risk: Sequence[bool],
    condition: str,
    position: str,
    said: Sequence[Given],
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "problem": [p.id for p in asked],
            "structure": [p.structure for p in asked],
            "n_steps": [p.n_steps for p in asked],
            "step": [pair.step for pair in pairs],
            "position": position,
            "condition": condition,
            "donor": [pair.donor.id for pair in pairs],
            "at_risk": at_risk,
            "answer": [None if one.value is None else str(one.value) for one in said],
            "follows": [same_answer(one.value, pair.follows) for one, pair in zip(said, pairs, strict=True)],
            "keeps": [one.value == own.value for one, own in zip(said, clean, strict=True)],
            "correct": [same_answer(one.value, p.value) for one, p in zip(said, asked, strict=True)],
        },
        schema_overrides={"answer": pl.String, "at_risk": pl.Boolean},
    )


# ---- is it used? -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """How many more answers follow the matched donor than a random one, at the places chosen on validation.

    Attributes:
        answer: *yes*, *no*, *undecided* or *not asked*; `points` is `follows` − `by_chance`.
        places: {number of steps: (position, "swapped" or "swapped on")}.
        by_length: The answer for chains of one length.
        follows, by_chance: Shares of answers that follow the matched donor, and that give the same value with a random one.
    """

    answer: Answer
    places: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    by_length: Mapping[int, Answer] = field(default_factory=dict)
    follows: float = float("nan")
    by_chance: float = float("nan")


@dataclass(frozen=True)
class Used:
    """Whether what a step decides is used.

    Attributes:
        anywhere: At any position.
        after_first: From t2 on. The first vector fed is made of the state at `bot`, before there is a thought: a model whose
            first vector alone carries everything has used no thought of its own.
    """

    anywhere: Gain
    after_first: Gain


def used(validation: pl.DataFrame, test: pl.DataFrame) -> dict[str, Used]:
    """Judge the outcomes of `swap_thoughts`, where model and donor are right at the start: a pure function of two tables.

    Targets are named as those of lenses: `step2` is the second step of a chain that goes beyond it, `answer` a last step.

    * **yes**: at the place with the largest gain on validation, for each length of chain, the lower bound of the gain on
      test is above `MARGIN` (5 points; 95 %, Bonferroni over the targets). A place is a position, swapped alone or with all
      after it; all thoughts at once (from t1 on) is no place, for nothing would be left that is not the donor's.
    * **no**: at every place the one-sided upper 95 % bound is below it.
    * **undecided**: otherwise; **not asked** where no problem is at risk.

    n counts structures.

    Args:
        validation: Outcomes on validation problems, which choose the place.
        test: Outcomes on test problems.

    Raises:
        BadInput: Where a table lacks a column.
    """
    on_validation, on_test = _paired_rows(validation), _paired_rows(test)
    rules = sorted(set(on_test["rule"]) | set(on_validation["rule"]))
    level = ALPHA / max(len(rules), 1)
    found = {}
    for rule in rules:
        rows = on_validation.filter(rule=rule), on_test.filter(rule=rule)
        later = [one.filter(pl.col("position") != "t1") for one in rows]
        found[rule] = Used(_gain(*rows, level), _gain(*later, level))
    return found


_PLACE = ["position", "condition"]
_NEEDED = ("problem", "structure", "n_steps", "step", *_PLACE, "at_risk", "follows")


def _paired_rows(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Rows of the swaps at risk, with `by_chance` (the random donor's) beside `follows`, and the rule of the target."""
    with_columns(outcomes, _NEEDED, "outcomes of judging.swap_thoughts")
    keys = ["problem", "step", "position"]
    everything = (pl.col("position") == "t1") & (pl.col("condition") == "swapped on")
    swapped = outcomes.filter("at_risk", pl.col("condition").is_in(list(SWAPS)), ~everything)
    chance = pl.col("condition").replace_strict({beside: swap for swap, beside in SWAPS.items()}, default=None)
    beside = outcomes.select(*keys, condition=chance, by_chance="follows").drop_nulls("condition")
    rule = pl.when(pl.col("step") < pl.col("n_steps")).then(pl.format("step{}", "step")).otherwise(pl.lit("answer"))
    return swapped.join(beside, on=[*keys, "condition"], maintain_order="left").with_columns(rule=rule)


def _gain(validation: pl.DataFrame, test: pl.DataFrame, level: float) -> Gain:
    places = _places(validation, sorted(set(test["n_steps"])))
    chosen = {n: test.filter(n_steps=n, position=at, condition=how) for n, (at, how) in places.items()}
    if not chosen:
        return Gain(Answer("not asked", why="no problem of both splits has a donor and is answered right"), places)
    rows = pl.concat(chosen.values())
    by_length = {n: _answer(test.filter(n_steps=n), one, level) for n, one in chosen.items()}
    shares = [float(rows[name].cast(pl.Float64).to_numpy().mean()) for name in ("follows", "by_chance")]
    return Gain(_answer(test, rows, level), places, by_length, *shares)


def _places(validation: pl.DataFrame, lengths: Sequence[int]) -> dict[int, tuple[str, str]]:
    """The place with the largest gain on validation for chains of each length, the earliest of equals; over all lengths where
    validation has none of that one."""
    found = {}
    for n_steps in lengths:
        of_length = validation.filter(n_steps=n_steps)
        rows = validation if of_length.is_empty() else of_length
        if not rows.is_empty():
            gain = pl.col("follows").cast(pl.Float64).mean() - pl.col("by_chance").cast(pl.Float64).mean()
            best = rows.group_by(_PLACE).agg(gain=gain).sort(-pl.col("gain"), *_PLACE).row(0, named=True)
            found[n_steps] = best["position"], best["condition"]
    return found


def _difference(rows: pl.DataFrame) -> PairedDifference:
    swapped, beside = (rows[name].cast(pl.Float64).to_numpy() for name in ("follows", "by_chance"))
    return paired_difference(swapped, beside, rows["structure"].to_numpy())


def _answer(everywhere: pl.DataFrame, chosen: pl.DataFrame, level: float) -> Answer:
    """The answer from the rows at the chosen place, and those at every place."""
    gain = _difference(chosen)
    around = gain.interval_at(level)
    highest = max(_difference(rows).interval_at(2 * ALPHA).high for _, rows in everywhere.group_by(_PLACE))
    says, why = "undecided", f"a gain of up to {100 * highest:.1f} points at some place is not excluded"
    if around.low > MARGIN:
        says, why = "yes", ""
    elif highest < MARGIN:
        says, why = "no", f"at no place a gain of more than {100 * highest:.1f} points (one-sided, 95 %)"
    n_problems = chosen["problem"].n_unique()
    return Answer(says, gain.difference, around.low, around.high, n=gain.n_items, n_problems=n_problems, why=why)
