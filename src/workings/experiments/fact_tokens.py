"""Does a small language model become better at arithmetic when it reads `6*9=54` as one token, at equal cost?

Four arms train from scratch on the same raw documents. `digits` reads them as they are. In `facts` every true product of the times
tables is one token. `shuffled` reads the same tokens with their products permuted anew in every document: as short, and without
content. `reserved` reads what `digits` reads, with the rows of the facts in its softmax (what the seeds' baseline was).

Prediction (2026-11-21, before any run at the mini scale): `facts` answers more probes than `digits` when it may show its work,
because each product costs it one decision instead of three; `shuffled` answers fewer; `reserved` differs from `digits` by nothing
that the seeds do not; and on documents without facts the arms' bits per byte agree within their intervals.
Matched: parameters, optimizer steps, raw bytes read, documents, initial weights of all shared rows, seeds. Not matched, and
reported: tokens and FLOPs, of which `facts` and `shuffled` need fewer.
Measure: the share of arithmetic probes answered when the work may be shown (items held out from the drills are apart), paired by
item and by seed, beside direct answers, restricted choice and bits per byte of validation documents. Stop rule: the number of
steps is fixed beforehand; the last weights are judged; nothing is selected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from workings import evals, models, training
from workings.arithmetic.drills import DrillSpec
from workings.config import changed, check_ranges, fixed, nuisance, scientific, to_dict
from workings.evals.settings import Settings, TaskName
from workings.launch import processes_here
from workings.run import Run
from workings.text.build import build_corpus
from workings.text.corpus import Corpus
from workings.text.manifest import CorpusConfig, SourceConfig
from workings.text.tokenizer import Mode, Vocabulary
from workings.training.recipes import PRETRAIN_PRESETS, PretrainConfig


@dataclass(frozen=True)
class Text:
    """The raw documents, the same in every arm: English, word problems without products, and drills at `fact_rate`."""

    english: str = fixed(
        "docstrings", "English documents: a path, a hub id, or docstrings (those of Python's standard library)"
    )
    english_weight: float = fixed(3.0, "weight of the English documents among the bytes", above=0)
    problems: str = fixed("generated:sums", "word problems; by default without products, which the drills hold out")
    problems_weight: float = fixed(1.0, "weight of the word problems among the bytes", above=0)
    bytes_limit: int | None = fixed(
        1_600_000, "maximum number of raw bytes of training documents, drills not counted", at_least=1
    )
    drills: DrillSpec = fixed(DrillSpec(), "specification of the drills")
    validation_fraction: float = fixed(
        0.05, "share of documents held out for validation, chosen by content", at_least=0, at_most=0.5
    )
    seed: int = fixed(0, "random seed for shuffling and drills, the same for all training seeds")
    corpus: str = fixed("", "folder of a corpus built beforehand; {vocabulary} in it stands for the arm's vocabulary")

    __post_init__ = check_ranges


@dataclass(frozen=True)
class Config:
    """One arm."""

    vocabulary: Vocabulary = scientific(
        "digits",
        "what becomes of arithmetic: digits, fact tokens, fact tokens permuted in each document, or unused tokens",
    )
    fact_rate: float = scientific(
        0.02, "share of facts among the training tokens of the facts arm, reached with drills", at_least=0, at_most=0.5
    )
    base: str = fixed("embedded", "byte-level BPE: embedded, a hub id such as gpt2, or a path")
    facts: str = fixed("MUL:1-9", "fact families and ranges of operands: MUL:1-9, or several: MUL:1-12,ADD:0-9")
    mode: Mode = fixed("strict", "rewriting mode: which equations become fact tokens")
    text: Text = fixed(Text(), "raw documents, the same in every arm")
    training: PretrainConfig = fixed(
        replace(
            PRETRAIN_PRESETS["mini"],
            steps=1200,
            raw_bytes=6_000_000,
            pass_rows=8,
            optimizer="muon",  # AdamW had learned no product by then (LOG 2026-11-21)
            learning_rate=3e-3,
            final_learning_rate=1e-4,
            warmup_steps=60,
            validate_every=200,
            evaluate_every=200,
            sample_every=400,
            save_every=200,
        ),
        "recipe of the training",
    )
    hellaswag: str = fixed("", "HellaSwag items to judge on: a hub id or a file; empty: not judged")
    gsm8k: str = fixed("", "GSM8K items to judge on: a hub id or a file; empty: not judged")
    limit: int | None = fixed(None, "maximum number of items per benchmark", at_least=1)
    threads: int = fixed(0, "number of CPU threads; 0: torch decides", at_least=0)
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    seed: int = nuisance(0, "random seed for initial weights and order")

    __post_init__ = check_ranges


@dataclass(frozen=True)
class TextRead:
    """How much of its corpus a training read; `results/text.json`."""

    epochs: float
    sightings_per_fact: float  # in the arms that have no tokens for facts too


ARMS = {name: Config(vocabulary=name) for name in ("digits", "facts", "shuffled", "reserved")}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "text": {"bytes_limit": 120_000},
        "limit": 24,
        "training": {
            "shape": {"n_layers": 1, "n_heads": 2, "d_model": 32, "block": 128},
            "steps": 8,
            "raw_bytes": 60_000,
            "warmup_steps": 2,
            "validate_every": 4,
            "validation_documents": 4,
            "sample_every": 0,
        },
    },
    "mini": {},
    # The seeds' recipe. Its text is 45 GB: build the corpora once, and name them with text.corpus.
    "full": {
        "base": "gpt2",
        "text": {
            "english": "HuggingFaceFW/fineweb-edu:sample-10BT",
            "problems_weight": 0.01,
            "bytes_limit": 45_000_000_000,
            "validation_fraction": 0.0005,
        },
        "hellaswag": "Rowan/hellaswag",
        "gsm8k": "openai/gsm8k:main",
        "training": to_dict(replace(PRETRAIN_PRESETS["124M-10B"], raw_bytes=45_000_000_000)),
    },
}


def inputs(config: Config) -> dict[str, str]:
    """What is read from outside."""
    named = {"english": config.text.english, "base": config.base, "hellaswag": config.hellaswag, "gsm8k": config.gsm8k}
    return named | {"corpus": config.text.corpus.format(vocabulary=config.vocabulary)}


def run_arm(config: Config, run: Run) -> None:
    """Build the corpus, train, judge the last weights. Under torchrun this is rank 0; the others `follow`."""
    training.limit_threads(config.threads)
    settings = settings_of(config)
    tasks: list[TaskName] = ["probes", *(name for name in ("hellaswag", "gsm8k") if getattr(config, name))]
    items = evals.load_items(tasks, settings)  # now, so that a mistake in them shows before the training
    corpus = corpus_of(config, run)
    budget = training.planned(config.training, corpus, processes_here())
    run.results("budget", budget.cost)
    # Counted as the arm facts counts them, whichever arm this is.
    sightings = corpus.train.n_facts_arm_facts * budget.epochs
    run.results("text", TextRead(budget.epochs, sightings / len(corpus.tokenizer.facts)))
    model = trained(config, corpus, run)
    language = models.GPT2LanguageModel.of(model, corpus.tokenizer, f"{config.vocabulary}, seed {config.seed}")
    text = text_outcomes(language, corpus, config.training.validation_documents)
    run.outcomes("text", text)
    results = evals.evaluate(language, items, run, settings, reference=run.path)
    run.results("headline", headline(results["probes"], text))


def trained(config: Config, corpus: Corpus, run: Run) -> models.GPT2:
    """The model, kept in the run; a run that was killed after its training is not trained again."""
    with training.lead(run, config.device, str(corpus.folder)) as session:
        if session is not None:
            model = train(config, corpus, session, run)
            models.save_gpt2(model, corpus.tokenizer, training.cleared(session.folder / "model"))
            training.drop_resume_point(session.folder)
    model, _ = models.load_gpt2(run.folder("checkpoint") / "model", models.device_of(config.device))
    return model


def follow(config: Config) -> None:
    """What every process but rank 0 does: wait for the corpus, and take part in the training."""
    training.limit_threads(config.threads)
    with training.join(config.device) as session:
        if session is not None:
            train(config, Corpus.open(session.message), session, None)


def train(config: Config, corpus: Corpus, session: training.Session, run: Run | None) -> models.GPT2:
    """This process's part of the training; `run` is rank 0's, which alone judges and writes."""
    return training.pretrain(
        config.training,
        corpus,
        session.folder,
        seed=config.seed,
        evaluations=[] if run is None else [table_accuracy(config)],
        group=session.group,
        run=run,
        resume=session.resume,
    )


def corpus_of(config: Config, run: Run) -> Corpus:
    """The one named, or one built inside the run: the same bytes for every seed, for they follow from the config.

    What was there before is read whole first, for a shard may have changed.
    """
    own, named = run.path / "corpus", config.text.corpus.format(vocabulary=config.vocabulary)
    is_new = not named and not own.exists()
    corpus = Corpus.open(Path(named).expanduser()) if named else build_corpus(corpus_config(config), own, processes=1)
    if not is_new:
        corpus.check()
    return corpus


def corpus_config(config: Config) -> CorpusConfig:
    """What `workings corpus build` would be asked for; arms differ in the vocabulary alone."""
    text = config.text
    return CorpusConfig(
        documents=(
            SourceConfig(text.english, text.english_weight, name="english"),
            SourceConfig(text.problems, text.problems_weight, name="problems"),
        ),
        vocabulary=config.vocabulary,
        base=config.base,
        facts=config.facts,
        mode=config.mode,
        fact_rate=config.fact_rate,
        drills=text.drills,
        bytes_limit=text.bytes_limit,
        seed=text.seed,
        validation_fraction=text.validation_fraction,
    )


def settings_of(config: Config) -> Settings:
    """How its models are judged: on the drills that the corpus has, and on the data that are named."""
    asked = Settings(limit=config.limit, drills=config.text.drills)
    named = {"hellaswag_data": config.hellaswag, "gsm8k_data": config.gsm8k}
    return changed(asked, {name: value for name, value in named.items() if value})


def table_accuracy(config: Config) -> Callable[[models.LanguageModel, int], dict[str, float]]:
    """What training asks of its model: how many of the 81 products it gets right when it may show its work."""
    settings = settings_of(config)
    asked = [probe for probe in evals.probes.load_items(settings) if probe.kind == "table"][: config.limit]

    def judge(model: models.LanguageModel, step: int) -> dict[str, float]:
        frame = evals.probes.judge_items(model, asked, settings, choices=False)
        columns = {"table_worked": "worked", "table_direct": "correct"}
        return {name: int(frame[column].sum()) / len(frame) for name, column in columns.items()}

    return judge


def text_outcomes(model: models.LanguageModel, corpus: Corpus, most: int) -> pl.DataFrame:
    """One row a validation document: id, source, nats, bytes (raw), tokens, facts, held_out_facts; at most `most` of each source.

    `held_out_facts` are tokens that no training text has, and so none where their meaning is shuffled.
    """
    documents = corpus.first_validation(most)
    held_out = corpus.drills.held_out_facts
    read = [corpus.tokenizer.facts.of_ids(one.ids.tolist()) for one in documents]
    unseen = [sum(fact in held_out for fact in some) * (corpus.tokenizer.vocabulary == "facts") for some in read]
    place = pl.int_range(pl.len()).over("source").cast(pl.String)
    return models.bits_per_byte(model, documents).with_columns(
        id=pl.col("source") + "/" + place,
        facts=pl.Series([len(some) for some in read], dtype=pl.Int64),
        held_out_facts=pl.Series(unseen, dtype=pl.Int64),
    )


def headline(probes: evals.TaskResult, text: pl.DataFrame) -> dict[str, float]:
    """The headline numbers of a run, as `workings show` prints them."""
    return {
        "table, with the work shown": round(probes.measures["table.worked"].value, 4),
        "table, at once": round(probes.measures["table.direct"].value, 4),
        "bits per byte": round(models.total_bits_per_byte(text), 4),
    }
