"""A resumed run does not tell its tracker a step twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from workings.training import trackers
from workings.training.loop import no_log


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra [track] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((1, 6), (4, 8)):  # killed after step 6, gone on from the resume point of step 3
        with trackers.opened(no_log, ["tensorboard"], "p", tmp_path, {}) as log:
            for step in range(first, last + 1):
                log(step, loss=10.0 * first + step, note="not a number")
    shown = EventAccumulator(str(tmp_path / ".tensorboard"))
    shown.Reload()
    scalars = {event.step: event.value for event in shown.Scalars("loss")}
    assert [event.step for event in shown.Scalars("loss")] == list(range(1, 9))
    assert scalars[3] == 13.0 and scalars[4] == 44.0 and shown.Tags()["scalars"] == ["loss"]
