"""What does rewriting find in real text, what does it save, does it change a value, and what does it cost?

GSM8K's answers (train and test) in the two safe modes beside the two legacy ones; English text, all of it; and as many random
hostile strings as asked for. Meaning is read by tests/arithmetic/meaning.py, which shares nothing with the rewriting. Speed is
processor time of one process, the best of several rounds, over the encoding of the same text by tiktoken; all of it measured here.

    python benchmarks/rewriting.py [--data ../shared/data] [--base ../shared/tokenizers/gpt2] [--rounds 3] [--hostile 20000]
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.arithmetic.meaning import same, values  # noqa: E402
from tests.arithmetic.test_rewrite import GAPS, PIECES  # noqa: E402
from workings.arithmetic.facts import GPT2_MUL, FactVocabulary  # noqa: E402
from workings.arithmetic.rewrite import MODES, expand, rewrite, rewrite_counted  # noqa: E402
from workings.text.tokenizer import Tokenizer  # noqa: E402

SAFE = ("strict", "weak")
FIVE = "MUL:1-9,ADD:0-9,SUB:0-9,DIV:1-9,SQUARE:1-12"


def gsm8k(data: Path) -> list[str]:
    files = [data / "gsm8k" / f"{split}.jsonl" for split in ("train", "test")]
    return [json.loads(line)["answer"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def english(data: Path) -> list[str]:
    with gzip.open(data / "english" / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def n_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    return sum(map(len, tokenizer.encode_batch(texts)))


def finds(texts: Sequence[str], base: str, facts: str) -> None:
    """One line a mode: facts, tokens saved, answers in which a value changed."""
    vocabulary = FactVocabulary.build(facts)
    digits, tokens = Tokenizer.build(base, "digits"), Tokenizer.build(base, "facts", facts=facts)
    before = n_tokens(digits, texts)
    print(f"\n{len(texts)} answers of GSM8K, {before} tokens, facts {facts}")
    print("mode           facts  answers touched  tokens saved      answers with a changed value")
    for mode in MODES:
        written = [rewrite(text, vocabulary, mode) for text in texts]
        facts_written = sum(rewrite_counted(text, vocabulary, mode)[1] for text in texts)
        touched = sum(a != b for a, b in zip(texts, written, strict=True))
        saved = before - n_tokens(tokens, written)
        changed = sum(values(a) != values(b) for a, b in zip(texts, written, strict=True) if a != b)
        if mode in SAFE:
            changed += sum(not same(a, b) for a, b in zip(texts, written, strict=True) if a != b)
        print(f"{mode:14} {facts_written:5}  {touched:15}  {saved:6} ({saved / before:6.2%})  {changed:6}")


def reasons(texts: Sequence[str]) -> None:
    """Why candidates were kept, in each mode."""
    counts = {mode: Counter[str]() for mode in MODES}
    for mode in MODES:
        for text in texts:
            counts[mode].update(each.reason or "rewritten" for each in rewrite(text, mode=mode, report=True)[1])
    total = sum(counts.values(), Counter[str]())
    print("\ncandidates in GSM8K's answers, 45 products" + "".join(f"{mode:>15}" for mode in MODES))
    for reason, _ in total.most_common():
        print(f"{reason:42}" + "".join(f"{counts[mode][reason]:15}" for mode in MODES))


def broken_laws(texts: Sequence[str], what: str) -> None:
    """Texts in which a value changed, rewriting twice was not rewriting once, or a round trip did not come back."""
    for vocabulary in (GPT2_MUL, FactVocabulary.build(FIVE)):
        for mode in SAFE:
            broken, n_facts = 0, 0
            for text in texts:
                written, n = rewrite_counted(text, vocabulary, mode)
                expanded = expand(written, vocabulary)
                keeps = rewrite(written, vocabulary, mode) == written == rewrite(expanded, vocabulary, mode)
                keeps &= (text == written or same(text, written)) and (written == expanded or same(written, expanded))
                broken, n_facts = broken + (not keeps), n_facts + n
            print(
                f"{what}: {len(texts)} texts, {len(vocabulary)} facts, {mode}: {n_facts} tokens, {broken} broke a law"
            )


def hostile(n: int) -> list[str]:
    draw = random.Random(n)
    return ["".join(draw.choice(PIECES) + draw.choice(GAPS) for _ in range(draw.randint(1, 8))) for _ in range(n)]


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of processor time, the least of several rounds."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def speed(texts: Sequence[str], what: str, base: str, rounds: int) -> None:
    digits = Tokenizer.build(base, "digits")
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    encoding = best(lambda: digits.encode_batch(texts), rounds)
    print(f"\n{what}: {megabytes:.1f} MB, encoding alone {megabytes / encoding:.1f} MB/s of processor time")
    for facts in ("MUL:1-9", FIVE):
        vocabulary = FactVocabulary.build(facts)
        for mode in SAFE:
            rewrite_counted("6*9=54", vocabulary, mode)  # compiles the grammar
            spent = best(lambda v=vocabulary, m=mode: [rewrite_counted(text, v, m) for text in texts], rounds)
            print(
                f"  {len(vocabulary):3} facts, {mode:6}  {megabytes / spent:6.1f} MB/s, {spent / encoding:5.1%} of encoding"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--base", default=str(REPOSITORY.parent / "shared" / "tokenizers" / "gpt2"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hostile", type=int, default=20_000)
    given = parser.parse_args()
    answers, documents = gsm8k(given.data), english(given.data)
    for facts in ("MUL:1-9", FIVE):
        finds(answers, given.base, facts)
    reasons(answers)
    print()
    broken_laws(answers, "GSM8K")
    broken_laws(documents, "English")
    broken_laws(hostile(given.hostile), "hostile strings")
    speed(documents, "English", given.base, given.rounds)
    speed(answers, "GSM8K's answers", given.base, given.rounds)


if __name__ == "__main__":
    main()
