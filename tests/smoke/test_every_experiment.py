"""Every experiment runs with nothing but `--scale smoke`, as a user would start it, and ends in a report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workings.cli import main
from workings.experiment import available

pytestmark = pytest.mark.smoke


def workings(*words: str, cwd: Path) -> str:
    """What `workings WORDS` prints; it must succeed."""
    command = [sys.executable, "-m", "workings", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def runs_and_reports(experiment: str, cwd: Path) -> None:
    """Run all its arms; each run is whole, and the last line printed is a report that can be read."""
    page = cwd / workings("run", experiment, "--scale", "smoke", "--quiet", cwd=cwd).splitlines()[-1]
    assert page.name == "report.html" and page.stat().st_size > 1000
    assert page.with_suffix(".md").read_text(encoding="utf-8").startswith("# ")
    runs = [manifest.parent for manifest in cwd.glob("runs/*/*/manifest.json")]
    assert runs
    for run in runs:
        assert main(["verify", str(run)]) == 0


@pytest.mark.parametrize("experiment", available())
def test_an_experiment_runs_at_its_smallest_and_ends_in_a_report(experiment: str, tmp_path: Path) -> None:
    runs_and_reports(experiment, tmp_path)


def test_a_new_experiment_runs_at_once_and_ends_in_a_report(tmp_path: Path) -> None:
    workings("new", "longer-chains", cwd=tmp_path)
    runs_and_reports("longer_chains.py", tmp_path)
    assert "longer_chains.py" in next(tmp_path.glob("runs/longer-chains/report_*/report.md")).read_text(
        encoding="utf-8"
    )
