"""Bugs that were once possible without any test noticing: each is put into a copy of the source, and a test must fail.

`make mutants` runs them all. The list is checked against the source in every run of the tests, so that it cannot go stale.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """An edit of one file of `src/workings`, and the tests of which at least one must fail."""

    name: str
    file: str
    before: str
    after: str
    tests: str


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a changed file is used",
        "files.py",
        "    if found != digest:",
        "    if not found:",
        "tests/test_damage.py",
    ),
    Mutant(
        "a changed description is believed",
        "files.py",
        "seal is not None and seal != _seal_of(content)",
        "seal is not None and not _seal_of(content)",
        "tests/test_damage.py",
    ),
    Mutant(
        "swapped thoughts are the problem's own",
        "judging/ablation.py",
        "own[donor[m.rows], m.k - 1]",
        "own[m.rows, m.k - 1]",
        "tests/judging/test_ablation.py",
    ),
    Mutant(
        "a reading need beat only one of its rivals",
        "judging/verdict.py",
        "max(gain.p_nothing for gain in gains)",
        "min(gain.p_nothing for gain in gains)",
        "tests/judging/test_verdict.py::test_one_rival_that_does_as_well_is_enough_against_a_reading",
    ),
    Mutant(
        "a family of targets is not corrected",
        "judging/verdict.py",
        "holm(list(worst.values()))",
        "list(worst.values())",
        "tests/judging/test_verdict.py::test_a_family_is_corrected_by_holm",
    ),
    Mutant(
        "a no needs no room",
        "judging/verdict.py",
        "self.missed >= ROOM",
        "self.missed >= 0",
        "tests/judging/test_verdict.py::test_without_room_there_is_no_no",
    ),
    Mutant(
        "shuffled targets are the real ones",
        "judging/conditional.py",
        "labels[random.permutation(self.train)]",
        "labels[self.train]",
        "tests/judging/test_conditional.py::test_every_problem_is_tested_once_by_every_predictor",
    ),
    Mutant(
        "the bootstrap ignores clusters",
        "judging/statistics.py",
        "ProblemSums.of(values, np.arange(len(values)) if clusters is None else clusters)",
        "ProblemSums.of(values, np.arange(len(values)))",
        "tests/judging/test_statistics.py::test_sixteen_copies_of_a_pair_are_not_sixteen_pairs",
    ),
    Mutant(
        "the comparison of two arms ignores clusters",
        "judging/paired.py",
        "    if clusters is not None:\n",
        "    if clusters is ...:\n",
        "tests/judging/test_paired.py::test_copies_of_an_item_are_not_more_items",
    ),
    Mutant(
        "an interval says something else than its test",
        "judging/paired.py",
        "(self.p <= level) == (0.0 not in found)",
        "True",
        "tests/judging/test_paired.py::test_interval_p_and_words_never_disagree_about_right_and_wrong",
    ),
    Mutant(
        "a family's intervals are each by themselves",
        "judging/paired.py",
        "interval=one.interval_at(level))",
        "interval=one.interval)",
        "tests/judging/test_paired.py::test_interval_p_and_words_never_disagree_about_right_and_wrong",
    ),
    Mutant(
        "the place of a transplant is chosen on test",
        "judging/transplant.py",
        'places = _places(validation, sorted(set(test["n_steps"])))',
        'places = _places(test, sorted(set(test["n_steps"])))',
        "tests/judging/test_transplant.py::test_the_place_is_chosen_on_validation_alone",
    ),
    Mutant(
        "a transplant feeds the problem's own thought",
        "judging/transplant.py",
        "given_z[m.rows, m.k - 1]",
        "m.value",
        "tests/judging/test_transplant.py::test_what_is_fed_is_the_donors_and_later_thoughts_are_recomputed",
    ),
    Mutant(
        "the validation split is half of what was asked for",
        "reading/targets.py",
        "ends = [sum(fractions[: i + 1]) * n for i in range(len(SPLITS) - 1)]",
        "ends = [fractions[0] * n, (fractions[0] + fractions[1] / 2) * n]",
        "tests/reading/test_targets.py::test_splits_have_the_asked_for_sizes_whatever_the_order",
    ),
    Mutant(
        "the final norm is applied twice to a translated state that is past it",
        "reading/fit.py",
        "below = n_layers - lens.final_norm",
        "below = n_layers",
        "tests/reading/test_fit.py",
    ),
    Mutant(
        "a state that is asked for several tokens has the gradient of one",
        "reading/head.py",
        "n_asked if (n_asked != 1).any() else None",
        "None",
        "tests/reading/test_fit.py",
    ),
    Mutant(
        "the step of a lens fit grows with the number of layers",
        "reading/fit.py",
        "n = self._n(targets) * n_layers",
        "n = self._n(targets)",
        "tests/reading/test_fit.py",
    ),
    Mutant(
        "the mean over a question includes the opening token",
        "models/thinking.py",
        "own[:, -1] = False",
        "own[:, -1] = True",
        "tests/models/test_thinking.py",
    ),
    Mutant(
        "something is asked at the mean over the question",
        "reading/targets.py",
        "enumerate(positions) if position != QUESTION]",
        "enumerate(positions)]",
        "tests/reading/test_targets.py",
    ),
    Mutant(
        "a corpus holds out half of the documents that were asked for",
        "text/build.py",
        "np.uint64(self.config.validation_fraction * 2**64)",
        "np.uint64(self.config.validation_fraction * 2**63)",
        "tests/text/test_corpus.py::test_who_validates_is_the_fraction_asked_for_up_to_the_number_asked_for",
    ),
    Mutant(
        "a corpus keeps half as many validation documents as it may",
        "text/build.py",
        "len(seen) >= self.config.validation_documents:",
        "len(seen) >= self.config.validation_documents // 2:",
        "tests/text/test_corpus.py::test_who_validates_is_the_fraction_asked_for_up_to_the_number_asked_for",
    ),
    Mutant(
        "the gradient of the distance flows into the teacher",
        "training/objectives.py",
        "[h.detach() for h in teacher_H]",
        "list(teacher_H)",
        "tests/training/test_distillation.py::test_the_gradient_of_the_distance_is_that_of_a_constant_teacher",
    ),
    Mutant(
        "the teacher's answer sees the question under answer_sees: thoughts",
        "training/objectives.py",
        "allowed = allowed & ~(answering[:, :, None] & question[:, None, :])",
        "pass",
        "tests/training/test_distillation.py::test_the_teachers_answer_sees_the_question_only_where_the_students_does",
    ),
    Mutant(
        "CODI's micro-batches all weigh the same",
        "training/distillation.py",
        "shares = [len(some) * group.size / len(batch) for some in cut]",
        "shares = [1 / len(cut) for some in cut]",
        "tests/training/test_distillation.py::test_micro_batches_of_unequal_size_weigh_by_their_examples",
    ),
    Mutant(
        "the passes of a pretraining step all weigh the same",
        "training/pretraining.py",
        "size / sum(sizes))",
        "1 / len(sizes))",
        "tests/training/test_pretraining.py::test_passes_of_unequal_size_weigh_by_their_rows",
    ),
    Mutant(
        "HellaSwag's bytes are counted as characters",
        "evals/hellaswag.py",
        '"bytes": [len(ending.encode()) for ending in endings]',
        '"bytes": [len(ending) for ending in endings]',
        "tests/evals/test_hellaswag.py",
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_edit_of_a_mutant_fits_the_source(mutant: Mutant) -> None:
    source = (ROOT / "src" / "workings" / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.before) == 1 and mutant.before != mutant.after
    assert (ROOT / mutant.tests.partition("::")[0]).is_file()


@pytest.mark.slow
@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_killed(mutant: Mutant, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    mutated = tmp_path / "src" / "workings" / mutant.file
    source = mutated.read_text(encoding="utf-8")
    mutated.write_text(source.replace(mutant.before, mutant.after), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests.split()]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    # 1 is "some test failed"; anything else is a mistake in the list, such as a test that is not there
    assert ended.returncode == 1, f"{mutant.name} survived {mutant.tests}:\n{ended.stdout[-3000:]}"
