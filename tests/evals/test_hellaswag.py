"""HellaSwag: both conventions against the definitions written out and against lm-eval itself, and rows that are none."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.evals.tiny import save_tiny, write_rows
from workings.errors import BadInput
from workings.evals import hellaswag
from workings.evals.lm_eval_files import write
from workings.evals.settings import Settings
from workings.models.language import open_language

TEXT = "a man sits on the roof and pulls up [step] shingles, naïve cats café [title] run  fast He she It's 54 times"
WORDS = TEXT.split(" ")  # with an empty one, for two spaces in a row


def rows(n: int, original: bool = True, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, most)))

    made = []
    for i in range(n):
        first, second = text(12) + ".", text(3)
        row = {"activity_label": "Roof removal", "ctx": f"{first} {second}", "label": rng.choice("0123")}
        row |= {"ctx_a": first, "ctx_b": second} if original else {}
        row["endings"] = [text(4 + 3 * j) + "." for j in range(4)]
        made.append(row | {"ind": i})
    return made


def items_of(place: Path) -> list[hellaswag.Item]:
    return hellaswag.load_items(Settings(hellaswag_data=str(place)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return open_language(folder, device="cpu")


@torch.no_grad()
def four_full_rows(network, context: list[int], endings: list[list[int]]) -> tuple[int, int]:
    """Karpathy's scoring, one item at a time: the places of the least summed loss and of the least mean loss."""
    sums, means = [], []
    for ending in endings:
        ids = torch.tensor([context + ending])
        logits = network(ids).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")[len(context) - 1 :]
        sums.append(losses.sum().item())
        means.append(losses.mean().item())
    return int(np.argmin(sums)), int(np.argmin(means))


def test_karpathys_convention_is_the_mean_loss_over_the_tokens_of_the_ending(model, folder, tmp_path):
    judged = items_of(write_rows(tmp_path / "h.jsonl", rows(24)))
    frame = hellaswag.judge_items(model, judged, Settings(conventions=("karpathy",)))
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    for item, row in zip(judged, frame.iter_rows(named=True), strict=True):
        context = model.encode(item.row["ctx"])
        by_sum, by_mean = four_full_rows(network, context, [model.encode(" " + e) for e in item.row["endings"]])
        assert (row["by_total"], row["by_tokens"]) == (by_sum, by_mean)
        assert row["correct"] == (by_mean == int(item.row["label"]))
    assert frame["by_total"].to_list() != frame["by_tokens"].to_list()  # or the two would not be told apart


def test_total_log_probability_is_divided_by_tokens_characters_and_bytes(model, tmp_path):
    made = rows(24)
    for row in made:  # two bytes a character, three bytes a character, and one
        row["endings"] = ["é" * len(row["endings"][0]), "の" * 9, *row["endings"][2:]]
    judged = items_of(write_rows(tmp_path / "h.jsonl", made))
    frame = hellaswag.judge_items(model, judged, Settings())
    by_id = {item.id: item for item in judged}
    for row in frame.iter_rows(named=True):
        _, endings = by_id[row["id"]].text(row["condition"])
        lengths = {
            "total": [1] * 4,
            "tokens": row["n_tokens"],
            "characters": [len(ending) for ending in endings],
            "bytes": [len(ending.encode("utf-8")) for ending in endings],
        }
        for name, length in lengths.items():
            assert row[f"by_{name}"] == max(range(4), key=lambda i: row["totals"][i] / length[i]), name
    for a, b in itertools.combinations(hellaswag.LENGTHS, 2):  # or one could stand for another unseen
        assert frame[f"by_{a}"].to_list() != frame[f"by_{b}"].to_list(), (a, b)


def test_decisions_do_not_depend_on_batches_or_on_neighbours(model, tmp_path):
    judged = items_of(write_rows(tmp_path / "h.jsonl", rows(20)))
    together = hellaswag.judge_items(model, judged, Settings())
    alone = pl.concat([hellaswag.judge_items(model, [item], Settings(batch_tokens=1)) for item in judged])
    decisions = ["id", "condition", "correct", *[f"by_{length}" for length in hellaswag.LENGTHS]]
    assert together.select(decisions).sort("id", "condition").equals(alone.select(decisions).sort("id", "condition"))


def test_a_summary_has_n_and_intervals_that_hold_the_share(model, tmp_path):
    judged = items_of(write_rows(tmp_path / "h.jsonl", rows(20)))
    frame = hellaswag.judge_items(model, judged, Settings())
    found = hellaswag.summarize(frame)
    for convention in Settings().conventions:
        part = frame.filter(condition=convention)
        assert found[convention].acc_norm.k == part["correct"].sum() and found[convention].n == 20
        assert found[convention].acc.value == (part["by_total"] == part["label"]).mean()
        assert found[convention].acc.low < found[convention].acc.value < found[convention].acc.high


def test_a_context_that_does_not_fit_is_cut_on_the_left_and_counted(model, tmp_path):
    long = rows(2)
    long[1]["ctx"] = "a man sits. " * 60 + long[1]["ctx"]
    judged = items_of(write_rows(tmp_path / "h.jsonl", long))
    frame = hellaswag.judge_items(model, judged, Settings(conventions=("karpathy",)))
    assert frame["cut"].to_list()[0] == 0 < frame["cut"].to_list()[1]
    assert hellaswag.summarize(frame)["karpathy"].n_cut == 1


def test_an_item_with_an_ending_longer_than_the_positions_is_not_judged_and_stays_in_n(model, tmp_path):
    long = rows(4)
    long[1]["endings"][2] = "naïve cats " * 100
    judged = items_of(write_rows(tmp_path / "h.jsonl", long))
    frame = hellaswag.judge_items(model, judged, Settings())
    others = hellaswag.judge_items(model, [judged[0], *judged[2:]], Settings())
    assert frame.filter(pl.col("id") != judged[1].id).equals(others)
    for convention, found in hellaswag.summarize(frame).items():
        (row,) = frame.filter(id=judged[1].id, condition=convention).iter_rows(named=True)
        assert {row[f"by_{length}"] for length in hellaswag.LENGTHS} == {hellaswag.NONE}
        assert not row["correct"] and row["totals"] == []
        assert found.n_not_judged == 1
        assert found.n == found.acc.n == found.acc_norm.n == found.acc_bytes.n == 4
    assert [task.n_effective for task in hellaswag.lm_eval_tasks(judged, frame, 4, Settings())] == [4, 4]


def test_items_have_ids_of_their_own_even_when_rows_repeat(tmp_path):
    once = rows(3)
    judged = items_of(write_rows(tmp_path / "h.jsonl", [*once, once[0]]))
    assert len({item.id for item in judged}) == 4
    moved = items_of(write_rows(tmp_path / "moved.jsonl", once[::-1]))
    assert [item.id for item in moved] == [item.id for item in judged[:3]][::-1]


def test_the_local_form_is_a_variant_of_its_own(tmp_path):
    local = items_of(write_rows(tmp_path / "l.jsonl", rows(2, original=False)))
    assert hellaswag.variant_of(local) != hellaswag.variant_of(items_of(write_rows(tmp_path / "o.jsonl", rows(2))))


def test_all_of_the_shared_validation_set_is_read(shared_data):
    judged = items_of(shared_data / "hellaswag")
    assert len(judged) == 10_042
    assert [sum(item.label == label for item in judged) for label in range(4)] == [2515, 2485, 2584, 2458]


BROKEN = {
    "no ending": {"endings": ["a", "b", "c"]},
    "an ending that is no text": {"endings": ["a", "b", "c", 4]},
    "no label": {"label": ""},
    "a label too high": {"label": 4},
    "an empty context": {"ctx": " "},
    "half a context": {"ctx_b": None},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_malformed_row_is_named_by_its_line(tmp_path, fault):
    path = write_rows(tmp_path / "h.jsonl", [*rows(2), rows(1)[0] | BROKEN[fault]])
    with pytest.raises(BadInput, match=r"h\.jsonl:3: "):
        items_of(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b'{"ctx": \n', ":1: not JSON"), (b"[1]\n", ":1: a list"), (b"\xff\xfe\n", "not UTF-8")],
)
def test_a_file_that_is_no_rows_is_said_to_be_none(tmp_path, content, message):
    (tmp_path / "h.jsonl").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        items_of(tmp_path / "h.jsonl")


def test_a_packed_file_that_was_cut_short_is_no_short_data_set(tmp_path):
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows(50)).encode())
    (tmp_path / "h.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadInput, match="cannot be read"):
        items_of(tmp_path / "h.jsonl.gz")
    (tmp_path / "h.jsonl.gz").write_bytes(packed)
    assert len(items_of(tmp_path / "h.jsonl.gz")) == 50


def test_a_reference_to_nothing_is_bad_input(tmp_path):
    for reference in (tmp_path / "nothing.jsonl", Path("no/such-data-set-here")):
        with pytest.raises(BadInput):
            items_of(reference)


# ---- lm-eval ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["hub rows", "local rows"])
def both(request, folder, model, tmp_path_factory):
    """The same items judged by lm-eval's own task and by us: (its samples in order, our frame, our samples file's lines)."""
    lm_eval = pytest.importorskip("lm_eval", reason="agreement is tested with lm-eval itself: install workings[eval]")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.hellaswag.utils import preprocess

    place = tmp_path_factory.mktemp("lm_eval")
    path = write_rows(place / "h.jsonl", rows(40, original=request.param, seed=1))

    def documents(dataset):
        def query(doc):
            context = doc["ctx_a"] + " " + doc["ctx_b"].capitalize() if request.param else doc["ctx"]
            asked = preprocess(doc["activity_label"] + ": " + context)
            return {"query": asked, "choices": [preprocess(e) for e in doc["endings"]], "gold": int(doc["label"])}

        return dataset.map(query)

    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm", "acc_bytes")
    ]
    task = {
        "task": "hellaswag_here",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(path)}},
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "process_docs": documents,
        "doc_to_text": "{{query}}",
        "doc_to_target": "{{gold}}",
        "doc_to_choice": "choices",
        "metric_list": metrics,
    }
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=str(folder), device="cpu", batch_size=4, dtype="float32"),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    judged = items_of(path)
    frame = hellaswag.judge_items(model, judged, Settings(conventions=("lm-eval",)))
    tasks = hellaswag.lm_eval_tasks(judged, frame, len(judged), Settings())
    files = write(place / "files", "tiny", tasks, {"limit": None})
    ours = [json.loads(line) for line in files[0].read_text().splitlines()]
    return theirs, frame, ours, json.loads(files[-1].read_text())


def test_every_item_is_decided_as_lm_eval_decides_it(both):
    theirs, frame, ours, _ = both
    samples = sorted(theirs["samples"]["hellaswag_here"], key=lambda one: one["doc_id"])
    for metric in ("acc", "acc_norm", "acc_bytes"):
        assert [one[metric] for one in ours] == [one[metric] for one in samples]
    for row, one in zip(frame.iter_rows(named=True), samples, strict=True):
        np.testing.assert_allclose(row["totals"], [float(pair[0][0]) for pair in one["resps"]], atol=2e-4)
        assert row["greedy"] == [bool(pair[0][1]) for pair in one["resps"]]
    assert 0 < frame["correct"].mean() < 1


def test_our_files_have_what_lm_evals_have(both):
    theirs, _, ours, results = both
    sample = theirs["samples"]["hellaswag_here"][0]
    assert sample.keys() <= ours[0].keys() | {"metrics"}
    for mine, other in zip(
        ours, sorted(theirs["samples"]["hellaswag_here"], key=lambda one: one["doc_id"]), strict=True
    ):
        assert list(mine["arguments"]["gen_args_3"].values()) == list(other["arguments"][3])
        assert mine["target"] == str(other["target"]) and mine["prompt_hash"] == other["prompt_hash"]
    (name,) = results["results"]
    found, expected = results["results"][name], theirs["results"]["hellaswag_here"]
    for key in ("acc,none", "acc_norm,none", "acc_bytes,none"):
        assert found[key] == pytest.approx(expected[key])
    assert results["n-samples"][name] == theirs["n-samples"]["hellaswag_here"]
    assert theirs.keys() - {
        "samples",
        "git_hash",
        "lm_eval_version",
        "pretty_env_info",
        "transformers_version",
    } <= results.keys() | {key for key in theirs if key.startswith(("tokenizer", "eot", "max_length", "upper"))}
