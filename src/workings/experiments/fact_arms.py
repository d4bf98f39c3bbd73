"""Runs of the fact-token experiments → their arms, paired by item and by seed.

Every run has the same probes and the same validation documents. A difference is taken item by item between two arms of one seed;
its interval covers items and seeds where there are several seeds, and items alone (with a warning) where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workings.errors import BadInput
from workings.judging.comparison import refuse_unmatched
from workings.judging.statistics import Interval, holm, seeds_and_items, sign_flip, wilson
from workings.models.scoring import bits_per_byte
from workings.report import Estimate
from workings.run import RunRecord

if TYPE_CHECKING:
    from workings.models.causal import LanguageModel
    from workings.text.corpus import Corpus

MEASURES = {"worked": "work shown", "correct": "at once", "value_correct": "choice of product"}
TRAINED, HELD_OUT = "drilled", "held out"


# ---- what a run keeps --------------------------------------------------------------------------------------------


def text_outcomes(model: LanguageModel, corpus: Corpus, most: int) -> pl.DataFrame:
    """One row a validation document: id, source, nats, bytes (raw), tokens, facts, held_out_facts; at most `most` of each source.

    `held_out_facts` are tokens that no training text has, and so none where their meaning is shuffled.
    """
    documents = [one for source in corpus.sources for one in islice(corpus.validation(source), most)]
    held_out = corpus.drills.held_out_facts
    read = [corpus.tokenizer.facts.of_ids(one.ids.tolist()) for one in documents]
    unseen = [sum(fact in held_out for fact in some) * (corpus.tokenizer.vocabulary == "facts") for some in read]
    place = pl.int_range(pl.len()).over("source").cast(pl.String)
    return bits_per_byte(model, documents).with_columns(
        id=pl.col("source") + "/" + place,
        facts=pl.Series([len(some) for some in read], dtype=pl.Int64),
        held_out_facts=pl.Series(unseen, dtype=pl.Int64),
    )


def headline(results: dict[str, dict[str, Any]], path: Path) -> dict[str, Any]:
    """What `show` prints of a run."""
    table = results["probes"]["summary"]["table"]
    text = pl.read_parquet(path / "outcomes" / "text.parquet")
    return {
        "table, with the work shown": round(table["worked"]["value"], 4),
        "table, at once": round(table["direct"]["value"], 4),
        "bits per byte": round(_bits(text), 4),
    }


def _bits(text: pl.DataFrame) -> float:
    """Of all these documents together."""
    return float(text["nats"].to_numpy().sum() / (math.log(2) * text["bytes"].to_numpy().sum()))


# ---- what two arms are apart -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """a − b: the mean over seeds and items, its interval, p with one seed, and how many seeds and items it rests on."""

    arms: tuple[str, str]
    what: str
    difference: float
    interval: Interval
    p: float | None
    n_seeds: int
    n_items: int


def gap(arms: tuple[str, str], what: str, differences: np.ndarray) -> Gap:
    """`differences` [seeds, items]. With one seed p is by sign flips over items; with a few seeds the interval must do: three
    signs cannot give a p below .25."""
    p = sign_flip(differences[0], np.zeros_like(differences[0])) if len(differences) == 1 else None
    return Gap(arms, what, float(differences.mean()), seeds_and_items(differences), p, *differences.shape)


class Arms:
    """Finished runs by arm and seed; refuses runs that are not matched in parameters, steps and raw bytes."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.of: dict[str, dict[int, RunRecord]] = {}
        for record in records:
            refuse_unmatched(records[0], record)
            seeds = self.of.setdefault(record.manifest.arm, {})
            other = seeds.setdefault(record.manifest.seed, record)
            if other is not record:
                raise BadInput(f"{other.path} and {record.path} are runs of the same arm and seed: leave one out")

    @property
    def names(self) -> list[str]:
        return list(self.of)

    def seeds(self, *arms: str) -> list[int]:
        """Those that all these arms have."""
        return sorted(set.intersection(*(set(self.of[arm]) for arm in arms)))

    def probes(self, arm: str, seed: int) -> pl.DataFrame:
        return self.of[arm][seed].outcomes("probes").sort("id")

    def text(self, arm: str, seed: int) -> pl.DataFrame:
        return self.of[arm][seed].outcomes("text").sort("id")

    def differences(self, arms: tuple[str, str], measure: str, held_out: bool) -> np.ndarray:
        """[seeds, probes] of −1, 0, 1."""
        rows = []
        for seed in self.seeds(*arms):
            a, b = (asked(self.probes(arm, seed), measure, held_out) for arm in arms)
            paired = a.join(b, on="id", suffix="_b", maintain_order="left")
            rows.append((paired[measure].cast(pl.Int64) - paired[f"{measure}_b"].cast(pl.Int64)).to_numpy())
        return np.array(rows, dtype=float)

    def answered(self, arm: str, measure: str) -> Estimate:
        """What was drilled, over all seeds of an arm."""
        frames = [asked(self.probes(arm, seed), measure, False) for seed in self.seeds(arm)]
        return share(pl.concat(frames)[measure], len(frames))

    def sightings(self, arm: str) -> float:
        """How often training showed a fact, the mean over all there are and over seeds."""
        return float(np.mean([record.result("text")["sightings_per_fact"] for record in self.of[arm].values()]))


def asked(frame: pl.DataFrame, measure: str, held_out: bool) -> pl.DataFrame:
    """The probes a measure applies to; held-out ones rest on a fact that the drills never show."""
    return frame.filter(pl.col(measure).is_not_null(), held_out=held_out).select("id", measure)


def adjusted(found: Sequence[Gap]) -> list[Gap]:
    """p-values, where there are any, adjusted for all of them (Holm)."""
    ps = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else replace(one, p=next(ps)) for one in found]


def share(right: pl.Series, n_seeds: int) -> Estimate:
    """Over all seeds; the interval is that of the items of one (Wilson): several seeds see the same items."""
    p, n = float(right.cast(pl.Float64).to_numpy().mean()), len(right) // n_seeds
    around = wilson(p * n, n)
    return Estimate(p, around.low, around.high)
