"""Thinking models, their thoughts, and lenses on them."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

from workings.cli.options import AsJson, Device, Precision, Quiet


def codi_train(
    *,
    base: Annotated[str | None, "the language model to start from: a path, a .gguf file or a hub id"] = None,
    problems: Annotated[str, "to train on: generated[:preset], a file, or a hub id"] = "generated",
    validation: Annotated[str | None, "to validate on; without it the last of the training problems"] = None,
    recipe: Annotated[Literal["small", "gpt2", "llama-1b"], "the defaults of the training"] = "small",
    from_scratch: Annotated[bool, "keep only the base's architecture and tokenizer"] = False,
    limit: Annotated[int | None, "at most so many training problems"] = None,
    batch_size: Annotated[int | None, "examples for each optimizer step"] = None,
    precision: Annotated[Literal["fp32", "bf16"] | None, "bf16: autocast with fp32 master weights"] = None,
    set_: Annotated[list[str] | None, "field=value: thinking.n_thoughts=3, training.lora_rank=128"] = None,
    config: Annotated[str | None, "a YAML file of fields"] = None,
    seed: Annotated[int, "of initial weights and order"] = 0,
    device: Device = "auto",
    out: Annotated[str, "the folder that runs go into"] = "runs",
    resume: Annotated[str | None, "go on with this unfinished run, exactly where it stood"] = None,
    dry_run: Annotated[bool, "print the resolved config, run nothing"] = False,
    quiet: Quiet = False,
) -> None:
    """Train a language model to think in continuous vectors, by self-distillation; prints the path of report.html."""
    from workings.experiment import report_runs, resume_run, run_experiment

    if resume:
        print(report_runs([resume_run(resume, out, quiet, "train-codi")]))
        return
    given = {
        "base": base,
        "problems": problems,
        "validation": validation,
        "limit": limit,
        "device": device,
        "training.batch_size": batch_size,
        "training.precision": precision,
    }
    overrides = [f"{field}={value}" for field, value in given.items() if value is not None]
    overrides += ["from_scratch=true"] if from_scratch else []
    records = run_experiment(
        "train-codi", [recipe], "mini", [seed], overrides + (set_ or []), config, out, dry_run, quiet
    )
    if records:
        print(report_runs(records))


def codi_import(
    checkpoint: Annotated[str, "a released checkpoint: folder, .safetensors or .bin file, or hub id"],
    /,
    *,
    base: Annotated[str, "the language model it was trained from, for config and tokenizer: path or hub id"],
    to: Annotated[str, "the folder to write"],
    lora_alpha: Annotated[float | None, "it is not in the file; without it 32, with a warning"] = None,
) -> None:
    """Turn a released CODI checkpoint into a folder that holds all that is needed to run it."""
    from workings.models.codi import CODI

    print(CODI.load(checkpoint, base=base, lora_alpha=lora_alpha).save(to))


def codi_answer(
    questions: Annotated[list[str], "questions, each one word to the shell: in quotes"],
    /,
    *,
    model: Annotated[str, "bundled, a checkpoint folder, or a hub id"] = "bundled",
    base: Annotated[str | None, "of a released checkpoint: where config and tokenizer are"] = None,
    lora_alpha: Annotated[float | None, "of a released checkpoint"] = None,
    n_thoughts: Annotated[int | None, "instead of as many as it was trained with"] = None,
    max_new_tokens: Annotated[int, "of each answer"] = 64,
    written: Annotated[bool, "write the chain in words instead of thinking"] = False,
    official_compat: Annotated[
        bool, "attend to padding as the official code does: answers depend on the batch"
    ] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    json_: AsJson = False,
) -> None:
    """Answer questions by thinking (or in words); one line each."""
    from workings.models.codi import CODI
    from workings.models.device import device_of, dtype_of

    place, kind = device_of(device), dtype_of(precision)
    thinker = CODI.load(model, base, lora_alpha, place, kind, official_compat)
    if written:
        answers = thinker.write_and_answer(questions, max_new_tokens)
    else:
        answers = thinker.answer(questions, n_thoughts, max_new_tokens)
    for question, answer in zip(questions, answers, strict=True):
        value = None if answer.value is None else str(answer.value)
        line = {"question": question, "text": answer.text, "value": value, "token_ids": answer.token_ids}
        print(json.dumps(line, ensure_ascii=False) if json_ else answer.text)


def thoughts_collect(
    *,
    problems: Annotated[str, "generated[:preset], a file, or a hub id"],
    out: Annotated[str, "the folder of the store; the same command goes on where it was stopped"],
    model: Annotated[str, "bundled, a checkpoint, or a plain language model"] = "bundled",
    base: Annotated[str | None, "of a released checkpoint"] = None,
    lora_alpha: Annotated[float | None, "of a released checkpoint"] = None,
    split: Annotated[str, "of a hub data set"] = "test",
    limit: Annotated[int | None, "at most so many problems"] = None,
    n_thoughts: Annotated[int | None, "instead of as many as the model was trained with"] = None,
    dtype: Annotated[Literal["float32", "bfloat16"], "in which states are stored"] = "float32",
    batch_size: Annotated[int, "problems thought about at once"] = 64,
    seed: Annotated[int, "of the split into train, validation and test, and of generated problems"] = 0,
    strict: Annotated[bool, "a malformed row ends the work instead of being counted"] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    quiet: Quiet = False,
) -> None:
    """Think about problems and store every hidden state; prints the path of the store."""
    from workings.reading.collection import collect
    from workings.reading.targets import split_problems
    from workings.text.datasets import load_problems

    read = load_problems(problems, split=split, limit=limit, seed=seed, strict=strict)
    for row in read.malformed:
        print(f"left out: {row}", file=sys.stderr)
    thinker = _model(model, base, lora_alpha, seed, device, precision)
    unique = list({problem.id: problem for problem in read.problems}.values())
    store = collect(
        thinker,
        unique,
        out,
        dtype=dtype,
        batch_size=batch_size,
        n_thoughts=n_thoughts,
        splits=split_problems(unique, seed=seed),
        progress=not quiet,
    )
    for failure in store.failures:
        print(f"left out: {failure['problem']}: {failure['reason']}", file=sys.stderr)
    print(store.path)


def lens_fit(
    *,
    thoughts: Annotated[str, "a store, from thoughts collect"],
    out: Annotated[str, "the folder of the lens"],
    model: Annotated[str, "the model that thought: bundled, a checkpoint, or a plain language model"] = "bundled",
    target: Annotated[str, "step1, step2, …: the result of that step; uniform: the chain's tokens"] = "step1",
    set_: Annotated[list[str] | None, "field=value of the recipe: lr=1e-3, max_epochs=50"] = None,
    seed: Annotated[int, "of the order of the problems, and of an untrained model"] = 0,
    base: Annotated[str | None, "of a released checkpoint"] = None,
    lora_alpha: Annotated[float | None, "of a released checkpoint"] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    quiet: Quiet = False,
) -> None:
    """Fit a tuned lens on a store's training problems, selected on validation; prints the path of the lens."""
    from workings.config import changed, override
    from workings.reading.fit import fit_tuned_lens
    from workings.reading.lens import TunedLens
    from workings.reading.recipe import FitConfig
    from workings.reading.rules import targets_of
    from workings.reading.store import ThoughtStore

    def show(epoch: int, **metrics: Any) -> None:
        if not quiet:
            print(f"epoch {epoch}: validation {metrics['validation']:.4f} nats", file=sys.stderr)

    store = ThoughtStore.open(thoughts)
    thinker = _model(model, base, lora_alpha, seed, device, precision)
    recipe = override(changed(FitConfig(), {"seed": seed}), set_ or [])
    fit = fit_tuned_lens(TunedLens.of(thinker), store, targets_of(target, thinker, store), recipe, show)
    print(fit.lens.save(out))


def lens_score(
    *,
    thoughts: Annotated[str, "a store, from thoughts collect"],
    lens: Annotated[str, "a lens, from lens fit"],
    model: Annotated[str, "the model that thought"] = "bundled",
    target: Annotated[str, "what the lens was fitted to say"] = "step1",
    seed: Annotated[int, "of an untrained model"] = 0,
    base: Annotated[str | None, "of a released checkpoint"] = None,
    lora_alpha: Annotated[float | None, "of a released checkpoint"] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    json_: AsJson = False,
) -> None:
    """Judge a lens on a store's test problems, beside the controls that need no other model (read-thoughts has them all)."""
    from workings.judging.readings import readings_beside_controls
    from workings.judging.scores import at_one_layer, score
    from workings.judging.verdict import verdict
    from workings.reading.lens import TunedLens
    from workings.reading.rules import targets_of
    from workings.reading.store import ThoughtStore

    store = ThoughtStore.open(thoughts)
    thinker = _model(model, base, lora_alpha, seed, device, precision)
    fitted = TunedLens.load(lens, thinker)
    readings = readings_beside_controls(
        thinker, store, targets_of(target, thinker, store), {"tuned lens": (fitted, store)}
    )
    found = verdict(readings)
    rows = score(at_one_layer(readings)).to_dicts()
    if json_:
        print(json.dumps({"kind": found.kind, "sentence": found.sentence, "scores": rows}, ensure_ascii=False))
        return
    for row in rows:
        print(
            f"{row['reader']:20} top-1 {row['top1']:6.1%} [{row['top1_low']:.1%}, {row['top1_high']:.1%}]  {row['ce']:.3f} nats"
        )
    print(f"{found.kind}: {found.sentence}")


def _model(model: str, base: str | None, lora_alpha: float | None, seed: int, device: str, precision: str) -> Any:
    from workings.models.codi import open_model
    from workings.models.device import device_of, dtype_of

    place, kind = device_of(device), dtype_of(precision)
    return open_model(model, base=base, lora_alpha=lora_alpha, seed=seed, device=place, dtype=kind)
