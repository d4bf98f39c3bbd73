"""Pretraining: a GPT-2 from scratch on a corpus."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from workings.cli.options import Quiet, refuse_beside_resume


def pretrain(
    *,
    corpus: Annotated[str | None, "the folder that `workings corpus build` made"] = None,
    preset: Annotated[Literal["mini", "124M-10B", "350M-10B"], "the recipe: shape, steps, schedule"] = "mini",
    start: Annotated[str | None, "a checkpoint, or its run, to go on from, instead of new weights"] = None,
    steps: Annotated[int | None, "optimizer updates"] = None,
    tokens_per_step: Annotated[int | None, "over all processes; how often gradients are accumulated follows"] = None,
    pass_rows: Annotated[int | None, "rows that go through the model at once, on each process"] = None,
    precision: Annotated[Literal["fp32", "bf16"] | None, "bf16: autocast with fp32 weights"] = None,
    compile: Annotated[bool | None, "torch.compile"] = None,
    parallel: Annotated[Literal["ddp", "fsdp"] | None, "under torchrun: copies of the model, or shards"] = None,
    hellaswag: Annotated[
        str | None, "judge on these items: a file, or a hub id; at the end, and every training.evaluate_every steps"
    ] = None,
    probes: Annotated[bool, "judge on arithmetic probes, likewise"] = False,
    no_verify: Annotated[bool, "do not hash the shards of the corpus first"] = False,
    track: Annotated[list[Literal["tensorboard", "wandb", "trackio"]] | None, "echo the metrics there too"] = None,
    set_: Annotated[list[str] | None, "field=value: training.optimizer=muon, training.shape.n_layers=6"] = None,
    config: Annotated[str | None, "a YAML file of fields"] = None,
    seed: Annotated[int | None, "of initial weights and order, instead of the config's own"] = None,
    device: Annotated[str | None, "auto, cpu, cuda or mps"] = None,
    out: Annotated[str, "the folder that runs go into"] = "runs",
    resume: Annotated[str | None, "go on with this unfinished run, exactly where it stood"] = None,
    dry_run: Annotated[bool, "print the config and what the training costs, run nothing"] = False,
    flops_per_second: Annotated[float | None, "for the hours of a dry run, over all processes"] = None,
    processes: Annotated[int, "for a dry run: as torchrun will start"] = 1,
    quiet: Quiet = False,
) -> None:
    """Train a GPT-2 on a corpus; prints the path of report.html.

    On several devices: torchrun --nproc-per-node N -m workings pretrain …
    """
    from workings.experiment import load, plan, report_runs, resume_run, run_experiment
    from workings.launch import rank_here

    given = {
        "corpus": corpus,
        "start": start,
        "hellaswag": hellaswag,
        "device": device,
        "training.steps": steps,
        "training.tokens_per_step": tokens_per_step,
        "training.pass_rows": pass_rows,
        "training.precision": precision,
        "training.compile": compile,
        "training.parallel": parallel,
        "probes": probes or None,
        "verify": False if no_verify else None,
        "track": f"[{', '.join(track)}]" if track else None,
    }
    overrides = [f"{field}={_text(value)}" for field, value in given.items() if value is not None] + (set_ or [])
    if resume:
        refuse_beside_resume(overrides, config, seed is not None, preset != "mini", dry_run)
        resumed = resume_run(resume, out, quiet, "pretrain-gpt2")
        if not rank_here():
            print(report_runs([resumed]))
        return
    seeds = None if seed is None else [seed]
    records = run_experiment("pretrain-gpt2", [preset], "mini", seeds, overrides, config, out, dry_run, quiet)
    if dry_run:
        from workings.experiments.pretrain_gpt2 import described_budget

        [planned] = plan(load("pretrain-gpt2"), [preset], "mini", seeds, overrides, config)
        print("\n".join(described_budget(planned.config, processes, flops_per_second)))
    elif records:
        print(report_runs(records))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
