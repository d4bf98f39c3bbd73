"""A context and four endings → which ending a model finds likeliest, in the two conventions that published numbers follow.

    karpathy   the raw context, a space, the raw ending; context and ending are encoded apart;
               acc: likeliest in total, acc_norm: likeliest per token (build-nanogpt, llm.c)
    lm-eval    activity label, tidied context and endings; encoded together and cut where the context ends;
               acc: likeliest in total, acc_norm: per character, acc_bytes: per byte

Rows of the hub have `ctx_a` and `ctx_b`, which lm-eval joins anew; a file that has only `ctx` is a variant of the data
whose numbers compare models with each other and not with published ones (`variant_of`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from workings.errors import BadInput
from workings.evals.estimates import share
from workings.evals.lm_eval_files import LmEvalTask, sample
from workings.evals.settings import HELLASWAG, Convention, encode_prompt, encode_raw, opening_ids
from workings.models.language import LanguageModel, Scored
from workings.text.datasets import Row, content_ids, rows_of, text_field

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
LENGTHS = ("total", "tokens", "characters", "bytes")
NONE = -1
"""The ending chosen of an item that was not judged."""
NORM: dict[Convention, str] = {"karpathy": "tokens", "lm-eval": "characters"}
"""By what each convention's acc_norm divides; lm-eval counts characters, and calls the count of bytes acc_bytes."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row as it was read, checked; `label` is the right ending's place."""

    id: str
    row: Row
    label: int

    @property
    def is_original(self) -> bool:
        return "ctx_a" in self.row and "ctx_b" in self.row

    def text(self, convention: Convention) -> tuple[str, list[str]]:
        """Context and endings, to be joined by a space."""
        if convention == "karpathy":
            return self.row["ctx"], list(self.row["endings"])
        context = self.row["ctx"]
        if self.is_original:
            context = f"{self.row['ctx_a']} {self.row['ctx_b'].capitalize()}"
        return tidied(f"{self.row['activity_label']}: {context}"), [tidied(ending) for ending in self.row["endings"]]


def items(reference: str | Path = HELLASWAG, limit: int | None = None) -> list[Item]:
    """The validation items of a hub id or a local file (or folder) in the hub's format. BadInput names a malformed line."""
    rows = [(row, _label(row, place)) for place, row in rows_of(reference, "validation")]
    ids = content_ids([row["ctx"], row["endings"], label] for row, label in rows)
    return [Item(id, row, label) for id, (row, label) in zip(ids, rows, strict=True)][:limit]


def variant_of(judged: Sequence[Item]) -> str:
    """Which text these items are: the hub's rows, or rows that lost the parts of their contexts."""
    return "hub rows" if all(item.is_original for item in judged) else "local rows without ctx_a and ctx_b"


def tidied(text: str) -> str:
    """Without the brackets that WikiHow's template left in the data set, as lm-eval reads it."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def judge(
    model: LanguageModel,
    judged: Sequence[Item],
    conventions: Iterable[Convention] = CONVENTIONS,
    batch_tokens: int = 8192,
) -> pl.DataFrame:
    """One row an item and convention (`condition`); `correct` is that convention's acc_norm.

    `totals` are log-probabilities in nats, one an ending; `by_total`, `by_tokens`, `by_characters`, `by_bytes` are the
    endings that each way of counting chooses; `cut` are the tokens that the context lost to fit the positions. An item
    with an ending longer than the positions is not judged: it chooses NONE, has no totals, and stays in n as not correct.
    """
    frames = [_judged(model, judged, convention, batch_tokens) for convention in conventions]
    return pl.concat(frames)


def _judged(model: LanguageModel, judged: Sequence[Item], convention: Convention, batch_tokens: int) -> pl.DataFrame:
    contexts, endings = [], []
    for item in judged:
        context, alternatives = _encoded(model, item, convention)
        contexts.append(context)
        endings.append(alternatives if max(map(len, alternatives)) <= model.context else [])
    scored = model.logprobs(contexts, endings, batch_tokens)
    rows = [_row(item, convention, four) for item, four in zip(judged, scored, strict=True)]
    return pl.DataFrame(rows, schema=_SCHEMA)


_SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "condition": pl.String,
    "correct": pl.Boolean,
    "label": pl.Int64,
    **{f"by_{length}": pl.Int64 for length in LENGTHS},
    "totals": pl.List(pl.Float64),
    "greedy": pl.List(pl.Boolean),
    "n_tokens": pl.List(pl.Int64),
    "cut": pl.Int64,
}


def _encoded(model: LanguageModel, item: Item, convention: Convention) -> tuple[list[int], list[list[int]]]:
    context, endings = item.text(convention)
    if convention == "karpathy":
        return encode_prompt(model, context), [encode_raw(model, f" {ending}") for ending in endings]
    # A token may reach over the seam: lm-eval encodes the whole and cuts it where the context's own length ends,
    # spaces that a context ends with counting to the ending.
    read = encode_raw(model, context.rstrip())
    return opening_ids(model) + read, [encode_raw(model, f"{context} {ending}")[len(read) :] for ending in endings]


def _row(item: Item, convention: Convention, four: Sequence[Scored]) -> dict[str, Any]:
    _, endings = item.text(convention)
    totals = np.array([one.total for one in four])
    lengths = {
        "total": np.ones(len(four)),
        "tokens": np.array([len(one.tokens) for one in four], float),
        "characters": np.array([len(ending) for ending in endings], float),
        "bytes": np.array([len(ending.encode()) for ending in endings], float),
    }
    choices = {f"by_{length}": int(np.argmax(totals / by)) if len(four) else NONE for length, by in lengths.items()}
    return {
        "id": item.id,
        "condition": convention,
        "correct": choices[f"by_{NORM[convention]}"] == item.label,
        "label": item.label,
        **choices,
        "totals": totals.tolist(),
        "greedy": [one.greedy for one in four],
        "n_tokens": [len(one.tokens) for one in four],
        "cut": max((one.cut for one in four), default=0),
    }


def summary(frame: pl.DataFrame) -> dict[str, Any]:
    """{convention: {acc, acc_norm, acc_bytes, n, n_cut, n_not_judged}}; each acc with its interval."""
    found = {}
    for (convention,), rows in frame.group_by("condition", maintain_order=True):
        of = {length: share(rows[f"by_{length}"] == rows["label"]) for length in LENGTHS}
        found[convention] = {
            "n": len(rows),
            "acc": of["total"],
            "acc_norm": share(rows["correct"]),
            "acc_bytes": of["bytes"],
            "n_cut": int((rows["cut"] > 0).sum()),
            "n_not_judged": n_not_judged(rows),
        }
    return found


def n_not_judged(rows: pl.DataFrame) -> int:
    """Items with an ending that no position is left for."""
    return int((rows["by_total"] == NONE).sum())


def for_lm_eval(judged: Sequence[Item], frame: pl.DataFrame, n_all: int) -> Iterator[LmEvalTask]:
    """One task a convention, as lm-eval's files have it."""
    of = {item.id: item for item in judged}
    local = "" if variant_of(judged) == "hub rows" else "_local"
    for (convention,), rows in frame.group_by("condition", maintain_order=True):
        name = "hellaswag" + local + ("" if convention == "lm-eval" else f"_{convention}")
        samples = [_sample(i, of[row["id"]], row) for i, row in enumerate(rows.iter_rows(named=True))]
        yield LmEvalTask(name, "multiple_choice", samples, n_all, 0)


def _sample(doc_id: int, item: Item, row: dict[str, Any]) -> dict[str, Any]:
    context, endings = item.text(row["condition"])
    metrics = {
        "acc": float(row["by_total"] == item.label),
        "acc_norm": float(row["correct"]),
        "acc_bytes": float(row["by_bytes"] == item.label),
    }
    doc = dict(item.row) | {"query": context, "choices": endings, "gold": item.label}
    responses = list(zip(row["totals"], row["greedy"], strict=True))
    return sample(doc_id, doc, item.label, [(context, f" {ending}") for ending in endings], responses, "none", metrics)


def _label(row: Row, place: str) -> int:
    """The checked label of a checked row."""
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
