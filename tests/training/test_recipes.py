"""Learning rates and rows of every step: the seeds' table, and the laws that exact resumption rests on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments, get_cosine_schedule_with_warmup

from workings.errors import BadInput
from workings.training.recipes import DISTIL_PRESETS, DistilConfig, Rows, Schedule, rows_of_bytes, rows_of_tokens

TEN_BILLION = Schedule(6e-4, 6e-5, 715, 19_073)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 8.3916e-7), (714, 6e-4), (715, 6e-4), (9894, 3.3e-4), (19_072, 6.0000004e-5)]
)
def test_the_ten_billion_token_recipe(step, rate):
    assert TEN_BILLION.learning_rate(step) == pytest.approx(rate, rel=1e-5)


def test_the_rate_rises_through_the_warm_up_and_falls_after_it():
    rates = [TEN_BILLION.learning_rate(step) for step in range(19_073)]
    assert all(a < b for a, b in pairwise(rates[:715]))
    assert all(a >= b for a, b in pairwise(rates[714:]))
    assert min(rates[715:]) >= 6e-5 and TEN_BILLION.learning_rate(30_000) == pytest.approx(6e-5)


def test_without_a_warm_up_the_first_step_has_the_peak():
    assert Schedule(1e-3, 1e-4, 0, 10).learning_rate(0) == 1e-3
    assert Schedule(1e-3, 0.0, 0, 10, from_zero=True).learning_rate(0) == 1e-3


@given(st.integers(1, 300), st.integers(1, 16), st.sampled_from([0.5, 1, 1.1, 3]), st.sampled_from([0.0, 0.03, 0.1]))
def test_a_distillation_has_the_rates_of_hugging_faces_trainer(n_examples, batch_size, epochs, warmup):
    """Its scheduler and its rounding of warm-up steps, asked step by step; its first update has rate 0."""
    schedule = DistilConfig(batch_size=batch_size, epochs=epochs, warmup_fraction=warmup).schedule(n_examples)
    arguments = TrainingArguments("unused", warmup_steps=warmup, use_cpu=True, report_to=[])  # below 1 it is a share
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=schedule.peak)
    theirs = get_cosine_schedule_with_warmup(optimizer, arguments.get_warmup_steps(schedule.n_steps), schedule.n_steps)
    for step in range(schedule.n_steps):
        assert schedule.learning_rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        theirs.step()
    assert schedule.learning_rate(0) == (schedule.peak if warmup == 0 else 0.0)


@pytest.mark.parametrize(("recipe", "n_steps", "warmup"), [("gpt2", 120_520, 3616), ("llama-1b", 30_130, 904)])
def test_the_released_recipes_take_the_official_number_of_steps(recipe, n_steps, warmup):
    """On the 385,620 rows of GSM8k-Aug: 3,013 batches of 128 an epoch, the last one short."""
    schedule = DISTIL_PRESETS[recipe].schedule(385_620)
    assert (schedule.n_steps, schedule.warmup_steps) == (n_steps, warmup)
    assert DISTIL_PRESETS[recipe].seed == 11


@given(st.integers(1, 50), st.integers(1, 400), st.integers(1, 9), st.integers(1, 4))
def test_steps_take_consecutive_rows_and_together_all_of_them(n_steps, extra, pass_rows, n_processes):
    rows = Rows(n_steps, n_steps + extra, pass_rows, 8, n_processes)
    for step in range(n_steps):
        passes = rows.passes(step)
        assert sum(passes) == rows.before(step + 1) - rows.before(step) >= 1
        assert all(n == pass_rows for n in passes[:-1]) and 1 <= passes[-1] <= pass_rows
    assert rows.before(0) == 0 and rows.before(n_steps) == n_steps + extra
    assert rows.n_tokens == (n_steps + extra) * 8 * n_processes


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from([16, 256]), st.integers(1, 4), st.integers(1, 6))
def test_the_batch_is_stated_in_tokens_and_the_accumulation_follows(n_steps, pass_rows, length, n_processes, passes):
    tokens = passes * pass_rows * length * n_processes
    rows = rows_of_tokens(tokens, n_steps, length, pass_rows, n_processes)
    assert rows.even and rows.passes(n_steps - 1) == [pass_rows] * passes
    assert rows.tokens_before(1) == tokens and rows.n_tokens == n_steps * tokens


def test_a_batch_that_does_not_divide_names_the_nearest_that_do():
    with pytest.raises(BadInput, match=r"4,000 is no multiple of 1,024.*the nearest that fit: 3,072 or 4,096$"):
        rows_of_tokens(4_000, 10, 256, 4, 1)
    with pytest.raises(BadInput, match=r"2 processes; the nearest that fit: 65,536; or pass_rows = 16"):
        rows_of_tokens(32_768, 10, 1024, 32, 2)
    with pytest.raises(BadInput, match="fit: 1,024"):
        rows_of_tokens(0, 10, 256, 4, 1)


@given(st.floats(1.0, 6.0), st.integers(20, 200), st.integers(1, 2))
def test_arms_read_the_same_bytes_in_the_same_steps_to_within_half_a_row(bytes_per_token, n_steps, n_processes):
    raw_bytes = 3_000_000
    rows = rows_of_bytes(raw_bytes, bytes_per_token, n_steps, 64, 8, n_processes)
    read = rows.n_tokens * bytes_per_token
    assert abs(read - raw_bytes) <= 0.5 * 64 * n_processes * bytes_per_token + 1e-6
    assert rows.before(n_steps) == rows.total


def test_too_little_text_for_the_steps_is_refused():
    with pytest.raises(BadInput, match="too few for 100 steps"):
        rows_of_bytes(10_000, 4.0, 100, 256, 4, 1)
