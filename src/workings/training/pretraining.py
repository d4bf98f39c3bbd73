"""Corpus → a GPT-2 trained on it: one loop, exact resume, one line of metrics for every logged step.

Which rows a step reads, and at what learning rate, are pure functions of seed and step; weights, optimizers, step and
random state are saved together, after the step's update. So a training that was killed goes on as if it had not been: bit for
bit on a CPU, and on a GPU as far as its kernels give the same sums twice.

Validation is in bits per byte of the raw text, which any two vocabularies have in common: Σ nats over documents / (ln 2 ·
Σ raw bytes), for each source and for all. How long documents are read is the convention of `bits_per_byte`.
"""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workings import seeds
from workings.config import leaves
from workings.errors import BadInput, Failed
from workings.files import sha256_of
from workings.models.device import device_of
from workings.models.gpt2 import GPT2
from workings.models.own import Language
from workings.training.budget import budget_of, peak_flops
from workings.training.feed import Feed
from workings.training.journal import Journal
from workings.training.measures import keep_model, samples, validation
from workings.training.parallel import World
from workings.training.recipes import PRESETS, PretrainConfig, rows_of, shape_of
from workings.training.stopping import asked_to_stop
from workings.training.trainer import trainer_of
from workings.training.watch import Band, Watch

if TYPE_CHECKING:
    from workings.models.language import LanguageModel
    from workings.text.corpus import Corpus
    from workings.text.tokenizer import Tokenizer

__all__ = ["PRESETS", "Evaluation", "Journal", "PretrainConfig", "pretrain", "tell_nobody"]

Log = Callable[..., None]
Evaluation = Callable[["LanguageModel", int], dict[str, Any]]


def pretrain(
    config: PretrainConfig,
    corpus: Corpus,
    folder: Path,
    log: Log,
    *,
    resume: bool = False,
    evaluations: Sequence[Evaluation] = (),
    seed: int = 0,
    where: World | None = None,
    start: GPT2 | None = None,
    journal: Journal | None = None,
    max_steps: int | None = None,
) -> GPT2:
    """Train and return the model (`start`: from these weights). `log(step, **metrics)` receives every measurement.

    `folder/state` holds the resume point; with `resume=True` training goes on exactly where that stands. `folder/step_002000` …
    are kept models. `max_steps` ends early without changing the schedule. Asked to stop (SIGTERM), it finishes the step, saves
    and exits with 143. BadInput where corpus and model do not fit; Failed where the loss leaves its band, the last good resume
    point kept.
    """
    loop = _Loop(
        config,
        corpus,
        folder,
        log,
        seed,
        where or World(0, 1, device_of("auto")),
        start,
        journal or Journal(),
        evaluations,
    )
    loop.begin(resume)
    loop.run(config.steps if max_steps is None else min(max_steps, config.steps))
    return loop.trainer.copy().eval()


def tell_nobody(step: int, **metrics: Any) -> None:
    """The log of every process but the first."""


class _Loop:
    """A trainer, and what is due after its steps."""

    def __init__(
        self,
        config: PretrainConfig,
        corpus: Corpus,
        folder: Path,
        log: Log,
        seed: int,
        where: World,
        start: GPT2 | None,
        journal: Journal,
        evaluations: Sequence[Evaluation],
    ) -> None:
        self.config, self.corpus, self.folder, self.seed, self.where = config, corpus, folder, seed, where
        self.log, self.journal = (log, journal) if where.writes else (tell_nobody, Journal())
        self.evaluations = evaluations
        model = _model(config, corpus.tokenizer, start, seed).to(where.device)
        self.rows = rows_of(config, corpus, model.config.block, where.size)
        self.budget = budget_of(model, self.rows, corpus.train, config)
        self.trainer = trainer_of(config, model, live_bias(corpus.tokenizer, model.config.vocab), where)
        band = Band(math.log(_n_live(corpus.tokenizer)) + config.loss_margin, config.loss_jump, config.warmup_steps)
        self.watch = Watch(band, self._last_good)
        self.meter = _Meter(self)

    # ── from where, and how far ──────────────────────────────────────────────────────────────────────────────────────

    def begin(self, resume: bool) -> None:
        """Untrained, or at the resume point; whatever was told about later steps is taken back."""
        if self.where.writes:
            for left in self.folder.glob(".*.partial"):  # a model that was being kept when the process was killed
                shutil.rmtree(left, ignore_errors=True)
        torch.manual_seed(seeds.derive("training", self.seed))
        if resume:
            self.watch.restore(self.trainer.restore(self.folder / "state", self._identity()))
        self.journal.rewind(self.trainer.step if resume else -1)
        self.feed = Feed(self.corpus, self.rows, self.where, self.seed, self.config.document_mask, self.trainer.step)
        if not resume:
            self._measure()

    def run(self, last: int) -> None:
        """Steps up to `last`, each with what is due after it."""
        with asked_to_stop() as stop, self._memory_in_words():
            self.meter.restart()
            while self.trainer.step < last:
                numbers = self.trainer.advance(self.feed, stop.asked)
                step = self.trainer.step
                self.watch.saw(step, numbers)
                self._after(step, last)

    @contextmanager
    def _memory_in_words(self) -> Generator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise Failed(
                f"the memory of {self.where.device_name} is full: start again with fewer than {self.rows.pass_rows} rows a "
                f"pass (pass_rows; more passes then make a step). {self._last_good()}"
            ) from error

    def _after(self, step: int, last: int) -> None:
        if self._due(self.config.log_every):
            self.meter.tell()
        self._measure()
        stopping = self.watch.stop and step < last
        if stopping or self._due(self.config.save_every) or step == last:
            self.save()
        if stopping:
            raise SystemExit(128 + signal.SIGTERM)

    def _due(self, every: int) -> bool:
        """Whether what happens every so many steps (0: never) happens now; the last step is never left out."""
        step = self.trainer.step
        return every > 0 and (step % every == 0 or step == self.config.steps)

    def _measure(self) -> None:
        """What the model is asked for now: validation, evaluations, samples, a kept copy. The meter's clock stands still."""
        config, step = self.config, self.trainer.step
        keep = config.keep_every > 0 and step > 0 and step % config.keep_every == 0
        asked = any(map(self._due, (config.validate_every, config.evaluate_every, config.sample_every)))
        if not (keep or asked or step == config.steps):
            return
        self.watch.settle()
        with self.meter.standing_still():
            model = self.trainer.copy()
            if not self.where.writes:
                return
            with torch.random.fork_rng(self.where.gpus), self.trainer.computing():
                self._judge(Language.of(model, self.corpus.tokenizer))
            if keep:
                keep_model(model, self.corpus.tokenizer, self.folder / f"step_{step:06d}")

    def _judge(self, language: LanguageModel) -> None:
        config, step = self.config, self.trainer.step
        if self._due(config.validate_every):
            self.log(step, **validation(language, self.corpus, config.validation_documents))
        for evaluation in self.evaluations if step == config.steps or self._due(config.evaluate_every) else ():
            self.log(step, **evaluation(language, step))
        if self._due(config.sample_every):
            for line in samples(language, config.sample_prompts, config.sample_tokens):
                self.journal.sample(step, **line)

    # ── what lasts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        """The resume point; only after the numbers of every step up to here were found sound."""
        self.watch.settle()
        self.trainer.save(self.folder / "state", self._identity(), self.watch.state())

    def _identity(self) -> dict[str, Any]:
        """What decides the weights: recipe, text, shape, seed. Not how many processes share the work, nor how."""
        about = {name: value for name, value in leaves(self.config).items() if name != "parallel"} | {"seed": self.seed}
        about |= {f"model.{name}": value for name, value in leaves(self.trainer.model.config).items()}
        return about | {"corpus": sha256_of(self.corpus.folder / "manifest.json")}

    def _last_good(self) -> str:
        path = self.folder / "state" / "training.pt"
        return f"the last good resume point is {path}" if path.exists() else "no resume point had been saved yet"


class _Meter:
    """Metrics of the steps since they were last told: means, speed, share of the device's peak."""

    def __init__(self, loop: _Loop) -> None:
        self.loop = loop
        self.peak = loop.config.peak_flops or peak_flops(loop.where.device_name, loop.config.precision)
        self.restart()

    def restart(self) -> None:
        """The clock begins now."""
        self.step, self.since, self.stood = self.loop.trainer.step, time.perf_counter(), 0.0

    @contextmanager
    def standing_still(self) -> Generator[None]:
        """What is done inside is not training."""
        began = time.perf_counter()
        yield
        self.stood += time.perf_counter() - began

    def tell(self) -> None:
        """One line of metrics."""
        loop, step = self.loop, self.loop.trainer.step
        means = loop.watch.means()  # reads the last step's numbers, so the device has finished it
        seconds = time.perf_counter() - self.since - self.stood
        tokens = loop.rows.tokens_before(step) - loop.rows.tokens_before(self.step)
        speed = tokens / seconds
        flops = speed * loop.budget.flops_per_token
        loop.log(
            step,
            **means,
            lr=loop.trainer.schedule.learning_rate(step - 1),
            tokens=loop.rows.tokens_before(step),
            tokens_per_second=round(speed, 1),
            mfu=round(flops / (self.peak * loop.where.size), 4) if self.peak else None,
        )
        loop.journal.spend(
            tokens=tokens, flops=tokens * loop.budget.flops_per_token, bytes=round(tokens * loop.budget.bytes_per_token)
        )
        loop.journal.progress(step, loop.config.steps, f"loss {means['loss']:.3f} {speed:,.0f} tokens/s")
        self.restart()


# ── what a training begins with ──────────────────────────────────────────────────────────────────────────────────────


def _model(config: PretrainConfig, tokenizer: Tokenizer, start: GPT2 | None, seed: int) -> GPT2:
    """A new model for the tokenizer, or the given one if it has a row for every id."""
    model = start or GPT2(shape_of(config, tokenizer)).init(seed)
    if model.config.vocab < tokenizer.width:
        raise BadInput(
            f"the corpus has ids up to {tokenizer.width - 1:,} and the model {model.config.vocab:,} rows: take a corpus "
            "of the model's own tokenizer, or a model of at least that many rows"
        )
    return model


def live_bias(tokenizer: Tokenizer, rows: int) -> Tensor:
    """What is added to the logits [rows]: 0 for ids that may be predicted, -inf for those that are out of the softmax."""
    bias = torch.full((rows,), -torch.inf)
    for ids in tokenizer.live:
        bias[ids.start : ids.stop] = 0.0
    return bias


def _n_live(tokenizer: Tokenizer) -> int:
    return sum(map(len, tokenizer.live))
