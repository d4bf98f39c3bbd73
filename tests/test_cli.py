"""The command line as its users meet it: exit codes, plain messages, nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from workings.cli import VERBS, main
from workings.cli import program as commands
from workings.run import RunRecord

HEAVY = ("torch", "transformers", "polars", "matplotlib", "numpy", "pandas", "scipy", "datasets", "pyarrow", "rich")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["verify", "nothing"]])
def test_nothing_heavy_is_imported_to_parse_a_command_line(words: list[str]) -> None:
    code = f"import sys, workings, workings.cli\nworkings.cli.main({words})"
    code += f"\nprint([m for m in {HEAVY} if m in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


def test_the_public_names_are_imported_when_they_are_used() -> None:
    code = "import sys, workings\nworkings.Failed\nprint('torch' in sys.modules, 'TunedLens' in dir(workings))"
    assert python(code).split() == ["False", "True"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runn"], "there is no verb 'runn' (did you mean 'run'?)"),
        (["wxyz"], "there is no verb 'wxyz'; there are demo, list, run"),
        (["run"], "required: experiment (see workings run --help)"),
        (["run", "toy_question.py", "--seed", "1"], "run has no option --seed (did you mean '--seeds'?)"),
        (["run", "toy_question.py", "--qqqq"], "run has no option --qqqq; it has --experiment"),
        (["run", "toy_question.py", "--limit", "few"], "--limit must be a whole number, not 'few'"),
        (["run", "toy_question.py", "--scale", "big"], "--scale must be one of smoke, mini, full, not 'big'"),
        (["run", "toy_question.py", "--seeds", "1", "x"], "--seeds: invalid int value: 'x'"),
        (["run", "toy_question.py", "--model", "gpt2"], "unknown field 'model' in Config"),
        (["run", "toy_question.py", "--batch-size", "3"], "unknown field 'batch_size' in Config"),
        (["run", "toy_question.py", "--set", "optim.lrr=3"], "(did you mean 'optim.lr'?)"),
        (["run", "toy_question.py", "--config", "none.yaml"], "cannot read the config none.yaml"),
        (["run", "toy_question.py", "--resume", "x", "--arm", "steady"], "leave the other settings out"),
        (["run", "no-such-thing"], "no experiment 'no-such-thing'"),
        (["show", "nothing"], "no run 'nothing'"),
        (["show", "."], ". is not a run: it has no manifest.json"),
        (["list", "extra"], "extra"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_is_one_plain_message_and_exit_code_2(
    toy: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == commands.MISTAKE
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("workings: ")
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not Path("runs").exists()


def test_no_words_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == commands.MISTAKE
    assert "demo" in capsys.readouterr().out


def test_a_run_from_start_to_verified(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "steady", "--set", "n=6", "optim.lr=3e-4", "--seeds", "2"]) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert page.name == "report.html"
    assert page.is_file()
    run = page.parent

    assert main(["show", run.name[:20], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["question"], shown["status"], shown["arm"], shown["seed"]) == (
        "Does a toy run?",
        "finished",
        "steady",
        2,
    )
    assert shown["result"] == {"right": 2, "n": 6}
    assert shown["not as the arm has it"] == "optim.lr=0.0003, n=6"

    assert main(["show", str(run)]) == 0
    assert "Does a toy run?" in capsys.readouterr().out

    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {str(run): "finished"}

    assert main(["report", str(run), "--out", "elsewhere"]) == 0
    assert capsys.readouterr().out.strip() == "elsewhere/report.html"

    assert main(["verify", run.name]) == 0
    (run / "config.yaml").write_text("n: 7\n")
    assert main(["verify", run.name]) == 1
    assert "config.yaml: changed" in capsys.readouterr().out


def test_a_broken_manifest_does_not_hide_the_other_runs(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py"]) == 0
    capsys.readouterr()
    broken, whole = sorted(Path("runs").glob("*/*/manifest.json"))
    broken.write_text("{")
    assert main(["list", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert runs == {str(broken.parent): "unreadable", str(whole.parent): "finished"}


def test_only_finished_runs_of_one_experiment_are_compared(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "shaky", "--set", "trouble=mistake"]) == commands.MISTAKE
    failed = next(Path("runs").glob("*/*/manifest.json")).parent
    error = capsys.readouterr().err
    assert "the shaky arm was given nonsense" in error
    assert str(failed) in error
    assert main(["report", str(failed)]) == commands.MISTAKE
    assert "is failed, not finished" in capsys.readouterr().err


def test_a_bug_shows_its_traceback_and_where_the_run_is(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "shaky", "--set", "trouble=bug"]) == commands.FAILURE
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "the run is in runs/toy-question/" in error


def test_an_interrupted_run_is_resumed(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "shaky", "--set", "trouble=bug"]) == commands.FAILURE
    failed = next(Path("runs").glob("*/*/manifest.json")).parent
    (failed / "config.yaml").write_text((failed / "config.yaml").read_text().replace("bug", "''"))
    assert main(["run", "toy_question.py", "--resume", failed.name]) == 0
    assert RunRecord(failed).status == "finished"


def test_verbs_in_groups_switches_and_lists() -> None:
    calls = []

    def train(base: Annotated[str, "base"], /, *, set_: Annotated[list[str] | None, "fields"] = None) -> None:
        """Train."""
        calls.append((base, set_))

    def stop(*, now: Annotated[bool, "now"] = False) -> int:
        """Stop."""
        calls.append(now)
        return 7

    verbs = {"codi train": train, "stop": stop}
    execute = lambda *words: commands.execute("p", "1", verbs, {"": "All.", "codi": "One family."}, words)
    assert execute("codi", "train", "gpt2", "--set", "a=1", "b=2", "--set", "c=3") == 0
    assert execute("stop", "--now") == 7
    assert execute("codi", "trian") == execute("codi") == execute("codi", "train", "--now") == commands.MISTAKE
    assert calls == [("gpt2", ["a=1", "b=2", "c=3"]), True]


def test_a_list_of_choices_takes_each_of_them_and_a_switch_has_the_default_that_it_declares(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def train(
        *,
        track: Annotated[list[Literal["here", "there"]] | None, "where to"] = None,
        compile: Annotated[bool | None, "as the recipe says, unless asked for"] = None,
    ) -> None:
        """Train."""
        calls.append((track, compile))

    execute = lambda *words: commands.execute("p", "1", {"train": train}, {"": "All."}, words)
    assert execute("train") == execute("train", "--compile", "--track", "here", "there", "--track", "here") == 0
    assert calls == [(None, None), (["here", "there", "here"], True)]
    assert execute("train", "--track", "nowhere") == commands.MISTAKE
    assert "--track: invalid choice: 'nowhere' (choose from 'here', 'there')" in capsys.readouterr().err


def test_an_interruption_is_one_line_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def wait() -> None:
        """Wait."""
        raise KeyboardInterrupt

    assert commands.execute("p", "1", {"wait": wait}, {"": "All."}, ["wait"]) == commands.INTERRUPTED
    assert capsys.readouterr().err == "\np: interrupted\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "import sys, workings.cli; sys.exit(workings.cli.main(['list']))"
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""
