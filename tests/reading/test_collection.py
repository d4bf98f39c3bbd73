"""Collection: what is stored is what the model thought, whatever the batches, and however often it was interrupted."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

from tests.reading.toy import ToyThinker, problem, problems
from workings.errors import BadInput, Failed
from workings.files import lock
from workings.reading.collection import collect
from workings.reading.manifest import StoreManifest
from workings.reading.store import ThoughtStore

HERE = Path(__file__).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def gather(out: Path, n: int = 50, model: ToyThinker | None = None, **settings) -> ThoughtStore:
    settings = {"batch_size": 8, "shard_problems": 16} | settings
    return collect(model or ToyThinker(), iter(problems(n)), out, **settings)


def test_a_store_holds_the_thoughts_in_the_order_of_the_problems(tmp_path):
    model, given = ToyThinker(), problems(50)
    store = gather(tmp_path / "store")
    thoughts, _ = model.think_and_answer([p.question for p in given], n_thoughts=3, max_new_tokens=8, batch_size=50)
    for i, layer in enumerate(model.layers):
        assert torch.equal(store.hidden(layer)[:, 1:], thoughts.hidden[:, :, i])
        assert torch.equal(store.hidden(layer)[:, 0], thoughts.question[:, i])
    assert store.ids == [p.id for p in given]
    assert store.as_problems() == given
    assert store.positions == ("question", "bot", "t1", "t2", "t3")
    assert len(store) == 50
    assert store.verify() == []


def test_rows_are_picked_and_ordered_across_shards(tmp_path):
    store = gather(tmp_path / "store")
    rows = torch.tensor([49, 0, 17, 17, 31, 16])
    assert torch.equal(store.hidden("block1", rows), store.hidden("block1")[rows])
    assert torch.equal(store.hidden("block1", rows[:0]), store.hidden("block1")[:0])


def test_the_tables_say_what_was_asked_and_answered(tmp_path):
    given = problems(20)
    splits = {p.id: ("train" if i < 15 else "test") for i, p in enumerate(given)}
    store = gather(tmp_path / "store", 20, splits=splits)
    row = store.problems.row(7, named=True)
    assert (row["question"], row["gold"], row["model_answer"]) == (given[7].question, given[7].answer, "7")
    assert row["correct"] is (given[7].answer == "7")
    assert row["chain_ids"] == ToyThinker().chain_ids(given[7])
    assert store.splits == ["train"] * 15 + ["test"] * 5
    assert store.index.height == 20 * 5
    assert store.index.filter(pl.col("problem") == given[7].id)["position"].to_list() == list(store.positions)
    own = ToyThinker().unembedding(store.hidden("final_norm"), normed=True).argmax(-1)
    said = store.index["own_token"].to_list()
    assert said[1:5] == own[0, 1:].tolist()
    # A mean state is fed to nothing and says nothing.
    assert said == [token if place else None for row in own.tolist() for place, token in enumerate(row)]


def test_no_answer_asked_for_is_not_a_wrong_answer(tmp_path):
    store = gather(tmp_path / "store", 8, max_new_tokens=0)
    assert store.problems["correct"].null_count() == 8


def test_batch_size_does_not_change_what_is_stored(tmp_path):
    one, many = gather(tmp_path / "one", 20, batch_size=1), gather(tmp_path / "many", 20, batch_size=16)
    for layer in one.layers:
        torch.testing.assert_close(one.hidden(layer), many.hidden(layer), rtol=0, atol=1e-4)


def test_bfloat16_is_stored_as_such(tmp_path):
    store = gather(tmp_path / "store", 8, dtype="bfloat16")
    assert store.hidden("embed").dtype == torch.bfloat16


@pytest.mark.parametrize("n_thoughts", [1, 5])
def test_the_number_of_thoughts_may_differ_from_the_training(tmp_path, n_thoughts):
    store = gather(tmp_path / "store", 8, ToyThinker(planted=None), n_thoughts=n_thoughts)
    assert store.hidden("embed").shape[1] == 2 + n_thoughts


def test_killed_and_run_again_writes_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script = (
        "import sys; from toy import *; from workings.reading.collection import collect\n"
        "collect(ToyThinker(delay=0.05), problems(200), sys.argv[1], batch_size=8, shard_problems=16)"
    )
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen([sys.executable, "-c", script, str(killed)], env=os.environ | {"PYTHONPATH": paths})
    while not (killed / "shard_00002.safetensors").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with pytest.raises(BadInput, match="partial store"):
        ThoughtStore.open(killed)
    written = len(StoreManifest.read(killed).shards)
    model = ToyThinker()
    collect(model, problems(200), killed, batch_size=8, shard_problems=16)
    assert sum(model.calls) == 200 - 16 * written  # what was written is not thought about again
    collect(ToyThinker(), problems(200), whole, batch_size=8, shard_problems=16)
    assert contents(killed) == contents(whole)


def test_what_a_killed_writer_left_half_done_is_swept_away(tmp_path):
    out = tmp_path / "store"
    with pytest.raises(RuntimeError):
        collect(ToyThinker(), interrupted(problems(40), after=20), out, shard_problems=16)
    (out / ".shard_00001.safetensors.123.half").write_bytes(b"half a shard")
    (out / "shard_00001.safetensors").write_bytes(b"whole, but not in the manifest")
    collect(ToyThinker(), problems(40), out, shard_problems=16)
    whole = collect(ToyThinker(), problems(40), tmp_path / "whole", shard_problems=16)
    assert contents(out) == contents(whole.path)
    assert not list(out.glob(".*.half"))


def interrupted(given, after):
    yield from given[:after]
    raise RuntimeError("the source of problems went away")


def test_a_finished_store_is_not_collected_twice(tmp_path):
    gather(tmp_path / "store")
    model = ToyThinker()
    before = contents(tmp_path / "store")
    gather(tmp_path / "store", model=model)
    assert model.calls == []
    assert contents(tmp_path / "store") == before


@pytest.mark.parametrize(
    ("change", "named"),
    [({"dtype": "bfloat16"}, "dtype was float32, is now bfloat16"), ({"model": ToyThinker(seed=1)}, "model was toy")],
)
def test_other_settings_or_another_model_are_refused_by_name(tmp_path, change, named):
    gather(tmp_path / "store")
    with pytest.raises(BadInput, match=named):
        gather(tmp_path / "store", **change)


@pytest.mark.parametrize("n", [47, 49, 80])
def test_other_problems_are_refused(tmp_path, n):
    gather(tmp_path / "store", 48)
    with pytest.raises(BadInput, match=r"was begun with other problems|more problems were given"):
        gather(tmp_path / "store", n)


def test_problems_that_fail_are_listed_and_the_rest_kept(tmp_path):
    bad = [problem(60, " nan"), problem(61, " boom"), problem(62, " very" * 40), problem(3)]
    given = problems(40) + bad
    store = collect(ToyThinker(), given, tmp_path / "s", batch_size=8, max_failures=0.2)
    assert store.ids == [p.id for p in given[:40]]
    assert [(f.problem, f.number) for f in store.failures] == [(p.id, 40 + i) for i, p in enumerate(bad)]
    reasons = " ".join(f.reason for f in store.failures)
    for reason in ("not finite at embed, question", "RuntimeError: the toy broke", "does not fit", "given before"):
        assert reason in reasons
    assert store.manifest.n_failures == 4


def test_a_window_in_which_everything_fails_is_an_empty_shard(tmp_path):
    given = [problem(i, " boom") for i in range(4)] + problems(8)
    store = collect(ToyThinker(), given, tmp_path / "s", shard_problems=4, max_failures=1)
    assert [shard.rows for shard in store.manifest.shards] == [0, 4, 4]
    assert torch.equal(store.hidden("embed", torch.tensor([7, 0])), store.hidden("embed")[[7, 0]])


def test_too_many_failures_end_the_collection(tmp_path):
    given = problems(20) + [problem(i, " boom") for i in range(20)]
    with pytest.raises(Failed, match=r"12 of 32 problems failed, more than 5%.*the toy broke"):
        collect(ToyThinker(), given, tmp_path / "s", shard_problems=16)
    with pytest.raises(BadInput, match="partial"):
        ThoughtStore.open(tmp_path / "s")
    assert len(collect(ToyThinker(), given, tmp_path / "s", shard_problems=16, max_failures=1)) == 20


def test_a_second_collector_is_refused(tmp_path):
    (tmp_path / "s").mkdir()
    with lock(tmp_path / "s"), pytest.raises(BadInput, match="another process"):
        gather(tmp_path / "s")
    gather(tmp_path / "s")


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_store_does_not_open(tmp_path, damage):
    store = gather(tmp_path / "s")
    shard = store.path / "shard_00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5]) if damage == "cut" else shard.unlink()
    with pytest.raises(BadInput, match=r"damaged: shard_00001.safetensors: (missing|\S+ bytes)"):
        ThoughtStore.open(store.path)


def test_one_changed_bit_is_found_by_verify(tmp_path):
    store = gather(tmp_path / "s")
    shard = store.path / "shard_00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert ThoughtStore.open(store.path).verify() == ["shard_00001.safetensors: changed"]


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no manifest"):
        ThoughtStore.open(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        ThoughtStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "experiment": "x"}')
    with pytest.raises(BadInput, match="not the manifest of a thought store"):
        ThoughtStore.open(tmp_path)
    with pytest.raises(BadInput, match="not the manifest of a thought store"):
        gather(tmp_path)
    (tmp_path / "manifest.json").rename(tmp_path / "notes.json")
    with pytest.raises(BadInput, match="holds other files"):
        gather(tmp_path)


def test_no_problems_and_unknown_layers_and_missing_splits_are_errors(tmp_path):
    with pytest.raises(BadInput, match="the list is empty"):
        gather(tmp_path / "empty", 0)
    with pytest.raises(BadInput, match=r"no layer 'block9'; it has embed, block1"):
        gather(tmp_path / "s", 8).hidden("block9")
    with pytest.raises(BadInput, match="is in no split"):
        gather(tmp_path / "t", 8, splits={})


def test_a_file_that_may_not_grow_ends_the_collection_and_leaves_nothing_that_looks_whole(tmp_path):
    out = tmp_path / "store"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, hard))  # a real refusal by the operating system
    try:
        with pytest.raises(Failed, match="the disk is full"):
            gather(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in out.iterdir() if path.name != ".lock"] == ["manifest.json"]
    assert len(gather(out)) == 50
    assert len(gather(out)) == 50


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_a_failure_that_is_gone_on_from(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(Failed, match=r"No space left|disk is full"):
            gather(small / "store", 200)
        with pytest.raises(BadInput, match="partial store"):
            ThoughtStore.open(small / "store")
        assert not list((small / "store").glob(".*.half"))
        shutil.copytree(small / "store", tmp_path / "moved")
    finally:
        subprocess.run(["umount", small], check=True)
    assert len(gather(tmp_path / "moved", 200)) == 200
