"""Language models: pretrain them, evaluate them, take them to and from Hugging Face, nanoGPT and the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workings import evals, models
from workings.cli.options import Command, Given, Printing, Resumable, Running, config_fields, option, positional
from workings.config import changed
from workings.errors import BadInput
from workings.experiment import load, plan, report_runs, resume_run
from workings.run import RunRecord


@dataclass(frozen=True, kw_only=True)
class Pretrain(Running):
    """Train a GPT-2 on a corpus.

    Prints the path of report.html. On several devices: torchrun --nproc-per-node N -m workings pretrain …
    """

    preset: Literal["mini", "124M-10B", "350M-10B"] = option(
        "mini", "recipe: the model's shape, the number of steps, the schedule"
    )
    processes: int = option(1, "number of processes that torchrun will start; for --dry-run", at_least=1)
    flops_per_second: float | None = option(
        None, "speed of all processes together in FLOPs per second; for the hours of --dry-run", above=0
    )
    given: Given = config_fields(
        "pretrain-gpt2",
        *("corpus", "start", "hellaswag", "probes", "verify", "track", "device", "seed"),
        *("training.steps", "training.tokens_per_step", "training.pass_rows"),
        *("training.precision", "training.compile", "training.parallel"),
    )

    def __call__(self) -> None:
        self.run_and_report("pretrain-gpt2", [self.preset])
        if self.dry_run:
            experiment = load("pretrain-gpt2")
            [planned] = plan(experiment, [self.preset], overrides=self.settings, config_path=self.config)
            lines = experiment.module.described_budget(planned.config, self.processes, self.flops_per_second)
            print("\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Evaluate(Resumable, Printing):
    """Evaluate a model, or all checkpoints of trainings, item by item.

    Prints the path of report.html.
    """

    tasks: tuple[str, ...] = positional(help="one or several benchmarks: hellaswag, gsm8k, probes")
    checkpoints: tuple[str, ...] = option((), "run directories of trainings, of which every checkpoint is evaluated")
    data: tuple[str, ...] = option((), "benchmark data: a path or hub id; for two benchmarks gsm8k=… hellaswag=…")
    custom: Literal["both", "karpathy", "lm-eval"] = option("both", "HellaSwag scoring convention")
    given: Given = config_fields(
        "evaluate-model",
        *("model", "seed", "device", "precision", "settings.limit", "settings.num_fewshot", "settings.prompt"),
        *("settings.batch_size", "settings.max_new_tokens"),
        fields="settings.gsm8k_fields",
    )

    def __call__(self) -> None:
        experiment = load("evaluate-model").module
        tasks = evals.checked_tasks(self.tasks)
        if self.resume:
            self.refuse_settings()
            before = RunRecord.find(self.resume, self.out).config(experiment.Config).tasks
            if set(tasks) != set(before):
                raise BadInput(f"--resume: that run judges {' '.join(before)}; name these tasks")
            records = [resume_run(self.resume, self.out, name="evaluate-model")]
        else:
            fields = {"tasks": tasks, **self.given, **self._data_of(tasks)}
            if self.custom != "both":
                fields["settings.conventions"] = [self.custom]
            config = changed(experiment.Config(), fields)
            if self.checkpoints and config.model:
                raise BadInput("name a model or checkpoints, not both: they would be two evaluations")
            judged = [changed(config, {"checkpoints": one}) for one in self.checkpoints] or [config]
            records = [experiment.evaluate_model(one, self.out) for one in judged]
        page = report_runs(records)
        if self.json:
            results = [record.result(name) for record in records for name in record.names("results", ".json")]
            print(json.dumps({"report": str(page), "results": results}, ensure_ascii=False))
        else:
            print(page)

    def _data_of(self, tasks: Sequence[str]) -> dict[str, str]:
        """Settings from `--data PATH` for the one task that reads data, `--data gsm8k=PATH hellaswag=PATH` for several."""
        readers = [task for task in tasks if task != "probes"]
        found = {}
        for one in self.data:
            name, equals, place = one.partition("=")
            if not equals or Path(one).exists():
                if len(readers) != 1:
                    raise BadInput(f"--data {one}: say for which task, as in --data {(readers or ['gsm8k'])[0]}={one}")
                name, place = readers[0], one
            if name not in readers:
                known = ", ".join(readers) or "none"
                raise BadInput(f"--data {one}: '{name}' is none of the tasks named that read data ({known})")
            found[f"settings.{name}_data"] = place
        return found


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a checkpoint as a folder that Hugging Face loads.

    AutoModelForCausalLM and AutoTokenizer load the folder; its logits are compared with ours first.
    """

    checkpoint: str = positional(help="checkpoint folder, or a run that has one")
    to: str = option(help="folder to write")
    push: str | None = option(None, "repository of the hub to upload the folder to: owner/name")
    private: bool = option(False, "make the repository of --push private, if it is new")

    def __call__(self) -> None:
        print(models.export_hf(models.checkpoint_in(self.checkpoint), self.to))
        if self.push:
            print(models.push(self.to, self.push, self.private))


@dataclass(frozen=True, kw_only=True)
class ImportGPT2(Command):
    """Turn a GPT-2 from elsewhere into a checkpoint of ours.

    No code in its files is run.
    """

    source: str = positional(
        help="GPT-2 to import: a .pt file of nanoGPT or its kin, a Hugging Face folder, or a hub id"
    )
    to: str = option(help="checkpoint folder to write")
    heads: int | None = option(None, "number of attention heads per block, if the source does not say it", at_least=1)
    tokenizer: str | None = option(
        None, "tokenizer folder, or the BPE to build one on; by default the tokenizer of the source, or gpt2"
    )
    vocabulary: Literal["digits", "facts", "shuffled", "reserved"] | None = option(
        None, "vocabulary that the model was trained to read"
    )
    no_bias: bool = option(
        False, "the model was trained without biases (bias=False in nanoGPT), and the source does not say so"
    )

    def __call__(self) -> None:
        path = models.import_gpt2(
            self.source,
            self.to,
            n_heads=self.heads,
            tokenizer=self.tokenizer,
            vocabulary=self.vocabulary,
            no_bias=self.no_bias,
        )
        print(path)


@dataclass(frozen=True, kw_only=True)
class Pull(Command):
    """Download a repository of the hub into a folder.

    The folder is checked against the manifest of its export.
    """

    repository: str = positional(help="repository of the hub: owner/name or owner/name@revision")
    to: str = option(help="folder to write")

    def __call__(self) -> None:
        print(models.pull(self.repository, self.to))
