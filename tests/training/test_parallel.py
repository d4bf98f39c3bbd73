"""Two processes over gloo train what one trains: copies (DDP), shards (FSDP2), and the record of one run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.test_pretraining import SMALL, Told
from workings.arithmetic.generator import PRESETS as GENERATED
from workings.arithmetic.generator import generate
from workings.config import to_dict
from workings.errors import BadInput
from workings.launch import rank_here
from workings.models.checkpoint import load_gpt2
from workings.models.codi import CODI
from workings.run import RunRecord
from workings.text.corpus import Corpus
from workings.training.distillation import distil, embedded_base
from workings.training.parallel import ProcessGroup, process_group
from workings.training.pretraining import pretrain
from workings.training.recipes import DistilConfig

CONFIG = replace(SMALL, save_every=3, validate_every=6, validation_documents=3, keep_every=6)
DISTIL = DistilConfig(
    batch_size=8, micro_batch_size=4, epochs=1, log_every=1, validate_every=3, save_every=2, precision="fp32"
)
SETTINGS = {
    "shape.n_layers": 2,
    "steps": 4,
    "tokens_per_step": 256,
    "pass_rows": 4,
    "warmup_steps": 1,
    "log_every": 1,
    "validate_every": 2,
    "sample_every": 4,
}

PROCESS = """
import json, sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from workings.arithmetic.generator import PRESETS, generate
from workings.config import from_dict
from workings.experiment import run_experiment
from workings.models.codi import CODI
from workings.text.corpus import Corpus
from workings.training.distillation import distil, embedded_base
from workings.training.parallel import distributed, process_group, synchronising
from workings.training.pretraining import pretrain
from workings.training.recipes import DistilConfig, PretrainConfig

given = json.loads(sys.argv[1])
folder, out, config = Path(given["corpus"]), Path(given["out"]), from_dict(PretrainConfig, given["config"])
sharded = replace(config, parallel="fsdp")
with process_group("cpu") as group:
    told = {}

    def train(name, config, **options):
        lines = told[name] = []
        log = lambda step, **metrics: lines.append({"step": step} | metrics)
        pretrain(config, Corpus.open(folder), out / name.split()[0], log, group=group, **options)

    train("ddp", config)
    train("fsdp", sharded)
    train("broken", sharded, max_steps=3)
    train("broken again", sharded, resume=True)
    train("other", config, max_steps=3)
    train("other again", sharded, resume=True)

    problems = list(generate(52, PRESETS["bundled"], 0))

    def teach(name, config, **options):
        lines = told[name] = []
        base, tokenizer = embedded_base(0)
        model = CODI.wrap(base, tokenizer, n_thoughts=2)
        log = lambda step, **metrics: lines.append({"step": step} | metrics)
        distil(model, problems[:49], problems[49:], config, out / name.split()[0], log, group=group, **options)
        if group.writes and "max_steps" not in options:
            model.save(out / name.split()[0] / "model")

    recipe = from_dict(DistilConfig, given["distil"])
    teach("distil", recipe)
    teach("lora", replace(recipe, lora_rank=2))
    teach("stopped", replace(recipe, lora_rank=2), max_steps=3)
    teach("stopped again", replace(recipe, lora_rank=2), resume=True)

    torch.manual_seed(0)
    module = distributed(nn.Linear(3, 1, bias=False), [], "ddp", group)
    inputs = torch.arange(3.0) + group.rank

    def gradients(last):
        with synchronising(module, last):
            module(inputs).sum().backward()
        gradient = next(module.parameters()).grad.clone()
        summed = gradient.clone()
        torch.distributed.all_reduce(summed)
        return bool(torch.equal(summed, 2 * gradient))

    told["same gradients"] = [gradients(last=False), gradients(last=True)]
    told["agreed"] = group.agreed({"from": group.rank})
    if group.writes:
        (out / "told.json").write_text(json.dumps(told))
    else:
        assert not told["ddp"] and not told["fsdp"] and not told["distil"], "only rank 0 tells"

    overrides = [f"training.{name}={value}" for name, value in given["settings"].items()] + [f"corpus={folder}"]
    for name, arm, options in (
        ("pretrain-gpt2", "mini", overrides),
        ("fact-tokens", "facts", ["device=cpu"]),
        ("recurrence", "constant", []),
        ("train-codi", "small", ["device=cpu"]),
    ):
        records = run_experiment(name, [arm], "smoke", [0], options, root=out / "runs", quiet=True)
        assert len(records) == group.writes, "rank 0 keeps the record"
"""


@pytest.fixture(scope="module")
def two(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which two processes, started as torchrun starts them, have trained."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    given = {
        "corpus": str(corpus.folder),
        "out": str(out),
        "config": to_dict(CONFIG),
        "distil": to_dict(DISTIL),
        "settings": SETTINGS,
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, json.dumps(given)],
            env=os.environ | about | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [one.communicate(timeout=600)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0], "\n".join(said)
    return out


@pytest.fixture(scope="module")
def alone(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Told, Path]:
    """The same training in this process: all rows of a step in as many passes."""
    told, folder = Told(), tmp_path_factory.mktemp("alone")
    pretrain(CONFIG, corpus, folder, told, group=ProcessGroup(0, 1, "cpu"))
    return told, folder


@pytest.mark.parametrize("how", ["ddp", "fsdp", "broken", "other"])
def test_two_processes_have_the_losses_of_one(two, alone, how):
    told = json.loads((two / "told.json").read_text())
    ours = [line for name, lines in told.items() if name.split()[0] == how for line in lines if "step" in line]
    theirs, _ = alone
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("loss", "grad_norm", "tokens", "lr", "bits_per_byte"):
            assert (key in mine) == (key in other)
            if key in mine:
                assert mine[key] == pytest.approx(other[key], abs=1e-5), key


@pytest.mark.parametrize("how", ["ddp", "fsdp", "broken", "other"])
def test_two_processes_end_with_the_weights_of_one(two, alone, how):
    ours, _ = load_gpt2(two / how / "step_000006")
    theirs, _ = load_gpt2(alone[1] / "step_000006")
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=2e-5), name


def test_shards_go_on_bit_for_bit_where_they_were_interrupted(two):
    straight, _ = load_gpt2(two / "fsdp" / "step_000006")
    resumed, _ = load_gpt2(two / "broken" / "step_000006")
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_gradients_are_exchanged_in_the_last_pass_only(two):
    told = json.loads((two / "told.json").read_text())
    assert told["same gradients"] == [False, True] and told["agreed"] == {"from": 0}


def numbers(lines):
    """What a distillation told, without its speed."""
    return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in lines]


def test_two_processes_distil_as_one_does(two, tmp_path):
    """Each has half of every batch, as one micro-batch: what the one process has as two.

    The last batch has a single example, so that one of the processes gets none of it.
    """
    theirs, problems = Told(), list(generate(52, GENERATED["bundled"], 0))
    base, tokenizer = embedded_base(0)
    model = CODI.wrap(base, tokenizer, n_thoughts=2)
    group = ProcessGroup(0, 1, "cpu")
    distil(model, problems[:49], problems[49:], DISTIL, tmp_path, theirs, group=group)
    ours = json.loads((two / "told.json").read_text())["distil"]
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] and ours[-1]["step"] == 7
    for mine, other in zip(numbers(ours), numbers(theirs), strict=True):
        assert mine == pytest.approx(other, abs=1e-5)
    for (name, mine), other in zip(
        CODI.load(two / "distil" / "model").named_parameters(), model.parameters(), strict=True
    ):
        assert torch.allclose(mine, other, atol=2e-5), name


def test_a_distillation_of_two_processes_goes_on_bit_for_bit_dropout_and_all(two):
    told = json.loads((two / "told.json").read_text())
    assert numbers(told["stopped"] + told["stopped again"]) == numbers(told["lora"])
    straight, resumed = (CODI.load(two / name / "model") for name in ("lora", "stopped"))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_batch_that_processes_cannot_share_equally_is_refused(tmp_path):
    base, tokenizer = embedded_base(0)
    model, problems = CODI.wrap(base, tokenizer, n_thoughts=2), list(generate(20, GENERATED["bundled"], 0))
    with pytest.raises(BadInput, match="batch_size = 8 cannot be shared equally by 3 processes"):
        distil(model, problems, [], DISTIL, tmp_path, group=ProcessGroup(0, 3, "cpu"))


@pytest.mark.parametrize("experiment", ["recurrence", "train-codi"])
def test_two_processes_write_one_run_of_a_distillation(two, experiment):
    [path] = (two / "runs" / experiment).iterdir()
    record = RunRecord(path)
    assert record.status == "finished" and record.verify() == []
    steps = record.metrics().drop_nulls("loss")["step"].to_list()
    assert steps == sorted(set(steps)) and record.manifest.spent.tokens > 0


def test_two_processes_write_one_run(two):
    [path] = (two / "runs" / "pretrain-gpt2").iterdir()
    record = RunRecord(path)
    assert record.status == "finished" and record.verify() == []
    assert record.metrics().drop_nulls("loss")["step"].to_list() == [1, 2, 3, 4]
    assert record.result("budget")["tokens"] == 4 * 256 == record.manifest.spent.tokens


def test_alone_there_is_nothing_to_join(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with process_group("cpu") as group:
        assert group == ProcessGroup(0, 1, "cpu") and group.writes and rank_here() == 0
        assert group.agreed("this") == "this"
        assert group.mean(torch.tensor(2.0)) == 2.0
