"""A study of lenses: which are fitted to what, and on whose thoughts. Apart from the fits, for a `Config` must not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workings.config import check_ranges, fixed, nuisance
from workings.reading.recipe import FitConfig


@dataclass(frozen=True)
class Cell:
    """One lens of a study, fitted to one target.

    Attributes:
        name: In tables.
        lens: Kind of lens, see `lens_kinds.lens_of`.
        target: Name of the target rule that it is fitted to, see `target_rules`.
        read: Name of the rule that it is read against; that of the fit, by default.
        layers: The layers that it reads; all, by default.
        fit: Recipe of the fit.
        share: Share of the training problems that it is fitted on.
        start: Name of the cell with the tuned lens that it starts from.
    """

    name: str
    lens: str
    target: str
    layers: tuple[str, ...] = ()
    fit: FitConfig = FitConfig()
    share: float = 1.0
    start: str = ""
    read: str = ""

    @property
    def asked(self) -> str:
        """The rule that it is read against."""
        return self.read or self.target


@dataclass(frozen=True)
class StudyConfig:
    """The model, the problems and the recipe that all lenses of a study share."""

    model: str = fixed("bundled", "model whose thoughts are read: bundled, a checkpoint, or a hub id")
    base: str | None = fixed(None, "language model that a released checkpoint was trained from")
    lora_alpha: float | None = fixed(None, "LoRA alpha of a released checkpoint, which its file does not hold", above=0)
    problems: str = fixed("generated", "problems to think about: generated[:preset], a file, or a hub id")
    problem_split: str = fixed("test", "dataset split of the problems, for hub data sets")
    limit: int = fixed(2000, "maximum number of problems", at_least=1)
    fractions: tuple[float, float, float] = fixed(
        (0.5, 0.2, 0.3), "shares of the problems used for training, validation and test", at_least=0, at_most=1
    )
    target: str = fixed("uniform", "target of the lenses, where the experiment does not vary it")
    fit: FitConfig = fixed(FitConfig(lr=2e-3, batch_problems=64, max_epochs=40), "recipe that the fits share")
    store_dtype: Literal["float32", "bfloat16"] = fixed("float32", "floating-point format of the stored states")
    batch_size: int = fixed(128, "number of problems thought about at once", at_least=1)
    max_new_tokens: int = fixed(0, "maximum number of new tokens per answer; 0: no answers", at_least=0)
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = fixed("fp32", "floating-point format in which the model computes")
    seed: int = nuisance(0, "random seed for problems, splits and the order of the fits")

    __post_init__ = check_ranges


SMOKE = {"limit": 200, "fit": {"max_epochs": 2}}
"""Fields of the smoke scale."""
RELEASED = {
    "model": "zen-E/CODI-llama3.2-1b-Instruct@b2c88ba224b06b12b52ef39b87f794b98a6eb1c8",
    "base": "meta-llama/Llama-3.2-1B-Instruct",
    "lora_alpha": 32.0,
    "problems": "openai/gsm8k:main",
    "limit": 1319,
    "store_dtype": "bfloat16",
    "precision": "bf16",
}
"""Fields of the full scale: the released model that the notes read, and problems that it was not trained on."""
