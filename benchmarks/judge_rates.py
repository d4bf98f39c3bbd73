"""How often is the judge wrong, how often does it find what is there, and what do its intervals cover?

Machines whose truth is known (tests/planted/states.py) are drawn and judged many times. Four tables: shares of yes, no and
undecided by machine and question (power is the share of yes where yes is true); draws in which no answer was wrong; families of
five targets in which nothing may be found; and coverage, of what the fitted readers gain on all problems and of what readers gain
on average over draws.

    python benchmarks/judge_rates.py [--draws 100] [--families 20] [--coverage 20] [--problems 2000] [--out rates.parquet]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the machines live beside the tests that use them

from tests.planted.rates import FAMILY, IS_WRONG, Draw, all_answers, coverage, draws_without_error, rates
from tests.planted.states import EMPTY, MACHINES, NULLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument(
        "--families", type=int, default=20, help="draws of a null machine judged on five targets at once"
    )
    parser.add_argument("--coverage", type=int, default=20, help="draws with 4,000 further problems")
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--machines", nargs="*", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--out", type=Path, help="Parquet file for the answers of the first table")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.draws)
    pl.Config.set_tbl_rows(-1).set_tbl_cols(-1).set_tbl_width_chars(200).set_tbl_hide_column_data_types(True)
    pl.Config.set_tbl_hide_dataframe_shape(True).set_float_precision(3)

    if given.draws:
        found = all_answers(
            [Draw(seed, tuple(given.machines), n_problems=given.problems) for seed in seeds], given.at_once
        )
        if given.out:
            found.write_parquet(given.out)
        print(f"step 2, {given.problems} problems a draw\n{rates(found)}")
        print(f"draws in which no answer was wrong\n{draws_without_error(found)}")
        nulls = (
            found.filter(pl.col("machine").is_in(NULLS))
            .group_by("machine", "draw")
            .agg(IS_WRONG.any().alias("false yes"))
        )
        print(f"false yes: {nulls['false yes'].sum()} of {len(nulls)} draws of machines that hold nothing")
    if given.families:
        draws = [Draw(seed, (EMPTY[seed % len(EMPTY)],), FAMILY, given.problems) for seed in range(given.families)]
        family = all_answers(draws, given.at_once).group_by("draw").agg(IS_WRONG.any().alias("wrong"))
        print(f"families of five targets with a false yes: {family['wrong'].sum()} of {len(family)}")
    if given.coverage:
        asked = ("chain", "weak chain", "parse")
        draws = [Draw(seed, asked, n_problems=given.problems, n_further=4000) for seed in range(given.coverage)]
        print(f"share of 95 % intervals that cover the true gain\n{coverage(all_answers(draws, given.at_once))}")


if __name__ == "__main__":
    main()
