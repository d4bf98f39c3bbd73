"""A model's folder → the corpus it was trained on, if its run names one → how many probes its drills gave away."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workings.arithmetic.probes import Probe
from workings.arithmetic.rewrite import expand
from workings.evals.probes import overlap_with
from workings.text.corpus import Corpus
from workings.text.manifest import FORMAT
from workings.text.shards import open_documents_of, open_ids

MOST_DOCUMENTS = 100_000


def report_on(reference: str | Path, judged: Sequence[Probe], most: int = MOST_DOCUMENTS) -> dict[str, Any]:
    """`about` says in a sentence what was looked at; `overlap`, one row a kind, is there where drills were found."""
    folder = corpus_of(reference)
    if folder is None:
        return {"about": "The model names no corpus: whether it has seen these questions is not known."}
    if not (folder / "manifest.json").is_file():
        return {
            "about": f"The model was trained on {folder}, which is not here: whether it has seen these questions is not known."
        }
    corpus = Corpus.open(folder)
    drills = [i for i, name in enumerate(corpus.sources) if name.split("-")[0] == "drills"]
    if not drills:
        return {"about": f"The corpus {folder} holds no drills."}
    texts = list(islice(_texts(corpus, drills), most))
    found = overlap_with(judged, texts)
    about = f"Of the corpus {folder}, {len(texts):,} documents of drills were read"
    if corpus.tokenizer.vocabulary == "shuffled":  # what their facts say is arbitrary, document by document
        found = [row | {"n_equations": None} for row in found]
    return {"about": about + (", the first of more." if len(texts) == most else "."), "overlap": found}


def corpus_of(reference: str | Path) -> Path | None:
    """The corpus that the run a checkpoint lies in was given (or the corpus itself); None for a model of no run of ours."""
    here = Path(reference).expanduser().resolve()
    for folder in (here, *here.parents[:3]):
        manifest = folder / "manifest.json"
        if manifest.is_file():
            content = json.loads(manifest.read_text(encoding="utf-8"))
            if content.get("format") == FORMAT:
                return folder
            own = folder / "corpus"  # built inside the run
            return corpus_given(content.get("input_places", {})) or (own if own.is_dir() else None)
    return None


def corpus_given(input_places: Mapping[str, str]) -> Path | None:
    """The folder of the corpus that a run was given, by itself or as its manifest.json; None where it was given none."""
    place = input_places.get("corpus")
    if not place:
        return None
    return Path(place).parent if Path(place).name == "manifest.json" else Path(place)


def _texts(corpus: Corpus, sources: Sequence[int]) -> Iterator[str]:
    """Training documents of these sources in plain digits."""
    tokenizer = corpus.tokenizer
    for shard in corpus.train.shards:
        rows = open_documents_of(corpus.folder, shard)
        ids = open_ids(corpus.folder, shard, corpus.dtype)
        ends = np.append(rows["offset"][1:], shard.n_tokens)
        for at in np.flatnonzero(np.isin(rows["source"], sources)):
            text = tokenizer.decode(ids[int(rows["offset"][at]) + 1 : int(ends[at])].tolist())
            yield expand(text, tokenizer.facts) if tokenizer.has_facts else text
