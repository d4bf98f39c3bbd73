"""GSM8K: lm-eval's two rules against lm-eval itself, prompts, cuts, truncation, and what is read from where."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.evals.tiny import save_tiny, write_rows
from workings.errors import BadInput
from workings.evals import gsm8k
from workings.evals.lm_eval_files import write
from workings.evals.settings import TEMPLATES, Settings
from workings.models.language import open_language

NO_LM_EVAL = "agreement is tested with lm-eval itself: install workings[eval]"


def rows(n: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    made = []
    for i in range(n):
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        answer = f"They have {a} * {b} = <<{a}*{b}={a * b}>>{a * b} apples.\n#### {a * b}"
        made.append(
            {"question": f"There are {a} boxes of {b} apples, and {i} pears. How many apples?", "answer": answer}
        )
    return made


def items_of(place: Path | str) -> list[gsm8k.Item]:
    return gsm8k.load_items(Settings(gsm8k_data=str(place)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model", context=256)


@pytest.fixture(scope="module")
def model(folder):
    return open_language(folder, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("gsm8k")
    write_rows(place / "test.jsonl", rows(24))
    write_rows(place / "train.jsonl", rows(30, seed=1))
    return place


# ---- the rules ---------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        "#### ",
        "####",
        "18",
        "-5",
        "1,234.5",
        "$7",
        ".",
        ",",
        "$",
        "\n",
        " ",
        "is",
        "-",
        "54.",
        "<MUL_6_9_54>",
        "=",
        "Question:",
    ]
)
responses = st.lists(pieces, max_size=14).map("".join)
answers = st.sampled_from(["so <<6*9=54>>54\n#### 54", "#### 1,234", "#### -5", "a\n#### 18", "#### 7"])


@given(responses, answers)
@example("#### 18.\n#### 19", "#### 18")
@example("it is $18.", "#### 18")
@example("", "#### 18")
@settings(max_examples=300, deadline=None)
def test_both_rules_are_those_of_lm_evals_filters(text, answer):
    pytest.importorskip("lm_eval", reason=NO_LM_EVAL)
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    for theirs, ours in ((strict, gsm8k.strict_match), (flexible, gsm8k.flexible_extract)):
        ((extracted,),) = theirs.apply([[text]], [{}])
        assert ours(text) == extracted
        score = exact_match_hf_evaluate(
            predictions=[extracted],
            references=[answer],
            regexes_to_ignore=[",", "\\$", "(?s).*#### ", "\\.$"],
            ignore_case=True,
        )
        assert gsm8k.is_same_text(extracted, answer) == bool(score["exact_match"])


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("6*9=54\n#### 54", "54", "54"),
        ("The answer is 54.", "[invalid]", "54."),
        ("#### 1,234 apples in 2 days", "1,234", "2"),
        ("nothing", "[invalid]", "[invalid]"),
    ],
)
def test_strict_takes_the_first_marked_number_and_flexible_the_last_of_all(text, strict, flexible):
    assert (gsm8k.strict_match(text), gsm8k.flexible_extract(text)) == (strict, flexible)


# ---- prompts -----------------------------------------------------------------------------------------------------


def test_a_chat_prompt_ends_where_the_answer_begins():
    assert TEMPLATES["chat"].prompt("How many?") == "User: How many?\nAssistant:"
    shown = TEMPLATES["lm-eval"].prompt("How many?", (("What is 100% of 5?", "#### 5"),))
    assert shown == "Question: What is 100% of 5?\nAnswer: #### 5\n\nQuestion: How many?\nAnswer:"


def test_a_long_prompt_is_cut_on_the_left_and_counted(model):
    questions = [{"question": "What is " + "6 and " * n + "9?", "answer": "#### 54"} for n in (1, 400)]
    judged = [gsm8k.Item(str(i), row["question"], row["answer"], 54) for i, row in enumerate(questions)]
    frame = gsm8k.judge_items(model, judged, Settings(max_new_tokens=20))
    assert frame["cut"].to_list()[0] == 0 < frame["cut"].to_list()[1]
    found = gsm8k.summarize(frame)
    assert found.prompts_cut.k == 1
    long = model.encode(TEMPLATES["chat"].prompt(questions[1]["question"]))
    kept = long[frame["cut"].to_list()[1] :]
    assert len(kept) == model.context_length - 20 and model.decode(kept).endswith("9?\nAssistant:")
    (alone,) = model.generate([kept], 20, stop=TEMPLATES["chat"].stop)
    assert alone.text == frame["response"].to_list()[1]


def test_outcomes_count_tokens_and_truncation_and_do_not_depend_on_the_batch(model, data):
    judged = items_of(data)
    frame = gsm8k.judge_items(model, judged, Settings(max_new_tokens=24, batch_size=5))
    assert frame.equals(gsm8k.judge_items(model, judged, Settings(max_new_tokens=24, batch_size=1)))
    found = gsm8k.summarize(frame)
    assert found.n == 24 and found.truncated.k == (frame["n_tokens"] == 24).sum() > 0
    assert found.tokens_per_response.value == pytest.approx(frame["n_tokens"].mean())
    assert found.facts_per_response.value == 0


# ---- where items come from ---------------------------------------------------------------------------------------


def test_a_folder_a_file_and_the_shared_set_are_read(data, shared_data):
    assert items_of(data) == items_of(data / "test.jsonl")
    judged = items_of(shared_data / "gsm8k")
    assert len(judged) == 1_319 == len({item.id for item in judged})
    assert (judged[0].gold, judged[0].answer[-7:]) == (18, "#### 18")


def test_parquet_and_rows_with_other_fields_are_read_too(tmp_path):
    of_gsm8k = rows(3)
    pl.DataFrame(of_gsm8k).write_parquet(tmp_path / "test.parquet")
    assert items_of(tmp_path) == items_of(write_rows(tmp_path / "rows.jsonl", of_gsm8k))
    svamp = write_rows(tmp_path / "svamp.jsonl", [{"Body": "Six boxes of 9.", "Question": "How many?", "Answer": 54.0}])
    own = write_rows(tmp_path / "own.jsonl", [{"q": "Six boxes of 9.", "a": "54", "why": "Six times 9. So 54."}])
    [first] = items_of(svamp)
    assert (first.question, first.answer, first.gold) == ("Six boxes of 9. How many?", "#### 54.0", 54)
    named = ("question=q", "answer=a", "chain=why")
    [second] = gsm8k.load_items(Settings(gsm8k_data=str(own), gsm8k_fields=named))
    assert (second.question, second.answer) == ("Six boxes of 9.", "Six times 9.\nSo 54.\n#### 54")
    with pytest.raises(BadInput, match="no field 'question'"):
        items_of(own)


def test_generated_problems_have_answers_as_gsm8k_writes_them():
    judged = items_of("generated")[:5]
    for item in judged:
        assert item.answer.endswith(f"#### {item.gold}") and "<<" in item.answer
        assert gsm8k.is_same_text(gsm8k.strict_match(item.answer), item.answer)


def test_worked_examples_come_from_the_training_file_beside_the_test(data):
    shown = gsm8k.examples_for(data / "test.jsonl", 3, 4)
    train = {item.question for item in items_of(data / "train.jsonl")}
    assert [len(some) for some in shown] == [4, 4, 4]
    assert {question for some in shown for question, _ in some} <= train
    assert shown == gsm8k.examples_for(data, 3, 4) and shown[0] != shown[1]
    asked = gsm8k.load_items(Settings(gsm8k_data=str(data), num_fewshot=4))
    assert [item.examples for item in asked[:3]] == shown


def test_worked_examples_without_training_problems_are_bad_input(tmp_path):
    lonely = write_rows(tmp_path / "some.jsonl", rows(3))
    with pytest.raises(BadInput, match=r"train\.jsonl"):
        gsm8k.examples_for(lonely, 3, 2)


@pytest.mark.parametrize("fault", [{"answer": "no number"}, {"question": " "}, {"answer": None}])
def test_a_malformed_row_is_named_by_its_line(tmp_path, fault):
    path = write_rows(tmp_path / "g.jsonl", [*rows(2), rows(1)[0] | fault])
    with pytest.raises(BadInput, match=r"g\.jsonl:3: "):
        items_of(path)


# ---- lm-eval -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 2], ids=["zero-shot", "two-shot"])
def both(request, folder, model, data, tmp_path_factory):
    """lm-eval's own gsm8k task on the local files, and ours, with the same model."""
    lm_eval = pytest.importorskip("lm_eval", reason=NO_LM_EVAL)
    import yaml
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks import gsm8k as shipped

    task = yaml.safe_load(Path(shipped.__path__[0], "gsm8k.yaml").read_text(encoding="utf-8"))
    task |= {"task": "gsm8k_here", "dataset_path": "json", "num_fewshot": request.param}
    task |= {"dataset_kwargs": {"data_files": {name: str(data / f"{name}.jsonl") for name in ("train", "test")}}}
    task["generation_kwargs"]["max_gen_toks"] = 24
    task.pop("dataset_name"), task.pop("tag")
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=str(folder), device="cpu", batch_size=4, dtype="float32"),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    asked = Settings(gsm8k_data=str(data), prompt="lm-eval", num_fewshot=request.param, max_new_tokens=24)
    judged = gsm8k.load_items(asked)
    frame = gsm8k.judge_items(model, judged, asked)
    made = gsm8k.lm_eval_tasks(judged, frame, len(judged), asked)
    files = write(tmp_path_factory.mktemp("files"), "tiny", made, {"limit": None})
    return (
        theirs,
        [json.loads(line) for line in files[0].read_text().splitlines()],
        json.loads(files[-1].read_text()),
    )


def test_every_answer_counts_as_it_does_for_lm_eval(both):
    theirs, ours, _ = both
    samples = {(one["filter"], one["doc_id"]): one for one in theirs["samples"]["gsm8k_here"]}
    assert len(ours) == len(samples) == 48
    for one in ours:
        other = samples[one["filter"], one["doc_id"]]
        assert one["resps"] == other["resps"]
        assert one["filtered_resps"] == other["filtered_resps"]
        assert one["exact_match"] == other["exact_match"]
        assert one["arguments"]["gen_args_0"]["arg_0"] == other["arguments"][0][0]
        assert one["prompt_hash"] == other["prompt_hash"] and one["target"] == str(other["target"])
    assert len({one["filtered_resps"][0] for one in ours}) > 8  # else the agreement would be about nothing


def test_our_results_file_has_their_numbers(both):
    theirs, _, results = both
    found, expected = results["results"]["gsm8k"], theirs["results"]["gsm8k_here"]
    for name in ("exact_match,strict-match", "exact_match,flexible-extract"):
        assert found[name] == pytest.approx(float(expected[name]))
    assert results["n-shot"]["gsm8k"] == theirs["n-shot"]["gsm8k_here"]
    assert results["n-samples"]["gsm8k"] == theirs["n-samples"]["gsm8k_here"]
