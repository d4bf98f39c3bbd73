"""HellaSwag: a context and four endings → which ending a model finds likeliest, in the two scoring conventions that are published.

    karpathy   the raw context, a space, the raw ending; context and ending are encoded apart;
               acc: likeliest in total, acc_norm: likeliest per token (build-nanogpt, llm.c)
    lm-eval    activity label, tidied context and endings; encoded together and cut where the context ends;
               acc: likeliest in total, acc_norm: per character, acc_bytes: per byte

The benchmark is Zellers et al. 2019 (arXiv:1905.07830). Rows of the hub have `ctx_a` and `ctx_b`, which lm-eval joins anew. A file
that has only `ctx` is a variant of the data: its numbers compare models with each other, not with published ones (`variant_of`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from workings.errors import BadInput
from workings.evals.lm_eval_files import LmEvalTask, Sample
from workings.evals.settings import Convention, Settings, encode_prompt, encode_raw, opening_ids
from workings.judging.statistics import Measure
from workings.text.datasets import Row, content_ids, read_rows, text_field

if TYPE_CHECKING:
    from workings.models.language import LanguageModel
    from workings.models.scoring import Scored

Length = Literal["total", "tokens", "characters", "bytes"]
LENGTHS: tuple[Length, ...] = get_args(Length)
"""The lengths that a log-probability may be divided by before endings are compared; `total` divides by nothing."""
NORM: dict[Convention, Length] = {"karpathy": "tokens", "lm-eval": "characters"}
"""The length by which each convention's acc_norm divides. lm-eval counts characters, and calls the count of bytes acc_bytes."""
NONE = -1
"""The ending chosen of an item that was not judged."""


@dataclass(frozen=True, slots=True)
class Item:
    """A checked row of the data set; `label` is the index of the right ending."""

    id: str
    row: Row
    label: int

    @property
    def is_original(self) -> bool:
        """True if the row has the two parts of its context, as the hub's rows have."""
        return "ctx_a" in self.row and "ctx_b" in self.row

    def text(self, convention: Convention) -> tuple[str, list[str]]:
        """Context and endings, to be joined by a space."""
        if convention == "karpathy":
            return self.row["ctx"], list(self.row["endings"])
        context = self.row["ctx"]
        if self.is_original:
            context = f"{self.row['ctx_a']} {self.row['ctx_b'].capitalize()}"
        return tidied(f"{self.row['activity_label']}: {context}"), [tidied(ending) for ending in self.row["endings"]]


@dataclass(frozen=True)
class HellaSwagMeasures:
    """The shares of items chosen rightly in one convention.

    Attributes:
        n_cut: Items whose context lost tokens on the left, to fit the model's positions.
        n_not_judged: Items with an ending longer than the positions; they count as wrong.
    """

    n: int
    acc: Measure
    acc_norm: Measure
    acc_bytes: Measure
    n_cut: int
    n_not_judged: int


def load_items(settings: Settings) -> list[Item]:
    """Read all validation items of `hellaswag_data`. BadInput names a malformed line."""
    rows = [(row, _checked_label(row, place)) for place, row in read_rows(settings.hellaswag_data, "validation")]
    ids = content_ids([row["ctx"], row["endings"], label] for row, label in rows)
    return [Item(id, row, label) for id, (row, label) in zip(ids, rows, strict=True)]


def variant_of(items: Sequence[Item]) -> str:
    """The origin of these items: the hub's rows, or rows that lost the parts of their contexts."""
    return "hub rows" if all(item.is_original for item in items) else "local rows without ctx_a and ctx_b"


def tidied(text: str) -> str:
    """A text without the brackets that WikiHow's layout left in the data set, as lm-eval reads it."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


# ---- judged ------------------------------------------------------------------------------------------------------

# An item that was not judged has empty lists.
_LISTS = {"totals": pl.List(pl.Float64), "greedy": pl.List(pl.Boolean), "n_tokens": pl.List(pl.Int64)}


def judge_items(model: LanguageModel, items: Sequence[Item], settings: Settings) -> pl.DataFrame:
    """Choose an ending for every item, in each convention of the settings.

    An item with an ending longer than the model's positions is not judged: it chooses NONE, has no totals, and stays
    in n as not correct.

    Returns:
        One row an item and convention (`condition`). `correct` is that convention's acc_norm; `by_total`, `by_tokens`,
        `by_characters` and `by_bytes` are the endings chosen; `totals` are the endings' log-probabilities in nats;
        `cut` is the number of tokens that the context lost to fit the positions.
    """
    frames = []
    for convention in settings.conventions:
        encoded = [_encoded(model, item, convention) for item in items]
        contexts = [context for context, _ in encoded]
        endings = [four if max(map(len, four)) <= model.context_length else [] for _, four in encoded]
        scored = model.logprobs(contexts, endings, settings.batch_tokens)
        rows = [_outcome(item, convention, four) for item, four in zip(items, scored, strict=True)]
        frames.append(pl.DataFrame(rows, schema_overrides=_LISTS))
    return pl.concat(frames)


def _encoded(model: LanguageModel, item: Item, convention: Convention) -> tuple[list[int], list[list[int]]]:
    context, endings = item.text(convention)
    if convention == "karpathy":
        return encode_prompt(model, context), [encode_raw(model, f" {ending}") for ending in endings]
    # A token may reach over the seam: lm-eval encodes the whole and cuts it where the context's own length ends,
    # spaces that a context ends with counting to the ending.
    read = encode_raw(model, context.rstrip())
    return opening_ids(model) + read, [encode_raw(model, f"{context} {ending}")[len(read) :] for ending in endings]


def _outcome(item: Item, convention: Convention, scored: Sequence[Scored]) -> dict[str, object]:
    _, endings = item.text(convention)
    totals = np.array([one.total for one in scored])
    lengths: dict[Length, list[int]] = {
        "total": [1] * len(scored),
        "tokens": [len(one.token_logprobs) for one in scored],
        "characters": [len(ending) for ending in endings],
        "bytes": [len(ending.encode()) for ending in endings],
    }
    chosen = {name: int(np.argmax(totals / np.array(by, float))) if scored else NONE for name, by in lengths.items()}
    return {
        "id": item.id,
        "condition": convention,
        "correct": chosen[NORM[convention]] == item.label,
        "label": item.label,
        **{f"by_{name}": ending for name, ending in chosen.items()},
        "totals": totals.tolist(),
        "greedy": [one.greedy for one in scored],
        "n_tokens": lengths["tokens"],
        "cut": max((one.n_cut for one in scored), default=0),
    }


def summarize(outcomes: pl.DataFrame) -> dict[str, HellaSwagMeasures]:
    """The measures of each convention in the outcomes of `judge_items`."""
    return {
        str(convention): HellaSwagMeasures(
            len(rows),
            acc=Measure.share(rows["by_total"] == rows["label"]),
            acc_norm=Measure.share(rows["correct"]),
            acc_bytes=Measure.share(rows["by_bytes"] == rows["label"]),
            n_cut=int((rows["cut"] > 0).sum()),
            n_not_judged=int((rows["by_total"] == NONE).sum()),
        )
        for (convention,), rows in outcomes.group_by("condition", maintain_order=True)
    }


def notes(model: LanguageModel, outcomes: pl.DataFrame, settings: Settings) -> list[str]:
    """Sentences for the report on what the model's few positions did."""
    return [
        f"{one.n_not_judged:,} of {one.n:,} items ({convention}) were not judged, for an ending is longer than the model's "
        f"{model.context_length} positions; they count as wrong."
        for convention, one in summarize(outcomes).items()
        if one.n_not_judged
    ]


def other_outcomes(outcomes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """No measure but `correct` is compared between models."""
    return {}


def source(items: Sequence[Item], settings: Settings) -> str:
    """The source of the items, in words, and whether they are the hub's rows."""
    return f"{settings.hellaswag_data} ({variant_of(items)})"


def lm_eval_tasks(items: Sequence[Item], outcomes: pl.DataFrame, n_all: int, settings: Settings) -> list[LmEvalTask]:
    """The outcomes as lm-eval's files have them, one task a convention."""
    by_id = {item.id: item for item in items}
    local = "" if variant_of(items) == "hub rows" else "_local"
    tasks = []
    for (convention,), rows in outcomes.group_by("condition", maintain_order=True):
        name = "hellaswag" + local + ("" if convention == "lm-eval" else f"_{convention}")
        samples = [_sample(i, by_id[row["id"]], row) for i, row in enumerate(rows.iter_rows(named=True))]
        tasks.append(LmEvalTask(name, "multiple_choice", samples, n_all, 0))
    return tasks


def _sample(doc_id: int, item: Item, row: dict[str, Any]) -> Sample:
    context, endings = item.text(row["condition"])
    metrics = {
        "acc": float(row["by_total"] == item.label),
        "acc_norm": float(row["correct"]),
        "acc_bytes": float(row["by_bytes"] == item.label),
    }
    doc = dict(item.row) | {"query": context, "choices": endings, "gold": item.label}
    responses = list(zip(row["totals"], row["greedy"], strict=True))
    requests = [(context, f" {ending}") for ending in endings]
    return Sample(doc_id, doc, item.label, requests, responses, "none", responses, metrics)


def _checked_label(row: Row, place: str) -> int:
    """The label of a row, once all its fields have been checked."""
    for name in ("activity_label", "ctx"):
        text_field(row, name, place)
    endings = row.get("endings")
    if not isinstance(endings, list) or len(endings) != 4 or not all(isinstance(e, str) and e.strip() for e in endings):
        raise BadInput(f"{place}: 'endings' must be four texts, not {endings!r:.60}; mend or delete the row")
    if ("ctx_a" in row or "ctx_b" in row) and not all(isinstance(row.get(part), str) for part in ("ctx_a", "ctx_b")):
        raise BadInput(f"{place}: 'ctx_a' and 'ctx_b' must both be text, or both be absent; mend the row")
    label = str(row.get("label", "")).strip()
    if label not in ("0", "1", "2", "3"):
        raise BadInput(
            f"{place}: 'label' must be 0, 1, 2 or 3, not {label!r:.20}; take the validation split, the test split has none"
        )
    return int(label)
