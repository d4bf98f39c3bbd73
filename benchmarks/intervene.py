"""How many more edited answers a second does one sweep give than edits made one at a time?

The sweep: every thought replaced by nothing, by another problem's and by its negative, at each thought alone and from it on, before
the projection and after it. The peers are the loops that are usually written with the same engine: one condition after the other
over the same batches, and one question at a time. All run here in turn; answers are compared too.

    python benchmarks/intervene.py [--model bundled] [--problems 192] [--rounds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from workings.arithmetic.generator import PRESETS, generate
from workings.models.anatomy import Edit
from workings.models.codi import CODI, open_model
from workings.models.interventions import FED, Condition, Intervention, Moment, answers_under

MAX_NEW_TOKENS = 16


def sweep(model: CODI, other: torch.Tensor) -> dict[str, Condition]:
    values = {
        "zero": lambda m: torch.zeros_like(m.value),
        "negated": lambda m: -m.value,
        "swapped": lambda m: other[m.rows, m.k - 1],
    }
    conditions = {}
    for name, value in values.items():
        for site in (FED, "final_norm"):
            for k in range(1, model.n_thoughts + 1):
                conditions[f"{name} {site} t{k}"] = Condition((Intervention(value, (k,), site),))
                on = tuple(range(k, model.n_thoughts + 1))
                conditions[f"{name} {site} from t{k}"] = Condition((Intervention(value, on, site),))
    return conditions


@torch.no_grad()
def one_at_a_time(
    model: CODI, questions: Sequence[str], conditions: dict[str, Condition], batch_size: int
) -> dict[str, list[str]]:
    """Each condition from the prompt on, as the engine is told step by step."""
    said = {}
    for name, condition in conditions.items():
        [edit] = condition.interventions
        texts = [""] * len(questions)
        for rows in model.batches(questions, batch_size):
            state, at = model.begin(model.prompt([questions[i] for i in rows])), torch.tensor(rows)
            for k in range(1, model.n_thoughts + 1):
                z, hooks = model.feed(state.final, state.n_fed), []
                if k in edit.thoughts:
                    before = lambda state=state: state
                    moment = lambda value, k=k, at=at, edit=edit, before=before: edit.value(
                        Moment(k, value, at, before)
                    )
                    z, hooks = (moment(z), []) if edit.site == FED else (z, [Edit(edit.site, moment)])
                state = model.step(state, z, hooks)
            for i, ids in zip(rows, model.greedy_answer(state, MAX_NEW_TOKENS), strict=True):
                texts[i] = model.answer_of(ids).text
        said[name] = texts
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--alone", type=int, default=16, help="problems of the second peer, which is slow")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model = open_model(given.model)
    questions = [problem.question for problem in generate(given.problems, PRESETS["bundled"], seed=1)]
    projected = model.think(questions).projected.roll(1, 0)
    conditions = sweep(model, projected)
    few = questions[: given.alone]

    def together() -> dict[str, list[str]]:
        found = answers_under(model, questions, conditions, batch_size=given.batch_size, max_new_tokens=MAX_NEW_TOKENS)
        return {name: [answer.text for answer in one.answers] for name, one in found.items()}

    peers: dict[str, Callable[[], dict[str, list[str]]]] = {
        "together": together,
        "a condition at a time": lambda: one_at_a_time(model, questions, conditions, given.batch_size),
        "a question at a time": lambda: one_at_a_time(model, few, conditions, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(given.rounds):
        said = {}
        for name, run in peers.items():
            began = time.process_time()
            said[name] = run()
            n = len(conditions) * (given.alone if name == "a question at a time" else given.problems)
            seconds[name].append((time.process_time() - began) / n)
    same = [
        a == b
        for name in conditions
        for a, b in zip(said["together"][name], said["a condition at a time"][name], strict=True)
    ]
    print(f"{len(conditions)} conditions, {given.problems} problems; equal answers: {sum(same):,} of {len(same):,}")
    best = {name: min(each) for name, each in seconds.items()}
    for name, each in best.items():
        print(f"{name:24} {1000 * each:7.3f} ms of processor time an answer: {each / best['together']:.1f}")


if __name__ == "__main__":
    main()
