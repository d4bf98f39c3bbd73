"""Does a language model learn to think in continuous vectors when its own written chain is its teacher?

CODI's self-distillation on any GPT-2- or Llama-family base, or from scratch: the student thinks and answers, the teacher reads
the written chain, both are the same weights, and their states at the token before the answer are drawn together. `workings codi
train` is this experiment; the arms are recipes (the released ones for GPT-2 and Llama-1B, and one for small models).

Measure: validation accuracy by thinking, beside the same model's accuracy when it writes the chain (the positive control), with
Wilson intervals. Stop rule: the number of epochs. Nothing is selected on validation; the last weights are the result.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workings.config import fixed, nuisance, scientific
from workings.errors import BadInput
from workings.run import Run
from workings.training.distillation import RECIPES, DistilConfig, distil, progress_line


@dataclass(frozen=True)
class Thinking:
    """What is added to the base; the fields of CodiConfig that a user sets."""

    n_thoughts: int = scientific(6, "number of continuous thoughts before the answer")
    recurrence: Literal["state", "constant"] = scientific(
        "state", "what each thought is computed from: the state before it, or a learned constant"
    )
    answer_sees: Literal["everything", "thoughts"] = scientific(
        "everything", "what the answer attends to: question and thoughts, or thoughts only"
    )
    projection: bool = fixed(True, "whether a state passes a projection before it becomes the next input")
    projection_width: int = fixed(0, "hidden width of the projection; 0: the width of the model")
    projection_norm: bool = fixed(True, "whether the projection ends in a layer norm")
    projection_dropout: float = fixed(0.0, "dropout probability before the projection")
    chain_style: Literal["marked", "stripped"] = fixed(
        "marked", "written chain of the teacher: steps as <<6*9=54>>, or without the marks"
    )
    keep_last_step: bool = fixed(False, "whether the teacher's written chain includes the last step")
    remove_eos: bool = fixed(True, "whether the end-of-text tokens after question and chain are left out")
    normalise_question: bool = fixed(
        True, "whether the question loses its outer spaces and its double spaces become single"
    )


@dataclass(frozen=True)
class Config:
    """Base, problems, recipe."""

    base: str | None = fixed(None, "language model to start from: a path, a .gguf file or a hub id")
    from_scratch: bool = fixed(False, "keep only the base's architecture and tokenizer, with random weights")
    problems: str = fixed("generated", "training problems: generated[:preset], a file, or a hub id")
    problem_split: str = fixed("train", "dataset split of the training problems, for hub data sets")
    validation: str | None = fixed(
        None, "validation problems; by default the last n_validation of the training problems"
    )
    n_validation: int = fixed(500, "number of validation problems")
    limit: int | None = fixed(None, "maximum number of training problems")
    thinking: Thinking = fixed(Thinking(), "recurrence and prompt of the model")
    training: DistilConfig = fixed(RECIPES["small"], "recipe of the training")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    seed: int = nuisance(0, "random seed for initial weights and order")


ARMS = {name: Config(training=recipe) for name, recipe in RECIPES.items()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"limit": 300, "n_validation": 20, "training": {"batch_size": 16, "micro_batch_size": 16}},
    "mini": {},
    "full": {},
}


def inputs(config: Config) -> dict[str, str | Path]:
    """Base and problems, by content where they are local."""
    if config.base is None:
        raise BadInput("no base: name the language model to train (--base path, .gguf file or hub id)")
    named = {"base": config.base, "problems": config.problems, "validation": config.validation}
    return {k: Path(v).expanduser() if Path(v).expanduser().exists() else v for k, v in named.items() if v is not None}


def run_arm(config: Config, run: Run) -> None:
    """Wrap, train, judge on validation, save."""
    from workings.judging.ablation import judge

    train, validation = _problems(config, run)
    model = _wrapped(config)
    training = replace(config.training, seed=config.seed)
    state = run.path / "checkpoint" / "state"
    print(_shown_example(train[0], model), flush=True)
    resume = (state / "training.pt").exists()
    distil(model, train, validation, training, state, run.log, resume=resume, progress=progress_line)
    half = len(validation) // 2
    outcomes = judge(model, validation[half:], validation[:half], config.seed, max_new_tokens=64)
    run.outcomes("answers", outcomes)
    of = {name: frame for (name,), frame in outcomes.group_by("condition")}
    accuracy = {name: int(frame["correct"].sum()) / len(frame) for name, frame in of.items()}
    run.results("headline", {"n": len(of["own"]), "thoughts": accuracy["own"], "written chain": accuracy["written"]})
    model.save(run.folder("checkpoint") / "model", _card(config, accuracy, len(of["own"])))
    shutil.rmtree(state)


def _problems(config: Config, run: Run) -> tuple[list[Any], list[Any]]:
    from workings.text.datasets import load_problems

    read = load_problems(config.problems, split=config.problem_split, limit=config.limit, seed=config.seed)
    problems = list({p.id: p for p in read.problems}.values())
    if config.validation is not None:
        held = load_problems(config.validation, limit=config.n_validation, seed=config.seed + 1).problems
    else:
        held, problems = problems[-config.n_validation :], problems[: -config.n_validation]
    ids = {p.id for p in held}
    train = [p for p in problems if p.id not in ids]
    if len(held) < 2 or not train:
        raise BadInput(f"{len(train)} training and {len(held)} validation problems are too few; give more problems")
    run.results("problems", {"malformed": list(map(str, read.malformed)), "train": len(train), "validation": len(held)})
    return train, held


def _wrapped(config: Config) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from workings import seeds
    from workings.models.checkpoint import load_base
    from workings.models.codi import CODI
    from workings.models.device import device_of

    base, tokenizer = load_base(config.base or "")
    if config.from_scratch:
        torch.manual_seed(seeds.derive("init", config.seed))
        base = AutoModelForCausalLM.from_config(base.config)
    fields = {name: getattr(config.thinking, name) for name in Thinking.__dataclass_fields__}
    fields["projection_width"] = fields["projection_width"] or base.config.hidden_size
    return CODI.wrap(base, tokenizer, seed=config.seed, **fields).to(device_of(config.device))


def _shown_example(problem: Any, model: Any) -> str:
    """One training example as the model will see it: the first thing to look at when a training goes wrong."""
    thoughts = " ".join(f"[t{k}]" for k in range(1, model.n_thoughts + 1))
    return (
        f"student: {problem.question} [bot] {thoughts} [eot] «The answer is: {problem.answer}»\n"
        f"teacher: {problem.question} «{model.chain_text(problem)} The answer is: {problem.answer}»   («…» is supervised)"
    )


def _card(config: Config, accuracy: dict[str, float], n: int) -> str:
    return (
        f"# CODI from {config.base}\n\nTrained by `workings codi train` on {config.problems}, seed {config.seed}.\n"
        f"Validation accuracy, n = {n}: {accuracy['own']:.1%} by thinking, {accuracy['written']:.1%} writing the chain.\n"
    )
