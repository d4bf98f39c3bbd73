"""A corpus is the same raw documents in every arm, complete or nothing, and the same bytes however it came about."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from workings import files
from workings.arithmetic.facts import Fact
from workings.cli import main
from workings.config import to_yaml
from workings.errors import BadInput, Failed
from workings.text import Corpus, CorpusConfig, SourceConfig, build, build_corpus, build_state, mixing, verify_corpus
from workings.text.documents import open_documents
from workings.text.encoding import content_hash
from workings.text.estimate import estimate_corpus
from workings.text.manifest import FactRate, LeftOutFiles
from workings.text.shards import open_ids, open_index

ODD = ["<|endoftext|> is text, and so is <|padding_3|>", "a token as text: <MUL_6_9_54> or <MUL_6_9_55>", "6*9=54 三 é"]
RATE = 0.02


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Many blocks and a journal after each, so that a small corpus has all that a large one has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "BLOCK_DOCUMENTS", 100)
        patch.setattr(build_state, "SECONDS_BETWEEN_NOTES", 0.0)
        yield


@pytest.fixture(scope="module")
def texts() -> list[str]:
    problems = [row.text for row in islice(open_documents("generated", seed=7), 1500)]
    return [
        f"{text}\nSo 6 * {i % 9 + 1} = {6 * (i % 9 + 1)}." if i % 5 == 0 else text for i, text in enumerate(problems)
    ] + ODD


@pytest.fixture(scope="module")
def data(texts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "stories.jsonl"
    path.write_bytes(lines(texts))
    return path


@pytest.fixture(scope="module")
def config(data) -> CorpusConfig:
    source = SourceConfig(str(data))
    return CorpusConfig(
        (source,),
        fact_rate=RATE,
        validation_fraction=0.03,
        validation_documents=60,
        shard_tokens=20_000,
        shuffle_documents=400,
        vocabulary="facts",
    )


@pytest.fixture(scope="module")
def arms(config, tmp_path_factory) -> dict[str, Corpus]:
    folder = tmp_path_factory.mktemp("arms")
    names = ("facts", "digits", "shuffled", "reserved")
    return {name: build_corpus(replace(config, vocabulary=name), folder / name, processes=1) for name in names}


def lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def documents_of(corpus: Corpus, split: str = "train") -> list[tuple[int, str, np.ndarray]]:
    """Content hash, source and ids (without the end of text) of every document, read from the files."""
    found = []
    for shard in corpus.outcome.splits[split].shards:
        ids, rows = open_ids(corpus.folder, shard, corpus.dtype), open_index(corpus.folder, shard)
        bounds = [*map(int, rows["offset"]), len(ids)]
        for row, (start, stop) in zip(rows, pairwise(bounds), strict=True):
            assert ids[start] == corpus.tokenizer.eot
            found.append((int(row["hash"]), corpus.sources[row["source"]], np.array(ids[start + 1 : stop])))
    return found


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name[0] != "."}


def is_unfinished(folder: Path) -> bool:
    return json.loads((folder / "manifest.json").read_text())["status"] != "complete"


# ── the arms ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_arm_holds_the_same_raw_documents_at_the_same_places(arms):
    for split in ("train", "validation"):
        raw = {name: [(h, source) for h, source, _ in documents_of(corpus, split)] for name, corpus in arms.items()}
        assert raw["facts"] == raw["digits"] == raw["shuffled"] == raw["reserved"]
        assert len({corpus.outcome.splits[split].raw_sha256 for corpus in arms.values()}) == 1
    first, second = arms["facts"].train, arms["digits"].train
    assert first.shards != second.shards and first.n_bytes == second.n_bytes


def test_every_document_is_there_once_prepared_as_its_arm_reads_it(arms, texts):
    by_hash = {content_hash(text.encode()): text for text in texts}
    for corpus in arms.values():
        found = [*documents_of(corpus), *documents_of(corpus, "validation")]
        natural = [(by_hash[h], ids) for h, source, ids in found if source != "drills"]
        assert sorted(text for text, _ in natural) == sorted(texts)
        for text, ids in natural[::17] + [pair for pair in natural if pair[0] in ODD]:
            assert corpus.tokenizer.decode(ids) == corpus.tokenizer.prepare(text)
    (odd,) = [ids for h, _, ids in documents_of(arms["digits"]) if by_hash.get(h) == ODD[1]]
    assert odd.max() < arms["digits"].tokenizer.base_size, "in digits the name of a token is so many characters"


def test_the_order_is_shuffled_by_the_seed(arms, config, texts, tmp_path):
    place = {content_hash(text.encode()): i for i, text in enumerate(texts)}
    order = [place[h] for h, source, _ in documents_of(arms["facts"]) if source != "drills"]
    assert order != sorted(order) and np.corrcoef(order, range(len(order)))[0, 1] < 0.95
    other = build_corpus(replace(config, seed=1), tmp_path / "c", processes=1)
    assert [place[h] for h, source, _ in documents_of(other) if source != "drills"] != order
    assert sorted(h for h, s, _ in documents_of(other, "validation") if s != "drills") == sorted(
        h for h, s, _ in documents_of(arms["facts"], "validation") if s != "drills"
    ), "who validates is decided by content alone"


def test_the_fact_rate_is_reached_everywhere_and_counted_right(arms):
    corpus = arms["facts"]
    facts = {corpus.tokenizer.facts.first_id + i for i in range(len(corpus.tokenizer.facts.facts))}
    assert Fact.of(6, 9) in corpus.tokenizer.facts.facts
    rates = []
    for shard in corpus.train.shards:
        ids = open_ids(corpus.folder, shard, corpus.dtype)
        rates.append((int(np.isin(ids, [*facts]).sum()), len(ids)))
    n_facts, n_tokens = np.sum(rates, axis=0)
    assert abs(n_facts / n_tokens - RATE) < 0.02 * RATE
    assert len(rates) >= 3 and all(abs(n / size - RATE) < 0.25 * RATE for n, size in rates[:-1]), rates
    assert (corpus.train.n_facts, corpus.train.n_tokens) == (n_facts, n_tokens)
    for name, arm in arms.items():
        split = arm.train
        assert (split.n_facts_arm_facts, split.n_facts_arm_tokens) == (n_facts, n_tokens)
        assert arm.outcome.fact_rate == FactRate(RATE, n_facts / n_tokens)
        assert split.n_facts == (n_facts if name in ("facts", "shuffled") else 0)
    assert arms["shuffled"].n_tokens == n_tokens < arms["digits"].n_tokens == arms["reserved"].n_tokens


def test_validation_is_never_trained_on_and_has_the_same_bytes_in_every_arm(arms):
    train, held = ({h for h, *_ in documents_of(arms["facts"], split)} for split in ("train", "validation"))
    assert held and not train & held
    sizes = {name: [(d.source, d.n_bytes) for d in corpus.validation()] for name, corpus in arms.items()}
    assert sizes["facts"] == sizes["digits"] == sizes["shuffled"] == sizes["reserved"]
    corpus = arms["digits"]
    for document in corpus.validation("stories"):
        assert len(corpus.tokenizer.decode(document.ids).encode()) == document.n_bytes
    assert {d.source for d in corpus.validation("drills")} == {"drills"}
    with pytest.raises(BadInput, match="no source 'storeis'"):
        next(corpus.validation("storeis"))


def test_who_validates_is_the_fraction_asked_for_up_to_the_number_asked_for(arms, config, texts, tmp_path):
    """The first 64 bits of a document's sha256, as a share of all there are, lie below the fraction."""
    sha256s = {text: hashlib.sha256(text.encode()).hexdigest() for text in texts}
    expected = {int(sha[:16], 16) for sha in sha256s.values() if int(sha[:16], 16) / 2**64 < config.validation_fraction}
    assert len(expected) == pytest.approx(config.validation_fraction * len(sha256s), rel=0.5) and len(expected) < 60
    held = [(h, source) for h, source, _ in documents_of(arms["digits"], "validation")]
    assert {h for h, source in held if source == "stories"} == expected
    assert sum(source == "drills" for _, source in held) == config.validation_documents
    fewer = build_corpus(replace(config, validation_documents=20), tmp_path / "c", processes=1)
    assert {name: counts.n_documents for name, counts in fewer.held_out.sources.items()} == {
        "stories": 20,
        "drills": 20,
    }
    assert sum(fewer.outcome.left_out.values()) == len(expected) - 20


def test_a_document_that_comes_twice_is_on_one_side_and_validates_once(texts, config, tmp_path):
    for name, some in (("a", texts), ("b", texts[::2])):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(some))
    sources = tuple(SourceConfig(str(tmp_path / f"{name}.jsonl")) for name in "ab")
    corpus = build_corpus(
        replace(config, documents=sources, fact_rate=0.0, validation_documents=9), tmp_path / "c", processes=1
    )
    train, held = ([h for h, *_ in documents_of(corpus, split)] for split in ("train", "validation"))
    assert not {*train} & {*held} and len(held) == len({*held})
    assert all(counts.n_documents <= 9 for counts in corpus.held_out.sources.values())
    assert len(train) + len(held) + sum(corpus.outcome.left_out.values()) == len(texts) + len(texts[::2])


def test_batches_read_the_shards_end_to_end(arms):
    corpus = arms["facts"]
    ids = np.concatenate([open_ids(corpus.folder, s, corpus.dtype) for s in corpus.train.shards])
    n = corpus.n_windows(64)
    rows = np.concatenate([b.inputs for b in islice(corpus.batches(0, 1, 64), n)])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, ids[: n * 64].reshape(n, 64)))


# ── limits and mixtures ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mixture_has_the_shares_it_was_asked_for(texts, config, tmp_path):
    for name, some in (("a", texts[:700]), ("b", texts[700:])):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(some))
    sources = tuple(SourceConfig(str(tmp_path / f"{n}.jsonl"), weight=w) for n, w in (("a", 3.0), ("b", 1.0)))
    mixed = replace(config, documents=sources, fact_rate=0.0, bytes_limit=60_000)
    splits = build_corpus(mixed, tmp_path / "c", processes=1).outcome.splits.values()
    given = {n: sum(split.sources[n].n_bytes for split in splits if n in split.sources) for n in "ab"}
    assert 60_000 <= sum(given.values()) < 60_000 + max(len(text.encode()) for text in texts)
    assert abs(given["a"] / sum(given.values()) - 0.75) < 0.01
    longer = replace(mixed, bytes_limit=200_000)
    with pytest.raises(Failed, match=r"a ended early: it is .* where its weight asks for 75.0%"):
        build_corpus(longer, tmp_path / "long", processes=1)
    assert is_unfinished(tmp_path / "long")


def test_sources_that_end_before_the_limit_are_a_failure_unless_allowed(config, tmp_path, arms):
    short = replace(config, documents_limit=5000)
    with pytest.raises(Failed, match=r"after 1,503 documents and .* before the limit \(5,000 documents\)"):
        build_corpus(short, tmp_path / "c", processes=1)
    assert is_unfinished(tmp_path / "c")
    with pytest.raises(BadInput, match="unfinished"):
        Corpus.open(tmp_path / "c")
    corpus = build_corpus(short, tmp_path / "c", processes=1, allow_short=True)
    assert corpus.train.raw_sha256 == arms["facts"].train.raw_sha256


def test_a_rate_that_cannot_be_is_refused(config, data, tmp_path):
    with pytest.raises(BadInput, match="out of reach"):
        build_corpus(replace(config, fact_rate=0.2), tmp_path / "a", processes=1)


@pytest.fixture
def dense(config, tmp_path) -> CorpusConfig:
    """Of documents that hold more facts than are asked for."""
    (tmp_path / "dense.jsonl").write_bytes(lines([f"{i} and 6*9=54, 6*9=54, 6*9=54" for i in range(300)]))
    return replace(config, documents=(SourceConfig(str(tmp_path / "dense.jsonl")),), fact_rate=0.01)


@pytest.mark.parametrize("early", [False, True])
def test_a_rate_that_the_documents_exceed_ends_the_build_and_its_advice_can_be_followed(
    dense, tmp_path, monkeypatch, capsys, early
):
    out = tmp_path / "c"
    if early:
        monkeypatch.setattr(build, "EARLY_BYTES", 2000)
    with pytest.raises(
        Failed, match=r"of the (first|training) tokens where 1\.0000% were asked for: the documents"
    ) as error:
        build_corpus(dense, out, processes=1)
    assert ("first" in str(error.value)) == early and is_unfinished(out)
    assert (out / "state.json").exists() != early, "it is noticed in the first block, and nothing was noted yet"
    corpus = build_corpus(dense, out, processes=1, allow_rate=True)
    assert corpus.outcome.fact_rate.reached > 0.1 and corpus.verify() == []
    with pytest.raises(BadInput, match="was built with another fact_rate"):
        build_corpus(replace(dense, fact_rate=0.0), out, processes=1)
    with pytest.raises(Failed):
        build_corpus(dense, tmp_path / "again", processes=1)
    corpus = build_corpus(replace(dense, fact_rate=0.0), tmp_path / "again", processes=1)
    assert "a failed build with another fact_rate; it is begun anew" in capsys.readouterr().err
    straight = build_corpus(replace(dense, fact_rate=0.0), tmp_path / "straight", processes=1)
    assert content_of(corpus.folder) == content_of(straight.folder), "nothing is left of the failed build"


def test_a_build_that_was_interrupted_is_not_begun_anew_by_other_settings(elsewhere, config, arms, tmp_path):
    assert elsewhere(tmp_path / "c", journals=3).returncode == -9
    with pytest.raises(BadInput, match="begun with another seed: give the same to go on"):
        build_corpus(replace(config, seed=5), tmp_path / "c", processes=1)
    build_corpus(config, tmp_path / "c", processes=1)
    assert content_of(tmp_path / "c") == content_of(arms["facts"].folder)


def test_a_damaged_journal_is_named(elsewhere, config, tmp_path):
    assert elsewhere(tmp_path / "c", journals=3).returncode == -9
    for content in (
        "{",
        "{}",
        '{"state": {}, "totals": {}, "writers": {}}',
        '{"state": {"n": 1}, "totals": 1, "writers": 1}',
    ):
        (tmp_path / "c" / "state.json").write_text(content)
        with pytest.raises(BadInput, match=r"state\.json is damaged"):
            build_corpus(config, tmp_path / "c", processes=1)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"documents": (SourceConfig("generated"),)}, "never ends"),
        ({"documents": (SourceConfig("drills"),), "documents_limit": 5}, "not both"),
        ({"documents": ()}, "at least one source"),
        ({"documents": (SourceConfig("a"), SourceConfig("b", weight=2.0))}, "weights need"),
        ({"fact_rate": 0.7}, "fact_rate is 0.7"),
    ],
)
def test_configs_that_make_no_sense_are_refused(config, wrong, complaint):
    with pytest.raises((BadInput, ValueError), match=complaint):
        replace(config, **wrong).open_sources()


def test_an_estimate_is_near_what_comes_out(config, arms):
    for name in ("facts", "digits"):
        guessed, split = estimate_corpus(replace(config, vocabulary=name), 1), arms[name].train
        natural = split.n_bytes - split.sources["drills"].n_bytes
        for guess, found in (
            (guessed.bytes, natural),
            (guessed.tokens, split.n_tokens),
            (guessed.facts, split.n_facts),
        ):
            assert guess == pytest.approx(found, rel=0.08)


# ── ends of many kinds ───────────────────────────────────────────────────────────────────────────────────────────────


DRIVER = dedent("""
    import os, resource, signal, sys
    from workings import config
    from workings.text import build_state, mixing
    from workings.text import CorpusConfig, build_corpus

    def main():
        mixing.BLOCK_DOCUMENTS, build_state.SECONDS_BETWEEN_NOTES = 100, 0.0
        yaml, out, processes, journals, limit = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        left, plain_note = [journals], build_state.BuildJournal.note

        def note(journal):
            plain_note(journal)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        build_state.BuildJournal.note = note
        build_corpus(config.from_yaml(CorpusConfig, yaml), out, processes=processes)

    if __name__ == "__main__":
        main()
""")


@pytest.fixture
def elsewhere(tmp_path, config):
    """Run a build in a process of its own, which kills itself after so many entries in the journal."""
    (tmp_path / "driver.py").write_text(DRIVER)

    def run(
        out: Path, processes: int = 1, journals: int = 0, limit: int = 0, config: CorpusConfig = config
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "config.yaml").write_text(to_yaml(config))
        words = ["driver.py", "config.yaml", str(out), str(processes), str(journals), str(limit)]
        return subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=100)

    return run


@pytest.mark.parametrize(("journals", "processes"), [(1, 1), (9, 2)])
def test_a_build_killed_in_the_middle_goes_on_to_identical_bytes(
    elsewhere, config, arms, tmp_path, journals, processes
):
    out = tmp_path / "c"
    assert elsewhere(out, processes, journals).returncode == -9
    state = json.loads((out / "state.json").read_text())
    assert state["state"]["n_blocks"] == journals and is_unfinished(out)
    with max(out.glob("train_*.bin")).open("ab") as half_written:
        half_written.write(b"half a block that no journal knows of")
    corpus = build_corpus(config, out, processes=1)
    assert content_of(out) == content_of(arms["facts"].folder)
    assert corpus.verify() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_told_to_stop_says_how_to_go_on(config, arms, tmp_path, capsys, monkeypatch, number):
    plain_note, left = build_state.BuildJournal.note, [4]

    def note(journal) -> bool:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        return plain_note(journal)

    (tmp_path / "config.yaml").write_text(to_yaml(config))
    words = [
        "corpus",
        "build",
        "--config",
        str(tmp_path / "config.yaml"),
        "--out",
        str(tmp_path / "c"),
        "--processes",
        "1",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(build_state.BuildJournal, "note", note)
        assert typed(capsys, *words) == (
            128 + number,
            "",
            f"{'workings: stopped' if number == signal.SIGTERM else chr(10) + 'workings: interrupted'}\n"
            f"  the corpus {tmp_path / 'c'} is unfinished: building it with the same settings goes on\n",
        )
    assert is_unfinished(tmp_path / "c") and typed(capsys, *words)[0] == 0
    assert content_of(tmp_path / "c") == content_of(arms["facts"].folder)


def test_a_build_that_may_write_no_more_says_so_and_goes_on_later(elsewhere, config, tmp_path):
    config = replace(config, shard_tokens=10**6)
    straight = build_corpus(config, tmp_path / "straight", processes=1)
    limit = (straight.folder / "train_000000.bin").stat().st_size - 2000
    done = elsewhere(tmp_path / "c", limit=limit, config=config)
    assert done.returncode == 1 and "the disk is full at" in done.stderr and "File too large" in done.stderr
    assert is_unfinished(tmp_path / "c")
    build_corpus(config, tmp_path / "c", processes=1)
    assert content_of(tmp_path / "c") == content_of(straight.folder)


def test_an_encoding_process_that_dies_ends_the_build(config, arms, tmp_path, monkeypatch):
    def kill_one(journal) -> bool:
        for child in multiprocessing.active_children()[:1]:
            os.kill(child.pid, 9)
        return plain_note(journal)

    plain_note = build_state.BuildJournal.note
    with monkeypatch.context() as patch:
        patch.setattr(build_state.BuildJournal, "note", kill_one)
        with pytest.raises(Failed, match="an encoding process died"):
            build_corpus(config, tmp_path / "c", processes=2)
    assert is_unfinished(tmp_path / "c")
    build_corpus(config, tmp_path / "c", processes=1)
    assert content_of(tmp_path / "c") == content_of(arms["facts"].folder)


def test_a_file_that_breaks_off_ends_the_build_and_can_be_gone_on_with(config, texts, tmp_path):
    packed = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(lines(texts), mtime=0)
    config = replace(config, documents=(SourceConfig(str(packed)),))
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"a\.jsonl\.gz cannot be read beyond row .*--skip-bad"):
        build_corpus(config, tmp_path / "c", processes=1)
    assert is_unfinished(tmp_path / "c") and (tmp_path / "c" / "state.json").exists()
    packed.write_bytes(whole)
    build_corpus(config, tmp_path / "c", processes=1)
    build_corpus(config, tmp_path / "straight", processes=1)
    assert content_of(tmp_path / "c") == content_of(tmp_path / "straight")


def test_a_document_that_fails_ends_the_build_or_is_counted_and_listed(config, texts, tmp_path):
    rows = lines(texts).splitlines(keepends=True)
    rows[800:800] = [b'{"text": "\\ud83d alone"}\n', b'{"text": 7}\n', b"{half\n"]
    (tmp_path / "a.jsonl").write_bytes(b"".join(rows))
    config = replace(config, documents=(SourceConfig(str(tmp_path / "a.jsonl")),))
    with pytest.raises(BadInput, match=r"a, a\.jsonl, row 801: .*surrogate.*--skip-bad"):
        build_corpus(config, tmp_path / "c", processes=1)
    assert is_unfinished(tmp_path / "c")
    corpus = build_corpus(config, tmp_path / "c", processes=1, skip_bad=True)
    unreadable = corpus.outcome.unreadable
    assert unreadable.rows == 3 and [row["place"] for row in unreadable.listed] == [
        f"a.jsonl, row {n}" for n in (801, 802, 803)
    ]
    natural = [h for s in ("train", "validation") for h, source, _ in documents_of(corpus, s) if source != "drills"]
    assert len(natural) == len(texts) and "3 rows were no documents" in " ".join(corpus.notes())


def test_a_damaged_file_is_skipped_and_counted_and_files_left_out_are_listed(config, texts, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines(texts), mtime=0)[:-400])
    (folder / "b.jsonl").write_bytes(lines(texts[:100]))
    (folder / "c.pdf").write_bytes(b"%PDF")
    config = replace(config, documents=(SourceConfig(str(folder)),), fact_rate=0.0)
    corpus = build_corpus(config, tmp_path / "c", processes=1, skip_bad=True)
    (bad,) = corpus.outcome.unreadable.listed
    assert bad["place"].startswith("a.jsonl.gz, row ") and "the rest of the file cannot be read" in bad["reason"]
    assert corpus.outcome.files_left_out == {"data": LeftOutFiles(1, ("c.pdf",))}
    assert Corpus.open(tmp_path / "c").outcome == corpus.outcome
    with pytest.raises(Failed, match=r"no document to train on; first bad row: .*no field 'body'; it has text"):
        build_corpus(
            replace(config, documents=(SourceConfig(str(folder), field="body"),)),
            tmp_path / "d",
            processes=1,
            skip_bad=True,
        )


def test_documents_that_changed_since_the_kill_are_noticed(elsewhere, config, data, tmp_path):
    assert elsewhere(tmp_path / "c", journals=3).returncode == -9
    before = data.read_bytes()
    try:
        data.write_bytes(before.replace(b"So 6 * 1 = 6.", b"So 6 * 1 = 6, of course."))
        with pytest.raises(Failed, match="not those this corpus was begun with"):
            build_corpus(config, tmp_path / "c", processes=1)
    finally:
        data.write_bytes(before)


def test_two_builders_and_other_settings_are_refused(config, arms, tmp_path):
    with files.lock(arms["facts"].folder), pytest.raises(BadInput, match="written by another process"):
        build_corpus(config, arms["facts"].folder, processes=1)
    with pytest.raises(BadInput, match="built with another seed"):
        build_corpus(replace(config, seed=5), arms["facts"].folder, processes=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds other files"):
        build_corpus(config, tmp_path, processes=1)
    before = content_of(arms["facts"].folder)
    build_corpus(config, arms["facts"].folder, processes=1)
    assert content_of(arms["facts"].folder) == before, "a complete corpus is opened as it is"


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def garble(path: Path) -> None:
    """Spoil a header of numpy so that it is no Python."""
    content = path.read_bytes()
    at = content.index(b"'shape': (") + len(b"'shape': (")
    path.write_bytes(content[:at] + b"3xxxxxxx" + content[at + 8 :])


def in_manifest(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    del manifest["sha256"]  # as if it had been written so
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda f: flip(f / "train_000001.bin"), "train_000001.bin: changed"),
        (lambda f: flip(f / "val_drills_000000.docs.npy"), "val_drills_000000.docs.npy: changed"),
        (lambda f: garble(f / "train_000000.docs.npy"), "train_000000.docs.npy: changed"),
        (lambda f: (f / "train_000000.bin").unlink(), "train_000000.bin: missing"),
        (lambda f: in_manifest(f, lambda m: m.update(dtype="uint32")), "bytes, not"),
        (lambda f: in_manifest(f, lambda m: m["splits"]["train"].update(documents=3)), "the manifest says 3"),
        (lambda f: in_manifest(f, lambda m: m["tokenizer"].update(width=300)), "the vocabulary ends before 300"),
        (lambda f: in_manifest(f, lambda m: m["tokenizer"].update(digest="0")), "is not the tokenizer"),
        (lambda f: in_manifest(f, lambda m: m["splits"]["train"]["shards"].pop()), "the manifest says"),
        (lambda f: in_manifest(f, lambda m: m.update(status="building")), "building, not complete"),
    ],
)
def test_harm_to_a_corpus_is_found(arms, tmp_path, harm, complaint):
    folder = Path(shutil.copytree(arms["facts"].folder, tmp_path / "c"))
    assert verify_corpus(folder) == []
    harm(folder)
    assert any(complaint in line for line in verify_corpus(folder)), verify_corpus(folder)


# ── as it is typed ───────────────────────────────────────────────────────────────────────────────────────────────────


def typed(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("written", [r"\n\n", r"\x0a\u000a", "\n\n"])
def test_a_separator_is_written_with_escapes(tmp_path, capsys, written):
    (tmp_path / "a.txt").write_bytes(b"\r\n\r\n".join(b"document %d" % i for i in range(9)))
    words = ["--documents", str(tmp_path / "a.txt"), "--separator", written, "--out", str(tmp_path / "c")]
    assert typed(capsys, "corpus", "build", *words, "--processes", "1", "--quiet")[0] == 0
    assert Corpus.open(tmp_path / "c").train.n_documents == 9
    assert (
        typed(capsys, "corpus", "build", *words[:3], r"\t\\", *words[4:5], str(tmp_path / "d"), "--processes", "1")[0]
        == 2
    )
    assert typed(capsys, "tokenizer", "train", *words[:4], "--size", "257", "--out", str(tmp_path / "t"))[0] == 0


def test_what_a_folder_leaves_out_is_in_the_output_once(data, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(data, folder)
    (folder / "b.pdf").write_bytes(b"%PDF")
    words = ["--documents", str(folder), "--out", str(tmp_path / "c"), "--processes", "1"]
    code, _, err = typed(capsys, "corpus", "build", *words)
    assert code == 0 and err.count("1 entry left out: b.pdf") == 1
    code, out, _ = typed(capsys, "corpus", "show", str(tmp_path / "c"))
    assert code == 0 and "note: 1 files of data were left out: b.pdf" in out


def test_build_show_and_verify_from_the_command_line(data, tmp_path, capsys):
    build = [
        "corpus",
        "build",
        "--documents",
        str(data),
        "--out",
        str(tmp_path / "c"),
        "--fact-rate",
        "0.02",
        "--processes",
        "1",
    ]
    code, out, _ = typed(capsys, *build, "--dry-run", "--json")
    assert code == 0 and json.loads(out)["tokens"] > 10_000 and not (tmp_path / "c").exists()
    code, out, err = typed(capsys, *build, "--bytes", "0.1M", "--validation-fraction", "0.1", "--quiet")
    assert (code, out, err) == (0, f"{tmp_path / 'c'}\n", "")
    given = [Corpus.open(tmp_path / "c").outcome.splits[split].sources["stories"] for split in ("train", "validation")]
    assert given[1].n_documents / sum(counts.n_documents for counts in given) == pytest.approx(0.1, rel=0.3)
    code, out, _ = typed(capsys, "corpus", "show", str(tmp_path / "c"))
    assert code == 0 and "drills" in out and "2.0000%" in out
    assert main(["verify", str(tmp_path / "c")]) == 0
    flip(tmp_path / "c" / "train_000000.bin")
    assert main(["verify", str(tmp_path / "c")]) == 1
    assert "train_000000.bin: changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--documents"),
        (["--documents", "/no/where"], "no such file"),
        (["--documents", "DATA", "--field", "body"], "no field 'body'; it has text"),
        (["--documents", "DATA", "--bytes", "many"], "--bytes must be"),
        (["--documents", "DATA", "--weights", "1", "2"], "--weights has 2 values for 1 sources"),
        (["--documents", "DATA", "--fact-rate", "3"], "--fact-rate is 3.0, and must be at least 0 and at most 0.5"),
    ],
)
def test_mistakes_are_explained(data, tmp_path, capsys, words, complaint):
    words = [str(data) if word == "DATA" else word for word in words]
    code, _, err = typed(capsys, "corpus", "build", *words, "--out", str(tmp_path / "c"), "--processes", "1", "--quiet")
    assert code == 2 and complaint in err and "Traceback" not in err
