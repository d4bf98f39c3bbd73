"""Model × problems → ThoughtStore, a window of problems at a time: a window is one shard, and all of it fits in memory.

Batches are cut within a window, by length, and put back in order; a shard is whole on disk before the manifest lists it. So a
collection that was killed and run again writes the same bytes as one that was not (on one machine, with the same number of
threads). Only the problems' ids are kept throughout.
Shapes: P positions, L + 1 layers, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, Failed
from workings.models.anatomy import QUESTION
from workings.models.thinking import Answer, ThoughtModel
from workings.progress import Tracker, track
from workings.provenance import versions
from workings.reading.manifest import DTYPES, CollectionSettings, Failure, digest_of
from workings.reading.store import ThoughtStore
from workings.reading.writer import ThoughtWriter, columns_of


def collect(
    model: ThoughtModel,
    problems: Iterable[Problem],
    out: str | Path,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    batch_size: int = 64,
    n_thoughts: int | None = None,
    splits: Mapping[str, str] | None = None,
    shard_problems: int = 256,
    max_new_tokens: int = 32,
    max_failures: float = 0.05,
) -> ThoughtStore:
    """Think about every problem and store all hidden states; resume where an earlier call like this one stopped.

    Stored are the states at the opening token and at every thought, and the mean state over the question's own tokens.

    A problem that does not fit the context, gives a state that is not finite, or raises, is left out, listed and counted.

    Args:
        model: The model that thinks, or anything with the same methods.
        problems: May be a stream. A problem given twice is left out the second time.
        out: Folder of the store: new, empty, or of the same collection.
        dtype: Format of the stored states.
        batch_size: Problems thought about at once.
        n_thoughts: Thoughts per problem; as many as the model was trained with, by default.
        splits: {problem id: "train", "val" or "test"}, see `split_problems`; none, by default.
        shard_problems: Problems per shard.
        max_new_tokens: Longest answer, in tokens; 0 asks for no answers.
        max_failures: Largest share of problems that may be left out.

    Raises:
        BadInput: Where `out` holds other thoughts, or another process is writing there.
        Failed: Where too many problems fail, or the disk is full.

    >>> import tempfile
    >>> from workings.models import open_model
    >>> from workings.text.datasets import load_problems
    >>> problems = load_problems("generated", limit=4).problems
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = collect(open_model("bundled"), problems, folder, splits=dict.fromkeys([p.id for p in problems], "test"))
    ...     print(store.hidden("embed").shape, store.splits, store.failures)
    torch.Size([4, 8, 128]) ['test', 'test', 'test', 'test'] []
    """
    if dtype not in DTYPES:
        raise BadInput(f"hidden states cannot be stored as '{dtype}'; use {' or '.join(DTYPES)}")
    for name, value in (("batch_size", batch_size), ("shard_problems", shard_problems)):
        if value < 1:
            raise BadInput(f"{name} is {value}; it must be at least 1")
    if getattr(model, "official_compat", False) and shard_problems % batch_size:
        raise BadInput(
            f"with official_compat a state depends on its batch, and shards of {shard_problems} problems would cut batches of "
            f"{batch_size}; give a shard_problems that is a multiple"
        )
    settings = CollectionSettings(
        model=model.fingerprint,
        layers=tuple(model.layers),
        positions=(QUESTION, *model.positions(n_thoughts)),
        n_thoughts=model.n_thoughts if n_thoughts is None else n_thoughts,
        width=model.unembedding.weight.shape[1],
        dtype=dtype,
        batch_size=batch_size,
        shard_problems=shard_problems,
        max_new_tokens=max_new_tokens,
        splits=digest_of(f"{problem} {split}" for problem, split in sorted((splits or {}).items())),
        device=model.device.type,
        versions={name: versions().get(name) for name in ("torch", "transformers")},
    )
    with ThoughtWriter(Path(out), settings) as writer:
        _Collection(model, settings, writer, splits, max_failures).run(problems)
    return ThoughtStore.open(out)


@dataclass(frozen=True)
class _Thought:
    """One problem thought through: hidden [P, L + 1, d] as it is stored, and its columns of `PROBLEMS`."""

    hidden: Tensor
    columns: dict[str, Any]


class _Collection:
    def __init__(
        self,
        model: ThoughtModel,
        settings: CollectionSettings,
        writer: ThoughtWriter,
        splits: Mapping[str, str] | None,
        max_failures: float,
    ) -> None:
        self.model, self.settings, self.writer = model, settings, writer
        self.splits, self.max_failures = splits, max_failures
        self.in_order = getattr(model, "official_compat", False)
        self.seen: set[str] = set()

    def run(self, problems: Iterable[Problem]) -> None:
        remaining = iter(problems)
        windows = iter(lambda: list(islice(remaining, self.settings.shard_problems)), [])
        with track("collecting thoughts", len(problems) if isinstance(problems, Sized) else None) as tracker:
            for shard in self.writer.manifest.shards:  # written by an earlier call
                ids = [problem.id for problem in next(windows, [])]
                self.writer.check_same(shard, ids)
                self.seen.update(ids)
                tracker.advance(len(ids))
            for window in windows:
                if self.writer.is_complete:
                    raise BadInput(f"{self.writer.out} is finished, and more problems were given; use another folder")
                self._write(window, self._think(window, tracker))
                self._check_failures()
        if not self.seen:
            raise BadInput("there are no problems to think about: the list is empty")
        self.writer.finish()

    def _think(self, window: list[Problem], tracker: Tracker) -> dict[int, _Thought | str]:
        """The thought of each problem of a window, or why there is none.

        Batches hold questions of similar length, which need little padding; with `official_compat`, those given one after another.
        """
        found: dict[int, _Thought | str] = {}
        for at, problem in enumerate(window):
            if self.splits is not None and problem.id not in self.splits:
                raise BadInput(f"problem {problem.id} is in no split; give every problem one, or no splits at all")
            if reason := self._unusable(problem):
                found[at] = reason
            self.seen.add(problem.id)
        tracker.advance(len(found))
        waiting = sorted(set(range(len(window))) - set(found))
        if not self.in_order:
            waiting.sort(key=lambda at: -len(window[at].question))
        for start in range(0, len(waiting), self.settings.batch_size):
            batch = waiting[start : start + self.settings.batch_size]
            found |= dict(zip(batch, self._tried([window[at] for at in batch]), strict=True))
            tracker.advance(len(batch))
        return dict(sorted(found.items()))

    def _unusable(self, problem: Problem) -> str | None:
        if problem.id in self.seen:
            return "the same problem was given before"
        try:
            _ = problem.value
        except ValueError as error:
            return str(error)
        return None

    def _tried(self, batch: Sequence[Problem]) -> list[_Thought | str]:
        """The thought of each problem, or why there is none. A batch that raises is halved until it is one problem."""
        try:
            return self._thought_through(batch)
        except Exception as error:  # whatever one problem does to a model, the others are not lost
            if len(batch) > 1:
                half = len(batch) // 2
                return self._tried(batch[:half]) + self._tried(batch[half:])
            return [str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"]

    def _thought_through(self, batch: Sequence[Problem]) -> list[_Thought | str]:
        thoughts, answers = self.model.think_and_answer(
            [problem.question for problem in batch],
            n_thoughts=self.settings.n_thoughts,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=len(batch),
        )
        assert thoughts is not None
        head = self.model.unembedding
        with torch.no_grad():
            final = thoughts.hidden[:, :, -1].to(head.weight.device, head.weight.dtype)
            own_tokens = head(final, normed=True).argmax(-1).tolist()
        found: list[_Thought | str] = []
        hidden = torch.cat([thoughts.question[:, None], thoughts.hidden], 1).cpu().to(DTYPES[self.settings.dtype])
        for problem, h, answer, tokens in zip(batch, hidden, answers, own_tokens, strict=True):
            not_finite = (~h.isfinite()).any(-1).nonzero().tolist()
            if not_finite:
                place, layer = not_finite[0]
                where = f"{self.settings.layers[layer]}, {self.settings.positions[place]}"
                found.append(f"hidden state is not finite at {where}")
            else:
                found.append(_Thought(h, self._columns(problem, answer) | {"own_tokens": [None, *tokens]}))
        return found

    def _columns(self, problem: Problem, answer: Answer) -> dict[str, Any]:
        return columns_of(problem, self.splits) | {
            "model_answer": None if answer.value is None else str(answer.value),
            "model_text": answer.text,
            "correct": same_answer(answer.value, problem.value) if self.settings.max_new_tokens else None,
            "chain_ids": self.model.chain_ids(problem),
            "answer_ids": answer.token_ids,
        }

    def _write(self, window: list[Problem], found: dict[int, _Thought | str]) -> None:
        first, first_row = self.writer.manifest.n_problems, self.writer.manifest.n_rows
        rows, hidden, failures = [], [], []
        for at, one in found.items():
            if isinstance(one, str):
                failures.append(Failure(window[at].id, first + at, one))
            else:
                rows.append({"row": first_row + len(rows), "number": first + at, **one.columns})
                hidden.append(one.hidden)
        self.writer.write([problem.id for problem in window], hidden, rows, failures)

    def _check_failures(self) -> None:
        n, failures = self.writer.manifest.n_problems, self.writer.manifest.failures
        if len(failures) > self.max_failures * n:
            reasons = "; ".join(f"{failure.problem}: {failure.reason}" for failure in failures[:3])
            raise Failed(
                f"{len(failures)} of {n} problems failed, more than {self.max_failures:.0%} ({reasons}). "
                f"All are listed in {self.writer.out}/manifest.json; with a higher max_failures the collection goes on."
            )
