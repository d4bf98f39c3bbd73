"""What the repository promises a stranger: pins without hosts, one import order, package data that comes along."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import workings
from workings import evals, judging, models, reading, text, training

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = (ROOT / "constraints.txt").read_text().splitlines()

# Joined here, so that this file does not name them either.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))]
HOSTS += [".".join(parts) for parts in (("npmjs", "org"), ("deb", "debian", "org"), ("anaconda", "org"))]


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files are the project's")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_an_index_host() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {host}"
        for file in tracked_files()
        for host in HOSTS
        if host.encode() in file.read_bytes().lower()
    ]
    assert found == []


def test_a_pin_is_a_name_and_a_version() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line)] == []


def test_the_pin_of_torch_admits_every_build_of_it() -> None:
    torch = Requirement(next(line for line in PINS if line.startswith("torch==")))
    assert torch.specifier.contains(Version("2.13.0+cpu"))
    assert torch.specifier.contains(Version("2.13.0"))


def test_everything_that_is_installed_for_the_tests_is_pinned() -> None:
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in PINS}
    wanted = [
        Requirement(line).name for line in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    ]
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in wanted} - pinned == set()


@pytest.mark.parametrize("package", [workings, evals, judging, models, reading, text, training])
def test_every_public_name_is_there(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="Nothing"):
        package.Nothing  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", workings.__version__)


def test_the_wheel_carries_every_file_of_the_package(tmp_path: Path) -> None:
    code = (
        "import sys; from hatchling.builders.wheel import WheelBuilder\n"
        "for file in WheelBuilder(sys.argv[1]).recurse_included_files(): print(file.distribution_path)"
    )
    listed = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True).stdout
    ours = {
        file.relative_to(ROOT / "src").as_posix()
        for file in tracked_files()
        if file.is_relative_to(ROOT / "src" / "workings")
    }
    assert ours - set(listed.splitlines()) == set()


def test_imports_point_one_way() -> None:
    checked = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
