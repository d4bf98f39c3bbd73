"""Corpus → a GPT-2 trained on it: the passes of every step, the objective, and what is measured on the way.

Validation is in bits per byte of the raw text, which any two vocabularies have in common: Σ nats over documents / (ln 2 ·
Σ raw bytes), for each source and for all. How long documents are read is the convention of `bits_per_byte`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from workings import seeds
from workings.config import several
from workings.errors import BadInput
from workings.files import sha256_of
from workings.models.anatomy import device_of
from workings.models.checkpoint import save_gpt2
from workings.models.gpt2 import GPT2
from workings.models.language import GPT2LanguageModel
from workings.models.scoring import bits_per_byte, total_bits_per_byte
from workings.run import Run
from workings.training.budget import Budget, peak_flops, planned
from workings.training.loop import Log, LossLimits, Measurement, MicroBatch, Task, adamw_and_muon, autocast, fit, no_log
from workings.training.parallel import ProcessGroup, distributed
from workings.training.recipes import PretrainConfig, Rows, rows_of, shape_of
from workings.training.resuming import append_sample, cleared, identity_of

if TYPE_CHECKING:
    from workings.models.language import LanguageModel
    from workings.text.corpus import Corpus
    from workings.text.tokenizer import Tokenizer

Evaluation = Callable[["LanguageModel", int], Mapping[str, Any]]


def pretrain(
    config: PretrainConfig,
    corpus: Corpus,
    folder: Path,
    log: Log | None = None,
    *,
    seed: int = 0,
    start: GPT2 | None = None,
    evaluations: Sequence[Evaluation] = (),
    group: ProcessGroup | None = None,
    run: Run | None = None,
    resume: bool = False,
    max_steps: int | None = None,
) -> GPT2:
    """Train a GPT-2 on a corpus, and return it.

    Args:
        config: The recipe.
        corpus: What is read.
        folder: Gets the resume point (`state`) and the models that are kept (`step_002000`, …).
        log: Receives every measurement, as `log(step, **metrics)`; by default the run's, if there is a run.
        seed: Of initial weights and order.
        start: Go on from these weights instead of new ones.
        evaluations: Asked of the model every `evaluate_every` steps and after the last; what they return is logged.
        group: The processes that take part; by default this one alone.
        run: Gets samples and what was spent, and logs.
        resume: Go on exactly where the resume point stands.
        max_steps: End early without changing the schedule.

    Raises:
        BadInput: Corpus and model do not fit, or the resume point belongs to another training.
        Failed, SystemExit: See `fit`.
    """
    group = group or ProcessGroup(0, 1, device_of("auto"))
    if log is None:
        log = no_log if run is None else run.log
    model = _model(config, corpus.tokenizer, start, seed).to(group.device)
    rows = rows_of(config, corpus, model.config.block, group.size)
    guessing = math.log(sum(map(len, corpus.tokenizer.live)))  # nats, for a model that only knows which ids are live
    objective = LanguageModelling(model, live_bias(corpus.tokenizer, model.config.vocab).to(group.device))
    task = Task(
        model=model,
        objective=prepared(objective, config, group),
        optimizers=optimizers_of(model, config),
        micro_batches=lambda step: passes(corpus, rows, group, seed, config.document_mask, step),
        recipe=config,
        schedule=config.schedule,
        limits=LossLimits(guessing + config.loss_margin, config.loss_jump, config.warmup_steps),
        seed=seed,
        identity=identity_of(config, model.config, seed=seed, corpus=sha256_of(corpus.folder / "manifest.json")),
        throughput=_throughput(config, rows, planned(config, corpus, group.size, model.config), group, run),
        if_memory_is_full=f"fewer than {rows.pass_rows} rows a pass (pass_rows; more passes then make a step)",
        measurements=_measurements(config, corpus, folder, log, evaluations, group, run),
        whole_model=lambda: gathered(model, group),
    )
    torch.manual_seed(seeds.derive("training", seed))
    fit(task, folder, log, group, run=run, resume=resume, max_steps=max_steps)
    return gathered(model, group).eval()


# ── what is minimised ────────────────────────────────────────────────────────────────────────────────────────────────


class LanguageModelling(nn.Module):
    """The mean loss over the tokens of a pass, over live ids only. `live_bias` [vocab] is added to the logits."""

    def __init__(self, model: GPT2, live_bias: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.live_bias = live_bias

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None) -> dict[str, Tensor]:
        """Long [B, T] each → nats a token."""
        return {"loss": self.model.loss(inputs, targets, documents, self.live_bias)}


def live_bias(tokenizer: Tokenizer, rows: int) -> Tensor:
    """What is added to the logits [rows]: 0 for ids that may be predicted, -inf for those that are out of the softmax."""
    bias = torch.full((rows,), -torch.inf)
    for ids in tokenizer.live:
        bias[ids.start : ids.stop] = 0.0
    return bias


def prepared(objective: LanguageModelling, config: PretrainConfig, group: ProcessGroup) -> nn.Module:
    """The objective as the recipe wants it computed: compiled, copied or sharded. Before optimizers are made."""
    blocks = list(objective.model.h)
    if config.compile:
        for module in blocks if group.size > 1 and config.parallel == "fsdp" else [objective]:
            module.compile()
    return distributed(objective, blocks, config.parallel, group)


def optimizers_of(model: GPT2, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW, with Muon for the matrices of the blocks if asked."""
    matrices = [p for block in model.h for p in block.parameters() if p.ndim == 2]
    return adamw_and_muon(
        list(model.decayed().values()),
        list(model.not_decayed().values()),
        matrices,
        config,
    )


def passes(
    corpus: Corpus, rows: Rows, group: ProcessGroup, seed: int, documents: bool, step: int
) -> Iterator[list[MicroBatch]]:
    """This process's passes of each step from `step` on: inputs, targets and documents, Long [B, T] each (or None).

    The rows are those that `Corpus.batches` gives to (seed, number of the row), the same whichever step is asked for first.
    """
    # Full passes are read whole; where steps differ in size, row by row.
    granule = rows.pass_rows if rows.even else 1
    batches = corpus.batches(
        seed,
        rows=granule,
        length=rows.length,
        rank=group.rank,
        world=group.size,
        start=rows.before(step) // granule,
    )
    while True:
        sizes, found = rows.passes(step), []
        for size in sizes:
            read = [next(batches) for _ in range(size // granule)]
            inputs, targets = (_tensor([getattr(b, name) for b in read], group) for name in ("inputs", "targets"))
            of_documents = _tensor([b.documents for b in read], group) if documents else None
            found.append(MicroBatch((inputs, targets, of_documents), size / sum(sizes)))
        yield found
        step += 1


def _tensor(parts: list[np.ndarray], group: ProcessGroup) -> Tensor:
    tensor = torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
    if group.kind == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(group.device, non_blocking=True)


def _model(config: PretrainConfig, tokenizer: Tokenizer, start: GPT2 | None, seed: int) -> GPT2:
    """A new model for the tokenizer, or the given one if it has a row for every id."""
    model = start or GPT2(shape_of(config, tokenizer)).init(seed)
    if model.config.vocab < tokenizer.width:
        raise BadInput(
            f"the corpus has ids up to {tokenizer.width - 1:,} and the model {model.config.vocab:,} rows: take a corpus "
            "of the model's own tokenizer, or a model of at least that many rows"
        )
    return model


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


def _throughput(
    config: PretrainConfig, rows: Rows, budget: Budget, group: ProcessGroup, run: Run | None
) -> Callable[[int, int, float], dict[str, float | None]]:
    """Steps and seconds → tokens read, their speed, and the share of the device's peak (MFU); the run counts what was spent."""
    peak = config.peak_flops or peak_flops(group.device_name, config.precision)

    def throughput(first: int, last: int, seconds: float) -> dict[str, float | None]:
        tokens = rows.tokens_before(last) - rows.tokens_before(first)
        flops = tokens * budget.flops_per_token
        if run is not None:
            run.spend(tokens=tokens, flops=flops, bytes=round(tokens * budget.bytes_per_token))
        return {
            "tokens": rows.tokens_before(last),
            "tokens_per_second": round(tokens / seconds, 1),
            "mfu": round(flops / seconds / (peak * group.size), 4) if peak else None,
        }

    return throughput


def _measurements(
    config: PretrainConfig,
    corpus: Corpus,
    folder: Path,
    log: Log,
    evaluations: Sequence[Evaluation],
    group: ProcessGroup,
    run: Run | None,
) -> list[Measurement[GPT2]]:
    """The measurements of the recipe: validation, evaluations, samples, kept models."""

    def of_language(measure: Callable[[LanguageModel, int], None]) -> Callable[[GPT2, int], None]:
        def measured(model: GPT2, step: int) -> None:
            with autocast(config.precision, group):
                measure(GPT2LanguageModel.of(model, corpus.tokenizer), step)

        return measured

    def validate(language: LanguageModel, step: int) -> None:
        log(step, **validation(language, corpus, config.validation_documents))

    def evaluate(language: LanguageModel, step: int) -> None:
        for evaluation in evaluations:
            log(step, **evaluation(language, step))

    def sample(language: LanguageModel, step: int) -> None:
        if run is not None:
            for text in samples(language, config.sample_prompts, config.sample_tokens):
                append_sample(run, step, **text)

    def keep(model: GPT2, step: int) -> None:
        save_gpt2(model, corpus.tokenizer, cleared(folder / f"step_{step:06d}"))

    return [
        Measurement(of_language(validate), config.validate_every, at_start=True, at_end=config.validate_every > 0),
        Measurement(of_language(evaluate), config.evaluate_every, at_start=True),
        Measurement(of_language(sample), config.sample_every, at_start=True, at_end=config.sample_every > 0),
        Measurement(keep, config.keep_every, at_end=False),
    ]


def validation(language: LanguageModel, corpus: Corpus, limit: int) -> dict[str, float]:
    """Bits per byte of the first `limit` validation documents of each source, and of all; `validation_loss` in nats a token."""
    documents = corpus.first_validation(limit)
    if not documents:
        return {}
    read = bits_per_byte(language, documents)
    by_source = read.group_by("source", maintain_order=True)
    return {
        "bits_per_byte": total_bits_per_byte(read),
        **{f"bits_per_byte.{name}": total_bits_per_byte(part) for (name,), part in by_source},
        "validation_loss": float(read["nats"].sum()) / int(read["tokens"].sum()),
        "n_validation": len(read),
    }


def samples(language: LanguageModel, prompts: str | Sequence[str], n_tokens: int) -> list[dict[str, Any]]:
    """Greedy continuations, so that two steps, or two arms, can be laid side by side; no longer than half the positions."""
    prompts = several(prompts)
    ids = [language.encode(language.prepare(prompt)) for prompt in prompts]
    written = language.generate(ids, min(n_tokens, max(1, language.context_length // 2)))
    return [{"prompt": p, "text": g.text, "ended": g.ended} for p, g in zip(prompts, written, strict=True)]


def gathered(model: GPT2, group: ProcessGroup) -> GPT2:
    """The model as one process has it: the model itself, or a gathered copy of its shards. Every process must call it."""
    if not any(isinstance(p, DTensor) for p in model.parameters()):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    found = GPT2(model.config)
    if group.writes:
        found.load_state_dict(weights)
    return found.to(group.device)
