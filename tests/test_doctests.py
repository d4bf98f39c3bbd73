"""The examples in docstrings run, and the names that most users meet first have one."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import workings
from workings.progress import quietly

SOURCE = Path(workings.__file__).parent
MODULES = [
    ".".join(("workings", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for file in sorted(SOURCE.rglob("*.py"))
    if ">>>" in file.read_text(encoding="utf-8")
]
MET_FIRST = {"read_problems", "generate", "rewrite", "Fact", "FactVocabulary"}
MET_FIRST |= {"CODI", "collect", "fit_lens", "compare", "Run", "Tokenizer", "Corpus", "build_corpus"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write into the folder it is run in
    with quietly():
        failed, tried = doctest.testmod(
            import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
    assert failed == 0
    assert tried > 0


def test_the_names_that_users_meet_first_have_an_example() -> None:
    without = {name for name in MET_FIRST if ">>>" not in (getattr(workings, name).__doc__ or "")}
    assert not without
