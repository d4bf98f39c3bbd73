"""What the numbers of a published table allow: laws of its intervals, simulated nulls, the tables that come with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workings.cli import main
from workings.cli.rejudge import in_lines, shipped
from workings.errors import BadInput
from workings.judging.published import (
    Claim,
    Contrast,
    Judged,
    PublishedTable,
    Row,
    default_claims,
    impossible_shares,
    rejudge,
)
from workings.judging.published_files import HowToRead, read_published, read_samples
from workings.judging.statistics import fisher, newcombe, wilson
from workings.judging.trivial_predictors import read_targets, trivial_rows

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def row(name: str, k: float, n: float, units: float | None = None, measure: str = "accuracy") -> Row:
    return Row(name, k / n, n, units, measure)


def judged(kind: str, *rows: Row, rivals: tuple[Row, ...] = (), **more: object) -> Judged:
    claim = Claim("it is so", kind, tuple(r.name for r in rows), tuple(r.name for r in rivals), **more)  # type: ignore[arg-type]
    [found] = rejudge(PublishedTable("a table", (*rows, *rivals), claims=(claim,)))
    return found


# ---- laws ----------------------------------------------------------------------------------------------------------


@given(a=counts, b=counts)
def test_one_share_is_wilsons_and_a_difference_newcombes(a: tuple[int, int], b: tuple[int, int]) -> None:
    alone, difference = Contrast(((1, row("a", *a)),)), Contrast(((1, row("a", *a)), (-1, row("b", *b))))
    for found, wanted in ((alone.interval(), wilson(*a)), (difference.interval(), newcombe(*a, *b))):
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@given(a=counts, b=counts)
def test_a_difference_is_the_mirror_of_its_opposite_and_p_is_where_it_touches_zero(a, b) -> None:
    one, other = row("a", *a), row("b", *b)
    forth, back = Contrast(((1, one), (-1, other))), Contrast(((1, other), (-1, one)))
    assert (forth.interval().low, forth.p) == pytest.approx((-back.interval().high, back.p), abs=1e-9)
    if 1e-90 < forth.p < 0.999:
        end = forth.interval(forth.p)
        assert min(abs(end.low), abs(end.high)) < 1e-6


@given(a=counts, b=counts)
@example(a=(0, 1), b=(3, 3))  # Newcombe's interval excludes zero, and Fisher's p is 1/4
def test_a_difference_is_said_to_be_there_where_fisher_and_the_interval_say_so(a, b) -> None:
    found = judged("more", row("a", *a), row("b", *b))
    is_shown = fisher(*a, *b) <= 0.05
    assert (found.verdict in ("holds", "fails")) == is_shown
    assert is_shown or found.low <= 0 <= found.high


def test_sixteen_readings_of_200_problems_are_200() -> None:
    few, many = (judged("more", row("a", 640, 3200, u), row("b", 320, 3200, u)) for u in (200, 3200))
    assert many.high - many.low < 0.3 * (few.high - few.low)
    alone = judged("more", row("a", 40, 200), row("b", 20, 200))
    assert (few.low, few.high) == pytest.approx((alone.low, alone.high), abs=2e-3)


def test_the_mission_s_second_fact_12_against_19_of_500() -> None:
    found = judged("more", row("facts", 19, 500), row("ordinary", 12, 500), same_items=True)
    assert (found.verdict, round(found.p, 2), found.needed) == ("undecided", 0.27, 2405)
    assert "between 0.016 and 0.281" in found.says


# ---- what should not be found is not, what should is ----------------------------------------------------------------


def shares_of_draws(draw: Callable[[np.random.Generator], Judged], n_draws: int = 400) -> dict[str, float]:
    random = np.random.default_rng(0)
    verdicts = [draw(random).verdict for _ in range(n_draws)]
    return {verdict: verdicts.count(verdict) / n_draws for verdict in set(verdicts)}


@pytest.mark.parametrize(("n", "share"), [(500, 0.02), (200, 0.2), (2000, 0.5)])
def test_equal_arms_are_told_apart_in_at_most_one_table_of_twenty(n: int, share: float) -> None:
    def draw(random: np.random.Generator) -> Judged:
        return judged("more", *(row(name, random.binomial(n, share), n) for name in "ab"))

    assert shares_of_draws(draw).get("undecided", 0) >= 0.95


@pytest.mark.parametrize("m", [3, 16])
def test_the_best_of_equal_ones_is_best_in_at_most_one_table_of_twenty(m: int) -> None:
    def draw(random: np.random.Generator) -> Judged:
        rows = sorted((row(f"layer {i}", random.binomial(1200, 0.184), 1200) for i in range(m)), key=lambda r: -r.share)
        return judged("best", *rows)

    assert shares_of_draws(draw).get("holds", 0) <= 0.05


def test_a_layer_that_is_better_is_found() -> None:
    def draw(random: np.random.Generator) -> Judged:
        shares = [0.28] + [0.18] * 15
        rows = [row(f"layer {i}", random.binomial(1200, p), 1200) for i, p in enumerate(shares)]
        return judged("best", *rows)

    assert shares_of_draws(draw, 100)["holds"] >= 0.95


@pytest.mark.parametrize(("lens", "never"), [(0.30, "holds"), (0.38, "explained")])
def test_a_rival_explains_what_it_gives_and_not_what_goes_beyond_it(lens: float, never: str) -> None:
    """With the lens equal to its rival "holds" is wrong, with the lens 8 points better "explained" is."""

    def draw(random: np.random.Generator) -> Judged:
        return judged(
            "share",
            row("lens", random.binomial(2000, lens), 2000),
            rivals=tuple(row(f"rival {i}", random.binomial(2000, p), 2000) for i, p in enumerate((0.30, 0.25, 0.20))),
        )

    found = shares_of_draws(draw)
    assert found.get(never, 0) <= 0.05
    assert found[{"holds": "explained", "explained": "holds"}[never]] >= 0.8


def test_a_gap_that_the_rivals_have_too_is_explained_by_them() -> None:
    positions, rivals = (row("p3", 800, 3200), row("p0", 320, 3200)), (row("r3", 820, 3200), row("r0", 320, 3200))
    found = judged("more", *positions, rivals=rivals)
    assert (found.verdict, found.rival, found.word) == ("explained", "r3 and r0", "explained by r3 and r0")
    assert judged("more", *positions).verdict == "holds"
    assert judged("more", *positions, rivals=(row("r3", 400, 3200), row("r0", 320, 3200))).verdict == "holds"


def test_sameness_needs_a_margin_that_is_excluded() -> None:
    assert judged("same", row("a", 500, 1000), row("b", 505, 1000), margin=0.02).verdict == "undecided"
    assert judged("same", row("a", 50_000, 100_000), row("b", 50_300, 100_000), margin=0.02).verdict == "holds"
    assert judged("same", row("a", 500, 1000), row("b", 700, 1000), margin=0.02).verdict == "fails"


def test_the_claims_of_one_table_are_a_family() -> None:
    rows = tuple(row(name, k, 500) for name, k in (("a", 70), ("b", 50), ("c", 50), ("d", 50)))
    claims = tuple(Claim(f"a beats {name}", "more", ("a", name)) for name in "bcd")
    alone = rejudge(PublishedTable("one", rows, claims=claims[:1]))[0]
    together = rejudge(PublishedTable("three", rows, claims=claims))[0]
    assert together.p_holm == pytest.approx(3 * alone.p) and together.high - together.low > alone.high - alone.low


# ---- files -----------------------------------------------------------------------------------------------------------

MARKDOWN = """
Text | with a bar

| Layer | Samples | Loss | Top-1 | Delta | Notes |
|------:|---------|------|-------|-------|-------|
| 0 | 1,200 | 3.76 | 17.83% | +0.1% | Early |
| **9** ⭐ | 1,200 | 4.07 | **20.50%** | −0.2% | **best** |
"""
CSV = "layer,n,top-1 (%)\n0,1200,17.83\n9,1200,20.50\n"
LIST = json.dumps([{"layer": i, "n": 1200, "top1_acc": share} for i, share in ((0, 0.1783), (9, 0.2050))])
BY_LAYER = json.dumps(
    {
        "layer_performance": {
            str(i): {"num_samples": 1200, "loss": 3.9, "top1_accuracy": s} for i, s in ((0, 17.83), (9, 20.5))
        },
        "sample_predictions": [],
    }
)


@pytest.mark.parametrize(("name", "text"), [("a.md", MARKDOWN), ("a.csv", CSV), ("a.json", LIST), ("a.json", BY_LAYER)])
def test_the_same_table_is_read_from_every_kind_of_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    table, _ = read_published(path)
    assert [(r.name, round(r.share, 4), r.n) for r in table.rows] == [
        ("layer 0", 0.1783, 1200),
        ("layer 9", 0.205, 1200),
    ]


def test_counts_percentages_and_fractions(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('arm,right,acc_norm,"loss"\nordinary,12/500,0.3034,2.1\nfacts,"19/500 (3.8%)",.3077,2.0\n')
    table, _ = read_published(path, HowToRead(n=10042))
    assert [(r.name, r.measure, r.count) for r in table.rows] == [
        ("ordinary", "right", 12),
        ("facts", "right", 19),
        ("ordinary", "acc_norm", 3047),
        ("facts", "acc_norm", 3090),
    ]


def test_a_table_of_several_is_chosen_and_columns_are_compared_row_by_row(tmp_path: Path, capsys) -> None:
    path = tmp_path / "note.md"
    path.write_text(
        f"{MARKDOWN}\n| Stage | Ordinary | Facts |\n|---|---|---|\n| SFT | 12/500 | 19/500 |\n| RL | 7/300 | 11/300 |\n"
    )
    with pytest.raises(BadInput, match="2 tables; choose one with --which"):
        read_published(path)
    assert main(["rejudge", str(path), "--which", "2", "--compare", "Facts", "Ordinary", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["claims"]
    assert [(one["claim"], one["verdict"]) for one in found] == [
        ("SFT, Facts is better than SFT, Ordinary", "undecided"),
        ("RL, Facts is better than RL, Ordinary", "undecided"),
    ]


def samples(path: Path, right: list[int], target: Callable[[int], str] = str) -> Path:
    lines = [
        {
            "doc_id": i,
            "target": target(i),
            "metrics": ["exact_match", "seconds"],
            "filter": "strict",
            "exact_match": r,
            "seconds": 0.3,
        }
        for i, r in enumerate(right)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_samples_of_lm_eval_stand_beside_their_commonest_target_and_pair_by_document(tmp_path: Path, capsys) -> None:
    one = samples(tmp_path / "one.jsonl", [1, 0, 0, 0, 0, 0, 1, 0, 0, 0], lambda i: "ABCD"[i % 3])
    other = samples(tmp_path / "other.jsonl", [1, 1, 1, 1, 1, 1, 1, 0, 0, 0], lambda i: "ABCD"[i % 3])
    assert list(read_samples(one)) == [("exact_match", "strict")]  # seconds are no right and wrong
    table, _ = read_published(one)
    assert [(r.name, r.count) for r in table.rows] == [("model", 2), ("the commonest target", 4)]
    assert main(["rejudge", str(one), "--against", str(other)]) == 0
    assert "n = 10 paired, exact McNemar p 0.062: no evidence" in capsys.readouterr().out
    assert main(["rejudge", str(one), "--against", str(samples(tmp_path / "x.jsonl", [1] * 9))]) == 2
    assert "did not judge the same documents" in capsys.readouterr().err


def test_results_of_lm_eval_are_read_with_their_n(tmp_path: Path) -> None:
    content = {
        "results": {
            "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.024, "exact_match_stderr,strict-match": 0.004}
        },
        "n-samples": {"gsm8k": {"original": 1319, "effective": 500}},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    [only] = read_published(path)[0].rows
    assert (only.name, only.measure, only.count) == ("gsm8k", "exact_match, strict-match", 12)


def claiming(kind: str, *rows: str) -> str:
    claim = {"says": "x", "kind": kind, "rows": rows}
    return json.dumps({"rows": [{"name": "a", "share": 0.5, "n": 10}], "claims": [claim]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "arm,acc\nx,0.5\ny,0.6\n", "does not say of how many items"),
        ("a.csv", "arm,loss\nx,2.5\ny,2.6\n", "no column of shares"),
        ("a.csv", "arm,acc\nx,600/500\n", "no count of some items"),
        ("a.csv", "arm\nx\n", "holds no table"),
        ("a.md", "no table here", "holds no table"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1, 2]", "holds no table"),
        ("a.json", '{"a": 1}', "no result that is known"),
        ("a.json", '{"rows": []}', "no rows"),
        ("a.json", '{"rows": [{"name": "a", "share": 1.5, "n": 10}]}', "no share"),
        ("a.json", '{"rows": [{"name": "a", "share": 0.5, "n": 10, "units": 20}]}', "1 ≤ units ≤ n"),
        ("a.json", claiming("more", "b", "a"), "no row 'b'"),
        ("a.json", claiming("more", "a"), "takes 2 rows"),
        ("a.json", claiming("share", "a"), "needs a rival"),
        ("a.json", '{"rows": [{"name": "a", "share": 0.5, "n": 10}]}', "one row"),
        ("a.jsonl", '{"question": "q"}\n', "no sample of lm-evaluation-harness"),
        ("a.jsonl", '{"doc_id": 1, "metrics": ["loss"], "loss": 2.5}\n', "no metric of right and wrong"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_with_its_reason(
    tmp_path: Path, capsys, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert main(["rejudge", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_percentage_that_no_count_gives_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("arm,n,acc\nright,500,2.4%\nwrong,200,18.43%\nlarge,19200,18.43%\n")
    table, decimals = read_published(path)
    assert impossible_shares(table, decimals) == ["wrong: 18.43 % is no share of 200; the nearest is 37, 18.50 %"]


# ---- trivial predictors ----------------------------------------------------------------------------------------------


def test_the_commonest_target_of_each_position_scores_what_counting_gives(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    problems = np.repeat(np.arange(600), 2)
    position = np.tile([0, 1], 600)
    target = np.where(
        position == 0, random.choice(["a", "b", "c"], 1200, p=[0.6, 0.3, 0.1]), random.choice(["d", "e"], 1200)
    )
    split = np.where(problems < 400, "train", np.where(problems < 450, "val", "test"))
    frame = pl.DataFrame({"problem": problems, "position": position, "target": target, "split": split})
    path = tmp_path / "targets.parquet"
    frame.write_parquet(path)
    found = {(r.name, r.measure): r for r in trivial_rows(read_targets(path))}
    tested = frame.filter(pl.col("split") == "test", pl.col("position") == 0)["target"]
    at_0 = found["the commonest target at position 0", "top-1"]
    assert at_0.share == pytest.approx((tested == "a").mean()) and (at_0.n, at_0.units) == (150, 150)
    assert found["the commonest target", "top-5"].share == 1 and found["the commonest target", "top-1"].units == 150


def test_a_table_is_judged_beside_its_targets(tmp_path: Path, capsys) -> None:
    random = np.random.default_rng(2)
    frame = {
        "problem": np.arange(2000),
        "position": [0] * 2000,
        "target": random.choice(["=", "54"], 2000, p=[0.3, 0.7]),
    }
    pl.DataFrame(frame).write_csv(tmp_path / "targets.csv")
    (tmp_path / "table.csv").write_text("position,n,top-1\n0,2000,70.4%\n")
    assert main(["rejudge", str(tmp_path / "table.csv"), "--targets", str(tmp_path / "targets.csv"), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["claims"]
    assert found["claim"] == "position 0: read" and found["verdict"] != "holds"


# ---- the tables of the notes -----------------------------------------------------------------------------------------

VERDICTS = {
    "cot-token-alignment": ("undecided", "undecided", "not judged", "undecided", "undecided", "undecided"),
    "position-specific-lens": ("undecided", "not judged", "not judged", "undecided", "not judged"),
    "fact-token-options": ("undecided",),
    "fact-tokens": ("undecided", "undecided", "undecided", "undecided", "undecided", "not judged", "not judged"),
}


def test_no_conclusion_of_the_four_notes_is_borne_out_by_its_numbers() -> None:
    assert {name: tuple(one.verdict for one in rejudge(table)) for name, table in shipped().items()} == VERDICTS


def test_the_lens_of_the_first_note_is_explained_by_position_and_length() -> None:
    table = shipped()["cot-token-alignment"]
    claim = Claim("the lens reads", "share", ("all layers",), ("position and length of the chain",), "top-1")
    [found] = rejudge(PublishedTable(table.title, table.rows, claims=(claim,)))
    assert found.word == "explained by position and length of the chain" and found.high < 0


def test_the_page_on_the_notes_says_what_the_command_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "results" / "seeds.md").read_text()
    for name, table in shipped().items():
        assert f"workings rejudge {name}" in page
        for one in rejudge(table):
            assert f"| {one.claim.says} | {one.word} | {one.in_points} |" in page


def test_sentences_of_the_shipped_tables_are_short() -> None:
    for table in shipped().values():
        said = in_lines(table, rejudge(table), [])
        assert all(len(sentence.split()) <= 30 for line in said.split("\n") for sentence in line.split(". "))


def test_two_rows_are_compared_and_many_are_ranked_where_nothing_is_claimed() -> None:
    two = PublishedTable("two", (row("old", 1, 9), row("new", 3, 9)))
    many = PublishedTable("many", (row("a", 1, 9), row("b", 5, 9), row("c", 2, 9)))
    assert default_claims(two)[0].rows == ("new", "old")
    assert default_claims(many)[0].kind == "best" and default_claims(many)[0].rows[0] == "b"
