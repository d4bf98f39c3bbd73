"""The command line as its users meet it: exit codes, plain messages, nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_type_hints

import pytest

from tests.test_config import numeric
from workings.cli import VERBS, main, program
from workings.cli.options import Command, Given, config_fields, option, positional
from workings.cli.program import FAILURE, INTERRUPTED, MISTAKE, Program, Verb
from workings.config import fixed
from workings.progress import is_quiet
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
    shown = capsys.readouterr().out
    assert len(shown) > 100
    assert not any(noise in shown for noise in ("type:", "Literal", "required", "None"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runn"], "there is no verb 'runn' (did you mean 'run'?)"),
        (["wxyz"], "there is no verb 'wxyz'; there are demo, list, run"),
        (["run"], "required: experiment (see workings run --help)"),
        (["run", "toy_question.py", "--seedss", "1"], "run has no option --seedss (did you mean '--seeds'?)"),
        (["run", "toy_question.py", "--qqqq"], "run has no option --qqqq; it has --aim, --n,"),
        (["run", "toy_question.py", "--n", "few"], "--n must be a whole number, not 'few'"),
        (["run", "toy_question.py", "--scale", "big"], "--scale must be one of smoke, mini, full, not 'big'"),
        (["run", "toy_question.py", "--seeds", "1", "x"], "--seeds must be a whole number, not 'x'"),
        (["run", "toy_question.py", "--model", "gpt2"], "run has no option --model"),
        (["run", "toy_question.py", "--batch-size", "3"], "run has no option --batch-size"),
        (["run", "toy_question.py", "--set", "model=gpt2"], "unknown field 'model' in Config"),
        (["run", "toy_question.py", "--set", "optim.lrr=3"], "(did you mean 'optim.lr'?)"),
        (["run", "toy_question.py", "--config", "none.yaml"], "cannot read the config none.yaml"),
        (["run", "toy_question.py", "--resume", "x", "--arm", "steady"], "leave the other settings out (--arm)"),
        (["run", "toy_question.py", "--resume", "x", "--dry-run"], "leave the other settings out (--dry-run)"),
        (["run", "toy_question.py", "--resume", "x", "--n", "6"], "leave the other settings out (--n)"),
        (["run", "no-such-thing"], "no experiment 'no-such-thing'"),
        (["run", "no-such-thing", "--model", "gpt2"], "no experiment 'no-such-thing'"),
        (["run", "--scale", "mini"], "required: experiment (see workings run --help)"),
        (["show", "nothing"], "no run 'nothing'"),
        (["show", "."], ". is not a run: it has no manifest.json"),
        (["list", "extra"], "extra"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_is_one_plain_message_and_exit_code_2(
    toy: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == MISTAKE
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("workings: ")
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not Path("runs").exists()


def test_no_words_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == MISTAKE
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
    assert main(["run", "toy_question.py", "--arm", "shaky", "--set", "trouble=mistake"]) == MISTAKE
    failed = next(Path("runs").glob("*/*/manifest.json")).parent
    error = capsys.readouterr().err
    assert "the shaky arm was given nonsense" in error
    assert str(failed) in error
    assert main(["report", str(failed)]) == MISTAKE
    assert "is failed, not finished" in capsys.readouterr().err


def test_a_bug_shows_its_traceback_and_where_the_run_is(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "shaky", "--set", "trouble=bug"]) == FAILURE
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "the run is in runs/toy-question/" in error


def test_an_interrupted_run_is_resumed(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "shaky", "--set", "trouble=bug"]) == FAILURE
    failed = next(Path("runs").glob("*/*/manifest.json")).parent
    (failed / "config.yaml").write_text((failed / "config.yaml").read_text().replace("bug", "''"))
    assert main(["run", "toy_question.py", "--resume", failed.name]) == 0
    assert RunRecord(failed).status == "finished"


# ── verbs of this test's own ─────────────────────────────────────────────────────────────────────────────────────────

calls: list[object] = []


@dataclass(frozen=True)
class Model:
    n_layers: int = fixed(2, "number of layers")
    compile: bool = fixed(True, "whether to compile")
    steps: tuple[int, ...] = fixed((1, 2), "numbers of steps")


@dataclass(frozen=True)
class Config:
    model: Model = fixed(Model(), "shape of the model")
    name: str | None = fixed(None, "name")
    width: int = fixed(8, "width in 100 % of cases")
    set: int = fixed(0, "hidden by the verb's own --set")
    place: Path | None = fixed(None, "place of things")


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train."""

    base: str = positional(help="base")
    set: tuple[str, ...] = option((), "fields")
    track: tuple[Literal["here", "there"], ...] = option((), "where to")
    fast: bool = option(False, "fast")
    n: int | None = option(None, "number of things")

    def __call__(self) -> None:
        calls.append((self.base, self.set, self.track, self.fast, self.n, is_quiet()))


@dataclass(frozen=True, kw_only=True)
class Some(Command):
    """Some fields."""

    given: Given = config_fields(lambda words: Config, "name", "model.n_layers", "model.compile", n="width")

    def __call__(self) -> int:
        calls.append(dict(self.given))
        return 7


@dataclass(frozen=True, kw_only=True)
class Every(Command):
    """Every field."""

    set: tuple[str, ...] = option((), "fields")
    given: Given = config_fields(lambda words: Config)

    def __call__(self) -> None:
        calls.append((self.given.settings, self.set))


@dataclass(frozen=True, kw_only=True)
class Wait(Command):
    """Wait."""

    def __call__(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch):
    """Carries out words with the verbs above."""
    calls.clear()
    verbs = {name: program.Verb(f"{verb.__name__}", "") for name, verb in OWN.items()}
    monkeypatch.setattr(program.Verb, "load", lambda verb: globals()[verb.place])
    return lambda *words: Program("p", "1", verbs, {"": "All.", "codi": "One family."}).execute(words)


OWN = {"codi train": Train, "some": Some, "every": Every, "wait": Wait}


def test_verbs_in_groups_switches_and_lists(execute) -> None:
    assert execute("codi", "train", "gpt2", "--set", "a=1", "b=2", "--set", "c=3") == 0
    assert execute("codi", "train", "x", "--fast", "--n", "3", "--track", "here", "there", "--track", "here") == 0
    assert execute("codi", "trian") == execute("codi") == execute("codi", "train", "--now") == MISTAKE
    assert calls == [
        ("gpt2", ("a=1", "b=2", "c=3"), (), False, None, False),
        ("x", (), ("here", "there", "here"), True, 3, False),
    ]


def test_a_choice_in_a_list_is_checked(execute, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("codi", "train", "x", "--track", "nowhere") == MISTAKE
    assert "--track must be one of here, there, not 'nowhere'" in capsys.readouterr().err


def test_a_flag_of_text_arrives_as_it_was_typed(execute) -> None:
    assert execute("codi", "train", "'null'", "--set", '"a"', "1") == 0
    assert calls[0][:2] == ("'null'", ('"a"', "1"))


def test_every_verb_can_be_quiet_and_the_next_is_not(execute) -> None:
    assert execute("codi", "train", "x", "--quiet") == execute("codi", "train", "x") == 0
    assert [call[-1] for call in calls] == [True, False]


def test_a_flag_stands_for_a_config_field_and_only_what_is_typed_is_given(execute) -> None:
    assert execute("some") == execute("some", "--n-layers", "3", "--no-compile", "--n", "4") == 7
    assert calls == [{}, {"model.n_layers": 3, "model.compile": False, "width": 4}]
    assert execute("some", "--width", "4") == execute("some", "--no-name", "x") == MISTAKE


def test_all_fields_outside_groups_are_flags_and_the_verbs_own_come_first(execute, capsys) -> None:
    assert execute("every", "--name", "a: 'b'", "--width", "3", "--place", "a/b", "--set", "model.steps=[3]") == 0
    assert calls == [(["name=\"a: 'b'\"", "width=3", 'place="a/b"'], ("model.steps=[3]",))]
    assert execute("every", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--width WIDTH width in 100 % of cases; default 8 " in shown
    assert "model.steps: numbers of steps; default 1 2" in shown


def test_an_interruption_is_one_line_and_its_own_exit_code(execute, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("wait") == INTERRUPTED
    assert capsys.readouterr().err == "\np: interrupted\n"


@pytest.mark.parametrize("name", VERBS)
def test_the_line_that_lists_a_verb_is_the_first_of_its_help(name: str) -> None:
    verb = VERBS[name].load()
    assert (verb.__doc__ or "").partition("\n")[0] == VERBS[name].summary


def test_a_flag_of_an_experiment_is_a_field_of_its_config(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy_question.py", "--arm", "steady", "--n", "6", "--data", "a b", "--quiet"]) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert {"n=6", "data=a b"} <= set(RunRecord(page.parent).manifest.overrides)
    assert main(["run", "toy_question.py", "--help"]) == 0
    assert "optim.lr: ; default 0.1" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_every_number_of_a_verb_but_a_seed_says_what_it_may_be(name: str) -> None:
    verb = VERBS[name].load()
    kinds = get_type_hints(verb)
    own = [field for field in fields(verb) if numeric(kinds[field.name]) and "seed" not in field.name]
    assert [field.name for field in own if not field.metadata["range"]] == []


@pytest.mark.parametrize(
    "words",
    [
        ["run", "read-thoughts", "--help"],
        ["codi", "train", "--help"],
        ["pretrain", "--help"],
        ["eval", "--help"],
        ["corpus", "build", "--help"],
    ],
)
def test_help_on_a_configs_fields_needs_no_torch(words: list[str]) -> None:
    code = f"import sys, workings.cli\nworkings.cli.main({words})\nprint('torch' in sys.modules)"
    assert python(code).splitlines()[-1] == "False"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "import sys, workings.cli; sys.exit(workings.cli.main(['list']))"
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""


def test_a_warning_to_the_user_is_a_sentence_without_a_line_of_code(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import warnings

    class Warns:
        @classmethod
        def carry_out(cls, program: str, words: Sequence[str]) -> int:
            warnings.warn("the question holds an unknown word", stacklevel=1)
            warnings.warn("going away", FutureWarning, stacklevel=1)
            return 0

    monkeypatch.setattr(Verb, "load", lambda verb: Warns)
    before = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given, **more: print(warnings.formatwarning(*given[:4]), file=sys.stderr, end="")
        assert main(["list"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: the question holds an unknown word\n") and "FutureWarning: going away" in said
    assert warnings.formatwarning is before
