"""One token for each word, number and mark, and nothing lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.arithmetic.generator import PRESETS, generate, vocabulary
from workings.text.words import UNKNOWN, word_tokenizer


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_generated_problem_is_made_of_known_pieces(preset):
    tokenizer = word_tokenizer(vocabulary(PRESETS[preset]))
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for problem in generate(200, PRESETS[preset], seed=1):
        ids = tokenizer.encode(problem.question)
        assert unknown not in ids, problem.question
        assert tokenizer.decode(ids).split() == " ".join(tokenizer.convert_ids_to_tokens(ids)).split()


@given(st.integers(min_value=0, max_value=99))
def test_a_number_is_one_token(n):
    tokenizer = word_tokenizer(vocabulary(PRESETS["hundred"]))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(f"<<{n}+{n}")) == ["<<", str(n), "+", str(n)]


def test_a_word_that_is_not_one_piece_is_refused():
    with pytest.raises(ValueError, match="not one piece"):
        word_tokenizer(["two words"])
