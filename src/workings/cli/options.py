"""The options that several verbs share, said once."""

from __future__ import annotations

from typing import Annotated, Literal

Root = Annotated[str, "the folder that runs are in"]
Quiet = Annotated[bool, "no progress, only results and errors"]
AsJson = Annotated[bool, "print JSON"]
Device = Annotated[str, "auto, cpu, cuda or mps"]
Precision = Annotated[Literal["fp32", "bf16"], "in which the model computes"]
