"""A linear probe at each place → READINGS rows: what a linear reader finds there, of which a lens names a part.

A lens must go through the model's own norm and head, and is fitted to all places at once; a probe is fitted to one place and
need not. What the probe names and the lens does not is the lens's loss, and says nothing of the state. A probe is no control:
it sees the thought.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from workings.errors import BadInput
from workings.judging.readers import FLOOR, Floats, Ints, discriminants, nats
from workings.reading.readings import READINGS, Predictor
from workings.reading.store import HiddenStates
from workings.reading.targets import Targets

LINEAR_PROBE = Predictor("linear probe")


def probe_readings(hidden: HiddenStates, targets: Targets, subject: str = "model") -> pl.DataFrame:
    """Fit a linear probe at every place to the training problems' targets, and read validation and test with it.

    The candidates of a place are the tokens that its training problems show; any other token comes last, with the least
    probability that a reader gives (`readers.FLOOR`).

    Args:
        hidden: Hidden states [n, P, d] by layer.
        targets: Probe targets of the same problems, in the same order.
        subject: Whose states these are: "model", "control" or "untrained".

    Returns:
        READINGS rows (see `reading.read_all`) at every layer and position with a target.

    Raises:
        BadInput: Targets of other problems, or a position without a target in the training split.
    """
    targets.refuse_others(hidden)
    split_of = np.array(targets.splits)
    tables = []
    for layer in hidden.layers:
        states = hidden.hidden(layer).float().numpy()
        for place, position in enumerate(targets.positions):
            row, member = (found.numpy() for found in torch.nonzero(targets.mask[:, place], as_tuple=True))
            if not len(row):
                continue
            splits = split_of[row]
            train, val = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
            if not len(train) or not len(val):
                raise BadInput(f"'{targets.rule}' has no target at {position} in train and val: give more problems")
            token = targets.ids[:, place].numpy()[row, member]
            candidates, y = np.unique(token[train]), np.full(len(row), -1)
            at = np.searchsorted(candidates, token).clip(max=len(candidates) - 1)
            y[candidates[at] == token] = at[candidates[at] == token]
            readers = list(discriminants(states[row, place], y, len(candidates), train))
            log_p = min(readers, key=lambda reader: nats(reader, y, val))
            rank, nll = _rank_and_nll(log_p, y)
            kept = splits != "train"
            columns = {
                "problem": pl.Series(targets.problems).gather(row),
                "layer": pl.repeat(layer, len(row), eager=True),
                "position": pl.repeat(position, len(row), eager=True),
                "target": pl.Series(token, dtype=pl.Int64),
                "rank": pl.Series(rank, dtype=pl.Int32),
                "nll": pl.Series(nll, dtype=pl.Float32),
                "new_value": targets.new_value[:, place].numpy()[row, member],
                "split": splits.astype(str),
            }
            tables.append(pl.DataFrame(columns).filter(pl.Series(kept)))
    named = LINEAR_PROBE._replace(subject=subject)._asdict()
    return pl.concat(tables).with_columns(**{name: pl.lit(value) for name, value in named.items()}).select(READINGS)


def _rank_and_nll(log_p: Floats, y: Ints) -> tuple[Ints, Floats]:
    """(candidates that are at least as likely, −log p in nats) of each row's token; one that is no candidate comes last."""
    own = log_p[np.arange(len(y)), np.maximum(y, 0)]
    rank = (log_p >= own[:, None]).sum(1) - 1
    return np.where(y < 0, log_p.shape[1], rank), np.where(y < 0, -np.float32(FLOOR), -own)
