"""The decision table: from gains that are known exactly to the answers that they must have."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workings.errors import BadInput
from workings.judging.verdict import JUDGED, MARGIN, QUESTIONS, WORTH_BITS, Verdict, verdicts

N = 400
RUNG = "computing"
SIDES = {
    "S": (RUNG, "", "S", "real"),
    "S+N": (RUNG, "", "S+N", "real"),
    "S+B": (RUNG, "model", "S+B", "real"),
    "S+T": (RUNG, "model", "S+T", "real"),
    "S+N+T": (RUNG, "model", "S+N+T", "real"),
    "S+B+T": (RUNG, "model", "S+B+T", "real"),
    "control": (RUNG, "control", "S+T", "real"),
    "untrained": (RUNG, "untrained", "S+T", "real"),
    "shuffled": (RUNG, "model", "S+T", "shuffled"),
    "bag of words": ("bag of words", "", "Q", "real"),
}


def table(
    gains: dict[str, tuple[float, float]],
    n: int = N,
    seed: int = 0,
    named: float = 0.4,
    unknown: float = 0.0,
    **more: object,
) -> pl.DataFrame:
    """A table in which each side names a share more, and gives so many bits more, than the stack alone does; noise in the bits."""
    random = np.random.default_rng(seed)
    known = np.arange(n) >= round(unknown * n)
    order, bits = random.permutation(n), random.normal(-2.5, 1.0, n)
    frames = []
    for side, (points, more_bits) in {"S": (0.0, 0.0), **gains}.items():
        reader, subject, features, targets = SIDES[side]
        hit = (order < round((named + points) * n)) & known
        of_side = bits + more_bits + random.normal(0, 0.3, n)
        columns = {"reader": reader, "subject": subject, "features": features, "targets": targets, "rung": RUNG}
        columns |= {"layer": "block1", "position": "t2", "problem": [f"p{i}" for i in range(n)], "fold": 0}
        columns |= {"structure": [f"s{i}" for i in range(n)], "value": "7", "known": known, "hit": hit}
        columns |= {"bits": pl.Series(np.where(known, of_side, np.nan)).fill_nan(None)}
        frames.append(pl.DataFrame(columns | more, schema_overrides=JUDGED).select(list(JUDGED)))
    return pl.concat(frames)


HELD = {"S+T": (0.15, 0.8), "S+N": (0.0, 0.1), "S+N+T": (0.15, 0.9), "S+B": (0.0, 0.0), "S+B+T": (0.15, 0.8)}
NOTHING = dict.fromkeys((*HELD, "control", "untrained", "shuffled", "bag of words"), (0.0, 0.0))
RIVALS = {"untrained": (0.0, 0.0), "shuffled": (0.0, 0.0), "control": (0.0, 0.0), "bag of words": (-0.2, -0.5)}


def judge(gains: dict[str, tuple[float, float]], **settings: object) -> Verdict:
    return verdicts({"step2": table(gains, **settings)})["step2"]


def answers(found: Verdict) -> dict[str, str]:
    return {question: getattr(found, question).answer for question in QUESTIONS}


def test_a_thought_that_holds_the_result_has_all_its_answers() -> None:
    found = judge(HELD | RIVALS)
    assert answers(found) == dict.fromkeys(QUESTIONS, "yes") | {"before": "no"}
    assert found.rung == RUNG and (found.layer, found.position) == ("block1", "t2")
    assert found.read.points == pytest.approx(0.15) and found.read.low < 0.15 < found.read.high
    assert found.read.n == found.read.n_problems == N


def test_where_nothing_is_added_every_answer_is_no() -> None:
    assert answers(judge(NOTHING)) == dict.fromkeys(QUESTIONS, "no")


@pytest.mark.parametrize("rival", ["untrained", "shuffled", "bag of words"])
def test_one_rival_that_does_as_well_is_enough_against_a_reading(rival: str) -> None:
    for points in (0.15, 0.1):  # it finds the values as likely, and names as many or fewer
        found = judge(HELD | RIVALS | {rival: (points, 0.8)})
        assert found.read.answer != "yes" and found.rung is None
        assert {getattr(found, question).answer for question in QUESTIONS[2:]} <= {"no", "undecided"}


def test_what_the_states_before_the_thoughts_hold_is_there_before_and_not_in_the_thoughts() -> None:
    found = judge(HELD | RIVALS | {"S+B": (0.15, 0.8)})
    assert (found.before.answer, found.read.answer, found.in_the_thoughts.answer) == ("yes", "yes", "no")


def test_points_without_bits_are_no_reading() -> None:
    """A ridge probe once named 9 points more than its control at 5 bits less, and was called read."""
    found = judge(HELD | RIVALS | {"S+T": (0.09, -5.0)})
    assert found.read.answer == "undecided"


def test_bits_without_points_are_no_reading() -> None:
    found = judge(HELD | RIVALS | {"S+T": (-0.06, 0.8)})
    assert found.read.answer == "undecided" and "contradict" in found.read.why


def test_a_gain_below_the_margin_is_said_to_be_one() -> None:
    found = judge(HELD | RIVALS | {"S+T": (0.01, 0.15)})
    assert (found.read.answer, found.read.why) == ("yes", "below the margin")


def test_without_room_there_is_no_no() -> None:
    assert judge(NOTHING, named=0.95).read.answer == "undecided"
    assert "little to gain" in judge(NOTHING, named=0.95).read.why


def test_with_too_many_unknown_values_there_is_no_no() -> None:
    assert judge(NOTHING, unknown=0.3).read.answer == "no"
    found = judge(NOTHING, unknown=0.5)
    assert found.read.answer == "undecided" and "unknown" in found.read.why


def test_what_the_table_lacks_is_not_asked() -> None:
    found = judge({side: gain for side, gain in (HELD | RIVALS).items() if side not in ("control", "S+B", "S+B+T")})
    assert [q for q, said in answers(found).items() if said == "not asked"] == [
        "before",
        "in_the_thoughts",
        "needs_the_recurrence",
    ]


def test_a_family_is_corrected_by_holm() -> None:
    """One gain that is just significant alone is not so beside four that are not significant at all."""
    for size in np.linspace(0.06, 0.2, 60):
        alone = judge(HELD | RIVALS | {"S+T": (0.02, size)}, n=60)
        if 0.006 < alone.read.p <= 0.025:
            break
    tables = {f"step{k}": table(NOTHING, n=60, seed=k) for k in (1, 3, 4, 5)}
    together = verdicts({"step2": table(HELD | RIVALS | {"S+T": (0.02, size)}, n=60)} | tables)
    assert alone.read.answer == "yes" and together["step2"].read.answer != "yes"
    assert together["step2"].read.p == pytest.approx(5 * alone.read.p)


def test_n_counts_structures_and_intervals_widen_where_problems_share_them() -> None:
    gains = HELD | RIVALS
    shared = table(gains).with_columns(
        structure=pl.lit("s") + (pl.col("problem").str.slice(1).cast(pl.Int64) // 8).cast(pl.String)
    )
    found, apart = verdicts({"step2": shared})["step2"].read, judge(gains).read
    assert (found.n, found.n_problems, apart.n) == (N // 8, N, N)


def test_the_recurrence_allows_for_the_luck_of_two_fits() -> None:
    found = judge(HELD | RIVALS)
    widths = {q: getattr(found, q).bits_high - getattr(found, q).bits_low for q in ("read", "needs_the_recurrence")}
    assert widths["needs_the_recurrence"] == pytest.approx(1.4 * widths["read"], rel=0.1)


def test_several_seeds_are_pooled_and_say_so() -> None:
    several = [table(HELD | RIVALS, seed=seed) for seed in range(5)]
    found = verdicts({"step2": several})["step2"]
    assert found.n_seeds == 5 and found.read.answer == "yes"
    # A gain that three seeds in five do not have is no property of the method.
    mixed = [table((HELD if seed < 2 else NOTHING) | RIVALS, seed=seed) for seed in range(5)]
    assert verdicts({"step2": mixed})["step2"].read.answer == "undecided"


def test_readers_of_different_problems_are_refused() -> None:
    damaged = table(NOTHING)
    with pytest.raises(BadInput, match="different problems"):
        verdicts({"step2": damaged.filter(~((pl.col("features") == "S+T") & (pl.col("problem") == "p3")))})
    with pytest.raises(BadInput, match="no stack"):
        verdicts({"step2": damaged.filter(pl.col("features") != "S")})


@settings(max_examples=40)
@given(
    points=st.floats(-0.3, 0.3),
    bits=st.floats(-2, 2),
    n=st.integers(5, 300),
    rivals=st.floats(-1, 1),
    seed=st.integers(0, 5),
)
def test_an_answer_agrees_with_its_numbers(points: float, bits: float, n: int, rivals: float, seed: int) -> None:
    sides = NOTHING | dict.fromkeys(HELD, (points, bits)) | {"untrained": (0.0, rivals)}
    found = judge(sides, n=n, seed=seed)
    for question in QUESTIONS:
        one = getattr(found, question)
        assert one.low <= one.points <= one.high and one.bits_low <= one.bits <= one.bits_high
        if one.answer == "yes":
            assert one.bits_low > WORTH_BITS and one.points > 0 and one.p <= 0.025
        if one.answer == "no":
            assert one.points < MARGIN
        assert (one.answer == "undecided") == bool(one.why and one.why != "below the margin")
    assert len(found.sentence.split()) <= 30 and len(re.findall(r"\d+\.\d+", found.sentence)) <= 2
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["read"]["answer"] == found.read.answer


def test_no_false_yes_where_a_rival_equals_the_reading_and_the_others_are_worse() -> None:
    """Choosing the best control on validation and comparing with that one made 8 to 26 % false verdicts here."""
    shares = {"S+T": 0.4, "untrained": 0.4, "S": 0.37, "shuffled": 0.35, "bag of words": 0.3}
    frames = {side: table({side: (0.0, 0.0)}, n=100).tail(100) if side != "S" else table({}, n=100) for side in shares}
    n_false = 0
    for draw in range(100):
        random = np.random.default_rng(draw)
        sides = []
        for side, share in shares.items():
            hit = random.random(100) < share
            bits = np.where(hit, -1.0, -3.0) + random.normal(0, 0.5, 100)
            sides.append(frames[side].with_columns(hit=pl.Series(hit), bits=pl.Series(bits)))
        n_false += verdicts({"step2": pl.concat(sides)})["step2"].read.answer == "yes"
    assert n_false <= 5


def test_verdicts_do_not_depend_on_the_order_of_the_rows() -> None:
    frame = table(HELD | RIVALS)
    assert verdicts({"step2": frame.reverse()})["step2"].read == replace(judge(HELD | RIVALS).read)
