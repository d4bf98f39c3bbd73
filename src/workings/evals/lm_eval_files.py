"""Judged items → the two kinds of file that lm-evaluation-harness writes, so that what reads its results reads ours.

    results_<time>.json            every task's metrics with standard errors, n, versions, model
    samples_<task>_<time>.jsonl    one line an item and filter: document, prompt, responses, what the filter made of them

Keys and layout are those of lm-eval 0.4.13 (`SampleResult`, `EvalResults`). Nothing here imports it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from typing import Any

from workings.files import plain, to_json, write_atomic

VERSION = 1


@dataclass(frozen=True)
class LmEvalTask:
    """One task: its samples (from `sample`), how many documents there were before any limit, and the examples shown."""

    name: str
    output_type: str
    samples: Sequence[Mapping[str, Any]]
    n_original: int
    n_fewshot: int

    @property
    def n_effective(self) -> int:
        return len({sample["doc_id"] for sample in self.samples})


def sample(
    doc_id: int,
    doc: Mapping[str, Any],
    target: Any,
    arguments: Sequence[Sequence[Any]],
    responses: Sequence[Any],
    filter_name: str,
    metrics: Mapping[str, float],
    filtered: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """One line of a samples file. `arguments` and `responses` are per request; `filtered` is `responses` if not given."""
    return {
        "doc_id": doc_id,
        "doc": plain(doc),
        "target": str(target),
        "arguments": {f"gen_args_{i}": {f"arg_{j}": one for j, one in enumerate(a)} for i, a in enumerate(arguments)},
        "resps": [[_text(response)] for response in responses],
        "filtered_resps": [_text(response) for response in (responses if filtered is None else filtered)],
        "filter": filter_name,
        "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(plain(doc), indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(str(arguments[0][0])),
        "target_hash": _hash(str(target)),
        **metrics,
    }


def write(folder: Path, model: str, tasks: Sequence[LmEvalTask], about: Mapping[str, Any]) -> list[Path]:
    """The files of these tasks in `folder`; `about` are fields of "config" (limit, batch size, model digest)."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    written = []
    for task in tasks:
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in task.samples)
        written.append(write_atomic(folder / f"samples_{_safe(task.name)}_{stamp}.jsonl", lines))
    content = results(model, tasks, about)
    return [*written, write_atomic(folder / f"results_{stamp}.json", to_json(content))]


def results(model: str, tasks: Sequence[LmEvalTask], about: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a results file."""
    names = [task.name for task in tasks]
    return {
        "results": {task.name: _metrics(task) for task in tasks},
        "group_subtasks": {},
        "configs": {task.name: _config(task) for task in tasks},
        "versions": dict.fromkeys(names, VERSION),
        "n-shot": {task.name: task.n_fewshot for task in tasks},
        "higher_is_better": {task.name: dict.fromkeys(_metric_names(task), True) for task in tasks},
        "n-samples": {task.name: {"original": task.n_original, "effective": task.n_effective} for task in tasks},
        "config": {"model": "workings", "model_args": {"pretrained": model}, **about},
        "date": datetime.now(UTC).timestamp(),
        "model_source": "workings",
        "model_name": model,
        "model_name_sanitized": _safe(model),
        "system_instruction": None,
        "chat_template": None,
        "fewshot_as_multiturn": False,
        "task_hashes": {task.name: _task_hash(task) for task in tasks},
    }


def _metrics(task: LmEvalTask) -> dict[str, Any]:
    """`acc,none` and `acc_stderr,none` for each metric and filter."""
    found: dict[str, Any] = {"name": task.name, "alias": task.name, "sample_len": task.n_effective}
    values: dict[tuple[str, str], list[float]] = {}
    for one in task.samples:
        for name in one["metrics"]:
            values.setdefault((name, one["filter"]), []).append(float(one[name]))
    for (name, filter_name), numbers in values.items():
        found[f"{name},{filter_name}"] = sum(numbers) / len(numbers)
        found[f"{name}_stderr,{filter_name}"] = _standard_error(numbers)
    return found


def _standard_error(numbers: Sequence[float]) -> float | str:
    """Of the mean, with n − 1; lm-eval writes "N/A" for a single item."""
    n, mean = len(numbers), sum(numbers) / len(numbers)
    return sqrt(sum((x - mean) ** 2 for x in numbers) / (n - 1) / n) if n > 1 else "N/A"


def _config(task: LmEvalTask) -> dict[str, Any]:
    return {"task": task.name, "output_type": task.output_type, "num_fewshot": task.n_fewshot}


def _metric_names(task: LmEvalTask) -> list[str]:
    return sorted({name for one in task.samples for name in one["metrics"]})


def _task_hash(task: LmEvalTask) -> str:
    return _hash("".join(one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in task.samples))


def _text(response: Any) -> Any:
    """lm-eval writes a log-probability and its greediness as texts."""
    return [str(part) for part in response] if isinstance(response, tuple | list) else response


def _safe(name: str) -> str:
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
