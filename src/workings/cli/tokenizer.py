"""Tokenizers: train a BPE, build a vocabulary on one, look at what a text becomes."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Literal

from workings.cli.options import AsJson

Base = Annotated[str, "gpt2 or another hub id, a tokenizer.json or a folder with one, or embedded"]
Vocabulary = Annotated[
    Literal["digits", "facts", "shuffled", "reserved"],
    "digits: plain; facts: equations are tokens; shuffled: permuted in each document; reserved: tokens that never occur",
]
Facts = Annotated[str, "families and ranges: MUL:1-9, or several: MUL:1-12,ADD:0-9"]
Mode = Annotated[Literal["strict", "weak", "legacy-strict", "legacy-weak"], "what becomes a fact; see facts rewrite"]


def build(
    *,
    base: Base = "gpt2",
    vocabulary: Vocabulary = "facts",
    facts: Facts = "MUL:1-9",
    mode: Mode = "strict",
    out: Annotated[str, "the folder to write; AutoTokenizer.from_pretrained opens it too"],
    json_: AsJson = False,
) -> None:
    """Build a tokenizer with fact tokens, with the same ids here and in Hugging Face's; prints the path of its folder."""
    from workings.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.build(base, vocabulary, facts, mode)
    path = tokenizer.save(out)
    if json_:
        about = {name: getattr(tokenizer, name) for name in ("vocabulary", "mode", "eot", "width", "embedding_width")}
        live = [[ids.start, ids.stop] for ids in tokenizer.live]
        print(
            json.dumps(
                {"path": str(path), **about, "facts": len(tokenizer.facts), "live": live, "digest": tokenizer.digest}
            )
        )
        return
    print(f"{tokenizer.summary()}; encodes with {tokenizer.library}", file=sys.stderr)
    print(path)


def show(
    text: Annotated[
        list[str], "the text, in quotes; several words are joined by spaces; - reads it from standard input"
    ],
    /,
    *,
    tokenizer: Annotated[str | None, "a folder from tokenizer build, instead of the four options below"] = None,
    base: Base = "embedded",
    vocabulary: Vocabulary = "facts",
    facts: Facts = "MUL:1-9",
    mode: Mode = "strict",
    raw: Annotated[bool, "encode the text as it is, without rewriting it first"] = False,
    json_: AsJson = False,
) -> None:
    """Rewrite a text as a vocabulary would, and print its pieces with their ids, one a line."""
    from workings.text.tokenizer import Tokenizer

    found = Tokenizer.load(tokenizer) if tokenizer else Tokenizer.build(base, vocabulary, facts, mode)
    given = sys.stdin.read() if text == ["-"] else " ".join(text)
    prepared, n_facts = (given, 0) if raw else found.prepare_counted(given)
    pieces = list(found.pieces(prepared))
    if json_:
        print(json.dumps({"text": prepared, "facts": n_facts, "pieces": pieces}, ensure_ascii=False))
        return
    for i, piece in pieces:
        print(f"{i:>6}  {piece!r}")
    print(f"{len(pieces)} tokens for {len(given.encode(errors='replace'))} bytes: {prepared!r}", file=sys.stderr)


def train(
    *,
    documents: Annotated[list[str] | None, "to learn from; without it docstrings and generated problems"] = None,
    limit: Annotated[int, "at most so many documents of each"] = 5000,
    size: Annotated[int, "ids, bytes and end of text among them"] = 2000,
    out: Annotated[str, "the folder to write a tokenizer.json into, which tokenizer build takes as --base"],
) -> None:
    """Train a byte-level BPE on documents; prints the path of its tokenizer.json."""
    from itertools import islice
    from pathlib import Path

    from workings.files import write_atomic
    from workings.text.bpe import train_bpe
    from workings.text.documents import Document, open_documents

    references = documents or ["docstrings", "generated:bundled", "generated:varied"]
    rows = (row for reference in references for row in islice(open_documents(reference), limit))
    content = train_bpe((row.text for row in rows if isinstance(row, Document)), size)
    Path(out).mkdir(parents=True, exist_ok=True)
    print(write_atomic(Path(out) / "tokenizer.json", content))
