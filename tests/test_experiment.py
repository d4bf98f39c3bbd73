"""An experiment file becomes runs: arms × seeds, settings in their order, failures that lose nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from workings.cli import main
from workings.errors import BadInput, Failed
from workings.experiment import available, load, new_experiment, plan, report_runs, resume, resume_run, run_experiment
from workings.run import RunRecord, question_of


def run_toy(toy: Path, **settings: object) -> list[RunRecord]:
    return run_experiment(toy, root=toy.parent / "runs", quiet=True, **settings)  # ty: ignore[invalid-argument-type]


def records_in(root: Path) -> list[RunRecord]:
    return [RunRecord(path.parent) for path in sorted(root.glob("*/*/manifest.json"))]


def test_every_arm_runs_with_every_seed(toy: Path) -> None:
    records = run_toy(toy, seeds=[0, 1])
    assert [(r.manifest.arm, r.manifest.seed) for r in records] == [
        ("steady", 0),
        ("steady", 1),
        ("shaky", 0),
        ("shaky", 1),
    ]
    config = load(toy).module.Config
    assert [r.config(config).seed for r in records] == [0, 1, 0, 1]
    assert all(r.status == "finished" and r.manifest.experiment == "toy-question" for r in records)
    assert (records[0].path / "source" / toy.name).read_text() == toy.read_text()


def test_several_processes_carry_out_one_run_or_none(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="start it without torchrun"):
        run_toy(toy, arms=["steady"])
    with pytest.raises(BadInput, match="8 are asked for, 1 at once, by local: name one arm and one seed"):
        run_experiment("fact-tokens", scale="smoke", seeds=[0, 1], root=toy.parent / "runs")
    with pytest.raises(BadInput, match="leave --jobs and --launcher out"):
        run_experiment("fact-tokens", ["facts"], "smoke", jobs=2, root=toy.parent / "runs")
    assert records_in(toy.parent / "runs") == []


def test_later_settings_win_arm_scale_file_override(toy: Path, tmp_path: Path) -> None:
    experiment = load(toy)
    one = lambda **settings: plan(experiment, ["steady"], **settings)[0].config
    assert one().n == 4
    assert (one(scale="full").n, one(scale="full").optim.lr) == (8, 0.2)
    file = tmp_path / "some.yaml"
    file.write_text("n: 6\nseed: 9\n")
    assert (one(scale="full", config_path=file).n, one(scale="full", config_path=file).optim.lr) == (6, 0.2)
    assert one(config_path=file).seed == 9
    assert one(config_path=file, overrides=["n=7"], seeds=[3]) == type(one())(n=7, seed=3)


def test_a_resolved_config_gives_the_same_config_again(toy: Path) -> None:
    record = run_toy(toy, arms=["shaky"], scale="full", overrides=["optim.lr=3e-4"], seeds=[5])[0]
    again = plan(load(toy), ["shaky"], "smoke", config_path=record.path / "config.yaml")[0].config
    assert again == record.config(load(toy).module.Config)


def test_the_record_says_how_a_run_departs_from_its_arm(toy: Path) -> None:
    record = run_toy(toy, arms=["shaky"], scale="smoke", overrides=["optim.lr=1", "data=else where"], seeds=[5])[0]
    assert record.manifest.overrides == ["optim.lr=1.0", "n=2", "data=else where"]


def test_two_arms_made_equal_are_refused(toy: Path) -> None:
    with pytest.raises(BadInput, match=r"shaky and steady .* are the same run"):
        run_toy(toy, overrides=["aim=4"])


@pytest.mark.parametrize(("trouble", "kind"), [("bug", Failed), ("mistake", BadInput)])
def test_an_arm_that_fails_does_not_lose_the_others(toy: Path, trouble: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="2 of 4 runs failed") as failure:
        run_toy(toy, arms=["shaky", "steady"], seeds=[0, 1], overrides=[f"trouble={trouble}"])
    assert "shaky, seed 1" in str(failure.value)
    ends = {(r.manifest.arm, r.status) for r in records_in(toy.parent / "runs")}
    assert ends == {("steady", "finished"), ("shaky", "failed")}


def test_a_single_run_fails_with_its_own_error(toy: Path) -> None:
    with pytest.raises(RuntimeError, match="shook"):
        run_toy(toy, arms=["shaky"], overrides=["trouble=bug"])


def test_a_dry_run_writes_nothing_and_prints_a_config_that_is_accepted(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_toy(toy, arms=["steady"], overrides=["n=5"], dry_run=True) == []
    assert not (toy.parent / "runs").exists()
    printed = capsys.readouterr().out
    assert "# not as the arm has it: n=5" in printed
    file = toy.parent / "printed.yaml"
    file.write_text(printed)
    assert plan(load(toy), ["steady"], config_path=file)[0].config.n == 5


def test_a_killed_run_is_resumed_by_the_file_it_holds_and_then_reported(toy: Path) -> None:
    root = toy.parent / "runs"
    words = ["run", str(toy), "--arm", "steady", "--set", "trouble=hang", "--out", str(root)]
    process = subprocess.Popen([sys.executable, "-m", "workings", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    path = Path(next(line for line in process.stderr if "→" in line).split("→")[1].strip())
    while not (path / "done").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    process.stderr.close()
    assert RunRecord(path).status == "killed"
    with pytest.raises(BadInput, match="is killed, not finished"):
        report_runs([RunRecord(path)])
    toy.unlink()  # the copy in the run is enough
    record = resume_run(path, quiet=True)
    assert record.status == "finished"
    assert report_runs([record]) == path / "report.html"


def test_a_sweep_is_gone_on_with_as_one_and_what_is_finished_is_left_alone(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four runs one finished, one failed, and two were never begun."""
    root = toy.parent / "runs"
    with pytest.raises(Failed, match=r"2 of 4 runs failed(.|\n)*workings run toy-question --resume \S+_sweep_"):
        run_toy(toy, arms=["steady", "shaky"], seeds=[0, 1], overrides=["trouble=bug"])
    [sweep] = root.glob("*/*_sweep_*.json")
    named = {(r.manifest.arm, r.manifest.seed): r for r in records_in(root)}
    assert {record.manifest.sweep for record in named.values()} == {sweep.stem}
    shutil.rmtree(named["steady", 1].path)
    failed = named["shaky", 0].path / "config.yaml"
    failed.write_text(failed.read_text().replace("bug", "''"))
    shutil.rmtree(named["shaky", 1].path)
    whole = (named["steady", 0].path / "manifest.json").read_bytes()
    with pytest.raises(Failed, match="1 of 3 runs failed"):
        resume(sweep.stem, root, quiet=True, name=toy)
    failed = next(r.path for r in records_in(root) if r.status == "failed") / "config.yaml"
    failed.write_text(failed.read_text().replace("bug", "''"))
    words = ["run", str(toy), "--resume", str(sweep), "--out", str(root), "--jobs", "2", "--quiet"]
    assert main(words) == 0
    assert Path(capsys.readouterr().out.strip()).is_file(), "the report on all four"
    records = records_in(root)
    assert sorted((r.manifest.arm, r.manifest.seed, r.status) for r in records) == [
        (arm, seed, "finished") for arm in ("shaky", "steady") for seed in (0, 1)
    ]
    assert (named["steady", 0].path / "manifest.json").read_bytes() == whole
    assert [len(r.manifest.earlier) for r in records if r.manifest.arm == "shaky"] == [1, 1], "resumed, not begun anew"


def test_a_sweep_is_not_gone_on_with_by_a_file_that_has_changed(toy: Path) -> None:
    with pytest.raises(Failed):
        run_toy(toy, overrides=["trouble=bug"])
    [sweep] = (toy.parent / "runs").glob("*/*_sweep_*.json")
    toy.write_text(toy.read_text() + "\n# another thought\n")
    with pytest.raises(BadInput, match=r"is not what the sweep .* began with"):
        resume(sweep, quiet=True)


def test_a_finished_run_is_reported_by_resume_and_computes_nothing(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [record] = run_toy(toy, arms=["steady"])
    whole = (record.path / "manifest.json").read_bytes()
    assert main(["run", str(toy), "--resume", str(record.path), "--quiet"]) == 0
    assert Path(capsys.readouterr().out.strip()) == record.path / "report.html"
    assert (record.path / "manifest.json").read_bytes() == whole


def test_a_run_killed_before_it_had_a_manifest_is_recognised(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions could leave one; now a run appears with its manifest in it."""
    monkeypatch.chdir(toy.parent)
    killed = Path("runs") / "toy-question" / "20261125-120000_steady_s0_abcdef"
    killed.mkdir(parents=True)
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {str(killed): "killed before it began"}
    for name in (str(killed), killed.name):
        assert main(["run", str(toy), "--resume", name]) == 2
        assert "was killed before it had a manifest.json: remove it, and start the run again" in capsys.readouterr().err


def test_a_run_is_not_resumed_by_a_file_that_has_changed(toy: Path) -> None:
    with pytest.raises(RuntimeError):
        run_toy(toy, arms=["shaky"], overrides=["trouble=bug"])
    failed = records_in(toy.parent / "runs")[0]
    toy.write_text(toy.read_text() + "\n# another thought\n")
    with pytest.raises(BadInput, match=r"is not what .* began with"):
        resume_run(failed.path, name=toy, quiet=True)


def test_a_run_is_not_resumed_by_another_experiment(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other_question.py"
    other.write_text(toy.read_text())
    record = run_toy(toy, arms=["steady"])[0]
    with pytest.raises(BadInput, match=r"is not what .* began with"):
        resume_run(record.path, name=other, quiet=True)


def test_a_report_on_several_runs_lies_beside_them(toy: Path) -> None:
    records = run_toy(toy)
    page = report_runs(records)
    assert page.parent.parent == records[0].path.parent
    assert page == report_runs(records[::-1])
    assert all(record.path.name in page.read_text() for record in records)
    assert all(record.verify() == [] for record in records)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ["stedy"]}, "toy-question has no arm 'stedy' (did you mean 'steady'?)"),
        ({"scale": "huge"}, "toy-question has no scale 'huge'; it has smoke, mini, full"),
        ({"overrides": ["optim.lrr=1"]}, "unknown field 'optim.lrr' in Config (did you mean 'optim.lr'?)"),
        ({"config_path": "missing.yaml"}, "cannot read the config missing.yaml"),
    ],
)
def test_mistaken_settings_are_refused_before_anything_is_written(toy: Path, settings: dict, message: str) -> None:
    with pytest.raises(BadInput) as mistake:
        run_toy(toy, **settings)
    assert message in str(mistake.value)
    assert not (toy.parent / "runs").exists()


def test_a_file_that_is_no_experiment_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text('"""Nothing."""')
    with pytest.raises(BadInput, match="lacks Config, ARMS, run_arm"):
        load(tmp_path / "empty.py")
    with pytest.raises(BadInput, match="no experiment file"):
        load(tmp_path / "missing.py")
    with pytest.raises(BadInput, match="no experiment 'reed-thoughts'"):
        load("reed-thoughts")


LEAST = '''"""Is this enough?"""
from dataclasses import dataclass
import polars as pl
from workings.config import fixed, scientific

@dataclass(frozen=True)
class Config:
    right: int = scientific(3)
    data: str = fixed("data.txt")
    word: str = fixed("nothing of this name")
    seed: int = fixed(0)

ARMS = {"few": Config(), "many": Config(right=90)}

def run_arm(config, run):
    run.log(1, loss=1 / config.right)
    run.outcomes("items", pl.DataFrame({"id": range(100), "correct": [i < config.right for i in range(100)]}))
    run.results("headline", {"right": config.right})
'''


def test_config_arms_and_run_arm_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("least.py").write_text(LEAST)
    Path("data.txt").write_text("1 + 1")
    records = run_experiment("least.py", quiet=True)
    assert [list(record.manifest.inputs) for record in records] == [["data"], ["data"]]
    page = report_runs(records).with_suffix(".md").read_text(encoding="utf-8")
    assert "Verdict: holds" in page and "few → many" in page and "+87.0" in page
    for part in ("loss by step", "What each arm cost", "What each run found", "workings run", "One training seed"):
        assert part in page
    with pytest.raises(BadInput, match="no scale 'smoke'; it has mini"):
        run_experiment("least.py", scale="smoke", quiet=True)


def test_runs_that_cannot_be_compared_are_reported_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "least.py").write_text(LEAST.replace("range(100), ", "range(config.right, config.right + 100), "))
    records = run_experiment(tmp_path / "least.py", root=tmp_path / "runs", quiet=True)
    page = report_runs(records).with_suffix(".md").read_text(encoding="utf-8")
    assert "Verdict: undecided" in page and "are not of the same examples" in page


def test_a_report_beside_a_file_of_ones_own_goes_into_its_runs(tmp_path: Path) -> None:
    (tmp_path / "least.py").write_text(LEAST)
    beside = tmp_path / "least_report.py"
    beside.write_text("def report(records, out):\n    (out / 'mine.html').touch()\n    return out / 'mine.html'\n")
    [record] = run_experiment(tmp_path / "least.py", ["few"], root=tmp_path / "runs", quiet=True)
    beside.unlink()
    assert report_runs([record]).name == "mine.html"


def test_a_new_experiment_runs_at_once_and_is_dated_today(tmp_path: Path) -> None:
    file = new_experiment("longer-chains", tmp_path / "mine")
    assert file == tmp_path / "mine" / "longer_chains.py"
    assert f"Prediction ({date.today().isoformat()}, before any run)" in file.read_text()
    assert file.read_text().count("workings run longer_chains.py") == 2
    records = run_experiment(file, scale="smoke", root=tmp_path / "runs", quiet=True)
    assert [record.manifest.experiment for record in records] == ["longer-chains"] * 2
    assert "Compared item by item" in report_runs(records).with_suffix(".md").read_text(encoding="utf-8")
    for taken, words in [("longer-chains", "exists already"), ("recurrence", "has an experiment"), ("1st", "letters")]:
        with pytest.raises(BadInput, match=words):
            new_experiment(taken, tmp_path / "mine")


def test_every_experiment_of_the_package_asks_a_question_and_has_all_its_parts() -> None:
    for name, file in available().items():
        assert question_of(file), f"{file}: the first line of the docstring is the question"
        experiment = load(name)
        assert set(experiment.module.SCALES) == {"smoke", "mini", "full"}
        for scale in experiment.module.SCALES:
            assert plan(experiment, scale=scale)
