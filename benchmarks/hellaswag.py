"""How many more HellaSwag items a second are judged in batches that read each context once than one item at a time?

The peer is the loop that is usually written (build-nanogpt's, llm.c's): four full rows an item, padded to the longest, one pass,
the whole matrix of logits, the losses of the endings. Same weights, ids and convention. Both run here, in turn, several times;
the ratio is of the best times. Every item's decisions, by total and by mean, must be identical, or there is no ratio.
The ratio grows with the vocabulary: the peer's four rows make logits of the context four times over, ours not once.

    python benchmarks/hellaswag.py [--data REF] [--items 200] [--preset mini] [--base embedded] [--model REF] [--rounds 3]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from workings.evals import hellaswag
from workings.evals.settings import Settings
from workings.files import write_atomic
from workings.models.configs import GPT2_SIZES
from workings.models.gpt2 import GPT2
from workings.models.language import GPT2LanguageModel, HuggingFaceModel, LanguageModel, open_language
from workings.text.documents import docstrings
from workings.text.tokenizer import Tokenizer

Decisions = list[tuple[int, int]]


@torch.no_grad()
def one_at_a_time(model: LanguageModel, items: Sequence[hellaswag.Item]) -> Decisions:
    """(likeliest ending in total, per token) of each item: four rows, one forward pass an item, every logit."""
    network, dead = network_of(model)
    found = []
    for item in items:
        context, endings = item.text("karpathy")
        read = model.encode(context)
        rows = [model.encode(f" {ending}") for ending in endings]
        width = len(read) + max(map(len, rows))
        ids = torch.zeros(4, width, dtype=torch.long)
        mask = torch.zeros(4, width)
        for i, row in enumerate(rows):
            ids[i, : len(read) + len(row)] = torch.tensor(read + row)
            mask[i, len(read) : len(read) + len(row)] = 1
        logits = network(ids.to(model.device))
        if dead is not None:
            logits += dead
        flat = logits[:, :-1].reshape(-1, logits.shape[-1])
        losses = F.cross_entropy(flat, ids[:, 1:].reshape(-1).to(model.device), reduction="none").view(4, -1)
        losses = losses * mask[:, 1:].to(model.device)
        sums = losses.sum(1)
        found.append((int(sums.argmin()), int((sums / mask[:, 1:].sum(1).to(model.device)).argmin())))
    return found


def network_of(model: LanguageModel) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor | None]:
    """ids → all logits, and what takes the ids that are never predicted out of them (None where there are none)."""
    if isinstance(model, HuggingFaceModel):
        return lambda ids: model.model(input_ids=ids, use_cache=False).logits, None
    assert isinstance(model, GPT2LanguageModel)
    live = model.predictable
    return model.model, None if live is None else torch.where(live, 0.0, -torch.inf)


def batched(model: LanguageModel, items: Sequence[hellaswag.Item]) -> Decisions:
    frame = hellaswag.judge_items(model, items, Settings(conventions=("karpathy",)))
    return list(zip(frame["by_total"].to_list(), frame["by_tokens"].to_list(), strict=True))


def own_rows(folder: Path, n: int) -> Path:
    """Rows of the benchmark's form out of the standard library's docstrings, for a machine without the data."""
    rng = random.Random(0)
    words = [word for _, text in islice(docstrings(), 400) for word in str(text).split()]

    def some(least: int, most: int) -> str:
        start = rng.randrange(len(words) - most)
        return " ".join(words[start : start + rng.randint(least, most)]).replace('"', "'").replace("\\", "/")

    def row() -> str:
        endings = ", ".join(f'"{some(6, 30)}"' for _ in range(4))
        return f'{{"activity_label": "Reading", "ctx": "{some(20, 70)}", "label": {rng.randrange(4)}, "endings": [{endings}]}}\n'

    return write_atomic(folder / "rows.jsonl", "".join(row() for _ in range(n)))


def opened(given: argparse.Namespace) -> LanguageModel:
    if given.model:
        return open_language(given.model, given.device)
    tokenizer = Tokenizer.build(given.base, "digits")
    shape = replace(GPT2_SIZES[given.preset], vocab=tokenizer.embedding_width, block=1024)  # no item is to be cut
    model = GPT2(shape).init(0)
    return GPT2LanguageModel.of(model.eval().to(given.device), tokenizer, f"{given.preset}, untrained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a hub id or local rows; without it, made of docstrings")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--preset", default="mini", choices=GPT2_SIZES)
    parser.add_argument("--base", default="embedded", help="the byte-level BPE of the model: embedded, gpt2, or a path")
    parser.add_argument("--model", help="a model instead of an untrained one of the preset")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reference = given.data or own_rows(Path(folder), given.items)
        every = hellaswag.load_items(Settings(hellaswag_data=str(reference)))
    items = random.Random(0).sample(every, min(given.items, len(every)))  # ActivityNet comes first and is short
    model = opened(given)
    single, ours = [], []
    for round_ in range(given.rounds):
        times = []
        results = []
        for judge in (one_at_a_time, batched):
            began = time.perf_counter()
            results.append(judge(model, items))
            times.append(time.perf_counter() - began)
        single.append(times[0])
        ours.append(times[1])
        differing = sum(a != b for a, b in zip(*results, strict=True))
        assert not differing, f"{differing} of {len(items)} items are decided otherwise: no ratio"
        print(f"round {round_ + 1}: one at a time {times[0]:.2f} s, batched {times[1]:.2f} s, all decisions identical")
    n = len(items)
    print(f"one at a time {n / min(single):.0f} items/s, batched {n / min(ours):.0f} items/s, n = {n}, {model.name}")
    print(f"RATIO hellaswag: {min(single) / min(ours):.1f} ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
