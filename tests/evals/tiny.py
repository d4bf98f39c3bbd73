"""A language model of a thousand bytes of text, saved as Hugging Face saves one: random, noisy, and quick to judge."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<|endoftext|>"
TEXTS = [
    "Question: A man is sitting on a roof. he starts pulling up roofing on a roof.\nAnswer:",
    "User: How many are there in all?\nAssistant: The answer is 54.\n#### 54\n",
    *[f"#### {n}\n {n} = {n}. so $ {n},000 #### -{n}\n" for n in range(0, 400, 7)],
]


def save_tiny(folder: Path, context: int = 192, seed: int = 0) -> Path:
    """A GPT-2 of two layers with a byte-level BPE of 320 tokens, in which numbers and `#### ` abound."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[END], show_progress=False
    )
    rust.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token=END, bos_token=END, pad_token=END)
    end = tokenizer.eos_token_id
    shape = dict(vocab_size=len(tokenizer), n_positions=context, n_embd=32, n_layer=2, n_head=2)
    config = GPT2Config(**shape, bos_token_id=end, eos_token_id=end, pad_token_id=end)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():  # peaked, so that no two endings are as likely and greedy text moves about
            parameter.add_(0.25 * torch.randn(parameter.shape))
        numeric = [i for token, i in rust.get_vocab().items() if any(c in "0123456789#$" for c in token)]
        model.transformer.wte.weight[numeric] *= 1.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
