"""The options that several verbs share, and what is refused beside one of them, said once."""

from __future__ import annotations

from typing import Annotated, Literal

from workings.errors import BadInput

Root = Annotated[str, "the folder that runs are in"]
Quiet = Annotated[bool, "no progress, only results and errors"]
AsJson = Annotated[bool, "print JSON"]
Device = Annotated[str, "auto, cpu, cuda or mps"]
Precision = Annotated[Literal["fp32", "bf16"], "in which the model computes"]


def refuse_beside_resume(*settings: object) -> None:
    """BadInput if any is given (not empty, not None) where a run is resumed."""
    if any(settings):
        raise BadInput("--resume goes on with a run as it was configured: leave the other settings out")
