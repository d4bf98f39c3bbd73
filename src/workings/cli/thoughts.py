"""Thinking models, their thoughts, and lenses on them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workings import judging, models, reading, text
from workings.arithmetic.answers import same_answer
from workings.arithmetic.fields import FIELDS_HELP
from workings.arithmetic.problems import Problem, steps_among
from workings.cli.options import Command, Given, Printing, Running, config_fields, option, positional
from workings.config import changed, override
from workings.errors import BadInput
from workings.progress import say
from workings.stopping import interruptible


@dataclass(frozen=True, kw_only=True)
class CodiTrain(Running):
    """Train a language model to think in continuous vectors.

    The training is self-distillation. Prints the path of report.html.
    """

    recipe: Literal["small", "gpt2", "llama-1b"] = option("small", "recipe: the defaults of the training")
    given: Given = config_fields(
        "train-codi",
        *("base", "problems", "validation", "from_scratch", "limit", "fields", "device", "seed"),
        *("training.batch_size", "training.precision"),
    )

    def __call__(self) -> None:
        self.run_and_report("train-codi", [self.recipe])


@dataclass(frozen=True, kw_only=True)
class CodiImport(Command):
    """Turn a released CODI checkpoint into a folder of ours.

    The folder holds all that is needed to run the model.
    """

    checkpoint: str = positional(help="released checkpoint: a folder, a .safetensors or .bin file, or a hub id")
    base: str = option(help="language model it was trained from, for config and tokenizer: a path or hub id")
    to: str = option(help="folder to write")
    lora_alpha: float | None = option(
        None, "LoRA alpha, which the file does not hold; by default 32, with a warning", above=0
    )

    def __call__(self) -> None:
        print(models.CODI.load(self.checkpoint, base=self.base, lora_alpha=self.lora_alpha).save(self.to))


@dataclass(frozen=True, kw_only=True)
class CodiExport(Command):
    """Write a checkpoint's weights in the layout of the released ones.

    The layout holds no config and no LoRA alpha; what the official code must be told instead is noted on stderr.
    """

    checkpoint: str = positional(help="checkpoint: a folder of ours")
    layout: Literal["official"] = option(
        "official", "layout of the file: a PEFT state dict as the official code saves it"
    )
    to: str = option(help="folder to write")

    def __call__(self) -> None:
        model = models.CODI.load(self.checkpoint)
        folder = model.save_released(self.to)
        held = (
            "LoRA factors apart" if model.adapters else "no LoRA factors: all that was learned is in the base's weights"
        )
        say(f"the file has {held}; it needs {model.official_flags()}")
        print(folder)


@dataclass(frozen=True, kw_only=True)
class WithModel(Command):
    """The thinking model, and where and in which format it computes."""

    model: str = option("bundled", "model that thinks: bundled, a checkpoint, a hub id, or a plain language model")
    base: str | None = option(None, "language model that a released checkpoint was trained from: a path or hub id")
    lora_alpha: float | None = option(
        None, "LoRA alpha of a released checkpoint; by default 32, with a warning", above=0
    )
    device: str = option("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = option("fp32", "floating-point format in which the model computes")

    def open_model(self, seed: int) -> models.CODI:
        """The model; `seed` draws the untrained part of a plain language model."""
        device, dtype = models.device_of(self.device), models.dtype_of(self.precision)
        return models.open_model(
            self.model, base=self.base, lora_alpha=self.lora_alpha, seed=seed, device=device, dtype=dtype
        )


@dataclass(frozen=True, kw_only=True)
class CodiAnswer(WithModel, Printing):
    """Answer questions by thinking, or in words; one line each.

    Of problems the last line gives the share that is right, with its 95 % interval.
    """

    model: str = option("bundled", "model that answers: bundled, bundled-control, a checkpoint, or a hub id")
    questions: tuple[str, ...] = positional((), help="questions, each in quotation marks")
    problems: str | None = option(None, "problems to answer instead: generated[:preset], a file, or a hub id")
    split: str = option("test", "dataset split of the problems, for hub data sets")
    fields: tuple[str, ...] = option((), FIELDS_HELP)
    limit: int | None = option(None, "maximum number of problems", at_least=1)
    batch_size: int = option(64, "number of questions answered at once", at_least=1)
    n_thoughts: int | None = option(
        None, "number of thoughts; by default as many as the model was trained with", at_least=0
    )
    max_new_tokens: int = option(64, "maximum number of new tokens per answer", at_least=1)
    written: bool = option(False, "write the steps in words instead of thinking")
    official_compat: bool = option(
        False, "give the official code's numbers: answers depend on batch and order; read as the last number"
    )
    padding_sees: Literal["nothing", "everything"] = option(
        "nothing",
        "what the padding attends to in official_compat; everything: as under transformers before 4.53 on a GPU",
    )

    def __call__(self) -> None:
        if bool(self.questions) == (self.problems is not None):
            raise BadInput("give questions, each in quotation marks, or --problems, and not both")
        problems = self._read_problems()
        questions = [p.question for p in problems] or list(self.questions)
        device, dtype = models.device_of(self.device), models.dtype_of(self.precision)
        model = models.CODI.load(
            self.model, self.base, self.lora_alpha, device, dtype, self.official_compat, self.padding_sees
        )
        if self.written:
            answers = model.write_and_answer(questions, self.max_new_tokens, self.batch_size)
        else:
            answers = model.answer(questions, self.n_thoughts, self.max_new_tokens, self.batch_size)
        right = [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=bool(problems))]
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            value = None if answer.value is None else str(answer.value)
            line = {"question": question, "text": answer.text, "value": value, "token_ids": answer.token_ids}
            judged = {"gold": problems[i].answer, "correct": right[i]} if problems else {}
            print(json.dumps(line | judged, ensure_ascii=False) if self.json else answer.text)
        if problems:
            share = judging.Measure.share(right)
            summary = {"right": share.k, "n": share.n, "share": share.value, "low": share.low, "high": share.high}
            words = f"{share.k} of {share.n} right: {share.value:.2%} [{share.low:.2%}, {share.high:.2%}]"
            print(json.dumps(summary) if self.json else words)

    def _read_problems(self) -> list[Problem]:
        """Every problem, in the order of the file, repeated ones too: in official_compat they decide the batches."""
        if self.problems is None:
            return []
        read = text.load_problems(self.problems, split=self.split, limit=self.limit, fields=self.fields)
        text.announce(read, chains=False)
        return read.problems


@dataclass(frozen=True, kw_only=True)
class Collect(WithModel):
    """Think about problems and store every hidden state.

    Prints the path of the store.
    """

    problems: str = option(help="problems to think about: generated[:preset], a file, or a hub id")
    out: str = option(help="folder of the store; the same command resumes an interrupted collection")
    split: str = option("test", "dataset split, for hub data sets; of generated problems, train or those held out")
    fields: tuple[str, ...] = option((), FIELDS_HELP)
    limit: int | None = option(None, "maximum number of problems", at_least=1)
    n_thoughts: int | None = option(
        None, "number of thoughts; by default as many as the model was trained with", at_least=0
    )
    dtype: Literal["float32", "bfloat16"] = option("float32", "floating-point format of the stored states")
    batch_size: int = option(64, "number of problems thought about at once", at_least=1)
    seed: int = option(0, "random seed for generated problems and their split into train, validation and test")
    strict: bool = option(False, "stop at the first malformed row instead of leaving it out")

    def __call__(self) -> None:
        read = text.load_problems(
            self.problems, split=self.split, limit=self.limit, seed=self.seed, strict=self.strict, fields=self.fields
        )
        text.announce(read)
        model = self.open_model(self.seed)
        unique = list({problem.id: problem for problem in read.problems}.values())
        with interruptible(
            f"every shard in {self.out} is whole: the same command goes on with the problems that follow"
        ):
            store = reading.collect(
                model,
                unique,
                self.out,
                dtype=self.dtype,
                batch_size=self.batch_size,
                n_thoughts=self.n_thoughts,
                splits=reading.split_problems(unique, seed=self.seed),
            )
        for failure in store.failures:
            print(f"left out: {failure.problem}: {failure.reason}", file=sys.stderr)
        print(store.path)


@dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Turn activation files of the lens notes into a store.

    The files are torch pickles with hidden_states, metadata and config; no code in them is run. Prints the path of the store.
    """

    files: tuple[str, ...] = positional(help="activation files of one model; those for test have 'test' in their name")
    problems: str = option(help="the problems they name: a JSON list whose rows have gsm8k_id")
    out: str = option(help="folder of the store")

    def __call__(self) -> None:
        store = reading.import_activations(self.files, self.problems, self.out)
        for note in store.manifest.settings.notes:
            print(note, file=sys.stderr)
        print(store.path)


@dataclass(frozen=True, kw_only=True)
class WithThoughts(WithModel):
    """The stored thoughts, the model that thought them, and their probe target."""

    thoughts: str = option(help="store of thoughts, from workings thoughts collect")
    target: str = option(
        "step1",
        "probe target: step1, step2, … for the result of that step; answer; uniform for the tokens of the chain",
    )
    seed: int = option(0, "random seed for the order of the problems and for an untrained model")

    def open_all(self) -> tuple[models.CODI, reading.ThoughtStore, reading.Targets]:
        """The model, the store and the targets."""
        store = reading.ThoughtStore.open(self.thoughts)
        model = self.open_model(self.seed)
        targets = reading.probe_targets(self.target, model, store)
        if not targets.has_target.any():
            raise BadInput(
                f"no problem of {self.thoughts} has the target {self.target}: {steps_among(store.as_problems())}"
            )
        return model, store, targets


@dataclass(frozen=True, kw_only=True)
class LensFit(WithThoughts):
    """Fit a lens on a store's training problems.

    The best epoch is selected on the validation problems. Prints the path of the lens.
    """

    out: str = option(help="folder of the lens to write")
    kind: str = option(
        "tuned",
        "kind of lens: tuned, per-position, hybrid(block1,…), low-rank(16), position-embedding, position-gain, position-bias, "
        "position-head(16), or mlp(256)",
    )
    start: str | None = option(None, "folder of a tuned lens to start from, fitted on the same model")
    final_norm: bool = option(
        False, "translate the state at final_norm too, which is otherwise read as the model reads it"
    )
    set: tuple[str, ...] = option((), "fields of the fitting recipe as field=value: lr=1e-3 max_epochs=50")

    def __call__(self) -> None:
        Path(self.out).mkdir(
            parents=True, exist_ok=True
        )  # now, so that a place that cannot be written shows before the work
        model, store, targets = self.open_all()
        recipe = override(changed(reading.FitConfig(), {"seed": self.seed}), self.set)
        log = lambda epoch, **losses: say(f"epoch {epoch}: validation {losses['validation']:.4f} nats")
        asked = [name for name, is_asked in zip(store.positions, targets.has_target.any(0), strict=True) if is_asked]
        start = reading.lens_of(self.kind, model, positions=asked, final_norm=self.final_norm)
        if self.start is not None:
            shared = reading.open_lens(self.start, model)
            if not (isinstance(start, reading.TunedLens) and type(shared) is reading.TunedLens):
                raise BadInput(f"a lens starts from a tuned lens, and {self.start} holds a {shared.name}")
            start.start_from(shared)
        with interruptible(f"no lens was written to {self.out}: the same command fits it from the start"):
            fit = reading.fit_lens(start, store, targets, recipe, log)
        print(reading.save_lens(fit.lens, self.out))


@dataclass(frozen=True, kw_only=True)
class LensScore(WithThoughts, Printing):
    """Score a lens on a store's test problems, beside controls.

    The lens is taken at the layer where it names most on validation, every control is compared with it. The controls are those
    that need no other model; the experiment read-thoughts has all of them, and `workings judge` says what the thoughts hold.
    """

    lens: str = option(help="folder of the lens, from workings lens fit")

    def __call__(self) -> None:
        model, store, targets = self.open_all()
        lens = reading.open_lens(self.lens, model)
        if lens.fitted is not None and lens.fitted.rule != targets.rule:
            raise BadInput(
                f"the lens in {self.lens} was fitted to the {lens.fitted.rule}, and --target {self.target} asks for the "
                f"{targets.rule}: fit one for it"
            )
        readings = judging.readings_beside_controls(model, store, targets, lens)
        predictor = reading.Predictor(lens.name)
        layer = judging.choose_layer(readings, predictor)
        at_layer = judging.at_one_layer(readings, predictor, layer)
        scores, skills = judging.score(at_layer), judging.skill(at_layer, predictor)
        if self.json:
            found = {"layer": layer, "scores": scores.to_dicts(), "skill": skills.to_dicts()}
            print(json.dumps(found, ensure_ascii=False))
            return
        leads = skills.filter(measure="top1").rows_by_key("reader", named=True, unique=True)
        print(f"{lens.name} at {layer}, on {scores['n_problems'].max():,} test problems: {targets.rule}")
        for row in scores.to_dicts():
            line = f"{row['reader']:24} top-1 {row['top1']:6.1%} [{row['top1_low']:.1%}, {row['top1_high']:.1%}]"
            if over := leads.get(row["reader"]):
                line += f"  lens {100 * over['skill']:+.1f} points [{100 * over['low']:.1f}, {100 * over['high']:.1f}]"
            print(f"{line}  {row['ce']:.3f} nats")


@dataclass(frozen=True, kw_only=True)
class LensExport(WithModel):
    """Write a tuned lens as the tuned-lens library saves one.

    Refused for what its format cannot hold: translators by position, in some of the layers only, or at final_norm.
    """

    lens: str = positional(help="folder of the lens, from workings lens fit")
    to: str = option(help="new folder to write")

    def __call__(self) -> None:
        model = self.open_model(seed=0)
        print(reading.export_to_library(reading.open_lens(self.lens, model), self.to, self.model, model.n_layers))


@dataclass(frozen=True, kw_only=True)
class LensImport(WithModel):
    """Turn a lens of the tuned-lens library into one of ours.

    It must be for the model that it was fitted on.
    """

    source: str = positional(help="folder that the library saved: config.json and params.pt")
    out: str = option(help="folder of the lens to write")

    def __call__(self) -> None:
        print(reading.save_lens(reading.import_from_library(self.source, self.open_model(seed=0)), self.out))
