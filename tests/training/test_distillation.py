"""CODI's loss against the protocol written out the long way, and training that can be interrupted without a trace."""

from __future__ import annotations

import math
import os
import signal
from array import array
from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, Failed
from workings.models.codi import CODI
from workings.training.distillation import BatchOrder, accuracies, add_lora, distil, merge_lora
from workings.training.objectives import (
    Example,
    SelfDistillation,
    distance,
    examples_of,
    pad,
    student_pass,
    teacher_pass,
)
from workings.training.recipes import DistilConfig

PROBLEMS = [
    Problem(
        f"a has {i} pens . then {j} more . how many now ?",
        (Step(f"{i}+{j}", str(i + j)), Step(f"{i + j}*1", str(i + j))),
        str(i + j),
    )
    for i in range(1, 9)
    for j in range(1, 9)
]
SMALL = DistilConfig(
    batch_size=8, micro_batch_size=8, epochs=2, log_every=1, validate_every=100, save_every=1, precision="fp32"
)


def codi_losses(model, batch) -> dict[str, torch.Tensor]:
    return SelfDistillation(model, SMALL)(batch)


def long_way(model, problem) -> dict[str, torch.Tensor]:
    """One problem, no batch, no cache, no mask of ours: Hugging Face's forward on the whole sequences."""
    embed, base = model.embed, model.base
    [question], [(answer, before)] = model.question_ids([problem.question]), model.answer_ids([problem])
    embeds = embed(torch.tensor([question]))
    for k in range(model.n_thoughts + 1):
        last = base(inputs_embeds=embeds, output_hidden_states=True).hidden_states[-1][:, -1]
        if k < model.n_thoughts:
            embeds = torch.cat([embeds, model.feed(last, k)[:, None]], 1)
    tail = torch.tensor([[model.config.eot_id, *answer]])
    out = base(inputs_embeds=torch.cat([embeds, embed(tail)], 1), output_hidden_states=True)
    start = embeds.shape[1]
    student_ce = F.cross_entropy(out.logits[0, start : start + len(answer)], tail[0, 1:])
    written = torch.tensor([[*question[:-1], *model.chain_ids(problem), *answer]])
    taught = base(input_ids=written, output_hidden_states=True)
    n_question = len(question) - 1
    teacher_ce = F.cross_entropy(taught.logits[0, n_question - 1 : -1], written[0, n_question:])
    at = written.shape[1] - len(answer) + before
    return {
        "student": student_ce,
        "teacher": teacher_ce,
        "student_states": torch.stack([h[0, start + 1 + before] for h in out.hidden_states]),
        "teacher_states": torch.stack([h[0, at] for h in taught.hidden_states]),
    }


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("keep_last_step", [False, True])
def test_the_loss_is_the_protocols(thinker, family, keep_last_step):
    model = thinker(family, keep_last_step=keep_last_step)
    problems = [PROBLEMS[3], PROBLEMS[40], replace(PROBLEMS[7], question="b has 2 pens . how many ?")]
    losses = codi_losses(model, pad(list(examples_of(problems, model)), model))
    ones = [long_way(model, p) for p in problems]
    student, teacher = (torch.stack([o[k] for o in ones], 1) for k in ("student_states", "teacher_states"))
    expected = torch.stack([F.smooth_l1_loss(s, t) / t.std() for s, t in zip(student, teacher, strict=True)]).mean()
    lengths = [len(e.answer) for e in examples_of(problems, model)]
    supervised = [len(model.chain_ids(p)) + n for p, n in zip(problems, lengths, strict=True)]
    by_token = lambda key, counts: sum(o[key] * n for o, n in zip(ones, counts, strict=True)) / sum(counts)
    assert torch.allclose(losses["student"], by_token("student", lengths), atol=1e-5)
    assert torch.allclose(losses["teacher"], by_token("teacher", supervised), atol=1e-5)
    assert torch.allclose(losses["distil"], expected, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_gradient_is_the_protocols_for_every_parameter(thinker, family, tied):
    """One problem, each of the three losses: no parameter, the output head included, is left out or counted twice."""
    model = thinker(family, tied=tied, keep_last_step=True)
    batch = pad(list(examples_of(PROBLEMS[5:6], model)), model)
    for name in ("student", "teacher"):
        grads = []
        for loss in (codi_losses(model, batch)[name], long_way(model, PROBLEMS[5])[name]):
            model.zero_grad()
            loss.backward()
            grads.append({n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()})
        for parameter in grads[0]:
            ours, theirs = grads[0][parameter], grads[1][parameter]
            assert (ours is None) == (theirs is None), parameter
            if ours is not None:
                assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4), parameter
    head = model.base.get_output_embeddings().weight.grad
    assert head is not None and head.abs().sum() > 0


def test_the_compared_token_is_the_one_before_the_answer(thinker, words):
    model = thinker()
    [(answer, before)] = model.answer_ids([PROBLEMS[0]])
    assert words.convert_ids_to_tokens(answer) == ["The", "answer", "is", ":", "2", "<|endoftext|>"]
    assert words.convert_ids_to_tokens(answer[before]) == ":"


def test_the_teacher_gets_no_gradient_from_the_distance(thinker):
    """Distillation alone must move the student only: the states it is compared with are constants."""
    model = thinker()
    batch = pad(list(examples_of(PROBLEMS[:4], model)), model)
    losses = codi_losses(model, batch)
    losses["distil"].backward(retain_graph=True)
    assert model.prj[1].weight.grad.abs().sum() > 0
    model.zero_grad()
    losses["teacher"].backward()
    assert model.prj[1].weight.grad is None or model.prj[1].weight.grad.abs().sum() == 0


def test_the_gradient_of_the_distance_is_that_of_a_constant_teacher(thinker):
    """Parameter by parameter: student and teacher are one model, so a teacher that is not detached shows everywhere."""
    model = thinker()
    batch = pad(list(examples_of(PROBLEMS[:4], model)), model)
    with torch.no_grad():
        _, teacher = teacher_pass(model, batch)
    _, student = student_pass(model, batch)
    expected = torch.autograd.grad(distance(student, teacher, "smooth_l1", True), list(model.parameters()))
    found = torch.autograd.grad(codi_losses(model, batch)["distil"], list(model.parameters()))
    for (name, _), ours, theirs in zip(model.named_parameters(), found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-4), name


@pytest.mark.parametrize("answer_sees", ["everything", "thoughts"])
def test_the_teachers_answer_sees_the_question_only_where_the_students_does(words, answer_sees):
    """In one block nothing comes to the answer by way of the chain: another question of as many tokens must not show."""
    base = tiny_base("gpt2", len(words), layers=1)  # noqa: F405
    model = CODI.wrap(base, words, n_thoughts=2, answer_sees=answer_sees)
    other = replace(PROBLEMS[0], question="c has 9 more . how 5 pens . then a now ?")
    batches = [pad(list(examples_of([problem], model)), model) for problem in (PROBLEMS[0], other)]
    assert batches[0].teacher.shape == batches[1].teacher.shape
    (_, states), (_, others) = (teacher_pass(model, batch) for batch in batches)
    unseen = torch.allclose(states[-1], others[-1], atol=1e-6)
    assert unseen == (answer_sees == "thoughts")


def test_the_last_step_is_dropped_or_kept(thinker):
    assert thinker().chain_text(PROBLEMS[0]) == "<<1+1=2>>"
    assert thinker(keep_last_step=True).chain_text(PROBLEMS[0]) == "<<1+1=2>> <<2*1=2>>"


def test_a_chain_in_words_is_the_teachers_chain_and_ends_in_a_newline(thinker):
    """As the official code writes it: the sentences before the last, then a newline."""
    told = Problem.of("q?", "Six times 9 is 54. One more is 55. The answer is 55.", "55")
    assert thinker().chain_text(told) == "Six times 9 is 54. One more is 55.\n"
    assert thinker(keep_last_step=True).chain_text(told) == "Six times 9 is 54. One more is 55. The answer is 55.\n"
    assert (
        thinker().chain_text(replace(told, words=told.words[:1])) == thinker().chain_text(replace(told, words=())) == ""
    )
    [example] = examples_of([told], thinker())
    assert list(example.chain) == thinker().chain_ids(told) != []


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("recurrence", ["state", "constant"])
def test_an_interrupted_training_resumes_to_the_same_weights(thinker, tmp_path, recurrence, lora_rank):
    config = replace(SMALL, lora_rank=lora_rank, micro_batch_size=4)
    lines: dict[str, list] = {"whole": [], "parts": []}
    note = lambda name: lambda step, **m: lines[name].append((step, m.get("student")))
    fresh = lambda: thinker("gpt2", recurrence=recurrence)
    whole = distil(fresh(), PROBLEMS, [], config, tmp_path / "whole", note("whole"))
    distil(fresh(), PROBLEMS, [], config, tmp_path / "parts", note("parts"), max_steps=5)
    parts = distil(fresh(), PROBLEMS, [], config, tmp_path / "parts", note("parts"), resume=True)
    assert torch.equal(weights(whole), weights(parts))
    losses = lambda name: [x for x in lines[name] if x[1] is not None]
    assert losses("whole") == losses("parts") and len(losses("whole")) == 16


def test_resuming_under_another_configuration_is_refused(thinker, tmp_path):
    distil(thinker(), PROBLEMS, [], SMALL, tmp_path, max_steps=2)
    with pytest.raises(BadInput, match=r"another training \(weight_decay: 0\.1 then, 0\.0 now\)"):
        distil(thinker(), PROBLEMS, [], replace(SMALL, weight_decay=0.0), tmp_path, resume=True)
    with pytest.raises(BadInput, match="nothing to resume"):
        distil(thinker(), PROBLEMS, [], SMALL, tmp_path / "other", resume=True)


def test_means_of_the_log_survive_an_interruption_between_two_lines(thinker, tmp_path):
    config, lines = replace(SMALL, log_every=4), []
    note = lambda step, **m: lines.append((step, {k: v for k, v in m.items() if k != "examples_per_second"}))
    distil(thinker(), PROBLEMS, [], config, tmp_path / "whole", note)
    whole, lines[:] = list(lines), []
    distil(thinker(), PROBLEMS, [], config, tmp_path / "parts", note, max_steps=6)
    distil(thinker(), PROBLEMS, [], config, tmp_path / "parts", note, resume=True)
    assert lines == whole and [step for step, _ in lines] == [0, 4, 8, 12, 16]


def test_the_rate_that_is_logged_is_the_one_that_was_used(thinker, tmp_path):
    lines = {}
    distil(thinker(), PROBLEMS, [], SMALL, tmp_path, lambda step, **m: lines.update({step: m}))
    schedule = SMALL.schedule(len(PROBLEMS))
    assert [lines[step]["lr"] for step in range(1, 17)] == [schedule.learning_rate(step) for step in range(16)]


def test_sigterm_finishes_the_step_saves_and_exits_with_143(thinker, tmp_path):
    config, heard = replace(SMALL, save_every=100), []

    def log(step, **metrics):
        heard.append(step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        distil(thinker(), PROBLEMS, [], config, tmp_path / "parts", log)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert heard == [0, 1, 2, 3, 4], "the step that was on is the last"
    whole = distil(thinker(), PROBLEMS, [], config, tmp_path / "whole")
    resumed = distil(thinker(), PROBLEMS, [], config, tmp_path / "parts", resume=True)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_full_disk_is_called_one_and_the_old_resume_point_stays(thinker, tmp_path):
    distil(thinker(), PROBLEMS, [], SMALL, tmp_path, max_steps=3)
    before = (tmp_path / "state" / "training.pt").read_bytes()
    (tmp_path / "state" / f".training.pt.{os.getpid()}.half").symlink_to("/dev/full")
    with pytest.raises(Failed, match="the disk is full"):
        distil(thinker(), PROBLEMS, [], SMALL, tmp_path, resume=True)
    assert (tmp_path / "state" / "training.pt").read_bytes() == before


def test_a_loss_that_leaves_its_limits_ends_the_training_and_keeps_the_last_good_weights(thinker, tmp_path):
    wild = replace(SMALL, learning_rate=1e4, clip=1e9)
    with pytest.raises(Failed, match=r"step \d+: the (student )?(loss|norm).*last good resume point is .*training\.pt"):
        distil(thinker(), PROBLEMS, [], wild, tmp_path)
    state = torch.load(tmp_path / "state" / "training.pt", weights_only=True)
    assert 1 <= state["step"] < 16 and all(torch.isfinite(w).all() for w in state["model"].values())


def test_a_resume_point_of_other_problems_or_of_an_earlier_version_is_refused(thinker, tmp_path):
    distil(thinker(), PROBLEMS, [], SMALL, tmp_path, max_steps=2)
    with pytest.raises(BadInput, match=r"another training.*examples: "):
        distil(thinker(), PROBLEMS[1:], [], SMALL, tmp_path, resume=True)
    model = thinker()
    earlier = {
        "step": 2,
        "config": "3f",
        "model": model.state_dict(),
        "optimizers": [],
        "random": torch.get_rng_state(),
    }
    torch.save(earlier, tmp_path / "state" / "training.pt")
    with pytest.raises(BadInput, match=r"no resume point of this version.*start a new run, or finish this one with"):
        distil(model, PROBLEMS, [], SMALL, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"save_every": -1}, "save_every is -1"),
        ({"clip": -1.0}, r"clip is -1\.0, and must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"epochs": 0.0}, r"epochs is 0\.0"),
    ],
)
def test_a_recipe_without_sense_is_refused(change, complaint):
    with pytest.raises(BadInput, match=complaint):
        replace(SMALL, **change)


def test_accumulation_gives_the_gradient_of_the_whole_batch(thinker, tmp_path):
    """CE over micro-batches of equal token counts equals CE over the batch: one step, same weights."""
    config = replace(SMALL, distil_weight=0.0, epochs=1, warmup_fraction=0.0)  # else the first rate is 0
    one = distil(thinker(), PROBLEMS, [], config, tmp_path / "a", max_steps=1)
    two = distil(thinker(), PROBLEMS, [], replace(config, micro_batch_size=4), tmp_path / "b", max_steps=1)
    assert (weights(one) - weights(two)).abs().max() < 1e-4


def test_micro_batches_of_unequal_size_weigh_by_their_examples(thinker, tmp_path):
    """Six examples as four and two: the loss and the norm of its gradient against the sum written out."""
    config = replace(SMALL, batch_size=6, micro_batch_size=4)
    lines = []
    problems = PROBLEMS[:48]
    distil(thinker(), problems, [], config, tmp_path, lambda step, **m: lines.append(m), max_steps=1)
    [line] = [one for one in lines if "loss" in one]
    model = thinker()
    batch = BatchOrder(list(examples_of(problems, model)), 6, config.seed, config.length_window).batch(0)
    totals = [codi_losses(model, pad(part, model))["loss"] for part in (batch[:4], batch[4:])]
    weighted = (4 * totals[0] + 2 * totals[1]) / 6
    assert abs(weighted - (totals[0] + totals[1]) / 2) > 1e-2, "else the test tests nothing"
    gradients = torch.autograd.grad(weighted, list(model.parameters()))
    assert line["loss"] == pytest.approx(weighted.item(), rel=1e-5)
    assert line["grad_norm"] == pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item(), rel=1e-4)


@given(st.integers(1, 80), st.integers(1, 9), st.integers(0, 3), st.integers(0, 2))
def test_an_epoch_reads_every_example_once(n, batch_size, length_window, epoch):
    """The last batch of an epoch may be short; none is empty, and a step is in the epoch that its number says."""
    examples = [Example(array("i", range(i % 7)), array("i", [i]), array("i"), 0) for i in range(n)]
    order = BatchOrder(examples, batch_size, 0, length_window)
    n_batches = math.ceil(n / batch_size)
    batches = [order.batch(epoch * n_batches + step) for step in range(n_batches)]
    assert sorted(e.chain[0] for batch in batches for e in batch) == list(range(n))
    assert sorted(map(len, batches))[1:] == [batch_size] * (n_batches - 1)
    if not length_window and n > 20:
        assert [e.n_tokens for batch in batches for e in batch] != sorted(e.n_tokens for e in examples)


def test_a_released_recipe_reads_its_questions_as_written_and_leaves_other_answers_out(thinker, tmp_path):
    """And the model still normalises the questions that it is asked, as the official test does."""
    model, spaced = thinker(), PROBLEMS[3].question.replace(" has ", "  has  ")
    [written], [asked] = model.question_ids([spaced], raw=True), model.question_ids([spaced])
    problems = [replace(PROBLEMS[3], question=spaced), replace(PROBLEMS[4], answer="-3"), *PROBLEMS[10:17]]
    config = replace(SMALL, digit_answers_only=True, raw_questions=True)
    lines = []
    distil(model, problems, [], config, tmp_path, lambda step, **m: lines.append(m), max_steps=1)
    assert lines[0] == {"examples": 8, "left_out_too_long": 0, "left_out_other_answers": 1, "without_chain": 0}
    [example] = examples_of(problems[:1], model, raw_questions=True)
    assert list(example.question) == written
    assert list(next(examples_of(problems[:1], model)).question) == asked


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_merged_lora_computes_what_the_adapters_did(thinker, questions, family):
    model = thinker(family)
    names = {n for n, _ in model.named_parameters()}
    add_lora(model, replace(SMALL, lora_rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    model.eval()
    adapted = model.think(questions).hidden
    merge_lora(model)
    assert {n for n, _ in model.named_parameters()} == names
    assert (model.think(questions).hidden - adapted).abs().max() < 1e-3


def test_too_few_examples_are_an_error_that_says_what_to_do(thinker, tmp_path):
    with pytest.raises(BadInput, match="fewer than one batch of 8"):
        distil(thinker(), list(islice(PROBLEMS, 3)), [], SMALL, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(thinker, tmp_path):
    model = thinker()
    model.base.get_input_embeddings().weight.data[5] = float("nan")
    with pytest.raises(Failed, match=r"step 1: the loss is nan"):
        distil(model, PROBLEMS, [], SMALL, tmp_path)


def test_a_small_model_learns_what_it_is_taught(words, tmp_path):
    """Sixteen sums by heart: after two hundred steps thoughts and written chain answer most of them."""
    model = CODI.wrap(tiny_base("gpt2", len(words), noise=0.0), words, n_thoughts=2, keep_last_step=True)  # noqa: F405
    some = [p for p in PROBLEMS if int(p.answer) <= 6][:16]
    config = replace(SMALL, optimizer="muon", epochs=200, learning_rate=1e-2, batch_size=len(some), micro_batch_size=16)
    quiet = replace(config, save_every=1000, log_every=1000, validate_every=1000)
    trained = distil(model, some, [], quiet, tmp_path)
    right = accuracies(trained, some)
    assert right["thoughts"] > 0.7
    assert right["written_chain"] > 0.7
