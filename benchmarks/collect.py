"""How many more problems a second does batched collection think about than one question at a time?

The peer is the loop that is usually written, with the same weights and engine: one question, its thoughts and its answer, the
next question, all states kept. Ours is `collect` into a store on disk. Both run here, in turn, several times; the ratio is of the
best times. The states of both are compared first: a fast wrong answer is no answer.

    python benchmarks/collect.py [--model bundled] [--problems 512] [--rounds 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.models.codi import CODI, open_model
from workings.reading.collection import collect

MAX_NEW_TOKENS = 16


def one_at_a_time(model: CODI, problems: Sequence[Problem]) -> Tensor:
    """Hidden states [n, P, L+1, d], one question after the other."""
    kept = []
    for problem in problems:
        thoughts, _ = model.think_and_answer([problem.question], max_new_tokens=MAX_NEW_TOKENS)
        assert thoughts is not None
        kept.append(torch.cat([thoughts.question[:, None], thoughts.hidden], 1))
    return torch.cat(kept)


def batched(model: CODI, problems: Sequence[Problem], out: Path) -> Tensor:
    store = collect(model, problems, out, max_new_tokens=MAX_NEW_TOKENS)
    return torch.stack([store.hidden(layer) for layer in store.layers], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model = open_model(given.model)
    problems = list(generate(given.problems, PRESETS["bundled"], seed=1))
    single, ours = [], []
    for round_ in range(given.rounds):
        began = time.perf_counter()
        slow = one_at_a_time(model, problems)
        single.append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            fast = batched(model, problems, Path(folder) / "store")
            ours.append(time.perf_counter() - began)
        gap = float((slow - fast).abs().max())
        print(
            f"round {round_ + 1}: one at a time {single[-1]:.2f} s, batched {ours[-1]:.2f} s, largest difference {gap:.1e}"
        )
    n = len(problems)
    print(f"one at a time {n / min(single):.0f} problems/s, batched {n / min(ours):.0f} problems/s, n = {n}")
    print(f"RATIO collect: {min(single) / min(ours):.1f} ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
