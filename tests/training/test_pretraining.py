"""Pretraining against the same steps written out plainly, and interrupted in every way without a trace."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from workings.errors import BadInput, Failed
from workings.models.checkpoint import load_gpt2
from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.run import Run
from workings.text import Corpus, CorpusConfig, SourceConfig, build_corpus
from workings.text.manifest import Split
from workings.training import loop, trackers
from workings.training.budget import peak_flops, planned
from workings.training.loop import LossLimits, LossMonitor, StepNumbers, no_log
from workings.training.parallel import ProcessGroup
from workings.training.pretraining import live_bias, pretrain
from workings.training.recipes import PRETRAIN_PRESETS, ModelShape, PretrainConfig, rows_of, shape_of
from workings.training.resuming import SAMPLES, rewind

HERE = ProcessGroup(0, 1, "cpu")
SMALL = PretrainConfig(
    shape=ModelShape(2, 2, 16, 24),
    steps=6,
    tokens_per_step=4 * 24 * 2,
    pass_rows=2,
    warmup_steps=2,
    log_every=1,
    validate_every=0,
    sample_every=0,
    save_every=3,
)


class Told(list):
    """A log that keeps what it is told."""

    def __call__(self, step, **metrics):
        self.append({"step": step} | metrics)

    def without_times(self):
        return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "mfu")} for line in self]


def train(config, corpus, folder, **options):
    """The model, and what it told."""
    told = Told()
    return pretrain(config, corpus, folder, told, group=HERE, **options), told


def same_weights(a: GPT2, b: GPT2) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(one == other and torch.equal(x, y) for (one, x), (other, y) in pairs)


# ---- the same as a plain loop ------------------------------------------------------------------------------------


def plainly(config: PretrainConfig, corpus: Corpus, n_steps: int, seed: int) -> tuple[GPT2, list[float]]:
    """No accumulation, no fused optimizer, no chunks: whole logits, the dead ones taken out of the softmax."""
    model = GPT2(shape_of(config, corpus.tokenizer)).init(seed)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=False, foreach=False)
    dead = torch.ones(model.config.vocab, dtype=torch.bool)
    for ids in corpus.tokenizer.live:
        dead[list(ids)] = False
    rows, losses = config.tokens_per_step // config.shape.block, []
    batches = corpus.batches(seed, rows=rows, length=config.shape.block)
    for step, batch in zip(range(n_steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = config.schedule.learning_rate(step)
        documents = torch.from_numpy(batch.documents) if config.document_mask else None
        logits = model(torch.from_numpy(batch.inputs), documents).masked_fill(dead, -torch.inf)
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("document_mask", [False, True])
def test_accumulated_steps_are_those_of_a_plain_loop(corpus, tmp_path, document_mask):
    config = replace(SMALL, document_mask=document_mask)
    model, told = train(config, corpus, tmp_path, seed=3)
    expected, losses = plainly(config, corpus, 6, seed=3)
    assert [line["loss"] for line in told] == pytest.approx(losses, abs=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5), name


@pytest.mark.parametrize("change", [{}, {"precision": "bf16", "document_mask": True, "raw_bytes": 3333}])
def test_a_compiled_training_is_one_graph_and_the_same_training(corpus, tmp_path, monkeypatch, change):
    """What inductor makes of the graph is torch's affair; that there is one, and that it computes this, is ours."""
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend="aot_eager", fullgraph=True))
    config = replace(SMALL, keep_every=3, **change)
    plain, told = train(config, corpus, tmp_path / "plain")
    compiled, others = train(replace(config, compile=True), corpus, tmp_path / "compiled")
    within = 2e-2 if config.precision == "bf16" else 1e-5
    assert [line["loss"] for line in others] == pytest.approx([line["loss"] for line in told], abs=within)
    assert list(compiled.state_dict()) == list(plain.state_dict()), "no wrapper leaves its prefix"
    assert same_weights(load_gpt2(tmp_path / "compiled" / "step_000006")[0], compiled)
    train(replace(config, compile=True), corpus, tmp_path / "broken", max_steps=3)
    resumed, _ = train(replace(config, compile=True), corpus, tmp_path / "broken", resume=True)
    assert same_weights(resumed, compiled)


def test_the_first_loss_is_that_of_guessing_among_live_ids(corpus, tmp_path):
    _, told = train(SMALL, corpus, tmp_path)
    assert told[0]["loss"] == pytest.approx(math.log(sum(map(len, corpus.tokenizer.live))), abs=0.05)


def test_dead_rows_are_outside_the_softmax_and_only_decay(corpus, tmp_path):
    model, _ = train(SMALL, corpus, tmp_path, seed=1)
    before = GPT2(shape_of(SMALL, corpus.tokenizer)).init(1).wte.weight
    left = math.prod(1 - SMALL.schedule.learning_rate(step) * SMALL.weight_decay for step in range(6))
    bias = live_bias(corpus.tokenizer, model.config.vocab)
    dead, live = torch.isinf(bias), bias == 0
    assert dead.sum() + live.sum() == len(bias) and int(live.sum()) == sum(map(len, corpus.tokenizer.live))
    assert dead[corpus.tokenizer.width :].all() and dead.sum() > 0
    assert torch.allclose(model.wte.weight[dead], before[dead] * left, atol=1e-7)
    assert not torch.allclose(model.wte.weight[live], before[live] * left, atol=1e-5)


def test_bf16_autocast_trains_fp32_weights_much_the_same(corpus, tmp_path):
    _, narrow = train(replace(SMALL, precision="bf16"), corpus, tmp_path / "bf16")
    model, wide = train(SMALL, corpus, tmp_path / "fp32")
    assert [a["loss"] for a in narrow] == pytest.approx([b["loss"] for b in wide], abs=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_steps_of_equal_text_take_unequal_rows_and_lose_none(corpus, tmp_path):
    config = replace(SMALL, raw_bytes=3333, pass_rows=3)
    _, told = train(config, corpus, tmp_path)
    tokens = [b["tokens"] - a["tokens"] for a, b in zip([{"tokens": 0}, *told[:-1]], told, strict=True)]
    assert len(set(tokens)) == 2, "steps differ by a row"
    per_token = corpus.train.n_bytes / corpus.train.n_tokens
    assert abs(told[-1]["tokens"] * per_token - 3333) <= 0.5 * 24 * per_token


def test_passes_of_unequal_size_weigh_by_their_rows(corpus, tmp_path):
    """Seven or eight rows a step, three at a time or all at once: the same loss, gradient and weights."""
    config = replace(SMALL, raw_bytes=3333)
    apart, told = train(replace(config, pass_rows=3), corpus, tmp_path / "apart")
    together, others = train(replace(config, pass_rows=100), corpus, tmp_path / "together")
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in told] == pytest.approx([line[name] for line in others], rel=1e-5)
    for (name, ours), theirs in zip(apart.named_parameters(), together.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5), name


# ---- interrupted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"optimizer": "muon"}, {"precision": "bf16"}, {"raw_bytes": 3333}])
def test_three_steps_and_a_resume_are_six_straight_bit_for_bit(corpus, tmp_path, change):
    config = replace(SMALL, **change)
    straight, told = train(config, corpus, tmp_path / "straight")
    _, first = train(config, corpus, tmp_path / "broken", max_steps=3)
    torch.manual_seed(12345)  # whatever else the process did meanwhile
    resumed, second = train(config, corpus, tmp_path / "broken", resume=True)
    assert same_weights(straight, resumed)
    assert first.without_times() + second.without_times() == told.without_times()


def test_muon_moves_the_blocks_otherwise_than_adamw(corpus, tmp_path):
    one, _ = train(SMALL, corpus, tmp_path / "a", max_steps=1)
    other, _ = train(replace(SMALL, optimizer="muon"), corpus, tmp_path / "b", max_steps=1)
    assert torch.equal(one.wte.weight, other.wte.weight)
    assert not torch.allclose(one.h[0].mlp.c_fc.weight, other.h[0].mlp.c_fc.weight, atol=1e-6)


def test_means_of_the_log_survive_an_interruption_between_two_lines(corpus, tmp_path):
    config = replace(SMALL, log_every=4)
    _, told = train(config, corpus, tmp_path / "straight")
    train(config, corpus, tmp_path / "broken", max_steps=3)
    _, second = train(config, corpus, tmp_path / "broken", resume=True)
    assert second.without_times() == told.without_times() and [line["step"] for line in told] == [4, 6]


def test_sigterm_finishes_the_step_saves_and_exits_with_143(corpus, tmp_path):
    straight, told = train(SMALL, corpus, tmp_path / "straight")
    heard = Told()

    def log(step, **metrics):
        heard(step, **metrics)
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        pretrain(SMALL, corpus, tmp_path / "broken", log, group=HERE)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert [line["step"] for line in heard] == [1, 2], "the step that was on is the last"
    resumed, second = train(SMALL, corpus, tmp_path / "broken", resume=True)
    assert same_weights(straight, resumed)
    assert heard.without_times() + second.without_times() == told.without_times()


KILLED = """
import os, signal, sys
from workings.experiment import run_experiment
from workings.run import Run

log = Run.log

def log_and_die(run, step, **metrics):
    log(run, step, **metrics)
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Run.log = log_and_die
run_experiment("pretrain-gpt2", ["mini"], "smoke", [0], sys.argv[2:], root=sys.argv[1], quiet=True)
"""


def test_a_run_killed_at_step_five_goes_on_from_step_three_without_a_trace(corpus, tmp_path):
    from workings.experiment import resume_run, run_experiment

    settings = {"steps": 6, "save_every": 3, "log_every": 1, "validate_every": 2, "sample_every": 2, "keep_every": 2}
    overrides = [f"training.{name}={value}" for name, value in settings.items()] + [f"corpus={corpus.folder}"]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), *overrides], timeout=600)
    assert killed.returncode == -signal.SIGKILL
    [path] = (tmp_path / "killed" / "pretrain-gpt2").iterdir()
    steps = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 5 and torch.load(path / "checkpoint/state/training.pt", weights_only=True)["step"] == 3
    (path / "checkpoint" / ".step_000004.1.partial").mkdir()  # as a kill in the middle of keeping a model leaves it
    resumed = resume_run(path, quiet=True)
    [straight] = run_experiment("pretrain-gpt2", ["mini"], "smoke", [0], overrides, root=tmp_path / "whole", quiet=True)

    def lines(record, name):
        read = [json.loads(line) for line in (record.path / name).read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in read]

    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(resumed, name) == lines(straight, name), name
    for name in ("model", "step_000002", "step_000004"):
        weights = [r.path / "checkpoint" / name / "model.safetensors" for r in (resumed, straight)]
        assert weights[0].read_bytes() == weights[1].read_bytes(), name
    assert resumed.verify() == [] and resumed.result("validation") == straight.result("validation")


def test_lines_are_taken_back_by_step_and_half_lines_go(tmp_path):
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (0, 2, 4, 4, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 2, "lo')
    rewind(tmp_path, 4)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:4])
    rewind(tmp_path, -1)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_kept_model_is_the_model_of_its_step(corpus, tmp_path):
    train(replace(SMALL, keep_every=2), corpus, tmp_path / "kept", max_steps=5)
    early, _ = train(SMALL, corpus, tmp_path / "early", max_steps=4)
    kept, tokenizer = load_gpt2(tmp_path / "kept" / "step_000004")
    assert same_weights(kept, early) and tokenizer.digest == corpus.tokenizer.digest
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["state", "step_000002", "step_000004"]


# ---- measured ----------------------------------------------------------------------------------------------------


def test_bits_per_byte_are_the_documents_nats_over_their_raw_bytes(corpus, tmp_path):
    config = replace(
        SMALL, shape=ModelShape(2, 2, 16, 200), tokens_per_step=400, validate_every=6, validation_documents=4
    )
    model, told = train(config, corpus, tmp_path)
    documents = [document for _, document in zip(range(4), corpus.validation(), strict=False)]
    bias, nats = live_bias(corpus.tokenizer, model.config.vocab), 0.0
    for document in documents:
        ids = torch.tensor([corpus.tokenizer.eot, *document.ids.tolist()])
        assert len(ids) < 200
        nats += F.cross_entropy(model(ids[None, :-1])[0] + bias, ids[1:], reduction="sum").item()
    [_, last] = [line for line in told if "bits_per_byte" in line]
    bits = nats / math.log(2) / sum(document.n_bytes for document in documents)
    assert last["bits_per_byte"] == pytest.approx(bits, rel=1e-4) == last["bits_per_byte.generated"]
    assert last["validation_loss"] == pytest.approx(nats / sum(len(d.ids) for d in documents), rel=1e-4)


def test_judges_and_samples_come_when_they_are_due_and_change_nothing(corpus, tmp_path):
    asked = []

    def judge(language, step):
        torch.rand(3)  # a judge may draw
        asked.append((step, language.encode("6*9")))
        return {"right": step}

    config = replace(SMALL, evaluate_every=4, sample_every=5, sample_prompts=("The", "6*9=54"), validate_every=3)
    with Run.start(tmp_path / "runs", "toy", "arm", 0, config) as run:
        model, told = train(config, corpus, tmp_path / "a", evaluations=[judge], run=run)
    sampled = [json.loads(line) for line in (run.path / SAMPLES).read_text().splitlines()]
    plain, _ = train(SMALL, corpus, tmp_path / "b")
    assert same_weights(model, plain)
    assert [step for step, _ in asked] == [0, 4, 6] and [line["right"] for line in told if "right" in line] == [0, 4, 6]
    assert [(one["step"], one["prompt"]) for one in sampled] == [
        (step, prompt) for step in (0, 5, 6) for prompt in ("The", "6*9=54")
    ]


def test_speed_is_stated_as_a_share_of_a_given_peak_and_not_of_an_unknown_one(corpus, tmp_path):
    model, told = train(replace(SMALL, peak_flops=1e9), corpus, tmp_path / "a")
    for line in told:
        assert line["mfu"] == pytest.approx(line["tokens_per_second"] * model.flops_per_token(24) / 1e9, abs=1e-4)
    _, unknown = train(SMALL, corpus, tmp_path / "b")
    assert all(line["mfu"] is None for line in unknown)
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12 and peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA H100 NVL", "bf16") == 835e12 and peak_flops("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    assert peak_flops("NVIDIA GH200 480GB", "bf16") == 989e12
    assert peak_flops("NVIDIA L4", "bf16") == 121e12 and peak_flops("NVIDIA L40", "bf16") is None


def test_a_missing_tracker_is_named(tmp_path):
    with (
        pytest.raises(BadInput, match=r"no_such_tracker is not installed: pip install 'workings\[track\]'"),
        trackers.opened(no_log, ["no_such_tracker"], "p", tmp_path, {}),  # ty: ignore[invalid-argument-type]
    ):
        pass


# ---- the cost ----------------------------------------------------------------------------------------------------


class TenBillion:
    """The seeds' corpus as its manifest would be: what a budget asks of a corpus of 50,349 ids."""

    folder: ClassVar = Path("/corpora/ten-billion")
    n_tokens: ClassVar = 1_066_686_441
    train: ClassVar = Split(n_bytes=4_800_000_000, n_tokens=1_066_686_441)

    def n_windows(self, length):
        return self.n_tokens // length


def test_the_seeds_recipe_costs_what_it_did_and_its_repetition_is_called_one():
    config, shape = PRETRAIN_PRESETS["124M-10B"], GPT2Config(vocab=50_349)
    rows = rows_of(config, TenBillion(), 1024, n_processes=4)  # ty: ignore[invalid-argument-type]
    budget = planned(config, TenBillion(), 4, shape)  # ty: ignore[invalid-argument-type]
    assert budget.cost.parameters == 124_510_464 and rows.passes(0) == [32] * 4
    assert budget.cost.tokens == 9_999_745_024 and budget.cost.steps == 19_073
    assert budget.epochs == pytest.approx(9.37, abs=0.01)
    assert budget.cost.flops == pytest.approx(8.5e18, rel=0.05)
    said = "\n".join(budget.lines(4 * 0.4 * 989e12, "40 % of the peak"))
    assert "WARNING: the corpus is repeated: 9.4 epochs" in said and "1.5" in said.split("time")[1]


def test_the_memory_of_activations_is_what_a_pass_keeps(corpus, tmp_path):
    """The estimate against the bytes that autograd really saves, on a shape where both are large."""
    shape = GPT2Config(n_layers=4, n_heads=4, d_model=64, block=64, vocab=256)
    model = GPT2(shape).init(0)
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(0, 256, (8, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(ids, ids)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = sum(size for pointer, size in storages.items() if pointer not in weights)
    config = replace(SMALL, tokens_per_step=512, pass_rows=8)
    budget = planned(config, corpus, 1, shape)
    estimate = budget.memory - 16 * budget.cost.parameters
    assert 0.7 < estimate / kept < 1.5


# ---- refused -----------------------------------------------------------------------------------------------------


def test_a_resume_point_of_another_training_is_refused(corpus, tmp_path):
    with pytest.raises(BadInput, match="nothing to resume"):
        train(SMALL, corpus, tmp_path, resume=True)
    train(SMALL, corpus, tmp_path, max_steps=3)
    with pytest.raises(BadInput, match=r"learning_rate: 0\.001 then, 0\.002 now"):
        train(replace(SMALL, learning_rate=2e-3), corpus, tmp_path, resume=True)
    with pytest.raises(BadInput, match="seed: 0 then, 1 now"):
        train(SMALL, corpus, tmp_path, resume=True, seed=1)
    (tmp_path / "state" / "training.pt").write_bytes(b"half a file")
    with pytest.raises(BadInput, match="was changed after it was written"):
        train(SMALL, corpus, tmp_path, resume=True)


def test_a_resume_point_of_the_version_before_resumes_exactly(corpus, tmp_path):
    """Until 2026-11-25 the watch had one loss, under other names."""
    config = replace(SMALL, log_every=4)
    straight, told = train(config, corpus, tmp_path / "straight")
    train(config, corpus, tmp_path / "old", max_steps=3)
    path = tmp_path / "old" / "state" / "training.pt"
    state = torch.load(path, weights_only=True)
    now = state["watch"]
    state["watch"] = {
        "n": now["n"],
        "loss": now["sums"]["loss"],
        "norm": now["sums"]["grad_norm"],
        "smooth": now["smooth"],
    }
    torch.save(state, path)
    resumed, second = train(config, corpus, tmp_path / "old", resume=True)
    assert same_weights(straight, resumed) and second.without_times() == told.without_times()


def test_another_corpus_is_refused_on_resume(corpus, tmp_path):
    config = CorpusConfig(documents=(SourceConfig("generated"),), documents_limit=60, seed=1)
    other = build_corpus(config, tmp_path / "other", processes=1)
    train(SMALL, corpus, tmp_path / "run", max_steps=3)
    with pytest.raises(BadInput, match="corpus: "):
        train(SMALL, other, tmp_path / "run", resume=True)


def test_what_does_not_fit_is_refused_before_a_step_is_made(corpus, tmp_path):
    with pytest.raises(BadInput, match="length = 32 tokens a row, and the model has 24 positions"):
        train(replace(SMALL, length=32), corpus, tmp_path)
    with pytest.raises(BadInput, match="the nearest that fit: 192 or 240"):
        train(replace(SMALL, tokens_per_step=200), corpus, tmp_path)
    with pytest.raises(BadInput, match="not one row of"):
        train(replace(SMALL, shape=ModelShape(1, 2, 8, 1_000_000), tokens_per_step=2_000_000), corpus, tmp_path)
    narrow = GPT2(GPT2Config(n_layers=1, n_heads=2, d_model=8, block=24, vocab=100)).init(0)
    with pytest.raises(BadInput, match=r"ids up to 2,092 and the model 100 rows"):
        train(SMALL, corpus, tmp_path, start=narrow)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"warmup_steps": 7}, "more than steps"),
        ({"save_every": -1}, "save_every is -1"),
        ({"clip": -1.0}, r"clip is -1\.0, and must be above 0"),  # which would climb
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"final_learning_rate": math.nan}, "final_learning_rate is nan"),
        ({"weight_decay": -0.1}, r"weight_decay is -0\.1, and must be at least 0"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0\.9, 1\.0\)"),
        ({"raw_bytes": 0}, "raw_bytes is 0"),
    ],
)
def test_a_recipe_without_sense_is_refused(change, complaint):
    with pytest.raises(BadInput, match=complaint):
        replace(SMALL, **change)


# ---- gone wrong --------------------------------------------------------------------------------------------------


def test_a_loss_that_leaves_its_band_ends_the_training_and_keeps_the_last_good_weights(corpus, tmp_path):
    wild = replace(SMALL, learning_rate=1e4, save_every=1, clip=1e9)
    with pytest.raises(Failed, match=r"step \d: the (loss|norm).*last good resume point is .*training\.pt"):
        train(wild, corpus, tmp_path)
    state = torch.load(tmp_path / "state" / "training.pt", weights_only=True)
    assert 1 <= state["step"] < 6 and all(torch.isfinite(w).all() for w in state["model"].values())


def watched(losses, norms=None):
    monitor = LossMonitor(LossLimits(ceiling=9.0, jump=2.0, from_step=3), Path("nowhere"))
    for step, loss in enumerate(losses, start=1):
        values = torch.tensor([loss, (norms or {}).get(step, 1.0), 0.0])
        monitor.saw(step, StepNumbers(("loss", "grad_norm", "stop"), values))
    return monitor


def test_a_loss_is_watched_from_the_end_of_warm_up_on():
    assert watched([11.0, 10.0, 8.0, 7.0]).means() == {"loss": 9.0, "grad_norm": 1.0}
    with pytest.raises(
        Failed, match=r"step 3: the loss 9\.50 is above 9\.00, worse than guessing\. no resume point had"
    ):
        watched([11.0, 10.0, 9.5])
    with pytest.raises(Failed, match=r"step 5: the loss jumped to 6\.50 from a running mean of 4\.00"):
        watched([11.0, 10.0, 4.0, 4.0, 6.5])
    with pytest.raises(Failed, match="step 1: the loss is nan"):
        watched([math.nan])
    with pytest.raises(Failed, match=r"step 2: .*norm of its gradient inf"):
        watched([5.0, 5.0], {2: math.inf})


def test_a_full_gpu_is_called_one(corpus, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.07 GiB")

    monkeypatch.setattr(loop, "train_step", full)
    with pytest.raises(Failed, match=r"the memory of cpu is full: .* fewer than 2 rows a pass .* no resume point"):
        train(SMALL, corpus, tmp_path)


def test_a_resume_point_that_the_system_refuses_halfway_is_explained(corpus, tmp_path):
    train(SMALL, corpus, tmp_path, max_steps=3)
    before = (tmp_path / "state" / "training.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(Failed, match=r"the disk is full at .*state"):
            train(SMALL, corpus, tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "state" / "training.pt").read_bytes() == before
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["training.pt"]


def test_a_full_disk_is_called_one_and_the_old_resume_point_stays(corpus, tmp_path):
    train(SMALL, corpus, tmp_path, max_steps=3)
    before = (tmp_path / "state" / "training.pt").read_bytes()
    (tmp_path / "state" / f".training.pt.{os.getpid()}.half").symlink_to("/dev/full")
    with pytest.raises(Failed, match="the disk is full"):
        train(SMALL, corpus, tmp_path, resume=True)
    assert (tmp_path / "state" / "training.pt").read_bytes() == before
