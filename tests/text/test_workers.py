"""Processes that share work give its results in order, and the death of one is heard."""

from __future__ import annotations

import operator
import os
import time
from functools import partial
from itertools import islice

import numpy as np
import pytest

from workings.errors import BadInput, Failed
from workings.text.workers import Workers


@pytest.mark.parametrize("n", [1, 3])
def test_results_come_in_the_order_of_the_work(n):
    with Workers(100, n) as workers:
        works = [(label, partial(operator.add, label)) for label in range(40)]
        assert list(workers.in_order(works, ahead=7)) == [(label, 100 + label) for label in range(40)]


def test_two_streams_share_processes_and_one_of_them_has_no_end():
    with Workers(3, 2) as workers:
        endless = workers.in_order(((i, partial(pow, 2)) for i in iter(int, 1)), ahead=3)
        other = workers.in_order([(i, partial(operator.mul, i)) for i in range(9)], ahead=4)
        assert [(result, next(endless)[1]) for _, result in other] == [(3 * i, 8) for i in range(9)]


def test_no_more_is_under_way_than_allowed():
    taken = []

    def works():
        for i in range(20):
            taken.append(i)
            yield i, partial(operator.add, i)

    with Workers(0, 2) as workers:
        for label, _ in workers.in_order(works(), ahead=5):
            assert len(taken) - label <= 5


def test_an_error_comes_at_its_turn():
    with Workers(2, 2) as workers:
        results = workers.in_order(
            [(d, partial(operator.floordiv, d)) for d in (8, 6)] + [("x", partial(len, ()))], ahead=3
        )
        assert list(islice(results, 2)) == [(8, 4), (6, 3)]
        with pytest.raises(Failed, match="TypeError in an encoding process"):
            next(results)
    with Workers("no table", 1) as workers, pytest.raises(BadInput):
        list(workers.in_order([(0, _refuse)], ahead=1))


def _refuse(tool: str) -> None:
    raise BadInput(tool)


@pytest.mark.parametrize("when", ["before any work", "in the middle of a large result"])
def test_the_death_of_a_process_ends_the_work(when):
    with Workers(7, 2) as workers:
        pipe = workers._pipes[0]
        if when == "before any work":
            os.kill(workers._processes[0].pid, 9)
        results = workers.in_order(((i, partial(np.full, 10**7)) for i in range(50)), ahead=4)
        with pytest.raises(Failed, match="an encoding process died"):
            for i, (_, result) in enumerate(results):
                assert result.shape == (10**7,)
                if i == 0 and when != "before any work":
                    while not pipe.poll():  # the next result waits, too large for the pipe
                        time.sleep(0.01)
                    os.kill(workers._processes[0].pid, 9)
