"""Problems × base → a trained CODI, by self-distillation: the batches of every step, and what is measured on the way.

Losses are those of `objectives`; docs/decisions/0003 says where this departs from the official code. Under torchrun every
process has an equal part of each batch, and with parts of a micro-batch's size the training is that of one process.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from workings import seeds
from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.anatomy import anatomy_of
from workings.models.codi import CODI
from workings.run import Run
from workings.training.loop import Log, LossLimits, Measurement, MicroBatch, Task, adamw_and_muon, fit, no_log
from workings.training.objectives import Example, SelfDistillation, examples_of, pad
from workings.training.parallel import ProcessGroup, distributed
from workings.training.recipes import DistilConfig
from workings.training.resuming import identity_of


def distil(
    model: CODI,
    train: Iterable[Problem],
    validation: Sequence[Problem],
    config: DistilConfig,
    folder: Path,
    log: Log | None = None,
    *,
    group: ProcessGroup | None = None,
    run: Run | None = None,
    resume: bool = False,
    max_steps: int | None = None,
) -> CODI:
    """Train `model` in place and return it, LoRA merged.

    Args:
        model: A CODI on the device that it is to be trained on.
        train: Problems; those too long for the recipe are left out, and counted.
        validation: Problems for the accuracies that are logged on the way; there may be none.
        config: The recipe.
        folder: Gets the resume point (`state`).
        log: Receives every measurement, as `log(step, **metrics)`; by default the run's, if there is a run.
        group: The processes that take part; by default this one alone.
        run: Counts the tokens spent, and logs.
        resume: Go on exactly where the resume point stands.
        max_steps: End early without changing the schedule.

    Raises:
        BadInput: Too few examples, or the resume point belongs to another training.
        Failed, SystemExit: See `fit`.
    """
    group = group or ProcessGroup(0, 1, str(model.device))
    if log is None:
        log = no_log if run is None else run.log
    examples, counts = _examples(train, model, config)
    _refuse_unequal_parts(config, group)
    order = BatchOrder(examples, config.batch_size, config.seed, config.length_window)
    schedule = config.schedule(len(examples))
    torch.manual_seed(seeds.derive("training", config.seed))
    if config.lora_rank:
        add_lora(model, config)

    def validate(model: CODI, step: int) -> None:
        log(step, **accuracies(model, validation[: config.validation_problems]))

    guessing = math.log(model.base.get_output_embeddings().weight.shape[0])
    task = Task(
        model=model,
        objective=distributed(SelfDistillation(model, config), (), "ddp", group),
        optimizers=_optimizers(model, config),
        micro_batches=lambda step: _micro_batches(order, group, config.micro_batch_size, model, step),
        recipe=config,
        schedule=schedule,
        # The student's cross-entropy, for it has weight 1 in every recipe and a level of guessing.
        limits=LossLimits(guessing + config.loss_margin, config.loss_jump, schedule.warmup_steps, term="student"),
        seed=config.seed,
        identity=identity_of(config, model.config, examples=_digest(examples)),
        throughput=_throughput(order, run),
        if_memory_is_full=f"a micro_batch_size below {config.micro_batch_size}",
        measurements=[Measurement(validate, config.validate_every)] if validation else [],
        about={"examples": len(examples)} | counts,
    )
    fit(task, folder, log, group, run=run, resume=resume, max_steps=max_steps)
    merge_lora(model)
    return model.eval()


# ── what is minimised, and over which parameters ─────────────────────────────────────────────────────────────────────


def _optimizers(model: CODI, config: DistilConfig) -> list[torch.optim.Optimizer]:
    """AdamW, with Muon for the blocks' and the projection's matrices if asked. Norms, biases and vectors are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    tables = {id(model.base.get_input_embeddings().weight), id(model.base.get_output_embeddings().weight)}
    return adamw_and_muon(
        [p for p in parameters if p.ndim >= 2],
        [p for p in parameters if p.ndim < 2],
        [p for p in parameters if p.ndim == 2 and id(p) not in tables],
        config,
    )


def add_lora(model: CODI, config: DistilConfig) -> None:
    """LoRA on every linear map of the blocks, in place. The base is frozen, embedding rows too; the projection is trained."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(anatomy_of(model.base.config).lora_targets)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # ty: ignore[invalid-argument-type]  (a float works, and is what papers print)
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=model.base.config.model_type == "gpt2",
    )
    for parameter in model.base.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(lora, model.base, adapter_name="default")


def merge_lora(model: CODI) -> None:
    """Fold LoRA factors into the weights and take the adapter layers out again.

    The model keeps the factors apart too, and their alpha in its config, so that they can be taken out of the weights again.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            model.config = replace(model.config, lora_alpha=float(module.lora_alpha["default"]))
            for factor in ("lora_A", "lora_B"):
                weight = getattr(module, factor)["default"].weight
                model.adapters[f"base.{name}.{factor}"] = weight.detach().cpu().clone()
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.base.get_submodule(parent), child, module.get_base_layer())


# ── what is trained where there is no base ───────────────────────────────────────────────────────────────────────────


def new_base(tokenizer: PreTrainedTokenizerFast, n_layers: int, width: int, n_heads: int, seed: int) -> GPT2LMHeadModel:
    """A GPT-2 of transformers with random weights, 256 positions and no dropout, for the ids of a tokenizer."""
    torch.manual_seed(seeds.derive("init", seed))
    base = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=width, n_layer=n_layers, n_head=n_heads, n_positions=256,
            activation_function="gelu_pytorch_tanh", embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
        )
    )  # fmt: skip
    base.set_attn_implementation("eager")  # on a CPU twice as fast as sdpa at this size (LOG 2026-11-21)
    return base


def embedded_base(seed: int) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A new GPT-2 of two blocks with the embedded byte-level BPE, which reads any problems."""
    file = resources.files("workings") / "bundled" / "bpe" / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|endoftext|>")
    return new_base(tokenizer, n_layers=2, width=64, n_heads=4, seed=seed), tokenizer


def reinitialised(base: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the same architecture with new random weights."""
    torch.manual_seed(seeds.derive("init", seed))
    return AutoModelForCausalLM.from_config(base.config, trust_remote_code=False)


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────────


class BatchOrder:
    """Step → the examples of its batch: a pure function of seed and step, so that a resumed run sees what it would have seen.

    An epoch is a permutation of the examples, cut into batches, of which the last is short where they do not divide. With a
    `length_window` of w, examples are sorted by length within w batches, so that little is padding, and the batches are
    shuffled again.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int, length_window: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.length_window = length_window
        self._epoch = lru_cache(2)(self._batches_of)  # two, for the log looks back

    def batch(self, step: int) -> list[Example]:
        """The examples of the global batch of `step`, counted from 0."""
        epoch, at = divmod(step, math.ceil(len(self.examples) / self.batch_size))
        return [self.examples[i] for i in self._epoch(epoch)[at]]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        random = seeds.python(f"order/{epoch}", self.seed)
        order = list(range(len(self.examples)))
        random.shuffle(order)
        size, window = self.batch_size, self.length_window * self.batch_size
        for i in range(0, len(order), window) if window else ():
            order[i : i + window] = sorted(order[i : i + window], key=lambda j: self.examples[j].n_tokens)
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        if window:
            random.shuffle(batches)
        return batches


def _examples(train: Iterable[Problem], model: CODI, config: DistilConfig) -> tuple[list[Example], dict[str, int]]:
    """The examples to train on, how many were left out for each reason, and how many have no chain for the teacher.

    BadInput where there are fewer than one batch.
    """
    limit = min(config.max_tokens, model.context_length - model.n_thoughts - len(model.closing()))
    counts = {"left_out_too_long": 0, "left_out_other_answers": 0}
    kept = []

    def answerable() -> Iterator[Problem]:
        for problem in train:
            if config.digit_answers_only and not problem.answer[:1].isdigit():
                counts["left_out_other_answers"] += 1
            else:
                yield problem

    for example in examples_of(answerable(), model, raw_questions=config.raw_questions):
        if example.n_tokens <= limit:
            kept.append(example)
        else:
            counts["left_out_too_long"] += 1
    if len(kept) < config.batch_size:
        raise BadInput(
            f"{len(kept)} training examples of at most {limit} tokens are fewer than one batch of {config.batch_size}; "
            "give more problems, a smaller batch_size or a larger max_tokens"
        )
    return kept, counts | {"without_chain": sum(not example.chain for example in kept)}


def _refuse_unequal_parts(config: DistilConfig, group: ProcessGroup) -> None:
    if config.batch_size % group.size:
        raise BadInput(
            f"batch_size = {config.batch_size} cannot be shared equally by {group.size} processes; take a multiple of {group.size}"
        )


def _micro_batches(
    order: BatchOrder, group: ProcessGroup, size: int, model: CODI, step: int
) -> Iterator[list[MicroBatch]]:
    """This process's part of the batches from `step` on; each example weighs the same, on whichever process it is.

    Parts are equal except in the short batch at an epoch's end. A process that gets nothing of it computes an example of
    weight 0, because the others wait for its gradients.
    """
    while True:
        batch = order.batch(step)
        part = batch[group.rank * len(batch) // group.size : (group.rank + 1) * len(batch) // group.size]
        cut = [part[i : i + size] for i in range(0, len(part), size)]
        # Gradients become means over the processes, so that the shares of all together sum to their number.
        shares = [len(some) * group.size / len(batch) for some in cut]
        if not part:
            cut, shares = [batch[:1]], [0.0]
        yield [MicroBatch((pad(some, model),), share) for some, share in zip(cut, shares, strict=True)]
        step += 1


def _digest(examples: Sequence[Example]) -> str:
    sha = hashlib.sha256()
    for example in examples:
        for ids in (example.question, example.chain, example.answer):
            sha.update(ids)
    return sha.hexdigest()


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


def _throughput(order: BatchOrder, run: Run | None) -> Callable[[int, int, float], dict[str, float | None]]:
    """Steps and seconds → examples a second; the run counts the tokens that were read."""

    def throughput(first: int, last: int, seconds: float) -> dict[str, float | None]:
        batches = [order.batch(step) for step in range(first, last)]
        if run is not None:
            run.spend(tokens=sum(e.n_tokens for batch in batches for e in batch))
        return {"examples_per_second": sum(map(len, batches)) / seconds}

    return throughput


def accuracies(model: CODI, problems: Sequence[Problem], batch_size: int = 256) -> dict[str, float]:
    """Share right by thinking and by writing the chain, and by thinking for each number of steps; `n` problems."""
    questions = [p.question for p in problems]
    right = [
        same_answer(a.value, p.value)
        for a, p in zip(model.answer(questions, batch_size=batch_size), problems, strict=True)
    ]
    longest = max(len(model.chain_ids(p)) for p in problems) + 16
    written = model.write_and_answer(questions, max_new_tokens=longest, batch_size=batch_size)
    by_steps = {
        f"thoughts_{s}_steps": _share([r for r, p in zip(right, problems, strict=True) if p.n_steps == s])
        for s in sorted({p.n_steps for p in problems})
    }
    chain = _share([same_answer(a.value, p.value) for a, p in zip(written, problems, strict=True)])
    return {"n_validation": len(problems), "thoughts": _share(right), "written_chain": chain} | by_steps


def _share(right: Sequence[bool]) -> float:
    return sum(right) / max(1, len(right))
