"""A small corpus for the tests of training: generated problems, in the vocabulary with fact tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from workings.text import Corpus, CorpusConfig, SourceConfig, build_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """About 300 training documents and a few for validation."""
    config = CorpusConfig(documents=(SourceConfig("generated"),), documents_limit=300, validation_fraction=0.05)
    folder: Path = tmp_path_factory.mktemp("corpus") / "corpus"
    return build_corpus(config, folder, processes=1)
