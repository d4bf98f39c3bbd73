"""Checkpoints of GPT-2 to and from Hugging Face, nanoGPT and the hub."""

from __future__ import annotations

from typing import Annotated, Literal


def export(
    checkpoint: Annotated[str, "a checkpoint folder of ours, or a run that has one"],
    /,
    *,
    to: Annotated[str, "the folder to write"],
    push: Annotated[str | None, "then upload it to this repository of the hub: owner/name"] = None,
    private: Annotated[bool, "make that repository private, if it is new"] = False,
) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer load, once its logits have been compared with ours."""
    from workings.models import checkpoint as folders
    from workings.models import exchange

    print(exchange.export_hf(folders.checkpoint_in(checkpoint), to))
    if push:
        print(exchange.push(to, push, private))


def import_gpt2(
    source: Annotated[str, "a .pt of nanoGPT or its kin, a Hugging Face folder, or a hub id"],
    /,
    *,
    to: Annotated[str, "the checkpoint folder to write"],
    heads: Annotated[int | None, "attention heads, where the source does not say"] = None,
    tokenizer: Annotated[
        str | None, "a tokenizer folder of ours, or the BPE it is built on; without it the source's own, or gpt2"
    ] = None,
    vocabulary: Annotated[
        Literal["digits", "facts", "shuffled", "reserved"] | None, "what the model was trained to read"
    ] = None,
) -> None:
    """Turn a GPT-2 from elsewhere into a checkpoint of ours; no code in its files is run."""
    from workings.models.importing import import_gpt2

    print(import_gpt2(source, to, n_heads=heads, tokenizer=tokenizer, vocabulary=vocabulary))


def pull(
    repository: Annotated[str, "on the hub: owner/name or owner/name@revision"],
    /,
    *,
    to: Annotated[str, "the folder to write"],
) -> None:
    """Download a repository of the hub into a folder, and check it against the manifest of its export."""
    from workings.models import exchange

    print(exchange.pull(repository, to))
