"""How many more tokens a second does our greedy generation write than `model.generate` of transformers?

Both have the same weights (a random GPT-2 of four layers, width 128, so that nothing but speed is compared), the same prompts in
the same batch (questions of our generator, as GSM8K is asked), the same number of new tokens, and decode what they wrote. The
tokenizer of each size is trained here, on the sources of Python's standard library. Both run in turn, several times; the ratio is
of the best times. The texts are compared first: a fast wrong answer is no answer.

    python benchmarks/generate.py [--vocab 2048 50304] [--batch 8 32] [--new 128] [--rounds 5]
"""

from __future__ import annotations

import argparse
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from workings.arithmetic.generator import PRESETS as PROBLEMS
from workings.arithmetic.generator import generate
from workings.models.configs import GPT2_SIZES
from workings.models.gpt2 import GPT2
from workings.models.language import GPT2LanguageModel
from workings.text.bpe import train_bpe
from workings.text.tokenizer import Tokenizer


def tokenizer_of(width: int) -> Tokenizer:
    """A byte-level BPE with facts and about so many ids."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py" if width < 10_000 else "**/*.py"))
    texts = (file.read_text(errors="replace") for file in sources if "site-packages" not in file.parts)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(train_bpe(texts, width - 47))
        return Tokenizer.build(folder, "facts")


def in_transformers(model: GPT2, eot: int) -> GPT2LMHeadModel:
    """The same weights in transformers' GPT-2, which stores a linear map as [in, out]."""
    own = model.config
    shape = {"vocab_size": own.vocab, "n_positions": own.block, "n_embd": own.d_model, "n_layer": own.n_layers}
    config = GPT2Config(**shape, n_head=own.n_heads, bos_token_id=eot, eos_token_id=eot, pad_token_id=eot)
    peer = GPT2LMHeadModel(config).eval()
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    peer.transformer.load_state_dict({k: v.T if k.endswith(linear) else v for k, v in model.state_dict().items()})
    return peer


def theirs(peer: GPT2LMHeadModel, tokenizer: Tokenizer, prompts: list[list[int]], new: int) -> list[str]:
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.eot] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    written = peer.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=new)[:, width:]
    return [tokenizer.decode(row) for row in written.tolist()]


def ours(language: GPT2LanguageModel, prompts: list[list[int]], new: int) -> list[str]:
    return [said.text for said in language.generate(prompts, new, batch_size=len(prompts))]


def compare(tokenizer: Tokenizer, batch: int, new: int, rounds: int) -> None:
    model = GPT2(replace(GPT2_SIZES["mini"], vocab=tokenizer.embedding_width)).init(0)
    torch.manual_seed(0)
    for parameter in model.parameters():  # so that no two tokens are nearly as likely, and texts can be compared
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    language = GPT2LanguageModel.of(model, tokenizer)
    assert language.predictable is not None
    model.wte.weight.data[~language.predictable] = (
        0.0  # rows of no token: ours cannot write them, transformers' shall not want to
    )
    peer = in_transformers(model, tokenizer.eot)
    questions = [problem.question for problem in generate(batch, PROBLEMS["varied"], seed=1)]
    prompts = [tokenizer.encode(tokenizer.prepare(f"User: {question}\nAssistant:")) for question in questions]
    seconds: dict[str, list[tuple[float, float]]] = {"theirs": [], "ours": []}
    for round_ in range(rounds + 1):  # the first is to get warm
        slow, spent = timed(lambda: theirs(peer, tokenizer, prompts, new))
        fast, spent_too = timed(lambda: ours(language, prompts, new))
        assert slow == fast, f"{sum(a != b for a, b in zip(slow, fast, strict=True))} of {batch} texts differ"
        if round_:
            seconds["theirs"].append(spent)
            seconds["ours"].append(spent_too)
    lengths = [len(prompt) for prompt in prompts]
    print(
        f"V = {model.config.vocab}, {batch} prompts of {min(lengths)} to {max(lengths)} tokens, {new} new; texts identical"
    )
    for at, clock in enumerate(("wall clock", "processor time")):
        best = {name: batch * new / min(both[at] for both in of) for name, of in seconds.items()}
        print(f"{clock}: transformers {best['theirs']:.0f} tokens/s, ours {best['ours']:.0f}")
        name = f"generate V={model.config.vocab} batch={batch}" + (" (processor time)" if at else "")
        print(f"RATIO {name}: {best['ours'] / best['theirs']:.2f} ({torch.get_num_threads()} threads)")


def timed(work: Callable[[], list[str]]) -> tuple[list[str], tuple[float, float]]:
    """What it gives, and the seconds by the wall clock and of the processor: the latter tell more on a busy machine."""
    wall, processor = time.perf_counter(), time.process_time()
    given = work()
    return given, (time.perf_counter() - wall, time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[2048, 50304])
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for tokenizer in map(tokenizer_of, given.vocab):
        for batch in given.batch:
            compare(tokenizer, batch, given.new, given.rounds)


if __name__ == "__main__":
    main()
