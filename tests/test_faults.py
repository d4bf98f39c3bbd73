"""What goes wrong at the command line ends in a message and an exit code, whatever it is: never in a traceback.

Each line of the table is a command that somebody may type by mistake, with the exit code that it must have: 2 for nonsense, 1 for a
failure that is nobody's mistake, 0 where it is no nonsense after all.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests.conftest import TOY_EXPERIMENT
from workings import judging
from workings.cli import main
from workings.cli.program import FAILURE, MISTAKE
from workings.errors import BadInput, Failed, ours
from workings.models import BUNDLED, resolve
from workings.reading.readings import READINGS

INVOCATIONS = r"""
# no verb, no option, no value
2 |
2 | --nonsense
2 | ''
2 | -
2 | nonsense
2 | codi
2 | codi nonsense
2 | ñandú
2 | {long}
2 | {longest}
0 | --version
0 | --help
2 | list --help-me
2 | list --json=3
2 | list --root
2 | demo --out
2 | demo extra
2 | show
2 | show a b
2 | compare
2 | report
2 | verify
2 | judge
2 | pull
2 | export
2 | eval
2 | import-gpt2
2 | corpus show
2 | lens fit
2 | lens score
2 | thoughts collect
2 | tokenizer build
2 | tokenizer show
2 | tokenizer train

# runs
2 | demo --out {file}
2 | demo --out {file}/below
2 | demo --out /proc/nowhere
2 | demo --out /dev/full
2 | demo --out {long}
2 | demo --out {longest}
2 | demo --out ''
0 | list --root {missing}
2 | list --root {file}
2 | list --root {long}
2 | list --root ''
2 | show {missing}
2 | show {file}
2 | show {folder}
2 | show {long}
2 | show {longest}
2 | show ''
2 | show -
2 | show ñandú
2 | show {broken_run}
2 | show {list_run}
2 | show {deep_run}
2 | show {binary_run}
2 | show /dev/null
2 | show x --root {file}
2 | compare {missing} {missing}
2 | compare {broken_run} {list_run}
2 | report {missing}
2 | report {folder}
2 | report bundled --out {file}
2 | report bundled --out {file}/below
2 | report bundled --out /proc/nowhere
2 | report bundled --out {long}
2 | verify {missing}
2 | verify {file}
2 | verify {folder}
2 | verify {long}
2 | verify {longest}
2 | verify /dev/zero
1 | verify {broken_run}
1 | verify {list_run}
1 | verify {deep_run}
2 | new ''
2 | new a/b/c
2 | new ñ-ñ --folder {file}
2 | new longer-chains --folder {file}/below
2 | new longer-chains --folder /proc/nowhere
2 | new {long}
2 | new {longest}
2 | new 3
2 | run {missing}
2 | run {missing}.py
2 | run {folder}
2 | run {long}.py
2 | run {longest}
2 | run ''
2 | run -
2 | run {binary}.py
2 | run {broken}.py
2 | run {toy} --out {file}
2 | run {toy} --out {file}/below
2 | run {toy} --out /proc/nowhere
2 | run {toy} --out {long}
2 | run {toy} --arm nonsense
2 | run {toy} --arm ''
2 | run {toy} --scale nonsense
2 | run {toy} --seeds 1.5
2 | run {toy} --seeds nan
2 | run {toy} --seeds 100000000000000000000
2 | run {toy} --jobs 0
2 | run {toy} --jobs -1
2 | run {toy} --jobs inf
2 | run {toy} --launcher nonsense
2 | run {toy} --launcher slurm
2 | run {toy} --launcher slurm --slurm timeout_min
2 | run {toy} --set ''
2 | run {toy} --set =
2 | run {toy} --set n
2 | run {toy} --set n=
2 | run {toy} --set n=2026-13-45
2 | run {toy} --set n={longest}
2 | run {toy} --set optim=3
2 | run {toy} --set optim.lr=inf optim.lr=.inf
2 | run {toy} --set optim.lr=.nan
2 | run {toy} --set 'n=[1'
2 | run {toy} --set 'n=!!python/object:os.system'
2 | run {toy} --set 'n=&a [*a]'
2 | run {toy} --n 100000000000000000000
2 | run {toy} --n 1e400
2 | run {toy} --n {digits}
2 | run {toy} --config {missing}
2 | run {toy} --config {folder}
2 | run {toy} --config {binary}
2 | run {toy} --config {empty}
2 | run {toy} --config {broken}
2 | run {toy} --config {deep}
2 | run {toy} --config /dev/null
2 | run {toy} --config {long}
2 | run {toy} --resume {missing}
2 | run {toy} --resume {broken_run}
2 | run {toy} --resume {longest}
2 | run {toy} --resume ''
0 | run {toy} --n 2 --n 3 --arm steady --quiet

# experiments: what is misspelt is found before anything is done
2 | run read-thoughts --scale smoke --model {missing}
2 | run read-thoughts --scale smoke --model ''
2 | run read-thoughts --scale smoke --model {longest}
2 | run read-thoughts --scale smoke --model a/b/c
2 | run read-thoughts --scale smoke --problems {missing}.jsonl
2 | run read-thoughts --scale smoke --layers nonsense
2 | run read-thoughts --scale smoke --limit 0
2 | run read-thoughts --scale smoke --limit -1
2 | run read-thoughts --scale smoke --max-failures 2
2 | run read-thoughts --scale smoke --device nonsense
2 | run read-thoughts --scale smoke --fractions 0.5 0.5
2 | run read-thoughts --scale smoke --fractions 0 0 0
2 | run read-thoughts --scale smoke --fractions nan nan nan
2 | run read-thoughts --scale smoke --set fit.max_epochs=-1
2 | run read-thoughts --scale smoke --set fit.lr=-1
2 | run example --arm recurrent --model {missing}
2 | run example --model {missing}
2 | run example --n-problems 0
2 | run example --n-steps 0
2 | run train-codi --scale smoke --base {missing}
2 | run train-codi --scale smoke --problems {missing}.jsonl
2 | run train-codi --scale smoke --set thinking.n_thoughts=-1
2 | run evaluate-model --model {missing}
2 | run pretrain-gpt2 --corpus {missing}
2 | run pretrain-gpt2 --scale smoke --start {missing}
2 | run pretrain-gpt2 --scale smoke --hellaswag {missing}.jsonl --corpus {missing}
2 | run fact-tokens --scale smoke --arm facts --hellaswag {missing}.jsonl
2 | run fact-tokens --scale smoke --arm facts --base {missing}
2 | run fact-tokens --scale smoke --arm facts --facts nonsense
2 | run fact-tokens --scale smoke --arm facts --fact-rate -0.1
2 | run fact-tokens --scale smoke --arm facts --set text.corpus={missing}
2 | run recurrence --n-train 0
2 | run recurrence --width 30 --scale smoke --arm recurrent

# thinking models
2 | codi train
2 | codi train --base {missing}
2 | codi train --base {file}
2 | codi train --base {binary}
2 | codi train --base '-'
2 | codi train --base embedded --problems {missing}.jsonl
2 | codi train --base embedded --limit 0
2 | codi train --base embedded --batch-size 0
2 | codi train --base embedded --seed nan
2 | codi train --base embedded --set training.epochs=-1
2 | codi train --base embedded --set training.learning_rate=inf
2 | codi train --base embedded --set training.learning_rate=.inf
2 | codi train --base embedded --device nonsense
2 | codi train --base embedded --out {file} --limit 40 --set n_validation=10
2 | codi import {missing} --base x --to y
2 | codi import {binary} --base x --to y
2 | codi import {empty_weights} --base x --to y
2 | codi import {binary_weights} --base x --to y
2 | codi import /dev/zero --base x --to y
2 | codi import {binary_weights} --base x --to y --lora-alpha 0
2 | codi import {binary_weights} --base x --to y --lora-alpha nan
2 | codi export {missing} --to y
2 | codi export {folder} --to y
2 | codi export {bundled} --to y
2 | codi answer
2 | codi answer ''
2 | codi answer q --model {missing}
2 | codi answer q --model {file}
2 | codi answer q --model {folder}
2 | codi answer q --model {empty_weights}
2 | codi answer q --model {binary_weights}
2 | codi answer q --model {broken_thinking}
2 | codi answer q --model {list_thinking}
2 | codi answer q --model {foreign_thinking}
2 | codi answer q --model {broken_tokenizer}
2 | codi answer q --model {broken_config}
2 | codi answer q --model /dev/null
2 | codi answer q --model {long}
2 | codi answer q --model {longest}
2 | codi answer q --model -
2 | codi answer q --model a/b/c
2 | codi answer q --model ä/ö
2 | codi answer q --model ..
2 | codi answer q --n-thoughts -1
2 | codi answer q --n-thoughts 100000000000000000000
2 | codi answer q --max-new-tokens 0
2 | codi answer q --max-new-tokens -5
2 | codi answer q --batch-size 0
2 | codi answer q --batch-size nan
2 | codi answer q --device nonsense
2 | codi answer q --device cuda:99
2 | codi answer q --precision fp16
2 | codi answer --problems {missing}
2 | codi answer --problems {missing}.jsonl
2 | codi answer --problems {folder}
2 | codi answer --problems {binary}
2 | codi answer --problems {empty}
2 | codi answer --problems {broken}
2 | codi answer --problems {deep}
2 | codi answer --problems /dev/zero
2 | codi answer --problems /dev/null
2 | codi answer --problems {long}
2 | codi answer --problems {longest}
2 | codi answer --problems -
2 | codi answer --problems generated:nonsense
2 | codi answer --problems generated --limit 0
2 | codi answer --problems generated --limit -1
2 | codi answer --problems generated --split nonsense --limit 5
0 | codi answer 'ñandú 你好' --quiet
0 | codi answer {longest} --quiet

# thoughts and lenses
2 | thoughts collect --problems generated --limit 4 --out {file}
2 | thoughts collect --problems generated --limit 4 --out {file}/below
2 | thoughts collect --problems generated --limit 4 --out /proc/nowhere
2 | thoughts collect --problems generated --limit 4 --out {long}
2 | thoughts collect --problems generated --limit 4 --out {folder}
2 | thoughts collect --problems generated --limit 4 --out ''
2 | thoughts collect --problems {missing}.jsonl --out y
2 | thoughts collect --problems {binary} --out y
2 | thoughts collect --problems {parquet} --out y
2 | thoughts collect --problems generated --limit 0 --out y
2 | thoughts collect --problems generated --limit 4 --n-thoughts -1 --out y
2 | thoughts collect --problems generated --limit 4 --batch-size 0 --out y
2 | thoughts collect --problems generated --limit 4 --dtype float16 --out y
2 | thoughts collect --problems generated --limit 4 --seed 100000000000000000000 --out y
2 | lens fit --thoughts {missing} --out y
2 | lens fit --thoughts {file} --out y
2 | lens fit --thoughts {folder} --out y
2 | lens fit --thoughts {broken_run} --out y
2 | lens fit --thoughts {longest} --out y
2 | lens fit --thoughts {store} --out {file}/below --set max_epochs=1
2 | lens fit --thoughts {store} --out y --set max_epochs=-1
2 | lens fit --thoughts {store} --out y --set max_epochs=0
2 | lens fit --thoughts {store} --out y --set lr=inf
2 | lens fit --thoughts {store} --out y --set lr=.nan
2 | lens fit --thoughts {store} --out y --set patience=-1
2 | lens fit --thoughts {store} --out y --target step99
2 | lens fit --thoughts {store} --out y --target nonsense
2 | lens fit --thoughts {store} --out y --target ''
2 | lens fit --thoughts {store} --out y --target step0
2 | lens fit --thoughts {store} --out y --target step-1
2 | lens fit --thoughts {store} --out y --target step{digits}
2 | lens score --thoughts {store} --lens {missing}
2 | lens score --thoughts {store} --lens {folder}
2 | lens score --thoughts {store} --lens {file}
2 | lens score --thoughts {store} --lens {broken_lens}
2 | lens score --thoughts {store} --lens {list_lens}
2 | lens score --thoughts {store} --lens {foreign_lens}
2 | lens fit --thoughts {store_of_another_table} --out y
2 | judge {store_of_another_table}
2 | judge {missing}
2 | judge {folder}
2 | judge {broken_run}
2 | judge {store} --target nonsense
2 | judge {store} --target step0
2 | judge {store} --target step1 step1
2 | judge {store} --target ''
2 | judge {store} --rung nonsense
2 | judge {store} --control {missing}
2 | judge {store} --out {file}/below

# published tables
2 | rejudge
2 | rejudge {missing}
2 | rejudge {folder}
2 | rejudge {binary}
2 | rejudge {empty}
2 | rejudge {broken}
2 | rejudge {deep_lines}
2 | rejudge {parquet}
2 | rejudge /dev/zero
2 | rejudge {longest}
2 | rejudge {text}
2 | rejudge {text} --n 0
2 | rejudge {text} --units -1
2 | rejudge {text} --which 0
2 | rejudge {text} --margin nan
2 | rejudge {text} --margin -0.1

# facts and tokenizers
0 | facts table --facts MUL:1-2
2 | facts table --facts nonsense
2 | facts table --facts ''
2 | facts table --facts MUL:9-1
2 | facts table --facts MUL:0-100000000000000000000
2 | facts table --facts MUL:1-9 --base-size -1
2 | facts table --facts MUL:1-9 --base-size 100000000000000000000
2 | facts rewrite {missing}
2 | facts rewrite {folder_of_nothing}
2 | facts rewrite {binary}
2 | facts rewrite {broken} --field text
2 | facts rewrite {deep_lines}
2 | facts rewrite {file} --out {file}/below
2 | facts rewrite {file} --out /proc/nowhere
1 | facts rewrite {file} --out /dev/full
2 | facts rewrite {file} --out {long}
2 | facts rewrite {file} --report /proc/nowhere --out y
2 | facts rewrite {file} --in-place --out y
2 | facts rewrite - --in-place
2 | facts rewrite /dev/zero
2 | facts rewrite {long}
2 | facts rewrite {longest}
2 | facts rewrite ''
2 | facts rewrite {file} --mode nonsense
2 | facts rewrite {file}.gz
2 | facts expand {missing}
2 | facts expand {binary}
2 | tokenizer build --base {missing} --out y
2 | tokenizer build --base {binary} --out y
2 | tokenizer build --base {empty} --out y
2 | tokenizer build --base {broken} --out y
2 | tokenizer build --base {deep} --out y
2 | tokenizer build --base {folder} --out y
2 | tokenizer build --base /dev/zero --out y
2 | tokenizer build --base {longest} --out y
2 | tokenizer build --base - --out y
2 | tokenizer build --base ñ --out y
2 | tokenizer build --base a/b/c --out y
2 | tokenizer build --base embedded --out {file}
2 | tokenizer build --base embedded --out {file}/below
2 | tokenizer build --base embedded --out /proc/nowhere
2 | tokenizer build --base embedded --out {folder}
2 | tokenizer build --base embedded --out ''
2 | tokenizer build --base embedded --vocabulary nonsense --out y
2 | tokenizer show text --tokenizer {missing}
2 | tokenizer show text --tokenizer {folder}
2 | tokenizer show text --tokenizer {binary}
2 | tokenizer show text --base {binary}
0 | tokenizer show 'ñandú 6*9=54'
2 | tokenizer train --out {file}/below --documents {text} --size 257
2 | tokenizer train --out y --documents {missing}
2 | tokenizer train --out y --documents {binary}
2 | tokenizer train --out y --size 0
2 | tokenizer train --out y --size -1
2 | tokenizer train --out y --size 100000000000000000000
2 | tokenizer train --out y --limit 0
2 | tokenizer train --out y --limit -1

# corpora
2 | corpus build
2 | corpus build --documents {missing} --out y
2 | corpus build --documents {binary} --out y
2 | corpus build --documents {empty} --out y
2 | corpus build --documents {folder_of_nothing} --out y
2 | corpus build --documents /dev/zero --out y
2 | corpus build --documents {longest} --out y
2 | corpus build --documents a/b/c --out y
2 | corpus build --documents '' --out y
2 | corpus build --processes 1 --documents {text} --out {file}
2 | corpus build --processes 1 --documents {text} --out {file}/below
2 | corpus build --processes 1 --documents {text} --out /proc/nowhere
2 | corpus build --processes 1 --documents {text} --out {folder}
2 | corpus build --processes 1 --documents {text} --out {long}
2 | corpus build --documents generated --out y
2 | corpus build --documents generated --bytes 0 --out y
2 | corpus build --documents generated --bytes -1 --out y
2 | corpus build --documents generated --bytes nan --out y
2 | corpus build --documents generated --bytes 1e999 --out y
2 | corpus build --documents generated --bytes 10k --weights 0 --out y
2 | corpus build --documents generated --bytes 10k --weights inf --out y
2 | corpus build --documents generated --bytes 10k --weights 1 2 --out y
2 | corpus build --documents generated --bytes 10k --processes -1 --out y
2 | corpus build --documents generated --bytes 10k --processes 0 --out y
2 | corpus build --documents generated --bytes 10k --fact-rate inf --out y
2 | corpus build --documents generated --bytes 10k --fact-rate -1 --out y
2 | corpus build --documents generated --bytes 10k --shard-tokens 0 --out y
2 | corpus build --documents generated --bytes 10k --shard-tokens 100000000000000000000 --out y
2 | corpus build --documents generated --bytes 10k --documents-limit -1 --out y
2 | corpus build --documents generated --bytes 10k --validation-fraction 2 --out y
2 | corpus build --documents generated --bytes 10k --shuffle-buffer 0 --out y
2 | corpus build --documents generated --bytes 10k --base {binary} --out y
2 | corpus build --documents generated --bytes 10k --config {missing} --out y
2 | corpus build --documents generated --bytes 10k --config {binary} --out y
2 | corpus build --documents generated --bytes 10k --set drills.problems=[4,0] --out y
2 | corpus show {missing}
2 | corpus show {file}
2 | corpus show {folder}
2 | corpus show {bare_corpus}
2 | corpus show {broken_run}
2 | corpus show {longest}

# language models
2 | pretrain
2 | pretrain --corpus {missing}
2 | pretrain --corpus {bare_corpus}
2 | pretrain --corpus embedded --preset nonsense
2 | pretrain --corpus embedded --steps 0
2 | pretrain --corpus embedded --steps -1
2 | pretrain --corpus embedded --tokens-per-step 0
2 | pretrain --corpus embedded --flops-per-second=0 --dry-run
2 | pretrain --corpus embedded --flops-per-second=-1 --dry-run
2 | pretrain --corpus embedded --flops-per-second=nan --dry-run
2 | pretrain --corpus embedded --processes=0 --dry-run
2 | pretrain --corpus embedded --processes=-1 --dry-run
2 | pretrain --corpus embedded --start {missing}
2 | pretrain --corpus embedded --track nonsense
2 | pretrain --corpus embedded --set training.shape.d_model=0
1 | pretrain --corpus embedded --set training.shape.d_model=1000000 training.shape.n_heads=1
2 | pretrain --corpus embedded --set training.shape.d_model=30
2 | pretrain --corpus embedded --set training.steps=6 training.warmup_steps=50
2 | eval nonsense
2 | eval probes
2 | eval probes --model {missing}
2 | eval probes --model {file}
2 | eval probes --model {folder}
2 | eval probes --model {binary}
2 | eval probes --model {longest}
2 | eval probes --model -
2 | eval probes --model a/b/c
2 | eval probes --model ä
2 | eval probes --model untrained --limit 0
2 | eval probes --model untrained --limit -1
2 | eval probes --model untrained --batch-size 0
2 | eval probes --model untrained --max-new-tokens 0
2 | eval probes --model untrained --out {file}
2 | eval probes --checkpoints {missing}
2 | eval probes --checkpoints {file}
2 | eval probes --data {missing} --model untrained
2 | eval gsm8k --data {missing}.jsonl --model untrained
2 | eval gsm8k --data {binary} --model untrained
2 | eval hellaswag --data {empty} --model untrained
2 | eval hellaswag --data {broken} --model untrained
2 | export {missing} --to y
2 | export {folder} --to y
2 | export {file} --to y
2 | export {longest} --to y
2 | import-gpt2 {missing} --to y
2 | import-gpt2 {binary} --to y
2 | import-gpt2 {empty} --to y
2 | import-gpt2 {broken} --to y
2 | import-gpt2 {folder} --to y
2 | import-gpt2 /dev/zero --to y
2 | import-gpt2 - --to y
2 | import-gpt2 ñ/ñ --to y
2 | import-gpt2 {longest} --to y
2 | import-gpt2 {binary} --to y --heads 0
2 | pull -  --to y
2 | pull a/b/c --to y
2 | pull ñ/ñ --to y
2 | pull '' --to y
2 | pull owner/name --to {file}
2 | pull {longest} --to y
"""


ENDINGS = {"deep_lines": "deep.jsonl", "text": "text.txt"}


def lines() -> list[tuple[int, str]]:
    told = (line.partition("|") for line in INVOCATIONS.splitlines() if line and not line.startswith("#"))
    return [(int(code), words.strip()) for code, _, words in told]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the names in braces stand for: files and folders with something wrong, each made once."""
    root = tmp_path_factory.mktemp("faults")
    contents: dict[str, bytes] = {
        "file": b"She pays 6 * 9 = 54.",
        "text": b"She pays 6 * 9 = 54.",
        "file.gz": b"\x1f\x8b\x08 no archive",
        "binary": bytes(range(256)) * 8,
        "binary.py": bytes(range(256)),
        "broken.py": b"def f(:",
        "empty": b"",
        "broken": b'{"question": ',
        "deep": b"[" * 2_000,
        "deep_lines": b"[" * 2_000,
    }
    found = {name: str(root / name) for name in ("missing", "folder", "folder_of_nothing", "bundled")}
    for name, content in contents.items():
        found[name] = str(root / ENDINGS.get(name, name))
        Path(found[name]).write_bytes(content)
    (root / "folder_of_nothing").mkdir()
    (root / "folder").mkdir()
    (root / "folder" / "note").write_text("here is something of mine")
    (root / "toy_question.py").write_text(TOY_EXPERIMENT)
    manifests = {
        "broken_run": b"{",
        "list_run": b"[1, 2]",
        "deep_run": b"[" * 2_000,
        "binary_run": bytes(range(128, 256)),
        "bare_corpus": b'{"format": 1}',
    }
    for name, content in manifests.items():
        (root / name).mkdir()
        (root / name / "manifest.json").write_bytes(content)
        found[name] = str(root / name)
    for name, content in {"empty_weights": b"", "binary_weights": bytes(range(256)) * 8}.items():
        (root / name).mkdir()
        (root / name / "model.safetensors").write_bytes(content)
        found[name] = str(root / name)
    pl.DataFrame({"nonsense": [1.5, None]}).write_parquet(root / "foreign.parquet")
    found |= {"toy": str(root / "toy_question.py"), "parquet": str(root / "foreign.parquet"), "long": "x" * 300}
    found |= {"longest": "x" * 5000, "digits": "9" * 5000, "bundled": str(resolve(next(iter(BUNDLED))))}
    found["store"] = str(root / "store")
    assert (
        main(["thoughts", "collect", "--problems", "generated", "--limit", "40", "--out", found["store"], "--quiet"])
        == 0
    )
    shutil.copytree(found["store"], root / "store_of_another_table")
    shutil.copy(found["parquet"], root / "store_of_another_table" / "problems.parquet")
    found["store_of_another_table"] = str(root / "store_of_another_table")
    contents = {"broken": b"{", "list": b"[1, 2]", "foreign": b'{"format": 1}'}
    for kind, content in contents.items():
        (root / f"{kind}_lens").mkdir()
        (root / f"{kind}_lens" / "lens.json").write_bytes(content)
        found[f"{kind}_lens"] = str(root / f"{kind}_lens")
    damaged = [(f"{kind}_thinking", "thinking.json", content) for kind, content in contents.items()]
    damaged += [("broken_tokenizer", "tokenizer.json", b"{"), ("broken_config", "config.json", b"{")]
    for name, file, content in damaged:
        shutil.copytree(found["bundled"], root / name)
        (root / name / file).write_bytes(content)
        found[name] = str(root / name)
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("code", "line"), lines(), ids=lambda value: str(value)[:80])
def test_a_mistake_is_a_message_and_an_exit_code(
    code: int, line: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format_map(places) if "{" in word else word for word in shlex.split(line)]
    before = set(Path(places["folder"]).iterdir())
    found = main(words)
    out, err = capsys.readouterr()
    assert (found, "Traceback" in err) == (code, False), err[-3000:]
    assert not code or out or err.startswith("workings: ") or "\nworkings: " in err
    assert max(map(len, err.splitlines()), default=0) < 1000
    assert list(Path().glob("runs/*/2*")) == [] or code != 2, "a run is left of a mistake"
    assert set(Path(places["folder"]).iterdir()) == before, "something was written among other things"


# ── public functions that are given something else ──────────────────────────────────────────────────────────────────

FOREIGN = pl.DataFrame({"a": [1]})
READ = pl.DataFrame({name: [0.0] for name in READINGS} | {"split": ["test"], "problem": ["p"]})
ASKED: dict[str, tuple[Callable[[], object], str]] = {
    "score": (lambda: judging.score(FOREIGN), "not a table of readings: it lacks the columns reader"),
    "score by": (lambda: judging.score(READ, by=["place"]), "lacks the columns place"),
    "score by a name": (lambda: judging.score(READ, by="place"), "lacks the columns place"),
    "skill": (lambda: judging.skill(FOREIGN), "not a table of readings"),
    "choose_layer": (lambda: judging.choose_layer(FOREIGN), "not a table of readings"),
    "at_one_layer": (lambda: judging.at_one_layer(FOREIGN), "not a table of readings"),
    "verdicts": (lambda: judging.verdicts({"step1": FOREIGN}), "not a table of judging.judged ('step1')"),
    "verdicts of seeds": (lambda: judging.verdicts({"step1": [FOREIGN]}), "not a table of judging.judged"),
    "verdicts beyond": (lambda: judging.verdicts({}, "everything"), "no rung 'everything' of question readers"),
    "used": (lambda: judging.used(FOREIGN, FOREIGN), "not outcomes of judging.swap_thoughts"),
    "accuracy": (lambda: judging.ablation.accuracy(FOREIGN), "not outcomes of judging.ablate"),
    "accuracy of seeds": (lambda: judging.ablation.accuracy_over_seeds([FOREIGN]), "not outcomes of judging.ablate"),
    "accuracy of none": (lambda: judging.ablation.accuracy_over_seeds([]), "no seed was given"),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_foreign_table_is_refused_in_our_own_words(name: str) -> None:
    act, words = ASKED[name]
    with pytest.raises(BadInput) as refused:
        act()
    assert words in str(refused.value)


def test_a_lens_without_its_thoughts_is_no_other_model() -> None:
    with pytest.raises(BadInput, match=r"others\['control'\] must be a pair: a lens of that model"):
        lens: Any = None
        judging.readings_beside_controls(lens, lens, lens, lens, others={"control": lens})


# ── what libraries and the system raise ──────────────────────────────────────────────────────────────────────────────


def a_file(content: bytes) -> Path:
    Path("file").write_bytes(content)
    return Path("file")


RAISED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "missing": (lambda: Path("nowhere/at/all").read_text(), BadInput, "nowhere/at/all: No such file or directory"),
    "too long": (lambda: Path("x" * 300).read_text(), BadInput, "File name too long"),
    "directory": (lambda: Path(".").read_text(), BadInput, ".: Is a directory"),
    "full disk": (lambda: Path("/dev/full").write_bytes(b"x"), Failed, "the disk is full"),
    "full disk, in Rust": (
        lambda: pl.DataFrame({"a": range(9)}).write_parquet("/dev/full"), Failed, "the disk is full"
    ),
    "memory, Arrow": (lambda: pa.allocate_buffer(1 << 60), Failed, "not enough memory (malloc of size"),
    "memory, numpy": (lambda: np.empty(1 << 50), Failed, "not enough memory (Unable to allocate"),
    "memory, torch": (lambda: torch.empty(1 << 60), Failed, "not enough memory ("),
    "memory, torch's sizes": (lambda: torch.empty(10**18, 10**18), Failed, "not enough memory"),
    "bytes": (lambda: a_file(b"\xff").read_text("utf-8"), BadInput, "text is not UTF-8"),
    "null": (lambda: Path("a\0b").read_text(), BadInput, "a path holds a null character"),
    "weights": (lambda: load_file(a_file(b"\x00" * 99)), BadInput, "a .safetensors file is damaged"),
    "weights in no file": (lambda: load_file("."), BadInput, "(os error 19)"),
    "pickle": (lambda: torch.load(a_file(b"xx")), BadInput, "a file of torch.save is damaged"),
    "tokenizer": (lambda: Tokenizer.from_file(str(a_file(b"{}"))), BadInput, "Model missing"),
    "no tokenizer": (lambda: Tokenizer.from_file("nowhere"), BadInput, "No such file or directory"),
    "Parquet, Arrow": (lambda: pq.read_table(a_file(b"no")), BadInput, "Arrow cannot use the data"),
    "Parquet, polars": (lambda: pl.read_parquet(a_file(b"no")), BadInput, "a table is damaged"),
    "foreign table": (lambda: pl.DataFrame({"a": [1]})["b"], BadInput, "a table is damaged or is not of the expected kind"),
    "YAML": (lambda: yaml.safe_load("a: ["), BadInput, "YAML is broken"),
    "hub": (lambda: validate_repo_id("a/b/c"), BadInput, "no repository of the hub can have this name"),
}  # fmt: skip


@pytest.mark.parametrize("name", RAISED)
def test_what_a_library_raises_becomes_a_message(name: str) -> None:
    act, kind, words = RAISED[name]
    with pytest.raises(Exception) as caught:
        act()
    caught.value.add_note("the run is here")
    found = ours(caught.value)
    assert type(found) is kind and words in str(found), repr(caught.value)
    assert "weights_only" not in str(found), "nobody is told to load without safeguards"
    assert found.__notes__ == ["the run is here"]


@pytest.mark.parametrize(
    "bug", [TypeError("f() takes 1"), KeyError("x"), ValueError("y"), AssertionError(), RuntimeError("z")]
)
def test_what_nobody_foresaw_stays_as_it_is(bug: Exception) -> None:
    assert ours(bug) is None


@pytest.mark.parametrize("error", [BadInput("a"), Failed("b")])
def test_our_own_errors_stay_what_they_are(error: Exception) -> None:
    assert ours(error) is error


def test_too_many_open_files_are_a_failure_that_says_what_to_raise(capsys: pytest.CaptureFixture[str]) -> None:
    file = a_file(b"6 * 9 = 54")
    assert main(["facts", "rewrite", str(file), "--out", "y"]) == 0
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert main(["run", "read-thoughts", "--scale", "smoke"]) == FAILURE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "too many files are open: raise the limit (ulimit -n" in capsys.readouterr().err


PROGRAM = [sys.executable, "-c", "import sys; from workings.cli import main; sys.exit(main(sys.argv[1:]))"]


def test_text_is_utf8_in_and_out_under_a_locale_that_has_only_ascii() -> None:
    only_ascii = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = "«ñ» 6*9=54 \N{GRINNING FACE}"
    done = subprocess.run(
        [*PROGRAM, "facts", "rewrite"], input=text.encode(), env=only_ascii, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, text.replace("6*9=54", "<MUL_6_9_54>").encode())
    assert b"rewritten 1" in done.stderr


def test_output_to_a_full_disk_is_one_line_and_a_failure() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "facts", "table"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == FAILURE
    assert done.stderr == b"workings: the disk is full: free some space, then resume or start again\n"


def test_a_device_is_written_into_and_stays_a_device() -> None:
    file = a_file(b"6 * 9 = 54")
    assert main(["facts", "rewrite", str(file), "--out", "/dev/null", "--quiet"]) == 0
    assert Path("/dev/null").is_char_device()


def test_a_mistake_of_the_users_own_file_is_said_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("x = 1\ndef f(:\n")
    assert main(["run", "mine.py"]) == MISTAKE
    assert capsys.readouterr().err.endswith("mine.py, line 2: invalid syntax\n")
