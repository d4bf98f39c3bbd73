"""What does reading a model of Llama-1B's shape cost: a rehearsal with random weights, and what follows for 8,792 problems?

A model of 16 blocks, width 2,048 and 128,256 tokens with random weights thinks about 32 real questions; its thoughts are
collected, a tuned lens is fitted, and one target is judged: the real code on the true shapes, so that what breaks or fills the
memory does so here. Seconds and the peak of the memory are measured for each phase. What does not grow with the problems alone is
measured by itself: the judge's work at one place, with as many problems and values as GSM8K has.

The projection: collecting and fitting grow with the problems (and epochs), judging with the places. For one GPU nothing is
measured; FLOPs and bytes are divided by what `--gpu-tflops` and `--gpu-gbps` say, which is a lower bound of the time.

    python benchmarks/rehearsal.py [--problems 32] [--width 2048 --blocks 16]

It needs shared/data and shared/tokenizers beside the checkout.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from workings.arithmetic.problems import read_problems
from workings.judging import Asked, judged, verdicts
from workings.judging.readers import discriminants, joined_nats
from workings.models.codi import CODI
from workings.reading import FitConfig, ThoughtStore, TunedLens, collect, fit_lens, probe_targets, split_problems

SHARED = Path(__file__).resolve().parents[2] / "shared"
ALL_PROBLEMS, VALUES = 8792, 600
EPOCHS = 20  # that a fit of this size goes on for, about
TARGETS, SUBJECTS, STACKS = 5, 4, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--gpu-tflops", type=float, default=200.0, help="sustained, of one GPU in bfloat16")
    parser.add_argument("--gpu-gbps", type=float, default=2000.0, help="memory bandwidth of one GPU")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    model = timed("build", lambda: random_model(given))[0]
    n_parameters = sum(p.numel() for p in model.base.parameters())
    problems = read_problems(SHARED / "data" / "gsm8k" / "test.jsonl", limit=given.problems).problems
    with tempfile.TemporaryDirectory() as folder:
        store, collecting = timed("collect", lambda: collected(model, problems, Path(folder) / "store"))
        recipe = FitConfig(max_epochs=1, batch_problems=8)
        targets = probe_targets("uniform", model, store)
        _, fitting = timed("fit, one epoch", lambda: fit_lens(TunedLens.of(model), store, targets, recipe))
        table, _ = timed(
            "judge, one target", lambda: judged(Asked.of("step1", store.as_problems(), store.splits), store)
        )
        print(verdicts({"step1": table})["step1"].sentence)
        n_tokens = sum(len(model.tokenizer(p.question)["input_ids"]) + model.n_thoughts + 16 for p in problems)
        places = len(store.layers) * (model.n_thoughts + 1)
        bytes_of_state = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) / len(store)
    place, judging = timed("judge, one place of all problems", lambda: one_place(given.width))
    many = ALL_PROBLEMS / given.problems
    n_searches = places * SUBJECTS * TARGETS
    hours = {
        "collect": collecting * many / 3600,
        f"fit, {EPOCHS} epochs": fitting * many * EPOCHS / 3600,
        f"judge, {TARGETS} targets": judging * n_searches / 3600,
    }
    print(f"\n{ALL_PROBLEMS:,} problems here: " + ", ".join(f"{name} {value:.1f} h" for name, value in hours.items()))
    print(f"store: {bytes_of_state * ALL_PROBLEMS / 1e9:.1f} GB, read a layer at a time")
    states = ALL_PROBLEMS * len(store.positions) * given.blocks
    flops = {
        "collect": 2 * n_parameters * n_tokens * many,
        f"fit, {EPOCHS} epochs": 6 * states * (given.width + given.vocabulary) * given.width * EPOCHS,
        f"judge, {TARGETS} targets": n_searches * place,
    }
    for name, value in flops.items():
        print(f"one GPU, {name}: {value:.1e} FLOPs, at least {value / given.gpu_tflops / 1e12 / 60:.1f} minutes")
    reading = bytes_of_state * ALL_PROBLEMS * (EPOCHS + SUBJECTS * TARGETS) / given.gpu_gbps / 1e9
    print(f"one GPU, reading the states: at least {reading / 60:.2f} minutes")


def random_model(given: argparse.Namespace) -> CODI:
    config = LlamaConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.width,
        intermediate_size=4 * given.width,
        num_hidden_layers=given.blocks,
        num_attention_heads=given.width // 64,
        num_key_value_heads=max(1, given.width // 256),
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "gpt2")
    return CODI.wrap(LlamaForCausalLM(config), tokenizer, fingerprint="random").eval()


def collected(model: CODI, problems: list[Any], out: Path) -> ThoughtStore:
    splits = split_problems(problems, (0.5, 0.25, 0.25))
    return collect(model, problems, out, batch_size=8, splits=splits, max_new_tokens=16)


def one_place(width: int) -> float:
    """What the judge does at one place with all problems: fits, and their pools with each stack. Returns the FLOPs."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ALL_PROBLEMS, width)).astype(np.float32)
    y = random.integers(0, VALUES, ALL_PROBLEMS)
    train, val = np.arange(ALL_PROBLEMS // 2), np.arange(ALL_PROBLEMS // 2, ALL_PROBLEMS * 7 // 10)
    bases = [next(discriminants(x[:, :8], y, VALUES, train)) for _ in range(STACKS)]
    readers = list(discriminants(x, y, VALUES, train))
    for base in bases:
        joined_nats(base, readers, y, val)
    return 2.0 * len(train) * width**2 + 10.0 * width**3 + 2.0 * ALL_PROBLEMS * width * (width + len(readers) * VALUES)


def timed(name: str, work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {seconds:.1f} s, peak so far {peak:.1f} GiB", flush=True)
    return found, seconds


if __name__ == "__main__":
    main()
