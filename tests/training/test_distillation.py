"""CODI's loss against the protocol written out the long way, and training that can be interrupted without a trace."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, Failed
from workings.models.codi import CODI
from workings.training.distillation import accuracies, add_lora, distil, merge_lora
from workings.training.objectives import codi_losses, examples_of, pad
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
    assert torch.allclose(losses.student, by_token("student", lengths), atol=1e-5)
    assert torch.allclose(losses.teacher, by_token("teacher", supervised), atol=1e-5)
    assert torch.allclose(losses.distil, expected, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_gradient_is_the_protocols_for_every_parameter(thinker, family, tied):
    """One problem, each of the three losses: no parameter, the output head included, is left out or counted twice."""
    model = thinker(family, tied=tied, keep_last_step=True)
    batch = pad(list(examples_of(PROBLEMS[5:6], model)), model)
    for name in ("student", "teacher"):
        grads = []
        for loss in (getattr(codi_losses(model, batch), name), long_way(model, PROBLEMS[5])[name]):
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
    losses.distil.backward(retain_graph=True)
    assert model.prj[1].weight.grad.abs().sum() > 0
    model.zero_grad()
    losses.teacher.backward()
    assert model.prj[1].weight.grad is None or model.prj[1].weight.grad.abs().sum() == 0


def test_the_last_step_is_dropped_or_kept(thinker):
    assert thinker().chain_text(PROBLEMS[0]) == "<<1+1=2>>"
    assert thinker(keep_last_step=True).chain_text(PROBLEMS[0]) == "<<1+1=2>> <<2*1=2>>"


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


def test_accumulation_gives_the_gradient_of_the_whole_batch(thinker, tmp_path):
    """CE over micro-batches of equal token counts equals CE over the batch: one step, same weights."""
    config = replace(SMALL, distil_weight=0.0, epochs=1)
    one = distil(thinker(), PROBLEMS, [], config, tmp_path / "a", max_steps=1)
    two = distil(thinker(), PROBLEMS, [], replace(config, micro_batch_size=4), tmp_path / "b", max_steps=1)
    assert (weights(one) - weights(two)).abs().max() < 1e-4


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
