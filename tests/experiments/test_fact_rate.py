"""Facts at four rates: the lowest asks for fewer facts than most documents of drills hold, and is reached all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from workings.experiments.fact_rate import ARMS
from workings.experiments.fact_tokens import corpus_config
from workings.text import build_corpus


def test_the_lowest_rate_is_reached_at_the_mini_scale(tmp_path: Path) -> None:
    corpus = build_corpus(corpus_config(ARMS["facts-0.001%"]), tmp_path / "corpus", processes=1)
    assert corpus.train.n_facts_arm_facts == pytest.approx(0.00001 * corpus.n_tokens, abs=2.0)
