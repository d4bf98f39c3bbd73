"""Fitting: what was planted is found where it was planted and nowhere else, and not under shuffled targets."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.reading.toy import SPELLING, WIDTH, ToyThinker, problems
from workings.errors import BadInput, Failed
from workings.models.anatomy import Unembedding
from workings.reading.fit import FitTask, _Fitting, _States, fit_each, fit_lens
from workings.reading.head import FrozenHead
from workings.reading.lens import Columns
from workings.reading.lens_kinds import LogitLens, PerPositionLens, TunedLens, lens_of
from workings.reading.readings import READINGS, read_all, top_tokens
from workings.reading.recipe import FitConfig
from workings.reading.store import StatesInMemory
from workings.reading.targets import EMPTY, split_problems, targets_by_rule

CONFIG = FitConfig(lr=3e-3, max_epochs=30, precision="fp32")


def thoughts(model: ToyThinker, n: int = 400) -> StatesInMemory:
    given = problems(n)
    found, _ = model.think_and_answer([p.question for p in given], n_thoughts=3, max_new_tokens=0, batch_size=n)
    states = {layer: found.hidden[:, :, i].contiguous() for i, layer in enumerate(model.layers)}
    return StatesInMemory(states, model.positions(), [p.id for p in given], model.fingerprint)


def results(rule: str = "step1", n: int = 400):
    given = problems(n)
    split_of = split_problems(given, (0.6, 0.2, 0.2))
    return targets_by_rule(rule, given, SPELLING, ToyThinker().positions(), [split_of[p.id] for p in given])


@pytest.fixture(scope="module")
def planted():
    model, targets = ToyThinker(), results()
    hidden = thoughts(model)
    asked = {"real": targets, "shuffled": targets.shuffled(0)}
    fits = fit_each(hidden, {name: FitTask(TunedLens.of(model), one, CONFIG) for name, one in asked.items()})
    return model, hidden, targets, fits


def top1(readings: pl.DataFrame) -> dict[tuple[str, str], float]:
    table = readings.group_by("layer", "position").agg((pl.col("rank") == 0).mean().alias("top1"))
    return {(layer, position): share for layer, position, share in table.iter_rows()}


def test_the_planted_token_is_found_where_it_is_and_nowhere_else(planted):
    model, hidden, targets, fits = planted
    found = top1(read_all(fits["real"].lens, hidden, targets, targets.rows("test")))
    assert found[model.planted] > 0.9
    assert all(share < 0.4 for place, share in found.items() if place != model.planted)  # the commonest has 0.25
    before = top1(read_all(LogitLens.of(model), hidden, targets, targets.rows("test")))
    assert before[model.planted] < 0.4  # the rotation had to be learned


def test_under_shuffled_targets_nothing_is_found(planted):
    _, hidden, targets, fits = planted
    for asked in (targets, targets.shuffled(0)):
        found = top1(read_all(fits["shuffled"].lens, hidden, asked, asked.rows("test")))
        assert all(share < 0.4 for share in found.values())


def test_a_model_that_holds_nothing_is_read_as_holding_nothing():
    model, targets = ToyThinker(planted=None), results()
    hidden = thoughts(model)
    fit = fit_lens(TunedLens.of(model), hidden, targets, CONFIG)
    assert all(share < 0.4 for share in top1(read_all(fit.lens, hidden, targets, targets.rows("test"))).values())


def test_each_of_several_fits_is_the_fit_it_would_be_alone(planted):
    model, hidden, targets, fits = planted
    alone = fit_lens(TunedLens.of(model), hidden, targets, CONFIG)
    assert torch.equal(alone.lens.weight, fits["real"].lens.weight)
    assert alone.best_epoch == fits["real"].best_epoch


def test_the_lens_kept_is_that_of_the_best_validation_epoch(planted):
    model, hidden, targets, fits = planted
    fit = fits["real"]
    losses = [epoch.validation for epoch in fit.epochs]
    assert losses[fit.best_epoch] == min(losses)
    assert fit.best_epoch == len(losses) - 1 or len(losses) - 1 - fit.best_epoch <= CONFIG.patience
    readings = read_all(fit.lens, hidden, targets, targets.rows("val"), layers=fit.lens.translated)
    assert readings["nll"].mean() == pytest.approx(fit.validation, abs=1e-4)
    assert fit.validation == pytest.approx(min(losses), abs=1e-4)
    start = read_all(LogitLens.of(model), hidden, targets, targets.rows("val"), layers=fit.lens.translated)
    assert start["nll"].mean() == pytest.approx(losses[0], abs=1e-4)


def test_a_step_is_taken_on_the_mean_over_layers_and_tokens(planted):
    """So that the largest gradient allowed means the same for a model of 3 and of 30 layers."""
    model, hidden, targets, _ = planted
    lens = TunedLens.of(model, final_norm=True)
    task, kept = FitTask(lens, targets, replace(CONFIG, clip=1e9)), _States(hidden, lens.translated, model.device)
    fitting = _Fitting(task, FrozenHead(model.unembedding, "fp32"), kept)
    rows = targets.rows("val")
    states = torch.stack([hidden.hidden(layer, rows) for layer in lens.translated])
    fitting.step(rows)
    surprises = []
    for at, layer in enumerate(lens.translated):
        moved = states[at] + lens.bias[at]  # by nothing, as before the step
        logits = model.unembedding(moved, normed=layer == "final_norm")
        surprises.append(-logits.log_softmax(-1).gather(-1, targets.ids[rows]))
    (gradient,) = torch.autograd.grad(torch.stack(surprises).mean(), [lens.bias])
    torch.testing.assert_close(fitting.lens.bias.grad, gradient, rtol=1e-4, atol=1e-7)


def test_the_model_is_not_touched_by_a_fit_and_a_lens_does_not_copy_its_head(planted):
    model, _, _, fits = planted
    lens = fits["real"].lens
    assert lens.unembedding is fits["shuffled"].lens.unembedding
    assert not any(p.shape == model.unembedding.weight.shape for p in lens.parameters())
    assert {name for name, _ in lens.named_parameters()} == {"weight", "bias"}


def test_a_lens_by_position_finds_what_each_position_holds_in_a_direction_of_its_own():
    """Two thoughts hold the token along different rotations: one translator cannot turn both back."""
    model, targets = ToyThinker(planted=None), results()
    hidden = thoughts(model)
    states = {layer: h.clone() for layer, h in hidden.states.items()}
    other = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(5)))[0]
    for place, rotation in ((1, model.rotation), (2, other)):
        states["block1"][:, place] += 3 * model.unembedding.weight[targets.ids[:, place, 0]] @ rotation
    hidden = replace(hidden, states=states)
    rows = targets.rows("test")
    start = PerPositionLens.of(model, positions=hidden.positions)
    by_position = fit_lens(start, hidden, targets, CONFIG)
    shared = fit_lens(TunedLens.of(model), hidden, targets, CONFIG)
    found, mixed = (top1(read_all(fit.lens, hidden, targets, rows)) for fit in (by_position, shared))
    for position in ("t1", "t2"):
        assert found["block1", position] > 0.6
        assert found["block1", position] > mixed["block1", position]
    assert by_position.validation < shared.validation
    with pytest.raises(BadInput, match="no position 'bot'"):
        fit_lens(PerPositionLens.of(model, positions=("t1", "t2", "t3")), hidden, targets, CONFIG)


def test_one_position_alone_is_fitted_alike_by_both_kinds(planted):
    model, hidden, targets, _ = planted
    here = torch.arange(4) == 2
    only = replace(targets, ids=targets.ids.where(here[:, None], EMPTY))
    config = replace(CONFIG, max_epochs=3, weight_decay=0.0)
    shared = fit_lens(TunedLens.of(model), hidden, only, config)
    by_position = fit_lens(PerPositionLens.of(model, positions=hidden.positions), hidden, only, config)
    assert by_position.validation == pytest.approx(shared.validation, abs=1e-5)
    torch.testing.assert_close(by_position.lens.weight[:, 2], shared.lens.weight, rtol=1e-4, atol=1e-6)
    assert not by_position.lens.weight[:, [0, 1, 3]].any()


def test_a_translator_at_the_final_norm_reads_what_the_head_alone_does_not():
    model, targets = ToyThinker(planted=("final_norm", "t2")), results()
    hidden = thoughts(model)
    rows = targets.rows("test")
    fit = fit_lens(TunedLens.of(model, final_norm=True), hidden, targets, CONFIG)
    assert fit.lens.translated == model.layers
    found, untouched = (top1(read_all(lens, hidden, targets, rows)) for lens in (fit.lens, LogitLens.of(model)))
    assert found["final_norm", "t2"] > 0.9 and untouched["final_norm", "t2"] < 0.4
    # The loss that was minimised is the one that is read: the norm is not applied a second time.
    readings = read_all(fit.lens, hidden, targets, targets.rows("val"))
    assert readings["nll"].mean() == pytest.approx(fit.validation, abs=1e-4)
    without = fit_lens(TunedLens.of(model), hidden, targets, CONFIG)
    assert top1(read_all(without.lens, hidden, targets, rows))["final_norm", "t2"] == untouched["final_norm", "t2"]


def test_every_asked_token_counts_once(planted):
    """A slot that asks for several tokens costs the sum of their surprises, and the mean is over tokens."""
    model, hidden, _, _ = planted
    targets = results("uniform:every")
    assert targets.ids.shape[2] > 1
    fit = fit_lens(TunedLens.of(model), hidden, targets, replace(CONFIG, max_epochs=2))
    readings = read_all(fit.lens, hidden, targets, targets.rows("val"), layers=fit.lens.translated)
    assert readings["nll"].mean() == pytest.approx(fit.validation, abs=1e-4)
    assert len(readings) == 3 * int(targets.mask[targets.rows("val")].sum())
    assert not readings.select("problem", "layer", "position", "target").is_duplicated().any()
    assert fit.epochs[2].train < fit.epochs[1].train


def test_a_lens_with_nothing_to_fit_says_so(planted):
    model, hidden, targets, _ = planted
    for lens in (LogitLens.of(model), TunedLens.of(model, ["final_norm"])):
        with pytest.raises(BadInput, match="nothing to fit"):
            fit_lens(lens, hidden, targets, CONFIG)


def test_bf16_products_reach_the_same_loss(planted):
    model, hidden, targets, fits = planted
    fit = fit_lens(TunedLens.of(model), hidden, targets, replace(CONFIG, precision="bf16"))
    assert fit.validation == pytest.approx(fits["real"].validation, abs=0.02)
    assert fit.lens.weight.dtype == torch.float32
    assert fit.lens.fitted.recipe.precision == "bf16"


def test_the_test_split_is_never_seen(planted):
    model, hidden, targets, fits = planted
    poisoned = {layer: h.clone() for layer, h in hidden.states.items()}
    for h in poisoned.values():
        h[targets.rows("test")] = torch.nan
    fit = fit_lens(TunedLens.of(model), replace(hidden, states=poisoned), targets, CONFIG)
    assert torch.equal(fit.lens.weight, fits["real"].lens.weight)


def test_a_state_that_is_not_finite_is_named(planted):
    model, hidden, targets, _ = planted
    row = int(targets.rows("val")[3])
    states = {layer: h.clone() for layer, h in hidden.states.items()}
    states["block2"][row, 1, 5] = torch.inf
    with pytest.raises(BadInput, match=rf"problem {hidden.ids[row]}, block2, t1"):
        fit_lens(TunedLens.of(model), replace(hidden, states=states), targets, CONFIG)


def test_states_of_another_model_or_other_problems_are_refused(planted):
    model, hidden, targets, fits = planted
    other = replace(hidden, fingerprint="another")
    with pytest.raises(BadInput, match=r"is for the model toy-.* of another"):
        fit_lens(TunedLens.of(model), other, targets, CONFIG)
    with pytest.raises(BadInput, match=r"is for the model toy-.* of another"):
        read_all(fits["real"].lens, other, targets, targets.rows("test"))
    moved = replace(targets, problems=targets.problems[::-1])
    with pytest.raises(BadInput, match="other problems"):
        fit_lens(TunedLens.of(model), hidden, moved, CONFIG)
    with pytest.raises(BadInput, match="split 'val'"):
        fit_lens(TunedLens.of(model), hidden, replace(targets, splits=("train",) * 400), CONFIG)


def test_a_fit_that_diverges_says_so(planted):
    model, hidden, targets, _ = planted
    with pytest.raises(Failed, match="diverged in epoch"):
        fit_lens(TunedLens.of(model), hidden, targets, replace(CONFIG, lr=1e38))


def test_every_epoch_is_logged(planted):
    model, hidden, targets, _ = planted
    lines = []
    log = lambda epoch, **metrics: lines.append((epoch, *metrics))
    fit_lens(TunedLens.of(model), hidden, targets, replace(CONFIG, max_epochs=2), log)
    assert lines == [
        (epoch, "fit", "train", "validation", "top1", "top5", "top10", "lr", "seconds") for epoch in (0, 1, 2)
    ]


def random_head(n: int, vocabulary: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    norm = nn.LayerNorm(WIDTH)
    weight = torch.randn(vocabulary, WIDTH, generator=random)
    states = torch.randn(n, WIDTH, generator=random) * 3
    return Unembedding(norm, weight), states, torch.randint(0, vocabulary, (n,), generator=random)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 70), vocabulary=st.integers(2, 300), rows=st.integers(1, 80), seed=st.integers(0, 99))
def test_the_chunked_loss_is_the_plain_loss(n, vocabulary, rows, seed):
    unembedding, states, asked = random_head(n, vocabulary, seed)
    head = FrozenHead(unembedding, "fp32")
    head.rows = rows
    ours, plain = states.clone().requires_grad_(), states.clone().requires_grad_()
    loss = head(head.norm(ours), asked[:, None])
    expected = nn.functional.cross_entropy(unembedding(plain, normed=False), asked, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    (loss * 0.5).backward()
    (expected * 0.5).backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), asked=st.integers(1, 4), rows=st.integers(1, 50), seed=st.integers(0, 99))
def test_the_loss_of_several_tokens_is_the_sum_of_their_losses(n, asked, rows, seed):
    unembedding, states, _ = random_head(n, 60, seed)
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, 60, (n, asked), generator=random)  # −1 is EMPTY
    head = FrozenHead(unembedding, "fp32")
    head.rows = rows
    ours, plain = states.clone().requires_grad_(), states.clone().requires_grad_()
    surprise = -unembedding(plain, normed=False).log_softmax(-1)
    expected = surprise.gather(1, targets.clamp(min=0))[targets != EMPTY].sum()
    loss = head(head.norm(ours), targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-5)


def test_the_loss_survives_a_target_that_is_all_but_impossible():
    unembedding, states, asked = random_head(8, 50, 0)
    unembedding.weight.mul_(100)
    expected = nn.functional.cross_entropy(unembedding(states, normed=False), asked, reduction="sum")
    assert expected > 1000
    for precision, rtol, atol in (("fp32", 1e-5, 1e-2), ("bf16", 1e-2, 1)):
        loss = FrozenHead(unembedding, precision)(unembedding.norm(states), asked[:, None])
        torch.testing.assert_close(loss, expected, rtol=rtol, atol=atol)


@settings(deadline=None, max_examples=60)
@given(
    objective=st.sampled_from(["cross-entropy", "uniform", "bag", "multi-label", "final"]),
    columns=st.booleans(),
    weighted=st.booleans(),
    asked=st.integers(1, 3),
    rows=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_every_objective_is_the_one_written_out_with_all_logits(objective, columns, weighted, asked, rows, seed):
    n, vocabulary, e = 17, 40, 5
    unembedding, states, _ = random_head(n, vocabulary, seed)
    random = torch.Generator().manual_seed(seed)
    targets = torch.stack([torch.randperm(vocabulary, generator=random)[:asked] for _ in range(n)])
    targets[torch.rand(n, asked, generator=random) < 0.3] = EMPTY
    final = torch.randn(n, WIDTH, generator=random)
    weights = torch.rand(n, generator=random) if weighted else None
    leaves = [states, torch.randn(n, e, generator=random), torch.randn(vocabulary, e, generator=random)]

    def loss_and_gradients(make):
        mine = [each.clone().requires_grad_() for each in leaves]
        loss = make(*mine)
        (loss * 0.7).backward()
        return loss.detach(), [each.grad for each in (mine if columns else mine[:1])]

    def of_row(chosen, logits, q):
        log_p = logits.log_softmax(0)
        if objective == "cross-entropy":
            return -log_p[chosen].sum()
        if objective == "uniform":
            return -log_p[chosen].mean() - torch.tensor(float(len(chosen))).log()
        if objective == "bag":
            return -log_p[chosen].logsumexp(0)
        if objective == "final":
            return nn.functional.kl_div(log_p, q, reduction="sum")
        one_hot = torch.zeros(vocabulary).index_fill(0, chosen, 1.0)
        return nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="sum")

    def written_out(x, features, extra):
        logits = x @ unembedding.weight.T + (features @ extra.T if columns else 0)
        q, chosen = (final @ unembedding.weight.T).softmax(1), [row[row != EMPTY] for row in targets]
        some = [row for row in range(n) if len(chosen[row])]
        losses = torch.stack([of_row(chosen[row], logits[row], q[row]) for row in some])
        return (losses if weights is None else losses * weights[some]).sum()

    def ours(x, features, extra):
        added = Columns(features, extra) if columns else None
        return head(x, targets, objective, added, final, weights)

    head = FrozenHead(unembedding, "fp32")
    head.rows = rows
    (loss, gradients), (expected, plain) = loss_and_gradients(ours), loss_and_gradients(written_out)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    for mine, theirs in zip(gradients, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_tokens_among_the_likeliest_are_counted():
    unembedding, states, _ = random_head(30, 40, 0)
    targets = torch.randint(-1, 40, (30, 2), generator=torch.Generator().manual_seed(1))
    head, hits = FrozenHead(unembedding, "fp32"), torch.zeros(3, dtype=torch.long)
    head.rows = 7
    head(states, targets, hits=hits)
    order = (states @ unembedding.weight.T).argsort(1, descending=True)
    assert hits.tolist() == [
        sum(int(t in order[i, :k]) for i in range(30) for t in targets[i] if t != EMPTY) for k in (1, 5, 10)
    ]


# ---- kinds, objectives and recipes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        "per-position",
        "hybrid(block1)",
        "low-rank(16)",
        "position-embedding",
        "position-gain",
        "position-head(8)",
        "mlp(32)",
    ],
)
def test_every_kind_finds_the_planted_token_where_it_is_and_not_under_shuffling(planted, spec):
    model, hidden, targets, _ = planted
    lens = lens_of(spec, model, positions=hidden.positions)
    config = replace(CONFIG, lr=6e-3, max_epochs=15)
    tasks = {name: FitTask(lens, one, config) for name, one in (("real", targets), ("shuffled", targets.shuffled(0)))}
    fits = fit_each(hidden, tasks)
    rows = targets.rows("test")
    found, shuffled = (top1(read_all(fits[name].lens, hidden, targets, rows)) for name in ("real", "shuffled"))
    assert found[model.planted] > 0.8
    assert shuffled[model.planted] < 0.45
    assert all(share < 0.5 for place, share in found.items() if place != model.planted)


def test_a_bias_of_tokens_by_position_learns_what_is_common_there():
    """Nothing is planted, and each position asks for a token of its own half of the time: the bias says it."""
    model, targets = ToyThinker(planted=None), results()
    common = torch.arange(4)[None, :].expand(400, 4) + 40
    often = torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    targets = replace(targets, ids=torch.where(often, common, targets.ids[..., 0])[..., None])
    hidden = thoughts(model)
    shared, by_position = (
        fit_lens(
            lens_of(spec, model, positions=hidden.positions), hidden, targets, replace(CONFIG, lr=3e-2, max_epochs=15)
        )
        for spec in ("tuned", "position-bias")
    )
    assert by_position.validation < shared.validation - 0.3
    named = top1(read_all(by_position.lens, hidden, targets, targets.rows("test"), layers=["block1"]))
    assert all(share > 0.35 for share in named.values())


@pytest.mark.parametrize(
    ("objective", "lr", "least"), [("uniform", 3e-3, 0.8), ("bag", 3e-3, 0.8), ("multi-label", 3e-2, 0.25)]
)
def test_objectives_of_sets_find_what_is_planted(planted, objective, lr, least):
    """Least by the multi-label one: a normed state cannot give most tokens a score far below zero, which it asks for."""
    model, hidden, targets, _ = planted
    fit = fit_lens(TunedLens.of(model), hidden, targets, replace(CONFIG, objective=objective, lr=lr))
    found = top1(read_all(fit.lens, hidden, targets, targets.rows("test"), layers=["block1"]))
    assert found[model.planted] > least and found[model.planted] == max(found.values())
    assert fit.epochs[fit.best_epoch].train < fit.epochs[1].train


def test_the_objective_of_the_last_layer_says_what_the_model_says(planted):
    """Fitted to the final distribution, a lens reads it at a layer that holds it turned, and no token of the chain is needed."""
    model, hidden, targets, _ = planted
    turned = hidden.states["final_norm"] @ model.rotation
    states = {**hidden.states, "block2": turned}
    hidden = replace(hidden, states=states)
    fit = fit_lens(TunedLens.of(model), hidden, targets, replace(CONFIG, objective="final", lr=1e-2))
    rows = targets.rows("test")
    own = hidden.hidden("final_norm", rows) @ model.unembedding.weight.T
    read = lambda layer: fit.lens.read(hidden.hidden(layer, rows), layer).detach().log_softmax(-1)
    divergence = lambda layer: float(nn.functional.kl_div(read(layer), own.softmax(-1), reduction="batchmean"))
    assert divergence("block2") < 0.3 * divergence("block1")
    without = replace(hidden, states={layer: states[layer] for layer in ("embed", "block1")})
    with pytest.raises(BadInput, match="needs states at final_norm"):
        fit_lens(TunedLens.of(model, ["embed", "block1"]), without, targets, replace(CONFIG, objective="final"))


def test_decay_to_the_start_keeps_a_lens_at_the_shared_solution(planted):
    model, hidden, targets, fits = planted
    shared = fits["real"].lens
    start = PerPositionLens.of(model, positions=hidden.positions).start_from(shared)
    config = replace(CONFIG, max_epochs=4, lr=1e-2)
    distance = lambda fit: float((fit.lens.weight - start.weight).detach().norm())
    pulls = [fit_lens(start, hidden, targets, replace(config, weight_decay=w, decay_to="start")) for w in (0.0, 30.0)]
    assert distance(pulls[1]) <= distance(pulls[0])
    assert pulls[0].epochs[0].validation == pytest.approx(
        fits["real"].validation, abs=1e-4
    )  # warm: where the shared one ended


def test_the_mean_over_groups_counts_a_rare_position_as_much_as_a_common_one(planted):
    model, hidden, targets, _ = planted
    ids = targets.ids.clone()
    ids[torch.arange(len(ids)) % 10 != 0, 1] = EMPTY  # asked of every tenth problem only
    rare = replace(targets, ids=ids)
    lens = PerPositionLens.of(model, positions=hidden.positions)
    fitting = _Fitting(
        FitTask(lens, rare, replace(CONFIG, group_mean=True)),
        FrozenHead(model.unembedding, "fp32"),
        _States(hidden, lens.translated, model.device),
    )
    rows = rare.rows("val")
    loss, n = fitting._loss(rows, fitting.head)
    surprise = read_all(LogitLens.of(model), hidden, rare, rows, layers=lens.translated)
    expected = surprise.group_by("layer", "position").agg(pl.col("nll").mean())["nll"].mean()
    assert float(loss) / n == pytest.approx(expected, rel=1e-4)


def test_tasks_of_several_kinds_and_seeds_are_fitted_as_if_alone(planted):
    model, hidden, targets, _ = planted
    config = replace(CONFIG, max_epochs=3)
    tasks = {
        "tuned": FitTask(TunedLens.of(model), targets, config),
        "another seed": FitTask(TunedLens.of(model), targets, replace(config, seed=1, batch_problems=50)),
        "low rank": FitTask(lens_of("low-rank(4)", model, positions=hidden.positions), targets.shuffled(0), config),
    }
    together = fit_each(hidden, tasks)
    for name, task in tasks.items():
        alone = fit_lens(task.lens, hidden, task.targets, task.config)
        assert all(
            torch.equal(a, b) for a, b in zip(alone.lens.parameters(), together[name].lens.parameters(), strict=True)
        )
    assert not torch.equal(together["tuned"].lens.weight, together["another seed"].lens.weight)


def test_states_that_do_not_fit_are_streamed_with_the_same_result(planted, monkeypatch):
    model, hidden, targets, _ = planted
    config = replace(CONFIG, max_epochs=2)
    kept = fit_lens(TunedLens.of(model), hidden, targets, config)
    monkeypatch.setattr("workings.reading.fit._free_bytes", lambda device: 0)
    streamed = fit_lens(TunedLens.of(model), hidden, targets, config)
    assert torch.equal(kept.lens.weight, streamed.lens.weight)


def test_readings_are_those_of_the_full_softmax(planted):
    model, hidden, targets, fits = planted
    lens, rows = fits["real"].lens, targets.rows("test")[:5]
    readings = read_all(lens, hidden, targets, rows)
    assert readings.height == 5 * 4 * len(model.layers)
    assert readings["reader"].unique().to_list() == ["tuned lens"]
    assert readings["split"].unique().to_list() == ["test"]
    assert readings.columns == list(READINGS)
    assert readings.select("subject", "features", "targets").unique().rows() == [("model", "T", "real")]
    row, place = int(rows[2]), 3
    scores = lens.read(hidden.hidden("block2")[row, place], "block2")
    asked = int(targets.ids[row, place, 0])
    one = readings.filter(problem=hidden.ids[row], layer="block2", position="t3").row(0, named=True)
    assert one["target"] == asked
    assert one["nll"] == pytest.approx(float(-scores.detach().log_softmax(-1)[asked]), abs=1e-5)
    assert one["rank"] == int((scores > scores[asked]).sum())
    assert one["new_value"] == bool(targets.new_value[row, place, 0])


def test_ties_count_against_the_reader(planted):
    model, hidden, targets, _ = planted
    flat = {layer: torch.zeros_like(h) for layer, h in hidden.states.items()}  # a zero state scores all tokens alike
    readings = read_all(LogitLens.of(model), replace(hidden, states=flat), targets, targets.rows("test")[:2])
    assert readings["rank"].unique().to_list() == [len(model.unembedding.weight) - 1]


def test_masked_slots_are_not_read(planted):
    model, hidden, targets, _ = planted
    ids = targets.ids.clone()
    ids[:, 1] = EMPTY
    rows = targets.rows("test")
    readings = read_all(LogitLens.of(model), hidden, replace(targets, ids=ids), rows)
    assert sorted(readings["position"].unique()) == ["bot", "t2", "t3"]
    with pytest.raises(BadInput, match="nothing to read"):
        read_all(LogitLens.of(model), hidden, replace(targets, ids=torch.full_like(ids, EMPTY)), rows)


def test_top_tokens_carry_probabilities_of_the_full_softmax(planted):
    _, hidden, targets, fits = planted
    row = int(targets.rows("test")[1])
    state = hidden.hidden("block1")[row, 2]
    tokens, shown = zip(*top_tokens(fits["real"].lens, state, "block1", "t2", k=5), strict=True)
    probability = fits["real"].lens.read(state, "block1").softmax(-1)
    assert tokens == tuple(probability.topk(5).indices.tolist())
    assert shown == pytest.approx(probability.topk(5).values.tolist(), rel=1e-5)
    assert tokens[0] == int(targets.ids[row, 2, 0])
    assert sum(shown) < 1
