"""Store × targets × lenses → READINGS of the lenses and of every control that needs no other model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch

from workings.judging.controls import Asked, read_controls
from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens, LogitLens
from workings.reading.readings import read_all
from workings.reading.store import ThoughtStore
from workings.reading.targets import Targets


def readings_beside_controls(
    model: ThoughtModel, store: ThoughtStore, targets: Targets, lenses: Mapping[str, tuple[Lens, ThoughtStore]]
) -> pl.DataFrame:
    """READINGS on validation and test: the named lenses (each over its own store), the logit lens, the data controls."""
    rows = torch.cat([targets.rows("val"), targets.rows("test")])
    frames = [read_all(lens, states, targets, rows, reader=name) for name, (lens, states) in lenses.items()]
    first = next(lens for lens, _ in lenses.values())
    frames.append(read_all(LogitLens(first.unembedding, first.layers, first.fingerprint), store, targets, rows))
    controls = read_controls(_asked(model, store, targets))
    return pl.concat([*frames, controls.filter(pl.col("split") != "train")])


def _asked(model: ThoughtModel, store: ThoughtStore, targets: Targets) -> Asked:
    problems = store.as_problems()
    is_number = [text.strip().isdigit() for text in model.tokens(range(len(model.tokenizer)))]
    questions: list[Any] = model.tokenizer([p.question for p in problems], add_special_tokens=False)["input_ids"]
    return Asked(
        problems=targets.problems,
        splits=targets.splits,
        positions=store.positions,
        targets=targets.ids.numpy(),
        mask=targets.mask.numpy(),
        new_values=targets.new_value.numpy(),
        chain_lengths=np.array([len(model.chain_ids(p)) for p in problems]),
        questions=questions,
        is_number=lambda i: i < len(is_number) and is_number[i],
        vocabulary_size=len(model.unembedding.weight),
    )
