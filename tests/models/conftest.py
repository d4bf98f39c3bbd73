"""Small real models in memory: two blocks, width 16, of every family whose parts we know, with a word tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from workings.models.anatomy import ANATOMIES
from workings.models.codi import CODI, Projection
from workings.text.tokenizer import word_tokenizer

WORDS = [
    *map(str, range(30)),
    *["a", "b", "c", "has", "more", "pens", "how", "many", "now", "then", "The", "answer", "is"],
    *[".", "?", ":", "+", "-", "*", "/", "=", "<<", ">>"],
]
FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
ALL_FAMILIES = tuple(ANATOMIES)
OWN_SHAPE = {  # what a tiny model of the family needs beside the common shape, or is interesting with
    "qwen3_moe": {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "granite": {
        "logits_scaling": 4.0,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.5,
    },
    "gemma2": {"query_pre_attn_scalar": 4, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    "gemma3_text": {"query_pre_attn_scalar": 4},
}


def tiny_base(
    family: str,
    vocabulary: int,
    *,
    seed: int = 0,
    tied: bool = True,
    layers: int = 2,
    noise: float = 0.1,
    **options: object,
):
    """A causal language model of a family, random; `options` are fields of its config."""
    shape = dict(
        vocab_size=vocabulary, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=tied
    )
    if family == "gpt2":
        shape |= dict(n_embd=16, n_layer=layers, n_head=4, n_positions=96)
        shape |= dict(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    else:
        shape |= dict(hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=4)
        shape |= dict(num_key_value_heads=2, max_position_embeddings=96, head_dim=4)
    shape |= OWN_SHAPE.get(family, {}) | options
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    for parameter in model.parameters():  # well away from zero, so that a wrong mask or position shows
        parameter.data.add_(torch.randn_like(parameter) * noise)
    return model.eval()


RANK, ALPHA = 3, 7.0
TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


class Released:
    """A tiny CODI as the official code would have saved it: PEFT's wrapping, bf16 base, fp32 LoRA and projection."""

    def __init__(
        self,
        family: str,
        words,
        folder: Path,
        *,
        tied: bool = True,
        prefix: str = "codi",
        dtype=torch.bfloat16,
        rows: int | None = None,  # of the embedding; V + 3 as the official code makes them
        lora: dict[str, object] | None = None,  # fields of peft's config
    ):
        base = tiny_base(family, len(words), tied=tied)
        base.resize_token_embeddings(rows or len(words) + 3, mean_resizing=False)
        self.base_folder = folder / "base"
        original = tiny_base(family, len(words), tied=tied)
        original.save_pretrained(self.base_folder)
        words.save_pretrained(self.base_folder)
        fields = {"r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS[family], "lora_dropout": 0.0}
        config = LoraConfig(**(fields | {"fan_in_fan_out": family == "gpt2"} | (lora or {})))
        base = base.to(dtype).float()  # values that bf16 can hold
        self.model = get_peft_model(base, config).eval()
        self.prj = Projection(16, 24)
        for name, parameter in self.model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter) * 0.2
        state = {f"{prefix}.{k}": v for k, v in self.model.state_dict().items()}
        self.state = {k: (v if "lora_" in k else v.to(dtype)).clone() for k, v in state.items()}
        self.state |= {f"prj.{k}": v.clone() for k, v in self.prj.state_dict().items()}

    def write(self, file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".bin":
            torch.save(self.state, file)
        else:
            save_file(self.state, file)
        return file

    def states(self, ids: torch.Tensor, n_thoughts: int = 6) -> list[torch.Tensor]:
        """The states at bot, t1 … by the model the libraries built, with no cache: the whole sequence again at every step."""
        embeds = self.model.get_input_embeddings()(ids)
        seen = []
        for _ in range(n_thoughts + 1):
            last = self.model(inputs_embeds=embeds, output_hidden_states=True).hidden_states[-1][:, -1]
            seen.append(last)
            embeds = torch.cat([embeds, self.prj(last)[:, None]], 1)
        return seen


@pytest.fixture
def words():
    return word_tokenizer(WORDS)


@pytest.fixture
def thinker(words) -> Callable[..., CODI]:
    def make(family: str = "gpt2", *, tied: bool = True, base: dict[str, object] | None = None, **fields) -> CODI:
        inner = tiny_base(family, len(words), tied=tied, **(base or {}))
        model = CODI.wrap(inner, words, n_thoughts=fields.pop("n_thoughts", 4), **fields)
        return model.eval()

    return make


@pytest.fixture
def questions() -> list[str]:
    return [
        "a has 3 pens . how many now ?",
        "b has 12 pens . then 4 more . then 5 more . how many now ?",
        "c has 7 pens . then 1 more . how many pens now ?",
        "a has 29 pens . then 2 more . then 3 more . then 4 more . how many pens has a now ?",
    ]
