"""A checkpoint of our GPT-2 → a folder that transformers loads, once it has been shown to compute the same; to the hub and back.

What is written is read back by Hugging Face's own code, from a folder beside the one asked for. It gets its name only if every
tensor is there, is what its module takes it for (a square matrix that was not transposed fits, and is wrong), and the logits agree.
The other direction is `import_gpt2` in `checkpoint.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from workings import progress
from workings.errors import BadInput, Failed, listed
from workings.files import digests_in, sealed, to_json
from workings.hub import HubReference, hub_errors
from workings.models.checkpoint import BODY, load_gpt2, to_hf
from workings.models.gpt2 import GPT2
from workings.models.pretrained import quiet_loading
from workings.models.weights import (
    EXPORT_FORMAT,
    MANIFEST,
    WEIGHTS,
    appearing,
    check_manifest,
    read_tensors,
    write_tensors,
)
from workings.text.bpe import hf_settings, read_tokenizer_folder, write_tokenizer_folder
from workings.text.tokenizer import Tokenizer

TOLERANCE = 1e-4  # of the largest logit, in fp32: the order of sums differs between the two, nothing else does
SAMPLE = "Six boxes hold nine pens each: 6*9=54, and 7 × 8 = 56 more.\nThe answer is 110. <|endoftext|> <MUL_2_3_6>\n"


@dataclass(frozen=True)
class Parity:
    """The largest difference between Hugging Face's logits and ours, the largest logit, and on how many tokens."""

    difference: float
    largest: float
    n_tokens: int


def export_hf(checkpoint: str | Path, folder: str | Path) -> Path:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, from a GPT-2 checkpoint of ours.

    Raises:
        BadInput: The checkpoint cannot be used, or the folder already holds something.
        Failed: What was written would not be the same model; the message names the tensor or text in which they differ.
    """
    model, tokenizer = load_gpt2(checkpoint)
    live = {i for ids in tokenizer.live for i in ids}
    # Padding, what lies beyond the facts, facts that only digits have: rows that may not be generated.
    dead = [i for i in range(model.config.vocab) if i not in live]
    end, pad = tokenizer.eot, tokenizer.hf().pad_token_id
    has_pad = pad < model.config.vocab
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad if has_pad else end}
    with appearing(folder) as partial:
        write_tensors(to_hf(model.state_dict()), partial / WEIGHTS)
        tokenizer.save(partial)
        if not has_pad:  # the end of text pads instead, in the tokenizer's own files too
            content, about = read_tokenizer_folder(partial)
            end_of_text = tokenizer.hf().eos_token
            write_tokenizer_folder(partial, content, hf_settings(end_of_text, end_of_text), about)
        (partial / "config.json").write_text(to_json(hf_config(model) | special))
        generation = special | ({"suppress_tokens": dead} if dead else {})
        (partial / "generation_config.json").write_text(json.dumps(generation) + "\n")
        parity = check_export(partial, model, tokenizer)
        text = card(model, tokenizer, parity, Path(folder).name, len(dead))
        (partial / "README.md").write_text(text, encoding="utf-8")
        manifest = {
            "format": EXPORT_FORMAT,
            "checkpoint": digests_in(Path(checkpoint)),
            "tokenizer": tokenizer.digest,
            "parity": parity,
            "files": digests_in(partial),
        }
        (partial / MANIFEST).write_text(sealed(manifest))
    return Path(folder)


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def hf_config(model: GPT2) -> dict[str, object]:
    """The config.json that transformers' GPT2Config reads, without the special ids."""
    shape = model.config
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocab,
        "n_positions": shape.block,
        "n_embd": shape.d_model,
        "n_layer": shape.n_layers,
        "n_head": shape.n_heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.ln_f.eps,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "dtype": str(model.wte.weight.dtype).removeprefix("torch."),
    }


def card(model: GPT2, tokenizer: Tokenizer, parity: Parity, name: str, n_dead: int) -> str:
    """The README.md: what the model is, how text must be written for it, and what was checked."""
    shape = model.config
    about_text = f"It reads ordinary text (vocabulary `{tokenizer.vocabulary}`): numbers are digits."
    if tokenizer.has_facts:
        about_text = (
            f"It reads {len(tokenizer.facts)} facts as one token each (vocabulary `{tokenizer.vocabulary}`): "
            f"`6*9=54` is written `{tokenizer.prepare('6*9=54')}`. "
            f"Rewrite raw text first: `workings facts rewrite --mode {tokenizer.mode}`."
        )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2, workings]
---
# {name}

A GPT-2 of {model.n_parameters:,} parameters: {shape.n_layers} layers, {shape.n_heads} heads, width {shape.d_model}, \
{shape.block} positions, {shape.vocab:,} embedding rows. Trained and exported with `workings`.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(".")  # this folder, or the repository's name
tokenizer = AutoTokenizer.from_pretrained(".")
```

## Text

{about_text}
A document was preceded by the end-of-text token (id {tokenizer.eot}) in training, so begin a prompt with it.
{n_dead} of the rows stand for no token that may be generated; `generation_config.json` lists them in `suppress_tokens`, \
which `generate` obeys. Whoever reads logits should leave them out as well.

## Checked on export

Hugging Face's logits and ours differed by at most {parity.difference:.2e} on {parity.n_tokens:,} tokens \
(the largest logit was {parity.largest:.1f}), in fp32. `{MANIFEST}` holds the sha256 of every file and of the checkpoint.
"""


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_export(folder: Path, model: GPT2, tokenizer: Tokenizer) -> Parity:
    """Compare what Hugging Face's code makes of a folder with our model.

    Raises:
        Failed: They differ; the message names the tensor or the text.
    """
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )
    _check_tensors(read_tensors(folder / WEIGHTS), empty, model.state_dict())
    ids = _check_tokenizer(folder, tokenizer)
    with progress.quietly(), quiet_loading():
        theirs = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    return _check_logits(theirs.eval(), model, ids)


def _check_tensors(written: Mapping[str, Tensor], theirs: Any, ours: Mapping[str, Tensor]) -> None:
    """Compare every tensor with ours, turned as the module that holds it says: the rule that wrote the file is not asked."""
    wanted = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.weight"}
    missing, surplus = wanted.keys() - written.keys(), written.keys() - wanted.keys()
    if missing:
        raise Failed(f"the export lacks {len(missing)} tensor(s): {listed(missing)}; nothing was written")
    if surplus:
        raise Failed(f"the export has {len(surplus)} tensor(s) too many: {listed(surplus)}; nothing was written")
    for name, value in written.items():
        own = name.removeprefix(BODY)
        turned = type(theirs.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D" and value.dim() == 2
        fault = _fault(value, ours[own].T if turned else ours[own], own, ours)
        if fault:
            raise Failed(f"the export is wrong in {name}: {fault}; nothing was written")


def _fault(written: Tensor, wanted: Tensor, name: str, ours: Mapping[str, Tensor]) -> str | None:
    """What is wrong with a tensor, as well as it can be told; None if nothing is."""
    if written.dtype != wanted.dtype:
        return f"it is stored as {written.dtype}, the checkpoint's is {wanted.dtype}"
    if torch.equal(written, wanted):
        return None
    if wanted.dim() == 2 and torch.equal(written, wanted.T):
        return "it is not transposed"
    if written.shape != wanted.shape:
        return f"its shape is {tuple(written.shape)}, not {tuple(wanted.shape)}"
    for other, value in ours.items():
        if torch.equal(written, value) or (value.dim() == 2 and torch.equal(written, value.T)):
            return f"it holds the values of {other} instead of {name}"
    return "its values are not the checkpoint's"


def _check_tokenizer(folder: Path, tokenizer: Tokenizer) -> list[int]:
    """The ids of a sample text, which Hugging Face's tokenizer must give too."""
    theirs: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text = tokenizer.prepare(SAMPLE)
    ids = tokenizer.encode(text)
    found = theirs.encode(text, add_special_tokens=False)
    if found != ids:
        at = next((i for i, (a, b) in enumerate(zip(found, ids, strict=False)) if a != b), min(len(found), len(ids)))
        raise Failed(f"the exported tokenizer reads {text!r} otherwise from token {at} on; nothing was written")
    return [tokenizer.eot, *ids]


@torch.no_grad()
def _check_logits(theirs: Any, ours: GPT2, text: list[int]) -> Parity:
    """Compare logits on a real text, on random ids, and on a row of as many tokens as there are positions."""
    random = torch.Generator().manual_seed(0)
    shape = ours.config
    drawn = [
        torch.randint(shape.vocab, size, generator=random) for size in ((3, min(32, shape.block)), (1, shape.block))
    ]
    difference = largest = 0.0
    rows = [torch.tensor([text[: shape.block]]), *drawn]
    for ids in rows:
        expected = ours(ids)
        difference = max(difference, float((theirs(input_ids=ids).logits.float() - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    if not difference <= TOLERANCE * largest:  # written so that NaN fails, too
        raise Failed(
            f"Hugging Face's logits differ from ours by {difference:.3g} (the largest is {largest:.3g}); nothing was written"
        )
    return Parity(difference, largest, sum(ids.numel() for ids in rows))


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def push(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload an exported folder to the hub.

    Args:
        folder: What `export_hf` wrote, unchanged since.
        repository: `owner/name`; it is made if it is not there.
        private: Make a new repository private.

    Returns:
        Its address.

    Raises:
        BadInput: The folder is not what its manifest vouches for (before a byte is sent), or the name or login is wrong.
        Failed: The hub or the network refuses.
    """
    check_manifest(Path(folder), required=True)
    with hub_errors(repository):
        api = HfApi()
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Exported with workings")
    return str(made)


def pull(repository: str, folder: str | Path) -> Path:
    """Download `owner/name[@revision]` into a new folder, whole or not at all; offline, what the local cache has.

    Raises:
        BadInput: There is no such repository, the folder holds something, or a file is not what its manifest vouches for.
        Failed: The hub or the network refuses.
    """
    model = HubReference.parse(repository)
    if model is None or model.config:
        raise BadInput(f"'{repository}' is no repository of models: write owner/name or owner/name@revision")
    with appearing(folder) as partial:
        with hub_errors(repository):
            snapshot = snapshot_download(model.name, revision=model.revision)
        shutil.copytree(snapshot, partial, dirs_exist_ok=True)  # the cache holds links
        check_manifest(partial)
    return Path(folder)
