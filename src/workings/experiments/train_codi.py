"""Does a language model learn to think in continuous vectors when its own written chain is its teacher?

CODI's self-distillation on any GPT-2- or Llama-family base, or from scratch: the student thinks and answers, the teacher reads
the written chain, both are the same weights, and their states at the token before the answer are drawn together. `workings codi
train` is this experiment; the arms are recipes (the released ones for GPT-2 and Llama-1B, and one for small models).

Measure: validation accuracy by thinking, beside the same model's accuracy when it writes the chain (the positive control), with
Wilson intervals. Stop rule: the number of epochs. Nothing is selected on validation; the last weights are the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from workings import judging, models, training
from workings.arithmetic.fields import FIELDS_HELP
from workings.arithmetic.problems import ChainCounts, Malformed, Problem, ProblemFile
from workings.config import check_ranges, fixed, nuisance, scientific
from workings.errors import BadInput
from workings.run import Run
from workings.text.datasets import announce, load_problems
from workings.training.recipes import DISTIL_PRESETS, DistilConfig

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Thinking:
    """What is added to the base; the fields of CodiConfig that a user sets."""

    n_thoughts: int = scientific(6, "number of continuous thoughts before the answer", at_least=1)
    recurrence: Literal["state", "constant"] = scientific(
        "state", "what each thought is computed from: the state before it, or a learned constant"
    )
    answer_sees: Literal["everything", "thoughts"] = scientific(
        "everything", "what the answer attends to: question and thoughts, or thoughts only"
    )
    projection: bool = fixed(True, "whether a state passes a projection before it becomes the next input")
    projection_width: int = fixed(0, "hidden width of the projection; 0: the width of the model", at_least=0)
    projection_norm: bool = fixed(True, "whether the projection ends in a layer norm")
    projection_dropout: float = fixed(0.0, "dropout probability before the projection", at_least=0, below=1)
    chain_style: Literal["marked", "stripped"] = fixed(
        "marked", "written chain of the teacher: steps as <<6*9=54>>, or without the marks"
    )
    keep_last_step: bool = fixed(False, "whether the teacher's written chain includes the last step")
    remove_eos: bool = fixed(True, "whether the end-of-text tokens after question and chain are left out")
    normalise_question: bool = fixed(
        True, "whether the question loses its outer spaces and its double spaces become single"
    )

    __post_init__ = check_ranges


@dataclass(frozen=True)
class Config:
    """Base, problems, recipe."""

    base: str | None = fixed(
        None, "language model to start from: a path, a .gguf file or a hub id; embedded: a new, small GPT-2"
    )
    from_scratch: bool = fixed(False, "keep only the base's architecture and tokenizer, with random weights")
    problems: str = fixed("generated", "training problems: generated[:preset], a file, or a hub id")
    problem_split: str = fixed("train", "dataset split of the training problems, for hub data sets")
    validation: str | None = fixed(
        None, "validation problems; by default the last n_validation of the training problems"
    )
    n_validation: int = fixed(500, "number of validation problems", at_least=1)
    limit: int | None = fixed(None, "maximum number of training problems", at_least=1)
    fields: tuple[str, ...] = fixed((), FIELDS_HELP)
    thinking: Thinking = fixed(Thinking(), "recurrence and prompt of the model")
    training: DistilConfig = fixed(DISTIL_PRESETS["small"], "recipe of the training")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    seed: int = nuisance(0, "random seed for initial weights and order")

    __post_init__ = check_ranges


_WHY_NONE = "they have none, or only the last step, which thinking.keep_last_step keeps"

ARMS = {name: Config(training=recipe, seed=recipe.seed) for name, recipe in DISTIL_PRESETS.items()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "base": EMBEDDED,
        "limit": 300,
        "n_validation": 20,
        "training": {"batch_size": 16, "micro_batch_size": 16, "epochs": 1.0},
    },
    "mini": {},
    "full": {},
}


@dataclass(frozen=True)
class Problems:
    """results/problems.json: how many problems there were, the rows that were none, and what the training chains are like.

    Attributes:
        without_chain: Training problems that leave the teacher nothing to write before the answer.
    """

    n_train: int
    n_validation: int
    malformed: list[str]
    chains: ChainCounts | None = None  # unknown in records written before it was counted
    without_chain: int | None = None


def inputs(config: Config) -> dict[str, str | None]:
    """Base and problems."""
    if config.base is None:
        raise BadInput(
            "no base: name the language model to train (--base path, .gguf file or hub id), or take --base embedded"
        )
    return {"base": config.base, "problems": config.problems, "validation": config.validation}


def run_arm(config: Config, run: Run) -> None:
    """Wrap, train, judge on validation, save. Under torchrun this is rank 0; the others `follow`."""
    with training.lead(run, config.device) as session:
        if session is None:  # it was killed after it had written everything
            return
        train, validation, malformed = _problems(config)
        chains = announce(ProblemFile(train, malformed))
        model = _wrapped(config, session)
        n_without = sum(not model.chain_text(problem) for problem in train)
        if n_without:
            print(
                f"{n_without:,} of {len(train):,} training problems leave the teacher no chain: {_WHY_NONE}", flush=True
            )
        run.results("problems", Problems(len(train), len(validation), list(map(str, malformed)), chains, n_without))
        print(_shown_example(train[0], model), flush=True)
        _trained(config, model, train, validation, session, run)
        _finish(config, model, validation, run)


def follow(config: Config) -> None:
    """Take part in the training as any process but rank 0."""
    with training.join(config.device) as session:
        if session is not None:
            train, _, _ = _problems(config)
            _trained(config, _wrapped(config, session), train, [], session, None)


def _trained(
    config: Config,
    model: models.CODI,
    train: Sequence[Problem],
    validation: Sequence[Problem],
    session: training.Session,
    run: Run | None,
) -> models.CODI:
    """This process's part of the training; `run` is rank 0's, which alone validates and writes."""
    recipe = replace(config.training, seed=config.seed)
    return training.distil(
        model, train, validation, recipe, session.folder, group=session.group, run=run, resume=session.resume
    )


def _finish(config: Config, model: models.CODI, validation: Sequence[Problem], run: Run) -> None:
    """Outcomes on half of the validation problems; the checkpoint; at the very last the resume point goes."""
    half = len(validation) // 2
    outcomes = judging.ablate(model, validation[half:], validation[:half], config.seed, max_new_tokens=64)
    run.outcomes("answers", outcomes)
    of = {name: frame for (name,), frame in outcomes.group_by("condition")}
    accuracy = {name: int(frame["correct"].sum()) / len(frame) for name, frame in of.items()}
    run.results("headline", {"n": len(of["own"]), "thoughts": accuracy["own"], "written chain": accuracy["written"]})
    model.save(training.cleared(run.folder("checkpoint") / "model"), _card(config, accuracy, len(of["own"])))
    training.drop_resume_point(run.folder("checkpoint"))


def _problems(config: Config) -> tuple[list[Problem], list[Problem], list[Malformed]]:
    """Training and validation problems, none in both, and the rows that were none."""
    fields = config.fields
    read = load_problems(
        config.problems, split=config.problem_split, limit=config.limit, seed=config.seed, fields=fields
    )
    problems, malformed = list({p.id: p for p in read.problems}.values()), read.malformed
    if config.validation is not None:
        others = load_problems(config.validation, limit=config.n_validation, seed=config.seed + 1, fields=fields)
        held, malformed = others.problems, malformed + others.malformed
    else:
        held, problems = problems[-config.n_validation :], problems[: -config.n_validation]
    ids = {p.id for p in held}
    train = [p for p in problems if p.id not in ids]
    if len(held) < 2 or not train:
        raise BadInput(f"{len(train)} training and {len(held)} validation problems are too few; give more problems")
    return train, held, malformed


def _wrapped(config: Config, session: training.Session) -> models.CODI:
    """The base with its projection and embedding rows, untrained, on this process's device."""
    new = config.base == EMBEDDED
    base, tokenizer = training.embedded_base(config.seed) if new else models.load_base(config.base or "")
    if config.from_scratch:
        base = training.reinitialised(base, config.seed)
    fields = asdict(config.thinking)
    fields["projection_width"] = fields["projection_width"] or base.config.hidden_size
    return models.CODI.wrap(base, tokenizer, seed=config.seed, **fields).to(session.group.device)


def _shown_example(problem: Problem, model: models.CODI) -> str:
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
