"""A BPE, names and fact ids ⇄ the files of a tokenizer folder: Hugging Face's two, and ours that vouches for them.

tokenizer.json             vocabulary, merges, and the tokens that text may hold
tokenizer_config.json      what else Hugging Face wants to know
workings_tokenizer.json    which vocabulary this is, and the SHA-256 of the other two
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workings.errors import BadInput
from workings.files import sha256_of, to_json, write_atomic
from workings.text.bpe import BPE, without_offsets

ABOUT = "workings_tokenizer.json"
FORMAT = 1
_HUGGING_FACE = ("tokenizer.json", "tokenizer_config.json")
NO_LIMIT = 10**30
"""Texts of any length: how much a model can read is not the tokenizer's to say."""


def hf_json(bpe: BPE, names: Sequence[str], matched: Mapping[str, int]) -> dict[str, Any]:
    """The content of tokenizer.json: `names` of all ids, of which text may hold `matched` beside what merges make.

    Names that text must never match are in the model's vocabulary, where no merge reaches them: no setting finds them.
    """
    content = bpe.tokenizer_json()
    content["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    added = [_added(i, name, special=False) for name, i in matched.items()]
    added.append(_added(bpe.eot, names[bpe.eot], special=True))
    return {**content, "added_tokens": sorted(added, key=lambda token: token["id"])}


def hf_settings(eot: str, pad: str) -> dict[str, Any]:
    """What Hugging Face keeps beside tokenizer.json; special tokens written in a text stay text."""
    return {
        "bos_token": eot,
        "eos_token": eot,
        "pad_token": pad,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": NO_LIMIT,
    }


def _added(i: int, name: str, special: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": name, **plain, "special": special}


def write_folder(
    folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Write the three files; ours last, so that a folder that was half written does not open."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    write_atomic(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    write_atomic(folder / "tokenizer_config.json", to_json({"tokenizer_class": "PreTrainedTokenizerFast", **settings}))
    whole = {"format": FORMAT, **about, "files": {name: sha256_of(folder / name) for name in _HUGGING_FACE}}
    write_atomic(folder / ABOUT, to_json({**whole, "sha256": _digest(whole)}))
    return folder


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(about).encode()).hexdigest()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of tokenizer.json and of our own file. BadInput where one is missing or is not as it was written."""
    if not (folder / ABOUT).is_file():
        raise BadInput(f"{folder} holds no tokenizer of ours (no {ABOUT}): make one with 'workings tokenizer build'")
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        form, own, files = about["format"], about.pop("sha256"), {name: about["files"][name] for name in _HUGGING_FACE}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{folder / ABOUT} cannot be read: copy the tokenizer again, or build it again") from None
    if form != FORMAT:
        raise BadInput(f"{folder / ABOUT} is in format {form}, which this version cannot read (it reads {FORMAT})")
    if own != _digest(about):
        raise BadInput(
            f"{folder / ABOUT} was changed since it was written: copy the tokenizer again, or build it again"
        )
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise BadInput(f"{folder / name} is missing: copy the whole folder of the tokenizer")
        if sha256_of(folder / name) != digest:
            raise BadInput(
                f"{folder / name} was changed since it was written: copy the tokenizer again, or build it again"
            )
    return json.loads((folder / "tokenizer.json").read_text("utf-8")), about


def bpe_in(content: Mapping[str, Any], unused: Sequence[Sequence[int]], base_size: int, eot: int) -> BPE:
    """The BPE inside a tokenizer.json of ours: what lies below `base_size` and is not in a range of `unused` ids."""
    spare = {i for start, stop in unused for i in range(start, stop)}
    model = content["model"]
    vocab = {name: i for name, i in model["vocab"].items() if i < base_size and i not in spare}
    merges = tuple((left, right) for left, right in model["merges"])
    return BPE(vocab, merges, without_offsets(content["pre_tokenizer"]), eot)
