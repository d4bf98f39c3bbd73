"""States × problems → the table that the judge decides on: what a state adds to what the question tells, reader by reader.

A step result is a function of the question, so a strong enough reader of the question always names it. What is asked is therefore
conditional (Hewitt, Ethayarajh, Liang and Manning 2021; V-information, Xu et al. 2020): how much better is a stack of declared
question readers S together with a linear reader of the state T than S alone, for the same problems? Beside T stand the states
before the first thought (B), the true results of the neighbouring steps (N), an untrained model, the matched control, and readers
fitted to shuffled targets. `verdict` turns the table into answers.
Shapes: n problems that have the target, C candidate values (those seen in training), d width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import polars as pl
import torch

from workings import seeds
from workings.arithmetic.problems import Problem, steps_among
from workings.errors import BadInput
from workings.judging.questions import QuestionReader, question_readers
from workings.judging.readers import Floats, Ints, best_beside, discriminants, fit_linear, linear_path, pool
from workings.judging.verdict import JUDGED, RUNGS, checked_rung
from workings.models.anatomy import is_thought
from workings.reading.store import HiddenStates

_STEP = re.compile(r"step([1-9][0-9]{0,3})")
N_FOLDS = 5
ONE_SPLIT_FROM = 1000  # problems; fewer are tested once each, in five folds
FEWEST_VALIDATED = 200
SHARES = (0.5, 0.2, 0.3)
FEWEST = 20
N_BEFORE = 6  # places before the first thought whose readers are joined, the best ones
N_REFINED = 3  # places at which logistic regression is tried as well
MODEL, CONTROL, UNTRAINED = "model", "control", "untrained"
REAL, SHUFFLED = "real", "shuffled"
STATE_READER = "linear probe"


def judged(
    asked: Asked,
    model: HiddenStates,
    control: HiddenStates | None = None,
    untrained: HiddenStates | None = None,
    rung: str = RUNGS[-1],
) -> pl.DataFrame:
    """Read one target from states, beside everything that the question tells, on problems that no reader was fitted on.

    Args:
        asked: The problems that have the target (`Asked.of`). It keeps its question readers: models that are judged with the
            same one share them.
        model: States of the model that is judged, of the problems that `asked` was made of, in their order.
        control, untrained: States of the matched control and of an untrained model on the same problems.
        rung: The strongest question readers in the stack: surface, first order or computing.

    Returns:
        A table with the columns of `verdict.JUDGED`.

    Raises:
        BadInput: States of other problems, or no thought among the positions.
    """
    checked_rung(rung)
    subjects = {MODEL: model, CONTROL: control, UNTRAINED: untrained}
    for name, hidden in subjects.items():
        if hidden is not None and tuple(hidden.ids) != asked.ids:
            raise BadInput(
                f"the states of the {name} are of other problems, or in another order; collect both on the same ones"
            )
    if not any(map(is_thought, model.positions)):
        raise BadInput(f"no position is a thought (t1, t2, …); there are {', '.join(model.positions)}")
    return pl.concat([fold.table(subjects, rung) for fold in asked.folds])


def family(rules: Iterable[str], problems: Sequence[Problem]) -> tuple[str, ...]:
    """The targets among `rules` that can be judged on these problems: step results and the answer, where enough have them."""
    judgeable = [rule for rule in rules if rule == "answer" or _STEP.fullmatch(rule)]
    return tuple(rule for rule in judgeable if len(Asked.among(rule, problems)) >= FEWEST)


# ---- which problems, and which of them are tested ------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One target, the problems that have it, and how they are divided.

    Attributes:
        rule: The target.
        ids: Of all problems, in the order of their states.
        rows: Of the problems that have the target, in the states [n].
        problems, splits, values: Of these.
        seed: Random seed of folds, shuffled targets and the question readers.
    """

    rule: str
    ids: tuple[str, ...]
    rows: Ints
    problems: list[Problem]
    splits: list[str]
    values: list[str]
    seed: int

    @classmethod
    def of(cls, rule: str, problems: Sequence[Problem], splits: Sequence[str], seed: int = 0) -> Asked:
        """Choose the problems that have a target; of questions that stand there twice the first is kept.

        Args:
            rule: `stepK`, the result of step K where the chain goes on after it (a last step is the answer); or `answer`.
            problems: The problems of the states, in their order.
            splits: "train", "val" or "test" for each; anything else is drawn, 50/20/30.
            seed: Random seed of folds, shuffled targets and the question readers.

        Raises:
            BadInput: The target is none that can be judged, or too few problems have it.
        """
        kept = cls.among(rule, problems)
        if rule != "answer" and not any(problem.steps for problem in problems):
            raise BadInput(
                f"no problem has the target '{rule}': {steps_among(problems)}; give problems with written steps"
            )
        if len(kept) < FEWEST:
            raise BadInput(
                f"only {len(kept)} problems have the target '{rule}', {FEWEST} are needed; give more problems or an earlier step"
            )
        rows = [row for row, _ in kept]
        chosen = [problems[row] for row in rows]
        ids = tuple(problem.id for problem in problems)
        return cls(rule, ids, np.array(rows), chosen, [splits[row] for row in rows], [value for _, value in kept], seed)

    @staticmethod
    def among(rule: str, problems: Sequence[Problem]) -> list[tuple[int, str]]:
        """(row, value) of the problems that have the target; of equal questions the first."""
        value_of = _value_of(rule)
        seen: set[str] = set()
        kept: list[tuple[int, str]] = []
        for row, problem in enumerate(problems):
            if problem.asked not in seen and (value := value_of(problem)) is not None:
                kept.append((row, value))
            seen.add(problem.asked)
        return kept

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """One split of many problems: of 1,000 or more, 200 of them in "val"; of fewer, five folds test each problem once."""
        return tuple(Fold(self, number, *rows) for number, rows in enumerate(self._divided()))

    def _divided(self) -> list[tuple[Ints, Ints, Ints]]:
        """(train, val, test) of each fold."""
        n = len(self.rows)
        order = seeds.numpy(f"folds of {self.rule}", self.seed).permutation(n)
        if n >= ONE_SPLIT_FROM:
            train, val, test = (np.flatnonzero(np.array(self.splits) == split) for split in ("train", "val", "test"))
            if min(len(train), len(val), len(test)) >= FEWEST_VALIDATED:
                return [(train, val, test)]
            ends = np.cumsum(SHARES)[:2] * n
            train, val, test = np.split(order, ends.astype(int))
            return [(train, val, test)]
        parts = np.array_split(order, N_FOLDS)
        return [
            (
                np.concatenate([part for i, part in enumerate(parts) if i not in (f, (f + 1) % N_FOLDS)]),
                parts[(f + 1) % N_FOLDS],
                parts[f],
            )
            for f in range(N_FOLDS)
        ]


def _value_of(rule: str) -> Callable[[Problem], str | None]:
    """The value that a rule asks of a problem, as text; None where the problem has none."""
    if rule == "answer":
        return lambda problem: str(problem.value)
    if named := _STEP.fullmatch(rule):
        k = int(named[1])
        return lambda problem: str(problem.steps[k - 1].value) if problem.n_steps > k else None
    raise BadInput(f"the target '{rule}' cannot be judged; give step1, step2, … or answer")


def _neighbours(rule: str, problem: Problem) -> list[float]:
    """The true results of the step before, of the step after and of the last step; NaN where there is none."""
    results = [float(step.value) for step in problem.steps]
    if rule == "answer":
        return [results[-2] if len(results) > 1 else np.nan, np.nan, np.nan]
    k = int(rule[4:])
    return [results[k - 2] if k > 1 else np.nan, results[k], results[-1]]


# ---- one fold --------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What a search over places found best beside one base: log-probabilities [n, C], and where."""

    loss: float = float("inf")
    log_p: Floats | None = None
    layer: str = ""
    position: str = ""


class Fold:
    """Readers fitted on `train`, selected and pooled on `val`, and what they say of `test`."""

    def __init__(self, asked: Asked, number: int, train: Ints, val: Ints, test: Ints) -> None:
        self.asked, self.number = asked, number
        self.train, self.val, self.test = train, val, test
        self.classes = sorted({asked.values[i] for i in train}, key=Fraction)
        class_of = {value: i for i, value in enumerate(self.classes)}
        self.y = np.array([class_of.get(value, -1) for value in asked.values])
        self._fitted: dict[str, list[QuestionReader]] = {}  # of each rung

    def table(self, subjects: Mapping[str, HiddenStates | None], rung: str) -> pl.DataFrame:
        """The rows of all predictors on this fold's test problems."""
        rungs = RUNGS[: RUNGS.index(rung) + 1]
        readers = self.question_readers(rung)
        rows = [self.rows(reader.name, "", "Q", self.pool([reader.log_p]), rung=reader.rung) for reader in readers]
        stacks = {
            name: [each.log_p for each in readers if RUNGS.index(each.rung) <= RUNGS.index(name)] for name in rungs
        }
        bases = {name: self.pool(stack) for name, stack in stacks.items()}
        rows += [self.rows(name, "", "S", base) for name, base in bases.items()]
        question = stacks[rung]

        model = subjects[MODEL]
        assert model is not None
        beside = {"S+N": [*question, self._neighbours()]}
        if before := self._before(model, bases[rung]):
            beside["S+B"] = [*question, *before]
        bases_beside = {features: self.pool(stack) for features, stack in beside.items()}
        for features, base in bases_beside.items():
            rows.append(self.rows(rung, MODEL if features == "S+B" else "", features, base))
        # A place is chosen for each rung: one that is chosen beside readers that leave nothing to find is any place.
        found = self.search(model, bases | bases_beside)
        for name, stack in stacks.items():
            rows.append(self.rows(name, MODEL, "S+T", self.pool([*stack, found[name].log_p]), found[name]))
        rows.append(self.rows(STATE_READER, MODEL, "T", self.pool([found[rung].log_p]), found[rung]))
        for features, stack in beside.items():
            joined = self.pool([*stack, found[features].log_p])
            rows.append(self.rows(rung, MODEL, f"{features}+T", joined, found[features]))
        rivals = [(MODEL, SHUFFLED, self._shuffled()), (CONTROL, REAL, None), (UNTRAINED, REAL, None)]
        for subject, targets, labels in rivals:
            hidden = subjects[subject]
            if hidden is not None:
                others = self.search(hidden, bases, labels)
                for name, stack in stacks.items():
                    log_p = self.pool([*stack, others[name].log_p])
                    rows.append(self.rows(name, subject, "S+T", log_p, others[name], targets))
        return pl.concat(rows)

    def question_readers(self, rung: str) -> list[QuestionReader]:
        """The question readers up to a rung, fitted once."""
        asked = self.asked
        for name in RUNGS[: RUNGS.index(rung) + 1]:
            if name not in self._fitted:
                self._fitted[name] = question_readers(
                    asked.problems, asked.rule, self.classes, self.y, self.train, self.val, [name], asked.seed
                )
        return [reader for name in RUNGS[: RUNGS.index(rung) + 1] for reader in self._fitted[name]]

    def pool(self, readers: Sequence[Floats | None]) -> Floats:
        """Log-probabilities of the log-linear pool of those readers that there are, weighed on `val`."""
        return pool([each for each in readers if each is not None], self.y, self.val).log_p

    def _shuffled(self) -> Ints:
        """Classes in which every training problem has that of another: what is fitted to them holds nothing of the target."""
        random = seeds.numpy(f"shuffled {self.asked.rule} {self.number}", self.asked.seed)
        labels = self.y.copy()
        labels[self.train] = labels[random.permutation(self.train)]
        return labels

    def _neighbours(self) -> Floats:
        """A linear reader of the true neighbouring results, as kinds and as magnitudes: linear, so that it cannot redo the step."""
        values = np.array([_neighbours(self.asked.rule, problem) for problem in self.asked.problems], np.float64)
        columns = []
        for column in values.T:
            seen = np.unique(column[self.train][~np.isnan(column[self.train])])
            columns.append((column[:, None] == seen[None]).astype(np.float32))
            filled = np.nan_to_num(column)
            columns.append(np.stack([filled, np.sign(filled) * np.log1p(np.abs(filled)), np.isnan(column)], 1))
        return fit_linear(
            np.concatenate(columns, 1).astype(np.float32), self.y, len(self.classes), self.train, self.val
        )

    def _places(self, hidden: HiddenStates, thoughts: bool) -> Iterator[tuple[str, str, Floats]]:
        """(layer, position, states [n, d]) of the thoughts and of all of them together, or of the places before them."""
        at = [i for i, position in enumerate(hidden.positions) if is_thought(position) == thoughts]
        rows = torch.from_numpy(self.asked.rows)
        for layer in hidden.layers:
            states = hidden.hidden(layer, rows)[:, at].float().numpy()  # [n, positions, d]
            for i, place in enumerate(at):
                yield layer, hidden.positions[place], np.ascontiguousarray(states[:, i])
            if len(at) > 1:
                yield layer, "all", states.reshape(len(states), -1)

    def search(self, hidden: HiddenStates, bases: Mapping[str, Floats], labels: Ints | None = None) -> dict[str, Found]:
        """For each base, a pooled stack, the place and the reader whose pool with it does best on validation.

        Chosen by its pool and not by itself: a state that parses the question cleanly reads best alone and adds nothing.
        """
        labels = self.y if labels is None else labels
        found = {name: Found() for name in bases}
        ranked: list[tuple[float, str, str]] = []
        for layer, position, x in self._places(hidden, thoughts=True):
            readers = list(discriminants(x, labels, len(self.classes), self.train))
            losses = self._offer(readers, layer, position, bases, found)
            ranked.append((losses, layer, position))
        refined = {(layer, position) for _, layer, position in sorted(ranked)[:N_REFINED] if position != "all"}
        for layer, position, x in self._places(hidden, thoughts=True):
            if (layer, position) in refined:
                readers = list(linear_path(x, labels, len(self.classes), self.train))
                self._offer(readers, layer, position, bases, found)
        return found

    def _offer(
        self, readers: list[Floats], layer: str, position: str, bases: Mapping[str, Floats], found: dict[str, Found]
    ) -> float:
        """Keep a reader wherever it does better beside a base than what was found; the best loss beside the first base."""
        first = float("inf")
        for i, (name, base) in enumerate(bases.items()):
            loss, best = best_beside(base, readers, self.y, self.val)
            if loss < found[name].loss:
                found[name] = Found(loss, best, layer, position)
            first = loss if i == 0 else first
        return first

    def _before(self, hidden: HiddenStates, question: Floats) -> list[Floats]:
        """Readers of the states before the first thought: those at the best places, and one of these places together.

        All of them, and not the best alone: a thought that copies what stands there with noise of its own would otherwise
        count as holding more.
        """
        best: list[tuple[float, Floats, Floats]] = []
        for _, _, x in self._places(hidden, thoughts=False):
            best = sorted([*best, (*self._discriminant(x, question), x)], key=lambda each: each[0])[:N_BEFORE]
        if not best:
            return []
        together = np.concatenate([x for _, _, x in best], 1)
        return [*(reader for _, reader, _ in best), self._discriminant(together, question)[1]]

    def _discriminant(self, x: Floats, base: Floats) -> tuple[float, Floats]:
        """The linear discriminant of features [n, f] that does best beside a base, after its log-loss."""
        readers = list(discriminants(x, self.y, len(self.classes), self.train))
        return best_beside(base, readers, self.y, self.val)

    def rows(
        self,
        reader: str,
        subject: str,
        features: str,
        log_p: Floats,
        at: Found | None = None,
        targets: str = REAL,
        rung: str = "",
    ) -> pl.DataFrame:
        """One predictor's rows on the test problems."""
        y, test = self.y[self.test], self.test
        known = y >= 0
        of_true = log_p[test, np.maximum(y, 0)]
        # The true value is among them: a tie counts against the reader.
        n_as_high = (log_p[test] >= of_true[:, None]).sum(1)
        columns = {
            "reader": reader,
            "subject": subject,
            "features": features,
            "targets": targets,
            "rung": rung or (reader if reader in RUNGS else ""),
            "layer": at.layer if at else "",
            "position": at.position if at else "",
            "problem": [self.asked.problems[i].id for i in test],
            "structure": [self.asked.problems[i].structure for i in test],
            "fold": self.number,
            "value": [self.asked.values[i] for i in test],
            "known": known,
            "hit": known & (n_as_high == 1),
            "bits": pl.Series(np.where(known, of_true / np.log(2), np.nan)).fill_nan(None),
        }
        return pl.DataFrame(columns, schema_overrides=JUDGED).select(list(JUDGED))
