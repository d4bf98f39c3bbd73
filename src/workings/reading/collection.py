"""checkpoint × problems → ThoughtStore, a window of problems at a time: a window is one shard, and all of it in memory.

Batches are cut within a window, by length, and put back in order; so a collection that was killed and run again writes
the same bytes as one that was not (on one machine, with the same number of threads). Kept throughout are only the ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from workings.arithmetic.answers import same_answer
from workings.arithmetic.chain import write_chain
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, Failed
from workings.reading.store import DTYPES, ThoughtStore
from workings.reading.writer import ThoughtWriter, digest_of
from workings.run import versions

Dtype = Literal["float32", "bfloat16"]


class ThinkingModel(Protocol):
    """What is asked of a model: that it thinks. `workings.models.thinking.ThoughtModel` is one."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def unembedding(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def n_thoughts(self) -> int: ...
    def positions(self, n_thoughts: int | None = None) -> tuple[str, ...]: ...
    def chain_ids(self, problem: Problem) -> list[int]: ...
    def think_and_answer(
        self, questions: Sequence[str], *, n_thoughts: int | None, max_new_tokens: int, batch_size: int
    ) -> tuple[Any, list[Any]]: ...


@dataclass(frozen=True)
class Thought:
    """One problem thought through: hidden [P, L+1, d] as it is stored, and the model's answer."""

    hidden: Tensor
    answer: Any
    chain_ids: list[int]
    own_tokens: list[int]


def collect(
    model: ThinkingModel,
    problems: Iterable[Problem],
    out: str | Path,
    *,
    dtype: Dtype = "float32",
    batch_size: int = 64,
    n_thoughts: int | None = None,
    splits: Mapping[str, str] | None = None,
    shard_problems: int = 256,
    max_new_tokens: int = 32,
    max_failures: float = 0.05,
    progress: bool = True,
) -> ThoughtStore:
    """Think about every problem and store all hidden states; goes on where an earlier call like this one stopped.

    A problem that does not fit the context, gives a state that is not finite, or raises, is left out, listed and
    counted; more than the share `max_failures` of such is Failed. `splits` is {problem id: split}; `max_new_tokens=0`
    asks for no answers. BadInput if `out` holds other thoughts, or another process is collecting there.
    """
    settings = {
        "model": model.fingerprint,
        "layers": list(model.layers),
        "positions": list(model.positions(n_thoughts)),
        "n_thoughts": model.n_thoughts if n_thoughts is None else n_thoughts,
        "width": model.unembedding.weight.shape[1],
        "dtype": dtype,
        "batch_size": batch_size,
        "shard_problems": shard_problems,
        "max_new_tokens": max_new_tokens,
        "splits": digest_of(f"{problem} {split}" for problem, split in sorted((splits or {}).items())),
        "device": model.device.type,
        "versions": {name: versions().get(name) for name in ("torch", "transformers")},
    }
    _check(settings)
    with ThoughtWriter(Path(out), settings) as writer:
        _Collection(model, writer, splits, max_failures).run(problems, progress)
    return ThoughtStore.open(out)


def _check(settings: Mapping[str, Any]) -> None:
    if settings["dtype"] not in DTYPES:
        raise BadInput(f"hidden states cannot be stored as '{settings['dtype']}'; use {' or '.join(DTYPES)}")
    for name in ("batch_size", "shard_problems"):
        if settings[name] < 1:
            raise BadInput(f"{name} is {settings[name]}; it must be at least 1")


class _Collection:
    def __init__(
        self, model: ThinkingModel, writer: ThoughtWriter, splits: Mapping[str, str] | None, max_failures: float
    ) -> None:
        self.model, self.writer, self.splits, self.max_failures = model, writer, splits, max_failures
        self.settings = writer.settings
        self.seen: set[str] = set()

    def run(self, problems: Iterable[Problem], progress: bool) -> None:
        windows = _windows(problems, self.settings["shard_problems"])
        with _bar(len(problems) if isinstance(problems, Sized) else None, progress) as advance:
            self._skip_written(windows, advance)
            for window in windows:
                if self.writer.is_complete:
                    raise BadInput(f"{self.writer.out} is finished, and more problems were given; use another folder")
                self._window(window, advance)
        if not self.seen:
            raise BadInput("there are no problems to think about: the list is empty")
        self.writer.drop_parts() if self.writer.is_complete else self.writer.finish()

    def _skip_written(self, windows: Iterator[list[Problem]], advance: Callable[[int], None]) -> None:
        for shard in self.writer.manifest["shards"]:
            ids = [problem.id for problem in next(windows, [])]
            self.writer.check_same(shard, ids)
            self.seen.update(ids)
            advance(len(ids))

    def _window(self, window: list[Problem], advance: Callable[[int], None]) -> None:
        manifest = self.writer.manifest
        fates: dict[int, Thought | str] = {}
        for at, problem in enumerate(window):
            if reason := self._unusable(problem):
                fates[at] = reason
            self.seen.add(problem.id)
        splits = [self._split(problem) for problem in window]
        self._think(window, fates, advance)
        thoughts = {at: fate for at, fate in sorted(fates.items()) if isinstance(fate, Thought)}
        reasons = {at: fate for at, fate in sorted(fates.items()) if isinstance(fate, str)}
        first = manifest["n_problems"]
        failures = [{"problem": window[at].id, "number": first + at, "reason": why} for at, why in reasons.items()]
        rows = [
            {"row": row, "number": first + at, "split": splits[at], **self._about(window[at], thought)}
            for row, (at, thought) in enumerate(thoughts.items(), start=manifest["n_rows"])
        ]
        tensors = self._tensors([thought.hidden for thought in thoughts.values()])
        self.writer.write([problem.id for problem in window], tensors, rows, failures)
        self._check_failures()

    def _unusable(self, problem: Problem) -> str | None:
        if problem.id in self.seen:
            return "the same problem was given before"
        try:
            _ = problem.value
        except ValueError as error:
            return str(error)
        return None

    def _split(self, problem: Problem) -> str:
        if self.splits is None:
            return ""
        if problem.id not in self.splits:
            raise BadInput(f"problem {problem.id} is in no split; give every problem one, or no splits at all")
        return self.splits[problem.id]

    # ── thinking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _think(self, window: list[Problem], fates: dict[int, Thought | str], advance: Callable[[int], None]) -> None:
        """Fill `fates` for every place in the window that has none yet, in batches of like length (little padding)."""
        advance(len(fates))
        waiting = sorted(set(range(len(window))) - set(fates), key=lambda at: (-len(window[at].question), at))
        for start in range(0, len(waiting), self.settings["batch_size"]):
            batch = waiting[start : start + self.settings["batch_size"]]
            fates |= dict(zip(batch, self._fates([window[at] for at in batch]), strict=True))
            advance(len(batch))

    def _fates(self, batch: Sequence[Problem]) -> list[Thought | str]:
        """The thought of each problem, or why there is none. A batch that raises is halved until it is one problem."""
        try:
            return self._batch(batch)
        except Exception as error:  # whatever one problem does to a model, the others are not lost
            if len(batch) > 1:
                half = len(batch) // 2
                return self._fates(batch[:half]) + self._fates(batch[half:])
            return [str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"]

    def _batch(self, batch: Sequence[Problem]) -> list[Thought | str]:
        thoughts, answers = self.model.think_and_answer(
            [problem.question for problem in batch],
            n_thoughts=self.settings["n_thoughts"],
            max_new_tokens=self.settings["max_new_tokens"],
            batch_size=len(batch),
        )
        head = self.model.unembedding
        with torch.no_grad():
            final = thoughts.hidden[:, :, -1].to(head.weight.device, head.weight.dtype)
            own = head(final, normed=True).argmax(-1).tolist()
        chains = [self.model.chain_ids(problem) for problem in batch]
        hidden = thoughts.hidden.cpu().to(DTYPES[self.settings["dtype"]])
        return [
            self._not_finite(h) or Thought(h, answer, chain, tokens)
            for h, answer, chain, tokens in zip(hidden, answers, chains, own, strict=True)
        ]

    def _not_finite(self, hidden: Tensor) -> str | None:
        """Where a state [P, L+1, d] is not finite, in words."""
        bad = (~hidden.isfinite()).any(-1).nonzero()
        if len(bad) == 0:
            return None
        place, layer = bad[0].tolist()
        return f"hidden state is not finite at {self.settings['layers'][layer]}, {self.settings['positions'][place]}"

    # ── what is written of it ────────────────────────────────────────────────────────────────────────────────────────

    def _tensors(self, hidden: Sequence[Tensor]) -> dict[str, Tensor]:
        """{layer: [rows, P, d]}."""
        shape = (0, len(self.settings["positions"]), self.settings["width"])
        empty = torch.empty(shape, dtype=DTYPES[self.settings["dtype"]])
        return {
            layer: torch.stack([h[:, i] for h in hidden]) if hidden else empty.clone()
            for i, layer in enumerate(self.settings["layers"])
        }

    def _about(self, problem: Problem, thought: Thought) -> dict[str, Any]:
        value = thought.answer.value
        return {
            "problem": problem.id,
            "question": problem.question,
            "gold": problem.answer,
            "model_answer": None if value is None else str(value),
            "model_text": thought.answer.text,
            "correct": same_answer(value, problem.value) if self.settings["max_new_tokens"] else None,
            "chain": write_chain(problem.steps),
            "n_steps": problem.n_steps,
            "source": problem.source,
            "chain_ids": thought.chain_ids,
            "answer_ids": thought.answer.token_ids,
            "own_tokens": thought.own_tokens,
        }

    def _check_failures(self) -> None:
        n, failures = self.writer.manifest["n_problems"], self.writer.manifest["failures"]
        if len(failures) > self.max_failures * n:
            reasons = "; ".join(f"{failure['problem']}: {failure['reason']}" for failure in failures[:3])
            raise Failed(
                f"{len(failures)} of {n} problems failed, more than {self.max_failures:.0%} ({reasons}). "
                f"All are listed in {self.writer.out}/manifest.json; with a higher max_failures the collection goes on."
            )


def _windows(problems: Iterable[Problem], size: int) -> Iterator[list[Problem]]:
    remaining = iter(problems)
    while window := list(itertools.islice(remaining, size)):
        yield window


@contextmanager
def _bar(total: int | None, shown: bool) -> Generator[Callable[[int], None]]:
    columns = (TextColumn("thinking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as progress:
        task = progress.add_task("thinking", total=total)
        yield lambda n: progress.advance(task, n)
