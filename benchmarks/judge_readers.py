"""What do the readers of the judge name, of questions and of states?

Questions: what each reader, each rung and the whole stack name of a step's result, on problems that no reader was fitted on.
States: one of 100 tokens is planted into the thoughts of the bundled model, each given to another problem, so that they hold
nothing else of it; directions are random, the strength is in standard deviations of the states. The peers are the nearest class
mean, and logistic regression as the judge fits it.

    python benchmarks/judge_readers.py [--problems FILE] [--targets step1 step2 …] [--limit 2000] [--splits 4]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import polars as pl

from workings.arithmetic.generator import PRESETS, generate
from workings.judging.conditional import Asked
from workings.judging.readers import Floats, Ints, discriminants, linear_path, nats, pool
from workings.judging.verdict import RUNGS
from workings.models import open_model
from workings.reading import split_problems
from workings.text.datasets import load_problems

N_TOKENS = 100
PLACE = ("block1", 3)  # t3
STRENGTHS = (0.1, 0.2, 0.4, 1.0)


def of_questions(reference: str, rules: list[str], limit: int, n_splits: int) -> pl.DataFrame:
    """Share named by each reader of the question and by the stack of each rung: a row each, a column for each target."""
    problems = load_problems(reference, limit=limit, seed=1000).problems
    found = []
    for seed in range(n_splits):
        split_of = split_problems(problems, (0.5, 0.2, 0.3), seed)
        splits = [split_of[problem.id] for problem in problems]
        for rule in rules:
            for fold in Asked.of(rule, problems, splits, seed).folds:
                readers = fold.question_readers(RUNGS[-1])
                named = [(reader.name, reader.log_p) for reader in readers]
                for i, rung in enumerate(RUNGS):
                    stack = [each.log_p for each in readers if RUNGS.index(each.rung) <= i]
                    named.append((f"stack, {rung}", fold.pool(stack)))
                for name, log_p in named:
                    hits = log_p[fold.test].argmax(1) == fold.y[fold.test]
                    found.append({"reader": name, "target": rule, "named": 100 * hits.mean(), "n": len(hits)})
    table = pl.DataFrame(found).with_columns(pl.col("named") * pl.col("n"))
    table = table.group_by("reader", "target", maintain_order=True).agg(pl.col("named").sum() / pl.col("n").sum())
    return table.pivot("target", index="reader", values="named")


def of_states(n_problems: int, n_draws: int) -> pl.DataFrame:
    """Share of the planted tokens that readers of the state name: a row for each strength, means over draws."""
    model = open_model("bundled")
    layer, k = PLACE
    questions = [problem.question for problem in generate(n_problems, PRESETS["bundled"], seed=1)]
    states = model.think(questions).hidden[:, k, model.layers.index(layer)].numpy()
    rows = np.arange(n_problems)
    train, val, test = np.split(rows, (n_problems * np.array([0.5, 0.7])).astype(int))
    found = []
    for seed in range(n_draws):
        random = np.random.default_rng(seed)
        shuffled, y = random.permutation(states), random.integers(N_TOKENS, size=n_problems)
        directions = random.standard_normal((N_TOKENS, states.shape[1])) * np.sqrt(states.var(0).mean())
        for strength in STRENGTHS:
            x = (shuffled + strength * directions[y]).astype(np.float32)
            for name, log_p in readers_of(x, y, train, val):
                found.append({"strength": strength, "reader": name, "named": 100 * (log_p.argmax(1) == y)[test].mean()})
    table = pl.DataFrame(found).group_by("strength", "reader", maintain_order=True).agg(pl.col("named").mean())
    return table.pivot("reader", index="strength", values="named")


def readers_of(x: Floats, y: Ints, train: Ints, val: Ints) -> Iterator[tuple[str, Floats]]:
    means = np.stack([x[train][y[train] == token].mean(0) for token in range(N_TOKENS)])
    yield "nearest class mean", -((x[:, None] - means) ** 2).sum(2)
    for name, path in (("logistic regression", linear_path), ("discriminants", discriminants)):
        fits = list(path(x, y, N_TOKENS, train))
        yield name, pool([min(fits, key=lambda log_p: nats(log_p, y, val))], y, val).log_p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="generated:bundled", help="generated[:preset] or a file")
    parser.add_argument("--targets", nargs="*", default=["step1", "step2", "step3", "step4"])
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--splits", type=int, default=4)
    given = parser.parse_args()
    pl.Config.set_tbl_rows(-1).set_tbl_cols(-1).set_tbl_width_chars(160).set_tbl_hide_column_data_types(True)
    pl.Config.set_tbl_hide_dataframe_shape(True).set_float_precision(1).set_fmt_str_lengths(40)

    began = time.process_time()
    print(of_questions(given.problems, given.targets, given.limit, given.splits))
    used = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"share named by readers of the question, %; {used:.0f} processor-seconds, at most {peak:.1f} GB of memory")
    print(of_states(2000, 4))
    print(f"share named of {N_TOKENS} planted tokens, %; 1,000 training problems")


if __name__ == "__main__":
    main()
