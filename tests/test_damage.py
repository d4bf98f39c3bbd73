"""A damaged file is never used: an artifact of any kind opens as it was, or the message names the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import torch

from tests.models.conftest import WORDS, tiny_base
from tests.reading.toy import ToyThinker, problems
from workings import seeds
from workings.cli import main
from workings.config import fixed
from workings.errors import BadInput
from workings.experiment import finished, run_experiment
from workings.files import files_in, sealed
from workings.judging import compare
from workings.models import CODI, GPT2, GPT2Config, export_hf, load_gpt2, open_language, save_gpt2
from workings.reading import ThoughtStore, TunedLens, collect, open_lens, save_lens
from workings.run import Run, RunRecord
from workings.sweep import Planned, Sweep
from workings.text import Corpus, CorpusConfig, SourceConfig, Tokenizer, build_corpus, word_tokenizer
from workings.training.parallel import ProcessGroup
from workings.training.resuming import ResumePoint


@dataclass(frozen=True)
class Config:
    n: int = fixed(2)
    seed: int = fixed(0)


# ── one small artifact of each kind, made from a seed, and everything that can be read in it ─────────────────────────


def make_run(folder: Path, seed: int) -> None:
    source = folder.parent / "question.py"
    source.write_text(f'"""Is {seed} right?"""\n')
    with Run.start(folder.parent / "runs", "toy", "arm", seed, Config(seed=seed), source=source) as run:
        run.log(0, loss=1.0 + seed)
        run.outcomes("items", pl.DataFrame({"problem": ["a", "b"], "correct": [True, bool(seed)]}))
        run.results("headline", {"right": seed})
    run.path.rename(folder)


def read_run(folder: Path) -> object:
    record = RunRecord(folder)
    outcomes = [record.outcomes(name).to_dicts() for name in record.names("outcomes", ".parquet")]
    return (
        record.manifest,
        record.config(Config),
        record.metrics().to_dicts(),
        outcomes,
        record.headline,
        record.question,
    )


def make_store(folder: Path, seed: int) -> None:
    settings = {"batch_size": 4, "shard_problems": 4, "splits": {problem.id: "test" for problem in problems(6 + seed)}}
    collect(ToyThinker(seed=seed), problems(6 + seed), folder, **settings)


def read_store(folder: Path) -> object:
    store = ThoughtStore.open(folder)
    states = [store.hidden(layer).tolist() for layer in store.layers]
    return states, store.problems.to_dicts(), store.index.to_dicts(), store.fingerprint, store.failures


def make_lens(folder: Path, seed: int) -> None:
    lens = TunedLens.of(ToyThinker())
    with torch.no_grad():
        lens.weight.normal_(generator=seeds.torch("lens", seed))
    save_lens(lens, folder)


def read_lens(folder: Path) -> object:
    lens = open_lens(folder, ToyThinker())
    return lens.name, lens.layers, {name: value.tolist() for name, value in lens.state_dict().items()}


def thinker(seed: int) -> CODI:
    words = word_tokenizer(WORDS[: len(WORDS) - seed])  # another vocabulary for another seed
    model = CODI.wrap(tiny_base("gpt2", len(words), seed=seed), words, n_thoughts=3 + seed, seed=seed).eval()
    rank, width = 2, 16
    model.adapters = {f"base.x.lora_{side}": torch.ones(rank, width) * (seed + 1) for side in "AB"}
    return model


def make_codi(folder: Path, seed: int) -> None:
    thinker(seed).save(folder, card="A card.")


def read_codi(folder: Path) -> object:
    model = CODI.load(folder)
    tensors = {name: value.tolist() for name, value in (model.state_dict() | model.adapters).items()}
    spelling = model.tokenizer.encode("a has 3 pens zorglub")
    return tensors, model.config, model.base.config.to_dict() | {"_name_or_path": ""}, spelling, len(model.tokenizer)


def make_gpt2(folder: Path, seed: int) -> None:
    tokenizer = Tokenizer.build("embedded", ("facts", "digits")[seed])
    config = GPT2Config(n_layers=1 + seed, n_heads=1, d_model=8, block=24, vocab=tokenizer.embedding_width)
    save_gpt2(GPT2(config).init(seed), tokenizer, folder)


def read_gpt2(folder: Path) -> object:
    model, tokenizer = load_gpt2(folder)
    return {name: digest(value) for name, value in model.state_dict().items()}, model.config, tokenizer.digest


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def make_export(folder: Path, seed: int) -> None:
    make_gpt2(folder.with_name("ours"), seed)
    export_hf(folder.with_name("ours"), folder)


def read_export(folder: Path) -> object:
    model = open_language(folder, device="cpu")
    return model.encode("6 * 9 = 54"), model.logprobs([model.encode("6")], [[model.encode("7")]])[0][0].total


def make_tokenizer(folder: Path, seed: int) -> None:
    Tokenizer.build("embedded", ("facts", "digits")[seed]).save(folder)


def read_tokenizer(folder: Path) -> object:
    return Tokenizer.load(folder).digest


def make_corpus(folder: Path, seed: int) -> None:
    sources = (SourceConfig("generated"),)
    config = CorpusConfig(
        sources, documents_limit=30 + seed, validation_fraction=0.2, vocabulary=("facts", "digits")[seed]
    )
    build_corpus(config, folder, processes=1)


def read_corpus(folder: Path) -> object:
    corpus = Corpus.open(folder)
    windows = [corpus.window(i, 8).tolist() for i in range(corpus.n_windows(8))]
    held_out = [(one.source, one.ids.tolist(), one.n_bytes) for one in corpus.validation()]
    return corpus.manifest, corpus.tokenizer.digest, windows, held_out


def resume_point(folder: Path, seed: int) -> ResumePoint:
    model = GPT2(GPT2Config(1, 1, 8, 8, 11)).init(seed)
    optimizer = torch.optim.AdamW(model.parameters())
    return ResumePoint(folder / "training.pt", model, [optimizer], {"seed": 0}, ProcessGroup(0, 1, "cpu"))


def make_resume_point(folder: Path, seed: int) -> None:
    resume_point(folder, seed).save(3 + seed, {"n": 0, "sums": {}, "smooth": None})


def read_resume_point(folder: Path) -> object:
    point = resume_point(folder, 5)
    return point.restore(), {name: value.tolist() for name, value in point.model.state_dict().items()}


def make_sweep(folder: Path, seed: int) -> None:
    folder.mkdir()
    planned = [Planned(arm, seed, "smoke", Config(seed=seed), ()) for arm in ("one", "two")]
    sweep = Sweep.begin(folder, "toy", Path(__file__), planned)
    sweep.path.rename(folder / "sweep.json")
    sweep.path.parent.rmdir()


def read_sweep(folder: Path) -> object:
    return Sweep.read(folder / "sweep.json").runs


KINDS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], object]]] = {
    "run": (make_run, read_run),
    "store": (make_store, read_store),
    "lens": (make_lens, read_lens),
    "CODI": (make_codi, read_codi),
    "GPT-2": (make_gpt2, read_gpt2),
    "export": (make_export, read_export),
    "tokenizer": (make_tokenizer, read_tokenizer),
    "corpus": (make_corpus, read_corpus),
    "resume point": (make_resume_point, read_resume_point),
    "sweep": (make_sweep, read_sweep),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path, object]]:
    """For a kind: an artifact, another of the same kind, and what the first one says."""
    known: dict[str, tuple[Path, Path, object]] = {}

    def make(kind: str) -> tuple[Path, Path, object]:
        if kind not in known:
            folder, (write, read) = tmp_path_factory.mktemp("made"), KINDS[kind]
            for seed, name in enumerate(("this", "that")):
                (folder / name).mkdir()
                write(folder / name / "artifact", seed)
            this, that = (folder / name / "artifact" for name in ("this", "that"))
            known[kind] = this, that, read(this)
        return known[kind]

    return make


# ── the six ways to spoil a file ─────────────────────────────────────────────────────────────────────────────────────


def flips(file: Path, that: Path, others: list[Path]) -> Iterator[set[str]]:
    whole = file.read_bytes()
    for at in sorted({0, len(whole) // 3, len(whole) // 2, len(whole) - 2, len(whole) - 1} & {*range(len(whole))}):
        content = bytearray(whole)
        content[at] ^= 1 << at % 7
        file.write_bytes(content)
        yield {file.name}


def truncations(file: Path, that: Path, others: list[Path]) -> Iterator[set[str]]:
    whole = file.read_bytes()
    for n in (len(whole) - 1, len(whole) // 2):
        file.write_bytes(whole[:n])
        yield {file.name}


def deletion(file: Path, that: Path, others: list[Path]) -> Iterator[set[str]]:
    file.unlink()
    yield {file.name}


def emptying(file: Path, that: Path, others: list[Path]) -> Iterator[set[str]]:
    file.write_bytes(b"")
    yield {file.name}


def swaps(file: Path, that: Path, others: list[Path]) -> Iterator[set[str]]:
    """With another file of the same artifact, of the same ending where there is one."""
    own = file.read_bytes()
    for other in [one for one in others if one.suffix == file.suffix and one != file][:2]:
        theirs = other.read_bytes()
        file.write_bytes(theirs)
        other.write_bytes(own)
        yield {file.name, other.name}
        other.write_bytes(theirs)


def foreigners(file: Path, that: Path, others: list[Path]) -> Iterator[set[str]]:
    """The same file of another artifact of the kind, or something that is nothing of the kind.

    Where the file is all there is of the artifact, the other one's is no damage.
    """
    if that.is_file() and len(others) > 1:
        shutil.copy(that, file)
        yield {file.name}
    file.write_bytes(b'{"format": 1}\n')
    yield {file.name}


DAMAGES = [flips, truncations, deletion, emptying, swaps, foreigners]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_opens_as_it_was_or_is_named(
    kind: str,
    damage: Callable[..., Iterator[set[str]]],
    made: Callable[[str], tuple[Path, Path, object]],
    tmp_path: Path,
) -> None:
    this, that, as_made = made(kind)
    for number, name in enumerate(files_in(this)):
        folder = tmp_path / str(number)
        shutil.copytree(this, folder)
        others = [folder / one for one in files_in(folder)]
        for named in damage(folder / name, that / name, others):
            found = opened(KINDS[kind][1], folder)
            if isinstance(found, BadInput):  # what vouches for a file may be named as well: one of the two has changed
                assert any(one in str(found) for one in named), (name, found)
            else:
                assert found == as_made, f"{name} is damaged, and was used"


def opened(read: Callable[[Path], object], folder: Path) -> object:
    try:
        return read(folder)
    except BadInput as error:
        return error


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("resume point", "sweep")])
def test_verify_names_the_file_whatever_the_artifact(
    kind: str, made: Callable[[str], tuple[Path, Path, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    this, _, _ = made(kind)
    assert main(["verify", str(this)]) == 0
    assert "as they were written" in capsys.readouterr().out
    for number, name in enumerate(files_in(this)):
        folder = tmp_path / str(number)
        shutil.copytree(this, folder)
        whole = (folder / name).read_bytes()
        for at in sorted({0, 40, len(whole) // 12, len(whole) // 2} & {*range(len(whole))}):  # headers too
            content = bytearray(whole)
            content[at] ^= 1
            (folder / name).write_bytes(content)
            code, said = main(["verify", str(folder)]), "".join(capsys.readouterr())
            named = name.removesuffix(".sha256").rpartition("/")[2] in said and "Traceback" not in said
            assert (code in (1, 2), named) == (True, True) or name == "README.md", said


def test_what_was_written_before_there_were_digests_opens_and_verify_says_so(
    made: Callable[[str], tuple[Path, Path, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    this, _, as_made = made("CODI")
    shutil.copytree(this, tmp_path / "old")
    description = tmp_path / "old" / "thinking.json"
    content = json.loads(description.read_text())
    del content["files"], content["sha256"]
    description.write_text(json.dumps(content))
    for file in (tmp_path / "old").glob("*.sha256"):
        file.unlink()
    assert read_codi(tmp_path / "old") == as_made
    assert main(["verify", str(tmp_path / "old")]) == 0
    assert "holds no digests" in capsys.readouterr().out


def test_a_description_changed_on_purpose_is_believed_once_its_last_field_is_gone(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 0)
    manifest = tmp_path / "run" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["arm"] = "another"
    manifest.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"manifest\.json was changed.*delete its last field, 'sha256', if you meant"):
        RunRecord(tmp_path / "run")
    del content["sha256"]
    manifest.write_text(json.dumps(content))
    assert RunRecord(tmp_path / "run").manifest.arm == "another"


def test_what_a_description_says_of_itself_does_not_depend_on_how_it_is_laid_out(tmp_path: Path) -> None:
    text = sealed({"a": 1.5, "b": ["ü", None], "c": {"d": True}})
    assert sealed({name: value for name, value in json.loads(text).items() if name != "sha256"}) == text


def test_damaged_outcomes_are_neither_compared_nor_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("one", "two")):
        make_run(tmp_path / name, seed)
    file = tmp_path / "two" / "outcomes" / "items.parquet"
    table = pl.read_parquet(file).with_columns(correct=pl.lit(value=False))
    table.write_parquet(file)
    records = [RunRecord(tmp_path / name) for name in ("one", "two")]
    for use in (finished, lambda records: compare(records, None)):
        with pytest.raises(BadInput, match=r"items\.parquet was changed"):
            use(records)
    [run] = run_experiment("example", ["recurrent"], "smoke", root=tmp_path / "runs", quiet=True)
    table = next((run.path / "outcomes").glob("*.parquet"))
    pl.read_parquet(table).with_columns(correct=pl.lit(value=False)).write_parquet(table)
    assert main(["report", str(run.path)]) == 2
    assert f"{table.name} was changed" in capsys.readouterr().err and not (run.path / "report.html").exists()


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(tmp_path: Path) -> None:
    make_store(tmp_path / "store", 0)
    store, shard = ThoughtStore.open(tmp_path / "store"), tmp_path / "store" / "shard_00000.safetensors"
    store.hidden("embed")
    as_it_was = os.stat(shard)
    shard.write_bytes(bytes(as_it_was.st_size))
    os.utime(shard, ns=(as_it_was.st_atime_ns, as_it_was.st_mtime_ns + 1))
    with pytest.raises(BadInput, match=r"shard_00000\.safetensors was changed"):
        ThoughtStore.open(tmp_path / "store").hidden("embed")
