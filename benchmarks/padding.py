"""What the padding of a question attends to under an older transformers, and which `padding_sees` gives its states.

    pip install --no-deps --target OLDER transformers==4.52.4 tokenizers==0.21.1 huggingface-hub==0.32.4
    python benchmarks/padding.py OLDER

Tiny GPT-2 and Llama with the same weights compute the same eight questions, padded on the left, and six thoughts: under the
installed transformers by `official_compat`, and under the older one by its own calls. Printed is the largest difference of
any state. A GPU is not needed: the step that the older code takes on a GPU alone (its `_unmask_unattended`) is called by hand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

LENGTHS = (5, 9, 12, 3, 17, 4, 11, 17)
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": dict(n_embd=16, n_layer=2, n_head=4, n_positions=96, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0),
    "llama": dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=96, head_dim=4,
    ),
}  # fmt: skip
NO_SPECIAL_IDS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)


def base_model(family: str) -> Any:
    """Weights that do not depend on the version of transformers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=58, tie_word_embeddings=False, **NO_SPECIAL_IDS, **FAMILIES[family]
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    drawn = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        is_norm = "norm" in name or "ln_" in name
        parameter.data = torch.randn(parameter.shape, generator=drawn) * 0.2 + float(is_norm)
    return model.eval()


def questions() -> tuple[Tensor, Tensor]:
    """Ids and mask, Long [8, 17]."""
    mask = (torch.arange(max(LENGTHS)) >= max(LENGTHS) - torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(0, 50, mask.shape, generator=torch.Generator().manual_seed(2))
    return ids.masked_fill(mask == 0, 55), mask


@torch.no_grad()
def official(model: Any, mask: Tensor) -> Tensor:
    """States [8, 7, 3, 16] by the library's own calls; `mask` is of two dimensions, or the four that a version makes of it."""
    ids, _ = questions()
    out = model(input_ids=ids, attention_mask=mask, use_cache=True, output_hidden_states=True)
    states = [torch.stack([h[:, -1] for h in out.hidden_states], 1)]
    for _ in range(6):
        fed, past = torch.tanh(out.hidden_states[-1][:, -1:]), out.past_key_values
        out = model(inputs_embeds=fed, past_key_values=past, use_cache=True, output_hidden_states=True)
        states.append(torch.stack([h[:, -1] for h in out.hidden_states], 1))
    return torch.stack(states, 1)


def as_on_a_gpu(mask: Tensor) -> Tensor:
    """The mask that transformers before 4.53 makes on a GPU, by its own function."""
    from transformers.modeling_attn_mask_utils import AttentionMaskConverter

    least = torch.finfo(torch.float32).min
    allowed = torch.ones(len(mask[0]), len(mask[0])).tril().bool() & mask[:, None, None].bool()
    return AttentionMaskConverter._unmask_unattended(torch.zeros(allowed.shape).masked_fill(~allowed, least), least)


def compute_older(out: Path) -> None:
    """Run under the older transformers: its states as on a CPU and as on a GPU."""
    _, mask = questions()
    found = {}
    for family in FAMILIES:
        found[family, "CPU"] = official(base_model(family), mask)
        found[family, "GPU"] = official(base_model(family), as_on_a_gpu(mask))
    torch.save(found, out)


@torch.no_grad()
def ours(family: str, padding_sees: Any) -> Tensor:
    """The same states by `official_compat`."""
    from workings.models.causal import PaddedRows
    from workings.models.codi import CODI
    from workings.models.configs import CodiConfig

    ids, mask = questions()
    tokenizer = SimpleNamespace(eos_token_id=1)
    model = CODI(base_model(family), tokenizer, CodiConfig(vocabulary=55, projection=False))
    model.prj = torch.nn.Tanh()
    model.official_compat, model.padding_sees = True, padding_sees
    states = [model.begin(PaddedRows(ids, mask.bool()))]
    for _ in range(6):
        states.append(model.step(states[-1]))
    return torch.stack([state.hidden for state in states], 1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", type=Path, help="folder of an older transformers")
    parser.add_argument("--compute", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.compute:
        compute_older(given.compute)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "states.pt"
        words = [sys.executable, __file__, str(given.older), "--compute", str(out)]
        subprocess.run(words, env=os.environ | {"PYTHONPATH": str(given.older)}, check=True)
        older = torch.load(out, weights_only=True)
    _, mask = questions()
    print(f"{'family':8}{'padding_sees':14}{'installed':>12}{'older, CPU':>12}{'older, GPU':>12}")
    for family in FAMILIES:
        theirs = [official(base_model(family), mask), older[family, "CPU"], older[family, "GPU"]]
        for padding_sees in ("nothing", "everything"):
            states = ours(family, padding_sees)
            gaps = "".join(f"{(states - one).abs().max().item():12.1g}" for one in theirs)
            print(f"{family:8}{padding_sees:14}{gaps}")


if __name__ == "__main__":
    main()
