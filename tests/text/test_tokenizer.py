"""A text has one list of ids, here and in Hugging Face's tokenizer, in memory and from its folder; and it comes back."""

from __future__ import annotations

import json
import pickle
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config

import workings
from workings.arithmetic import generator
from workings.arithmetic.facts import Fact, FactVocabulary
from workings.arithmetic.generator import PRESETS, generate
from workings.cli import main
from workings.errors import BadInput
from workings.text.bpe import END_OF_TEXT, open_bpe, tiktoken_ranks, train_bpe
from workings.text.tokenizer import PREPARATION, UNKNOWN, VOCABULARIES, Tokenizer, word_tokenizer

GPT2 = Path(__file__).resolve().parents[3] / "shared" / "tokenizers" / "gpt2"
EMBEDDED = Path(workings.__file__).parent / "bundled" / "bpe" / "tokenizer.json"
NAMES = ("<|endoftext|>", "<|padding_0|>", "<|padding_3|>", "<|padding_46|>", "<|endoftext|")
TOKENS = ("<MUL_6_9_54>", "<MUL_1_1_1>", "<MUL_9_9_81>")
NO_TOKENS = (
    "<MUL_9_6_54>",
    "<MUL_6_9_55>",
    "<MUL_06_9_54>",
    "<MUL_6_9_54",
    "<MUL_10_10_100>",
    "<ADD_1_2_3>",
    "<mul_6_9_54>",
)


@cache
def build(vocabulary: str, base: str = "embedded") -> Tokenizer:
    return Tokenizer.build(GPT2 if base == "gpt2" else base, vocabulary)


@pytest.fixture(params=["embedded", "gpt2"])
def base(request) -> str:
    if request.param == "gpt2" and not GPT2.is_dir():
        pytest.skip("no shared/tokenizers/gpt2 beside the checkout: GPT-2's files are not part of the repository")
    return request.param


def random_text(draw: random.Random) -> str:
    """What documents hold, and what somebody might put there to be clever."""
    parts = {
        "names": lambda: draw.choice(NAMES),
        "tokens": lambda: draw.choice(TOKENS),
        "no tokens": lambda: draw.choice(NO_TOKENS),
        "numbers": lambda: str(draw.randrange(10 ** draw.randrange(1, 9))),
        "equations": lambda: f"{draw.randrange(12)}{draw.choice(['*', ' × ', ' x ', '+'])}{draw.randrange(12)}=54",
        "spaces": lambda: draw.choice(
            [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2003 ", " " * draw.randrange(20)]
        ),
        "words": lambda: draw.choice(
            ["is", " the", "don't", "WE'LL", " Ann", "naïve", "straße", "中文", "हिन्दी", "👩🏽‍🚀", "e\u0301"]
        ),
        "bytes": lambda: draw.randbytes(draw.randrange(1, 9)).decode("utf-8", "replace"),
        "any": lambda: "".join(
            chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])) for _ in range(3)
        ),
        "marks": lambda: draw.choice(
            ["<", ">", "<|", "|>", "_", "<MUL_", "<<6*9=54>>", "$", "...", "####", "\x00", "\ufeff"]
        ),
    }
    kinds = draw.sample(sorted(parts), draw.randrange(1, 5))
    return "".join(parts[draw.choice(kinds)]() for _ in range(draw.randrange(12)))


@cache
def random_texts(n: int) -> list[str]:
    draw = random.Random("texts")
    return [random_text(draw) for _ in range(n)]


PAIRS = [("embedded", vocabulary) for vocabulary in VOCABULARIES] + [("gpt2", "digits"), ("gpt2", "facts")]


@pytest.mark.parametrize(("base", "vocabulary"), PAIRS, indirect=["base"])
def test_ids_are_those_of_the_exported_tokenizer_on_ten_thousand_texts(base, vocabulary, tmp_path):
    tokenizer = build(vocabulary, base)
    texts = random_texts(10_000)
    ours = tokenizer.encode_batch(texts)
    exported = AutoTokenizer.from_pretrained(tokenizer.save(tmp_path / "tokenizer"))
    theirs = exported(texts)["input_ids"]
    decoded = exported.backend_tokenizer.decode_batch(theirs, skip_special_tokens=False)
    for text, ids, their, read in zip(texts, ours, theirs, decoded, strict=True):
        assert ids.tolist() == their, text
        assert tokenizer.decode(ids) == read == text
    in_memory = tokenizer.hf()
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    for text, ids in zip(texts[:500], ours, strict=False):
        assert in_memory.encode(text) == loaded.encode(text) == ids.tolist(), text


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_content_that_looks_like_a_special_token_is_text(vocabulary, base):
    tokenizer = build(vocabulary, base)
    facts = set(range(tokenizer.facts.first_id, tokenizer.width))
    ordinary = set(range(tokenizer.base_size)) - {tokenizer.eot}
    draw = random.Random(0)
    found = {i for _ in range(3000) for i in tokenizer.encode(random_text(draw))}
    assert found <= ordinary | (facts if tokenizer.has_facts else set())
    for name in (*NAMES, *NO_TOKENS):
        assert len(tokenizer.encode(name)) > 1
        assert set(tokenizer.encode(name)) <= ordinary


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_fact_token_is_one_id_where_facts_are_read_and_characters_elsewhere(vocabulary, base):
    tokenizer = build(vocabulary, base)
    for fact in tokenizer.facts:
        ids, fact_id = tokenizer.encode(fact.token), tokenizer.facts.id_of(fact)
        assert ids == [fact_id] if vocabulary in ("facts", "shuffled") else fact_id not in ids
        assert tokenizer.decode([fact_id]) == fact.token


def test_the_space_before_a_fact_stays_a_token_of_its_own(base):
    pieces = [piece for _, piece in build("facts", base).pieces("is <MUL_6_9_54> x<MUL_1_1_1>.")]
    assert pieces == ["is", " ", "<MUL_6_9_54>", " x", "<MUL_1_1_1>", "."]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(VOCABULARIES))
def test_decoding_undoes_encoding(text, vocabulary):
    tokenizer = build(vocabulary)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_id_decodes_as_it_does_in_the_exported_tokenizer(vocabulary, base):
    tokenizer = build(vocabulary, base)
    exported, draw = tokenizer.hf(), random.Random(0)
    assert len(exported) == tokenizer.width
    assert "" not in [tokenizer.decode([i]) for i in range(tokenizer.width)]
    for _ in range(300):  # half characters among them
        ids = [draw.randrange(tokenizer.width) for _ in range(20)]
        assert tokenizer.decode(ids) == exported.decode(ids)
    for i in (-1, tokenizer.width):
        with pytest.raises(BadInput, match=f"id {i} is no token"):
            tokenizer.decode([0, i])


def test_gpt2_has_its_known_places():
    if not GPT2.is_dir():
        pytest.skip("no shared/tokenizers/gpt2 beside the checkout")
    for vocabulary in VOCABULARIES:
        tokenizer = build(vocabulary, "gpt2")
        assert (tokenizer.eot, tokenizer.base_size, tokenizer.width, tokenizer.embedding_width) == (
            50256,
            50257,
            50349,
            50432,
        )
        assert tokenizer.decode([50342]) == "<MUL_6_9_54>" and tokenizer.decode([50260]) == "<|padding_3|>"
        assert tokenizer.dtype == np.uint16
        assert tokenizer.live == ((range(50257),) if vocabulary == "digits" else (range(50257), range(50304, 50349)))
    assert build("facts", "gpt2").encode("Hello world") == [15496, 995]
    assert build("facts", "gpt2").encode("is <MUL_6_9_54> x") == [271, 220, 50342, 2124]


def test_another_library_reading_gpt2_gives_the_same_digest():
    if not GPT2.is_dir():
        pytest.skip("no shared/tokenizers/gpt2 beside the checkout")
    from workings.text.bpe import _from_json

    again = AutoTokenizer.from_pretrained(GPT2).backend_tokenizer.to_str()
    assert _from_json(again, "the hub's").digest_parts() == open_bpe(GPT2).digest_parts()


@pytest.mark.parametrize("library", ["tiktoken", "tokenizers"])
def test_half_a_surrogate_pair_is_named_with_its_place(library):
    made = build("facts")
    tokenizer = Tokenizer(made.bpe, "facts", made.facts, made.mode, library)
    for text in ("abc\udc00d", "<MUL_6_9_54>\ud800"):
        with pytest.raises(BadInput, match=f"position {len(text) - 2 if text[0] == 'a' else 12}"):
            tokenizer.encode(text)


def test_both_libraries_give_the_same_ids():
    made, draw = build("facts"), random.Random(1)
    assert made.library == "tiktoken"
    slow = Tokenizer(made.bpe, "facts", made.facts, made.mode, "tokenizers")
    for text in [random_text(draw) for _ in range(2000)]:
        assert made.encode(text) == slow.encode(text)


def test_both_libraries_split_all_kinds_of_characters_alike():
    made = build("digits")
    slow = Tokenizer(made.bpe, "digits", made.facts, made.mode, "tokenizers")
    points = [*range(0x3000), *range(0x3000, 0xD800, 37), *range(0xE000, 0x20000, 37), *range(0x20000, 0x110000, 997)]
    for start in range(0, len(points), 500):
        text = "\n".join(f"a{c}b {c}1 {c}{c}.{c}" for c in map(chr, points[start : start + 500]))
        assert made.encode(text) == slow.encode(text)


def test_a_million_spaces_do_not_stop_a_document():
    tokenizer = build("facts")
    text = " " * 1_100_000 + "<MUL_6_9_54>" + " " * 1_100_000 + "x"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.facts.id_of("<MUL_6_9_54>") in ids


def test_arrays_are_as_wide_as_the_largest_id_asks():
    small = build("facts")
    assert [ids.dtype for ids in small.encode_batch(["a <MUL_6_9_54>", ""])] == [np.uint16, np.uint16]
    large = Tokenizer(small.bpe, "facts", small.facts.with_first_id(65_600))
    (ids,) = large.encode_batch(["a <MUL_6_9_54>"])
    assert ids.dtype == np.uint32
    assert ids[-1] == 65_600 + 38 and large.decode(ids) == "a <MUL_6_9_54>"


def test_the_end_of_text_is_appended_as_an_id_never_as_text():
    tokenizer = build("facts")
    exported = tokenizer.hf()
    assert exported.eos_token_id == tokenizer.eot
    assert exported.pad_token_id not in (None, tokenizer.eot)
    assert tokenizer.eot not in exported.encode("done" + exported.eos_token)
    assert exported.decode([*exported.encode("done"), exported.eos_token_id], skip_special_tokens=True) == "done"
    assert exported.decode(exported.encode("<MUL_6_9_54>"), skip_special_tokens=True) == "<MUL_6_9_54>"


def test_what_hugging_face_saves_again_still_gives_the_same_ids(tmp_path):
    tokenizer = build("reserved")
    tokenizer.hf().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    draw = random.Random(2)
    for text in [random_text(draw) for _ in range(300)]:
        assert again.encode(text) == tokenizer.encode(text)


def test_the_folder_of_a_model_may_hold_the_tokenizer(tmp_path):
    tokenizer = build("facts")
    GPT2Config(vocab_size=tokenizer.embedding_width).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tokenizer.save(tmp_path))
    draw = random.Random(3)
    for text in [random_text(draw) for _ in range(300)]:
        assert again.encode(text) == tokenizer.encode(text)


# ── folders and digests ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_decides_ids_or_preparation_decides_the_digest(base, tmp_path):
    made = build("facts", base)
    others = [build(vocabulary, base) for vocabulary in VOCABULARIES]
    others += [Tokenizer(made.bpe, "facts", made.facts, "weak")]
    others += [Tokenizer(made.bpe, "facts", FactVocabulary.build("MUL:1-8", made.base_size), "strict")]
    others += [Tokenizer(made.bpe, "facts", made.facts.with_first_id(made.facts.first_id + 128), "strict")]
    assert len({other.digest for other in others}) == len(others) == 7
    assert base == "embedded" or build("facts", "embedded").digest != made.digest
    assert Tokenizer.load(made.save(tmp_path)).digest == made.digest
    plain = build("digits", base)
    assert Tokenizer(plain.bpe, "digits", plain.facts, "weak").digest == plain.digest  # it rewrites nothing in any mode
    assert Tokenizer(made.bpe, "facts", made.facts, "strict", "tokenizers").digest == made.digest
    assert pickle.loads(pickle.dumps(made)).digest == made.digest


def test_a_copy_for_another_process_works(base):
    made = build("facts", base)
    made.encode("warm")
    copy = pickle.loads(pickle.dumps(made))
    assert copy.encode("is <MUL_6_9_54>") == made.encode("is <MUL_6_9_54>")
    assert copy.library == made.library


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "workings_tokenizer.json"])
def test_a_folder_that_was_changed_does_not_open(name, tmp_path):
    build("facts").save(tmp_path)
    file = tmp_path / name
    file.write_text(
        file.read_text()
        .replace("facts", "digits", 1)
        .replace("<|padding_1|>", "<|padding_x|>")
        .replace("true", "false")
    )
    with pytest.raises(BadInput, match=f"{name} was changed"):
        Tokenizer.load(tmp_path)
    file.unlink()
    with pytest.raises(BadInput, match=name):
        Tokenizer.load(tmp_path)


def test_other_rules_of_preparation_are_refused(tmp_path, monkeypatch):
    build("facts").save(tmp_path)
    monkeypatch.setattr("workings.text.tokenizer.PREPARATION", 0)
    with pytest.raises(BadInput, match="built with version 1 of rewriting, and this is version 0"):
        Tokenizer.load(tmp_path)


# ── bases ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def changed_base(tmp_path: Path, change) -> Path:
    content = json.loads(EMBEDDED.read_text("utf-8"))
    change(content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def single_digits(content: dict) -> None:
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, content["pre_tokenizer"]],
    }


def two_ids_swapped(content: dict) -> None:
    vocab = content["model"]["vocab"]
    vocab["Ġthe"], vocab["Ġ43"] = vocab["Ġ43"], vocab["Ġthe"]


def a_word_its_merges_do_not_make(content: dict) -> None:
    # "bc" comes before "ab", so that "abc" is read as a+bc; tiktoken would find the token abc all the same
    model = content["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if len(token) == 1}
    model["merges"] = [["b", "c"], ["a", "b"], ["ab", "c"]]
    model["vocab"] |= {"bc": 256, "ab": 257, "abc": 258}
    content["added_tokens"][0]["id"] = 259


@pytest.mark.parametrize("change", [single_digits, two_ids_swapped, a_word_its_merges_do_not_make])
def test_a_base_that_tiktoken_cannot_say_is_encoded_by_the_other_library(change, tmp_path):
    tokenizer = Tokenizer.build(changed_base(tmp_path, change), "facts")
    assert tokenizer.library == "tokenizers"
    exported, draw = AutoTokenizer.from_pretrained(tokenizer.save(tmp_path / "out")), random.Random(4)
    for text in [random_text(draw) for _ in range(500)]:
        assert exported.encode(text) == tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert Tokenizer.load(tmp_path / "out").digest == tokenizer.digest != build("facts").digest
    if change is a_word_its_merges_do_not_make:
        assert [piece for _, piece in tokenizer.pieces("abc")] == ["a", "bc"]
    if change is single_digits:
        assert [piece for _, piece in tokenizer.pieces("54+107")] == list("54+107")


def test_tiktoken_is_given_no_ranks_that_are_not_the_order_of_merges(tmp_path):
    assert tiktoken_ranks(open_bpe(EMBEDDED))[b" the"] == open_bpe(EMBEDDED).vocab["Ġthe"]
    assert tiktoken_ranks(open_bpe(changed_base(tmp_path, two_ids_swapped))) is None
    assert tiktoken_ranks(open_bpe(changed_base(tmp_path, single_digits))) is None


def test_tokens_of_another_project_are_text_too(tmp_path):
    def add(content: dict) -> None:
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        content["added_tokens"] += [
            {"id": 2005, "content": "<|im_start|>", "special": True, **plain},
            {"id": 2007, "content": "<tool>", "special": False, **plain},
        ]

    tokenizer = Tokenizer.build(changed_base(tmp_path, add), "facts")
    assert (tokenizer.base_size, tokenizer.facts.first_id) == (2008, 2048)
    assert tokenizer.live == (range(2000), range(2005, 2006), range(2007, 2008), range(2048, 2093))
    exported = AutoTokenizer.from_pretrained(tokenizer.save(tmp_path / "out"))
    text = "<|im_start|> <tool><|padding_0|>"
    assert exported.encode(text) == tokenizer.encode(text)
    assert max(tokenizer.encode(text)) < 2000
    assert tokenizer.decode([2000, 2005, 2006, 2007]) == "<|padding_0|><|im_start|><|padding_5|><tool>"
    assert Tokenizer.load(tmp_path / "out").digest == tokenizer.digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(normalizer={"type": "NFC"}), "changes text before"),
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "puts a space"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "does not read bytes"),
        (lambda c: c["model"].update(dropout=0.1), "dropout"),
        (lambda c: c["model"].update(ignore_merges=True), "ignore_merges"),
        (lambda c: c["model"]["vocab"].pop("Ġ"), "1 of 256 bytes"),
        (lambda c: c["model"]["vocab"].update({"<MUL_6_9_54>": 2000}), "names of facts"),
        (lambda c: c.pop("model"), "not the tokenizer.json of a BPE"),
        (lambda c: c.update(pre_tokenizer=5), "not the tokenizer.json of a BPE"),
        (lambda c: c["model"]["merges"].append("a b c"), "not the tokenizer.json of a BPE"),
        (lambda c: c["model"]["merges"].append(["Ġ", "no token"]), "of tokens that it does not have"),
        (lambda c: c["model"]["vocab"].update({"x1": -1}), "it has the id -1"),
        (lambda c: c["model"]["vocab"].update({"x1": 10**20}), "it has the id 100000000000000000000"),
        (lambda c: c["model"]["vocab"].update({"x1": "7"}), "it has the id 7"),
        (lambda c: c["model"]["vocab"].update({"x1": 7}), "two of its tokens have one id"),
        (
            lambda c: c["pre_tokenizer"].update(
                type="Sequence", pretokenizers=[{"type": "ByteLevel"}, {"type": "Odd"}]
            ),
            "cannot use",
        ),
    ],
)
def test_a_base_that_cannot_keep_every_text_is_refused(change, reason, tmp_path):
    with pytest.raises(BadInput, match=reason):
        Tokenizer.build(changed_base(tmp_path, change), "facts")


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\x80 binary", b"[" * 100_000, b"5", b"{}", b'{"model": {"vocab": {}, "merges": []}}']
)
def test_a_file_that_is_no_tokenizer_is_refused_as_a_base(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.bin is not (the tokenizer\.json of a BPE|a byte-level BPE)"):
        Tokenizer.build(tmp_path / "model.bin")
    with pytest.raises(BadInput, match="a pipe or a device"):
        Tokenizer.build("/dev/null")


def test_a_byte_order_mark_before_a_base_is_dropped(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + EMBEDDED.read_bytes())
    assert Tokenizer.build(tmp_path).digest == build("facts").digest


def test_a_base_that_loses_characters_is_refused(tmp_path):
    def lose_spaces(content: dict) -> None:
        split = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, content["pre_tokenizer"]]}

    with pytest.raises(BadInput, match="does not give texts back"):
        Tokenizer.build(changed_base(tmp_path, lose_spaces), "facts")


def test_mistakes_are_told_with_what_to_do(tmp_path):
    with pytest.raises(BadInput, match=r"no path here and no tokenizer from the hub.*--base embedded"):
        Tokenizer.build("nobody/nothing-at-all", "facts")
    with pytest.raises(BadInput, match="did you mean 'facts'"):
        Tokenizer.build("embedded", "fact")  # ty: ignore
    with pytest.raises(BadInput, match="no mode 'loose'"):
        Tokenizer.build("embedded", "facts", mode="loose")  # ty: ignore
    with pytest.raises(BadInput, match="no tokenizer of ours"):
        Tokenizer.load(tmp_path)
    with pytest.raises(BadInput, match="has fact tokens already"):
        Tokenizer.build(build("facts").save(tmp_path), "facts")


def test_training_is_the_same_each_time_and_reads_everything():
    texts = [f"{fact.equation} and Ann has {fact.result} cards" for fact in FactVocabulary.build("MUL:1-30", 0)]
    content = train_bpe(texts, 300)
    assert content == train_bpe(texts, 300)
    vocab = json.loads(content)["model"]["vocab"] | {END_OF_TEXT: 299}
    assert sorted(vocab.values()) == list(range(300))
    with pytest.raises(BadInput, match="give more, or ask for fewer"):
        train_bpe(["a b"], 300)


# ── preparation ──────────────────────────────────────────────────────────────────────────────────────────────────────


RAW = "Ann buys 6 boxes of 9: 6*9=54. Then 54-7=47, and 7 × 8 = 56 more; 2*3=6. "


def test_arms_differ_in_preparation_only():
    prepared = {vocabulary: build(vocabulary).prepare_counted(RAW * 3) for vocabulary in VOCABULARIES}
    assert prepared["digits"] == prepared["reserved"] == (RAW * 3, 0)
    facts, n_facts = prepared["facts"]
    assert n_facts == 9 == facts.count("<MUL_")
    assert prepared["shuffled"][1] == n_facts
    lengths = {vocabulary: len(build(vocabulary).encode(text)) for vocabulary, (text, _) in prepared.items()}
    assert lengths["facts"] == lengths["shuffled"] < lengths["digits"] == lengths["reserved"]


def test_shuffled_facts_are_one_permutation_a_document():
    shuffled = build("shuffled")
    facts = [Fact.of(a, b) for a in range(1, 10) for b in range(a, 10)]
    documents = ["; ".join(fact.equation for fact in facts) + f" (page {page})" for page in range(20)]
    orders = set()
    for document in documents:
        ids = [i for i in shuffled.encode(shuffled.prepare(document)) if i >= shuffled.facts.first_id]
        assert sorted(ids) == list(range(shuffled.facts.first_id, shuffled.width))
        twice = [
            i for i in shuffled.encode(shuffled.prepare(document + "\n" + document)) if i >= shuffled.facts.first_id
        ]
        assert twice[: len(facts)] == twice[len(facts) :]
        orders.add(tuple(ids))
    assert len(orders) == len(documents)


PREPARED = {
    "6*9=54": "<MUL_6_9_54>",
    "She pays 9 * 6 = $54 for it.": "She pays $<MUL_6_9_54> for it.",
    "106*9=954, 6*9=55 and 6*9=54.5": "106*9=954, 6*9=55 and 6*9=54.5",
    "6*9": "6*9",
    "`6*9=54`": "`6*9=54`",
}


def test_preparation_and_its_number_change_together():
    """Whoever makes this fail on purpose raises PREPARATION: corpora and models of before do not fit any more."""
    assert PREPARATION == 1
    assert {text: build("facts").prepare(text) for text in PREPARED} == PREPARED
    document = "2*3=6 and 4*4=16; 2*3=6"
    assert build("shuffled").prepare(document) == "<MUL_2_5_10> and <MUL_8_9_72>; <MUL_2_5_10>"
    assert build("facts").digest == "740fe9838b0820c3ac3a2ae0f9b3ac7dfaada5e9329dca0e784d83d684377bdb"


def test_a_text_with_fact_tokens_counts_as_prepared():
    mixed = "<MUL_6_9_54> and then 2*3=6 and <MUL_9_6_54>"
    for vocabulary in ("facts", "shuffled"):
        assert build(vocabulary).prepare_counted(mixed) == ("<MUL_6_9_54> and then <MUL_2_3_6> and <MUL_9_6_54>", 2)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_what_is_prepared_stays_as_it_is(vocabulary, shared_data):
    tokenizer = build(vocabulary)
    rows = [json.loads(line) for line in (shared_data / "gsm8k" / "test.jsonl").open(encoding="utf-8")]
    for row in rows[:500]:
        prepared = tokenizer.prepare(row["answer"])
        assert tokenizer.prepare(prepared) == prepared
    assert tokenizer.prepare_counted("<MUL_6_9_54>") == ("<MUL_6_9_54>", 1 if tokenizer.has_facts else 0)


# ── on the command line ──────────────────────────────────────────────────────────────────────────────────────────────


def run(*words: str) -> int:
    return main(["tokenizer", *map(str, words)])


def test_a_tokenizer_is_built_and_shown(tmp_path, capsys):
    assert run("build", "--base", "embedded", "--facts", "MUL:1-9,ADD:0-3", "--out", tmp_path / "t", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    built = Tokenizer.load(told["path"])
    assert told["digest"] == built.digest and told["width"] == built.width == 2048 + 45 + 10
    assert run("show", "is 6*9=54", "--tokenizer", tmp_path / "t", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["text"] == "is <MUL_6_9_54>" and [piece for _, piece in told["pieces"]] == ["is", " ", "<MUL_6_9_54>"]
    assert run("show", "6*9=54", "--vocabulary", "digits") == 0
    out = capsys.readouterr()
    assert "54" in out.out and "<MUL" not in out.out


def test_a_base_is_trained_and_built_on(tmp_path, capsys):
    assert (
        run("train", "--documents", "generated:small", "--limit", 300, "--size", 400, "--out", tmp_path / "base") == 0
    )
    assert run("build", "--base", tmp_path / "base", "--out", tmp_path / "t") == 0
    assert Tokenizer.load(tmp_path / "t").facts.first_id == 512
    assert run("build", "--base", "embedded", "--vocabulary", "fact", "--out", tmp_path / "u") == 2
    assert run("build", "--base", tmp_path / "t", "--out", tmp_path / "u") == 2
    assert "has fact tokens already" in capsys.readouterr().err
    assert not (tmp_path / "u").exists()


def test_a_folder_with_other_files_is_not_written_into(tmp_path, capsys):
    """A tokenizer may be written over itself, and over nothing else."""
    assert run("build", "--base", "embedded", "--out", tmp_path / "t") == 0
    assert run("build", "--base", "embedded", "--facts", "MUL:1-3", "--out", tmp_path / "t") == 0
    (tmp_path / "t" / "model.safetensors").touch()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.json").write_bytes(EMBEDDED.read_bytes())
    for out, complaint in [
        ("t", r"holds other files (model.safetensors)"),
        ("base", "holds other files (tokenizer.json)"),
    ]:
        before = {path: path.read_bytes() for path in (tmp_path / out).iterdir()}
        assert run("build", "--base", tmp_path / "base", "--out", tmp_path / out) == 2
        assert complaint in capsys.readouterr().err
        assert {path: path.read_bytes() for path in (tmp_path / out).iterdir()} == before
    small = ("--documents", "generated:small", "--limit", 9, "--size", 300)
    assert run("train", *small, "--out", tmp_path / "t") == 2 and "holds other files" in capsys.readouterr().err
    assert run("train", *small, "--out", tmp_path / "base" / "tokenizer.json") == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value"), [("--size", v) for v in (0, -1, 256, 10**20)] + [("--limit", v) for v in (0, -1, 10**20)]
)
def test_sizes_that_cannot_be_are_refused(tmp_path, capsys, flag, value):
    assert run("train", "--documents", "generated:small", flag, value, "--out", tmp_path / "t") == 2
    assert flag in capsys.readouterr().err and not (tmp_path / "t").exists()


def test_training_reads_other_fields_and_counts_what_is_no_document(tmp_path, capsys):
    rows = [{"body": f"6*{i} is {6 * i}, and so on"} for i in range(50)] + [{"body": 5}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("train", "--documents", tmp_path / "a.jsonl", "--size", 260, "--out", tmp_path / "t")
    assert run(*words) == 2 and "no field 'text'" in capsys.readouterr().err
    assert run(*words, "--field", "body") == 2 and "row 51: the text is int" in capsys.readouterr().err
    assert run(*words, "--field", "body", "--skip-bad") == 0
    assert "1 rows were no documents and were left out; the first, a, a.jsonl, row 51" in capsys.readouterr().err


# ── words as tokens ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_generated_problem_is_made_of_known_pieces(preset):
    tokenizer = word_tokenizer(generator.vocabulary(PRESETS[preset]))
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for problem in generate(200, PRESETS[preset], seed=1):
        ids = tokenizer.encode(problem.question)
        assert unknown not in ids, problem.question
        assert tokenizer.decode(ids).split() == " ".join(tokenizer.convert_ids_to_tokens(ids)).split()


@given(st.integers(min_value=0, max_value=99))
def test_a_number_is_one_token(n):
    tokenizer = word_tokenizer(generator.vocabulary(PRESETS["hundred"]))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(f"<<{n}+{n}")) == ["<<", str(n), "+", str(n)]


def test_a_word_that_is_not_one_piece_is_refused():
    with pytest.raises(ValueError, match="not one piece"):
        word_tokenizer(["two words"])
