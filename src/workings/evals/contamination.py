"""A model's folder → the corpus it was trained on, if its run names one → how many probes the drills in it showed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from workings.arithmetic.probes import Overlap, Probe, overlap
from workings.arithmetic.rewrite import expand
from workings.text.corpus import Corpus
from workings.text.manifest import FORMAT
from workings.text.shards import open_ids, open_index

N_DOCUMENTS = 100_000  # of drills; they repeat a few templates, so more of them show hardly more probes


@dataclass(frozen=True)
class Contamination:
    """The overlap of the probes with the training text.

    Attributes:
        about: One sentence: which corpus was searched, or why none was.
        overlap: One row for each kind of probe; empty where no drills were found.
    """

    about: str
    overlap: tuple[Overlap, ...] = ()


def contamination_of(reference: str | Path, probes: Sequence[Probe], n_documents: int = N_DOCUMENTS) -> Contamination:
    """Search the drills that a model was trained on for probes.

    Args:
        reference: The model as the user named it.
        n_documents: Maximum number of documents of drills that are read.
    """
    folder = training_corpus(reference)
    if folder is None:
        return Contamination("The model names no corpus: whether it has seen these questions is not known.")
    if not (folder / "manifest.json").is_file():
        return Contamination(
            f"The model was trained on {folder}, which is not here: whether it has seen these questions is not known."
        )
    corpus = Corpus.open(folder)
    drills = [i for i, name in enumerate(corpus.sources) if name.split("-")[0] == "drills"]
    if not drills:
        return Contamination(f"The corpus {folder} holds no drills.")
    texts = list(islice(_training_texts(corpus, drills), n_documents))
    found = overlap(probes, texts)
    if corpus.tokenizer.vocabulary == "shuffled":  # what their facts say is arbitrary, document by document
        found = [replace(row, n_equations=None) for row in found]
    about = f"Of the corpus {folder}, {len(texts):,} documents of drills were read"
    return Contamination(about + (", the first of more." if len(texts) == n_documents else "."), tuple(found))


def training_corpus(reference: str | Path) -> Path | None:
    """Find the corpus that a model was trained on.

    Args:
        reference: A checkpoint or a folder of them inside a run of ours, a run, a corpus, or a model from elsewhere.

    Returns:
        The folder of the corpus that the run was given, or built inside itself; None where there is no such run.
    """
    here = Path(reference).expanduser().resolve()
    for folder in (here, *here.parents[:3]):
        manifest = folder / "manifest.json"
        if manifest.is_file():
            content = json.loads(manifest.read_text(encoding="utf-8"))
            if content.get("format") == FORMAT:
                return folder
            built = folder / "corpus"
            return corpus_given(content.get("input_places", {})) or (built if built.is_dir() else None)
    return None


def corpus_given(input_places: Mapping[str, str]) -> Path | None:
    """The folder of the corpus among a run's inputs, named by itself or by its manifest.json; None where there is none."""
    place = input_places.get("corpus")
    if not place:
        return None
    return Path(place).parent if Path(place).name == "manifest.json" else Path(place)


def _training_texts(corpus: Corpus, sources: Sequence[int]) -> Iterator[str]:
    """Training documents of these sources, facts written out in digits."""
    tokenizer = corpus.tokenizer
    for shard in corpus.train.shards:
        rows = open_index(corpus.folder, shard)
        ids = open_ids(corpus.folder, shard, corpus.dtype)
        ends = np.append(rows["offset"][1:], shard.n_tokens)
        for at in np.flatnonzero(np.isin(rows["source"], sources)):
            text = tokenizer.decode(ids[int(rows["offset"][at]) + 1 : int(ends[at])].tolist())
            yield expand(text, tokenizer.facts) if tokenizer.has_facts else text
