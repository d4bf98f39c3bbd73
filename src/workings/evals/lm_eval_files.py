"""Judged items → the two kinds of file that lm-evaluation-harness writes, so that what reads its results reads ours.

    results_<time>.json            every task's metrics with standard errors, n, versions, model
    samples_<task>_<time>.jsonl    one line an item and filter: document, prompt, responses, what the filter made of them

Keys and layout are those of lm-eval 0.4.13 (`SampleResult`, `EvalResults`). Why nothing here imports it: docs/decisions/0013.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Literal

from workings.files import plain, to_json, write_atomic

VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One item judged by one filter: a line of a samples file.

    Attributes:
        doc_id: Index of the item.
        doc: The item as its data set has it.
        arguments: For each request to the model, its parts: (context, continuation), or (prompt, settings).
        responses: For each request, the text, or (log-probability, whether it is the greedy one).
        filtered: What the filter made of the responses.
        metrics: Each metric of the item.
    """

    doc_id: int
    doc: Mapping[str, object]
    target: object
    arguments: Sequence[tuple[object, ...]]
    responses: Sequence[object]
    filter: str
    filtered: Sequence[object]
    metrics: Mapping[str, float]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """sha256 of document, first prompt and target, each by lm-eval's key."""
        document = json.dumps(plain(self.doc), indent=2, ensure_ascii=False)
        hashed = {"doc_hash": document, "prompt_hash": str(self.arguments[0][0]), "target_hash": str(self.target)}
        return {key: _hash(text) for key, text in hashed.items()}

    def line(self) -> dict[str, object]:
        """The JSON object that lm-eval writes of it."""
        return {
            "doc_id": self.doc_id,
            "doc": plain(self.doc),
            "target": str(self.target),
            "arguments": {
                f"gen_args_{i}": {f"arg_{j}": one for j, one in enumerate(request)}
                for i, request in enumerate(self.arguments)
            },
            "resps": [[_text(response)] for response in self.responses],
            "filtered_resps": [_text(response) for response in self.filtered],
            "filter": self.filter,
            "metrics": list(self.metrics),
            **self.hashes,
            **self.metrics,
        }


@dataclass(frozen=True)
class LmEvalTask:
    """The samples of one task, the number of documents before any limit, and the number of examples shown."""

    name: str
    output_type: Literal["multiple_choice", "generate_until"]
    samples: Sequence[Sample]
    n_original: int
    n_fewshot: int

    @property
    def n_effective(self) -> int:
        """Documents judged."""
        return len({sample.doc_id for sample in self.samples})


def write(folder: Path, model: str, tasks: Sequence[LmEvalTask], config: Mapping[str, object]) -> list[Path]:
    """Write a samples file for each task and one results file into `folder`.

    Args:
        config: Fields of the results' "config": limit, batch size, digest of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    written = []
    for task in tasks:
        lines = "".join(json.dumps(sample.line(), ensure_ascii=False) + "\n" for sample in task.samples)
        written.append(write_atomic(folder / f"samples_{_safe(task.name)}_{stamp}.jsonl", lines))
    return [*written, write_atomic(folder / f"results_{stamp}.json", to_json(results(model, tasks, config)))]


def results(model: str, tasks: Sequence[LmEvalTask], config: Mapping[str, object]) -> dict[str, object]:
    """The content of a results file."""
    return {
        "results": {task.name: _metrics(task) for task in tasks},
        "group_subtasks": {},
        "configs": {
            task.name: {"task": task.name, "output_type": task.output_type, "num_fewshot": task.n_fewshot}
            for task in tasks
        },
        "versions": {task.name: VERSION for task in tasks},
        "n-shot": {task.name: task.n_fewshot for task in tasks},
        "higher_is_better": {
            task.name: dict.fromkeys(sorted({name for one in task.samples for name in one.metrics}), True)
            for task in tasks
        },
        "n-samples": {task.name: {"original": task.n_original, "effective": task.n_effective} for task in tasks},
        "config": {"model": "workings", "model_args": {"pretrained": model}, **config},
        "date": datetime.now(UTC).timestamp(),
        "model_source": "workings",
        "model_name": model,
        "model_name_sanitized": _safe(model),
        "system_instruction": None,
        "chat_template": None,
        "fewshot_as_multiturn": False,
        "task_hashes": {
            task.name: _hash("".join("".join(sample.hashes.values()) for sample in task.samples)) for task in tasks
        },
    }


def _metrics(task: LmEvalTask) -> dict[str, object]:
    """`acc,none` and `acc_stderr,none` for each metric and filter."""
    found: dict[str, object] = {"name": task.name, "alias": task.name, "sample_len": task.n_effective}
    values: dict[tuple[str, str], list[float]] = {}
    for sample in task.samples:
        for name, value in sample.metrics.items():
            values.setdefault((name, sample.filter), []).append(float(value))
    for (name, filter_name), numbers in values.items():
        found[f"{name},{filter_name}"] = sum(numbers) / len(numbers)
        found[f"{name}_stderr,{filter_name}"] = _standard_error(numbers)
    return found


def _standard_error(numbers: Sequence[float]) -> float | str:
    """Standard error of the mean, with n − 1; "N/A" for a single item, as lm-eval writes it."""
    n, mean = len(numbers), sum(numbers) / len(numbers)
    return sqrt(sum((x - mean) ** 2 for x in numbers) / (n - 1) / n) if n > 1 else "N/A"


def _text(response: object) -> object:
    """A response as lm-eval writes it: a log-probability and its greediness as texts."""
    return [str(part) for part in response] if isinstance(response, tuple | list) else response


def _safe(name: str) -> str:
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
