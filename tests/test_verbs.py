"""The verbs that make one artifact each, as a user types them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.conftest import *  # noqa: F403  (the small models)
from tests.models.test_checkpoint import ALPHA, Released
from workings.cli import main
from workings.models.codi import CODI
from workings.reading.store import ThoughtStore


def said(capsys, *words: str) -> str:
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out.strip()


def test_from_problems_to_a_judged_lens_by_hand(tmp_path, capsys):
    store, lens = str(tmp_path / "thoughts"), str(tmp_path / "lens")
    collect = ["thoughts", "collect", "--problems", "generated", "--limit", "120", "--out", store, "--quiet"]
    assert said(capsys, *collect) == store
    assert said(capsys, *collect) == store, "the same command again finds its work done"
    assert len(ThoughtStore.open(store)) == 120
    assert said(capsys, "lens", "fit", "--thoughts", store, "--out", lens, "--set", "max_epochs=2", "--quiet") == lens
    judged = json.loads(said(capsys, "lens", "score", "--thoughts", store, "--lens", lens, "--json"))
    assert {row["reader"] for row in judged["scores"]} >= {"tuned lens", "logit lens", "majority", "structure only"}
    assert {row["reader"] for row in judged["skill"]} == {"majority", "structure only", "copy from question"}
    assert main(["lens", "score", "--thoughts", store, "--lens", lens, "--target", "step2"]) == 2
    assert "was fitted to the result of step 1, and --target step2 asks for" in capsys.readouterr().err
    assert main(["lens", "score", "--thoughts", store, "--lens", lens, "--model", "bundled-control"]) == 2
    assert "reads only the model it was fitted on" in capsys.readouterr().err


def test_every_verb_that_reads_problems_takes_their_fields_by_name(tmp_path, capsys):
    file, store = tmp_path / "own.jsonl", str(tmp_path / "thoughts")
    rows = [{"ask": f"Ann has {n} cards. She gives away 4. How many?", "gold": f"{n - 4}"} for n in range(14, 64)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{}\n")
    named = ["--problems", str(file), "--fields", "question=ask", "answer=gold"]
    assert " of 2 right: " in said(capsys, "codi", "answer", *named, "--limit", "2")
    assert main(["thoughts", "collect", *named, "--out", store]) == 0
    told = capsys.readouterr().err
    assert f"left out: {file}:51: no field 'ask'" in told and "0 of 50 problems have steps" in told
    assert main(["lens", "fit", "--thoughts", store, "--out", str(tmp_path / "lens")]) == 2
    assert "has the target step1: 0 of 50 problems have steps" in capsys.readouterr().err
    assert main(["judge", store]) == 2
    assert "0 of 50 problems have steps" in capsys.readouterr().err
    for verb in (["codi", "train"], ["eval", "gsm8k"], ["run", "read-thoughts"]):
        assert main([*verb, "--help"]) == 0
        assert "question=Body+Question" in " ".join(capsys.readouterr().out.split())
    assert main(["codi", "answer", *named[:3], "answr=gold"]) == 2
    assert "a problem has no 'answr' (did you mean 'answer'?)" in capsys.readouterr().err


def test_a_lens_of_another_kind_is_fitted_and_scored_by_name(tmp_path, capsys):
    store, lens = str(tmp_path / "thoughts"), str(tmp_path / "lens")
    said(capsys, "thoughts", "collect", "--problems", "generated", "--limit", "90", "--out", store, "--quiet")
    about = ["--thoughts", store, "--target", "answer"]
    kind = ["--kind", "per-position", "--final-norm", "--set", "max_epochs=1", "--quiet"]
    said(capsys, "lens", "fit", *about, "--out", lens, *kind)
    assert said(capsys, "lens", "score", *about, "--lens", lens).startswith("per-position tuned lens at ")


def test_answers_are_printed_one_a_line(capsys):
    questions = [
        "Ann has 14 cards. She gives away 4. Of 2 equal piles one is kept. How many cards are there in the end?"
    ] * 2
    lines = said(capsys, "codi", "answer", *questions, "--json").splitlines()
    assert len(lines) == 2 and json.loads(lines[0])["question"] == questions[0]
    assert said(capsys, "codi", "answer", questions[0], "--written").endswith(json.loads(lines[0])["value"] or "")


def test_problems_are_answered_in_their_order_and_the_last_line_has_the_share(tmp_path, capsys):
    rows = [{"question": f"Ann has {n} cards. She gives away 4. How many?", "answer": str(n - 4)} for n in (14, 9, 14)]
    rows[0]["answer"] = "-1"
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    asked = ["codi", "answer", "--problems", str(file), "--official-compat", "--batch-size", "2", "--json", "--quiet"]
    *lines, summary = map(json.loads, said(capsys, *asked).splitlines())
    assert [line["question"] for line in lines] == [row["question"] for row in rows]
    assert [line["correct"] for line in lines] == [line["value"] == line["gold"] for line in lines]
    assert (summary["n"], summary["right"]) == (3, sum(line["correct"] for line in lines))
    assert not lines[0]["correct"] and summary["low"] <= summary["share"] <= summary["high"]
    assert main(["codi", "answer", "How many?", "--problems", str(file)]) == 2
    assert "and not both" in capsys.readouterr().err


def test_a_released_checkpoint_becomes_a_folder(words, tmp_path, capsys, questions):
    file = Released("gpt2", words, tmp_path).write(tmp_path / "model.safetensors")
    base = ["--base", str(tmp_path / "base"), "--lora-alpha", str(ALPHA)]
    folder = said(capsys, "codi", "import", str(file), *base, "--to", str(tmp_path / "mine"))
    direct = CODI.load(file, base=tmp_path / "base", lora_alpha=ALPHA)
    assert torch.equal(CODI.load(folder).think(questions).hidden, direct.think(questions).hidden)
    exported = said(
        capsys, "codi", "export", folder, "--layout", "official", "--to", str(tmp_path / "theirs"), "--quiet"
    )
    written, released = load_file(f"{exported}/model.safetensors"), load_file(file)
    assert written.keys() == released.keys()
    assert all(torch.allclose(written[name], released[name].float(), atol=1e-6) for name in released)
    assert main(["codi", "import", str(file), *base, "--to", str(tmp_path / "mine")]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words_", "complaint"),
    [
        (["codi", "answer", "q", "--model", "/no/where"], "no such file or folder"),
        (["codi", "import", "/no/where", "--base", "x", "--to", "y"], "no such file or folder"),
        (["codi", "trian"], "did you mean 'train'"),
        (["codi", "train"], "base"),
        (["thoughts", "collect", "--problems", "/no/where.jsonl", "--out", "x"], "no such file"),
        (["lens", "fit", "--thoughts", "/no/where", "--out", "x"], "/no/where"),
        (["lens", "score", "--thoughts", "/no/where", "--lens", "x"], "/no/where"),
    ],
)
def test_mistakes_are_named(words_, complaint, capsys):
    assert main(words_) == 2
    shown = capsys.readouterr().err
    assert complaint in shown and "Traceback" not in shown


def test_training_and_resuming_by_the_verb(words, tmp_path, capsys):
    base = tiny_base("gpt2", len(words))  # noqa: F405
    base.save_pretrained(tmp_path / "lm")
    words.save_pretrained(tmp_path / "lm")
    rows = [
        f"a has {i} pens . then {j} more . how many now ?||<<{i}+{j}={i + j}>> #### {i + j}"
        for i in range(1, 12)
        for j in range(1, 8)
    ]
    problems = tmp_path / "problems.txt"
    problems.write_text("\n".join(rows))
    settings = [
        "training.batch_size=16",
        "training.micro_batch_size=8",
        "n_validation=10",
        "thinking.n_thoughts=2",
        "thinking.keep_last_step=true",
    ]
    given = [
        "codi",
        "train",
        "--base",
        str(tmp_path / "lm"),
        "--problems",
        str(problems),
        "--out",
        str(tmp_path / "runs"),
    ]
    report = said(capsys, *given, "--set", *settings, "--quiet").splitlines()[-1]
    assert report.endswith("report.html")
    run = next((tmp_path / "runs" / "train-codi").glob("2*"))
    assert CODI.load(run / "checkpoint" / "model").answer(["a has 3 pens . how many now ?"])
    resume = ["codi", "train", "--out", str(tmp_path / "runs"), "--resume", str(run)]
    assert said(capsys, *resume) == report, "a finished run has its report written again"
    for setting in (["--recipe", "gpt2"], ["--set", "seed=1"], ["--problems", "generated"], ["--dry-run"]):
        assert main([*resume, *setting]) == 2
        assert f"leave the other settings out ({setting[0]})" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_said_so(words, tmp_path, capsys):
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert main(["codi", "answer", "q", "--model", str(tmp_path), "--base", "x"]) == 2
    assert "no key starts with codi." in capsys.readouterr().err
