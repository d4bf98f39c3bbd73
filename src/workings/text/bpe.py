"""A reference ("gpt2", a path, "embedded") or texts → a byte-level BPE, and the encoder that applies it in bulk.

Vocabulary and merges are read from a `tokenizer.json`. tiktoken applies them several times as fast as `tokenizers` does,
and gives the same ids where ranks and pattern say the same: `library_for` tries, and takes `tokenizers` otherwise.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from workings.errors import BadInput, first_line
from workings.files import read_sealed, sealed, sha256_of, to_json, unchanged, write_atomic
from workings.hub import refuse_pointers, why_unloadable

TOKENIZER_FILE = "workings_tokenizer.json"
"""In the folder of a tokenizer of ours: which vocabulary it is, and the SHA-256 of its other files."""
TOKENIZER_FORMAT = 1
HUGGING_FACE = ("tokenizer.json", "tokenizer_config.json")
MOST_IDS = 10_000_000
"""An id beyond is damage, and no vocabulary."""
NO_LIMIT = 10**30
"""Texts of any length: how much a model can read is not the tokenizer's to say."""
END_OF_TEXT = "<|endoftext|>"
GPT2_PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""The pattern of the pre-tokenizer ByteLevel, in tiktoken's syntax: both agree on every code point."""
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@dataclass(frozen=True, eq=False)
class BPE:
    """A byte-level BPE. `vocab` spells bytes in `BYTE_CHARACTERS`; tokens that no merge makes (the end of text, another
    project's control tokens) are in it too and are never found in text. `eot` is the id of the end of text."""

    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    pre_tokenizer: dict[str, Any]
    eot: int

    @property
    def width(self) -> int:
        """The first id after the vocabulary."""
        return max(self.vocab.values()) + 1

    def digest_parts(self) -> list[Any]:
        """Everything that decides ids, as JSON values in an order that is the same everywhere."""
        ordered = sorted(self.vocab.items(), key=lambda item: item[1])
        return [ordered, [list(merge) for merge in self.merges], self.pre_tokenizer, self.eot]

    def tokenizer_json(self) -> dict[str, Any]:
        """The content of a tokenizer.json for the `tokenizers` library: no added tokens, nothing added to a text."""
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(self.vocab.items(), key=lambda item: item[1])),
            "merges": [list(merge) for merge in self.merges],
        }
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": _with_offsets(self.pre_tokenizer),
            "post_processor": None,
            "decoder": _with_offsets(BYTE_LEVEL),
            "model": model,
        }


def open_bpe(reference: str | Path) -> BPE:
    """`"embedded"`, a tokenizer.json or a folder with one, or a hub id. BadInput where it is not a byte-level BPE."""
    if str(reference) == "embedded":
        return _from_json((files("workings") / "bundled" / "bpe" / "tokenizer.json").read_text("utf-8"), "embedded")
    path = Path(reference)
    if (path / TOKENIZER_FILE).exists():
        raise BadInput(
            f"{path} has fact tokens already: open it with Tokenizer.load, or build from what it was built from"
        )
    if path.is_dir() and (path / "tokenizer.json").exists():
        path = path / "tokenizer.json"
    if path.is_file():
        refuse_pointers(path)
        return _from_json(path.read_bytes(), str(path))
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a pipe or a device: give a tokenizer.json or its folder")
    return _from_json(_hub_json(str(reference), path.is_dir()), str(reference))


def _hub_json(reference: str, is_folder: bool) -> str:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(reference, trust_remote_code=False)
        return tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # the library raises OSError, ValueError, KeyError, AttributeError, each for many causes
        of_hub = f"is no path here and no tokenizer from the hub ({why_unloadable(error)})"
        what = "holds no tokenizer that can be read" if is_folder else of_hub
        raise BadInput(
            f"tokenizer '{reference}' {what}; give a folder with its tokenizer.json, or --base embedded"
        ) from None


def _from_json(text: str | bytes, reference: str) -> BPE:
    try:
        content = json.loads(text)  # of bytes it drops a byte-order mark
        model, added = content["model"], content.get("added_tokens") or []
        vocab = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        merges = tuple((left, right) for left, right in pairs)
        trouble = _not_byte_level(content) or _damage(vocab, merges)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{reference} is not the tokenizer.json of a BPE") from None
    if trouble:
        raise BadInput(f"{reference} is not a byte-level BPE that keeps every text as it is: {trouble}")
    eot = vocab.setdefault(END_OF_TEXT, max(vocab.values()) + 1)
    return BPE(vocab, merges, _without_offsets(content["pre_tokenizer"]), eot)


def _not_byte_level(content: dict[str, Any]) -> str:
    """Why a tokenizer.json cannot serve, or nothing."""
    model, pre = content["model"], content.get("pre_tokenizer") or {}
    byte_levels = [part for part in _parts(pre) if part.get("type") == "ByteLevel"]
    missing = set(BYTE_CHARACTERS) - set(model["vocab"])
    reasons = {
        f"its model is {model.get('type')}": model.get("type", "BPE") != "BPE",
        "it changes text before reading it (a normalizer)": content.get("normalizer") is not None,
        "it does not read bytes (no ByteLevel pre-tokenizer)": not byte_levels,
        "it puts a space before each text": any(part.get("add_prefix_space") for part in byte_levels),
        "its merges are drawn at random (dropout)": bool(model.get("dropout")),
        "it marks the ends of words": bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
        "it takes whole pieces without their merges (ignore_merges)": bool(model.get("ignore_merges")),
        f"{len(missing)} of 256 bytes have no token": bool(missing),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _damage(vocab: Mapping[str, Any], merges: Sequence[tuple[str, str]]) -> str:
    """Why ids or merges cannot be, or nothing."""
    ids = list(vocab.values())
    wrong = [i for i in ids if type(i) is not int or not 0 <= i < MOST_IDS]
    lost = [f"{left} {right}" for left, right in merges if not {left, right, left + right} <= vocab.keys()]
    if wrong or len({*ids}) < len(ids):
        return f"it has the id {wrong[0]}" if wrong else "two of its tokens have one id"
    return f"its merge '{lost[0]}' is of tokens that it does not have" if lost else ""


def _parts(pre_tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    return pre_tokenizer["pretokenizers"] if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]


def _without_offsets(pre: dict[str, Any]) -> dict[str, Any]:
    """Without `trim_offsets`, which decides no id and need not be the same in two files of one tokenizer."""
    if pre.get("type") == "Sequence":
        return {"type": "Sequence", "pretokenizers": [_without_offsets(part) for part in pre["pretokenizers"]]}
    return {name: value for name, value in sorted(pre.items()) if name != "trim_offsets"}


def _with_offsets(pre: dict[str, Any]) -> dict[str, Any]:
    if pre.get("type") == "Sequence":
        return {"type": "Sequence", "pretokenizers": [_with_offsets(part) for part in pre["pretokenizers"]]}
    return {**pre, "trim_offsets": True} if pre["type"] == "ByteLevel" else pre


def _byte_characters() -> dict[str, int]:
    """The printable characters that byte-level BPE writes bytes in (GPT-2's table): `Ġ` is the space."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    shifted = {chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in plain)}
    return {chr(byte): byte for byte in plain} | shifted


BYTE_CHARACTERS = _byte_characters()


def token_bytes(token: str) -> bytes:
    """The bytes that a token stands for; one that is not spelled in `BYTE_CHARACTERS` stands for its own UTF-8."""
    try:
        return bytes(BYTE_CHARACTERS[character] for character in token)
    except KeyError:
        return token.encode()


def tiktoken_ranks(bpe: BPE) -> dict[bytes, int] | None:
    """The vocabulary as tiktoken wants it: the id of a token is also the rank of its merge. None where that is not so.

    tiktoken joins any two neighbours whose bytes are a token, and looks whole pieces up first; a trained BPE gives the
    same ids, because a token that its own merges do not make from its bytes never came out of training. `library_for` tries it.
    """
    if bpe.pre_tokenizer != dict(sorted(BYTE_LEVEL.items())):
        return None
    made = [bpe.vocab.get(left + right) for left, right in bpe.merges]
    ids = [i for i in made if i is not None]
    if len(ids) < len(made) or any(a >= b for a, b in pairwise(ids)):
        return None
    names = [*BYTE_CHARACTERS, *(left + right for left, right in bpe.merges)]
    return {token_bytes(name): bpe.vocab[name] for name in names}


def tiktoken_encoding(bpe: BPE, facts: Mapping[str, int]) -> tiktoken.Encoding | None:
    """tiktoken's encoder, in which a fact token can be allowed text by text; None where `tiktoken_ranks` says so.

    The end of text is special in it and never allowed: without any, tiktoken finds the empty pattern at every character.
    """
    ranks = tiktoken_ranks(bpe)
    if ranks is None:
        return None
    special = {END_OF_TEXT: bpe.eot, **facts}
    return tiktoken.Encoding("workings", pat_str=GPT2_PIECES, mergeable_ranks=ranks, special_tokens=special)


def library_for(bpe: BPE, every_token: bool = False) -> Literal["tiktoken", "tokenizers"]:
    """The library that encodes in bulk: tiktoken if it can express this BPE and agrees with `tokenizers` on `sample_texts`.

    With `every_token` also on each token alone, which tiktoken looks up and `tokenizers` puts together.
    """
    fast = tiktoken_encoding(bpe, {})
    if fast is None:
        return "tokenizers"
    texts = [*sample_texts(bpe), *(_readable_tokens(bpe) if every_token else ())]
    reference = rust_tokenizer(bpe.tokenizer_json()).encode_batch_fast(texts)
    agree = all(fast.encode_ordinary(text) == read.ids for text, read in zip(texts, reference, strict=True))
    return "tiktoken" if agree else "tokenizers"


def rust_tokenizer(content: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a tokenizer.json describes. BadInput where the library `tokenizers` cannot make it."""
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # it raises nothing more special
        raise BadInput(f"the library tokenizers cannot use this BPE: {first_line(error)}; take another base") from None


def sample_texts(bpe: BPE, n: int = 300) -> Iterator[str]:
    """Texts to compare two encoders on, the same everywhere: tokens of the vocabulary side by side, and odd characters."""
    draw, tokens = random.Random("sample texts"), _readable_tokens(bpe)
    odd = "0123456789 \n\t\r\u00a0\u2003\u0085'\"’.,:;<|>_-*×=éßя中文日本한ह्य\u0301\u200d👩🏽٣½Ⅷ\x00\x7f\ufeff"
    for _ in range(n):
        yield "".join(draw.choice(tokens) if draw.random() < 0.7 else draw.choice(odd) for _ in range(40))


def _readable_tokens(bpe: BPE) -> list[str]:
    """The texts of the tokens that hold whole characters."""
    texts = (token_bytes(token).decode("utf-8", "replace") for token in sorted(bpe.vocab))
    return [text for text in texts if "\ufffd" not in text]


def train_bpe(texts: Iterable[str], size: int) -> str:
    """A tokenizer.json (text) of `size` ids: 256 bytes, then merges in the order they were learned, then end of text.

    Pieces are GPT-2's. The same texts give the same file. BadInput where they hold too little for so many merges.
    """
    if not len(BYTE_CHARACTERS) < size <= MOST_IDS:
        raise BadInput(f"a BPE has {len(BYTE_CHARACTERS) + 1:,} to {MOST_IDS:,} ids, and cannot have {size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(BYTE_CHARACTERS)
    trainer = trainers.BpeTrainer(vocab_size=size - 1, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < size - 1:
        raise BadInput(
            f"these texts give {tokenizer.get_vocab_size() + 1} ids, not {size}: give more, or ask for fewer"
        )
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer.to_str(pretty=True) + "\n"


# ── a BPE with names and facts ⇄ Hugging Face's files ───────────────────────────────────────────────────────────────────


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
    """The content of tokenizer_config.json; special tokens written in a text stay text."""
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


def bpe_in(content: Mapping[str, Any], unused: Sequence[Sequence[int]], base_size: int, eot: int) -> BPE:
    """The BPE inside a tokenizer.json of ours: what lies below `base_size` and is not in a range of `unused` ids."""
    spare = {i for start, stop in unused for i in range(start, stop)}
    model = content["model"]
    vocab = {name: i for name, i in model["vocab"].items() if i < base_size and i not in spare}
    merges = tuple((left, right) for left, right in model["merges"])
    return BPE(vocab, merges, _without_offsets(content["pre_tokenizer"]), eot)


def write_tokenizer_folder(
    folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Write the three files; ours last, so that a folder that was half written does not open."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER_FILE).unlink(missing_ok=True)
    write_atomic(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    write_atomic(folder / "tokenizer_config.json", to_json({"tokenizer_class": "PreTrainedTokenizerFast", **settings}))
    whole = {"format": TOKENIZER_FORMAT, **about, "files": {name: sha256_of(folder / name) for name in HUGGING_FACE}}
    write_atomic(folder / TOKENIZER_FILE, sealed(whole))
    return folder


def read_tokenizer_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of tokenizer.json and of our own file. BadInput where one is missing or is not as it was written."""
    if not (folder / TOKENIZER_FILE).is_file():
        raise BadInput(
            f"{folder} holds no tokenizer of ours (no {TOKENIZER_FILE}): make one with 'workings tokenizer build'"
        )
    remedy = "copy the whole folder of the tokenizer, or build it again"
    about = read_sealed(folder / TOKENIZER_FILE, remedy)
    form, files = about.get("format"), about.get("files")
    if form != TOKENIZER_FORMAT:
        raise BadInput(
            f"{folder / TOKENIZER_FILE} is in format {form}, which this version cannot read (it reads {TOKENIZER_FORMAT})"
        )
    if not isinstance(files, dict) or not {*HUGGING_FACE} <= files.keys():
        raise BadInput(f"{folder / TOKENIZER_FILE} does not say what belongs to it: {remedy}")
    for name in HUGGING_FACE:
        unchanged(folder / name, files[name], TOKENIZER_FILE, remedy)
    return json.loads((folder / "tokenizer.json").read_text("utf-8")), about
