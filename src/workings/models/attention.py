"""The config of a base → which positions each of its blocks attends to, or a refusal: what the thinking engine reproduces.

The engine runs transformers' own blocks, but masks, cache and head are its own. A base whose config asks for something else there
would think in wrong states without a word, so a config is read against a list of what is known: fields that only the blocks read,
fields that the engine obeys, fields that change nothing in evaluation. Any other field that is set is refused by its name.

Shapes: n rows, q new positions, T positions in all, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, arange

from workings.errors import BadInput
from workings.models.anatomy import anatomy_of

FULL, SLIDING = "full_attention", "sliding_attention"
_BY_BLOCKS = {
    # sizes
    *(
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    ),
    *("head_dim", "n_embd", "n_inner", "n_layer", "n_head", "n_positions", "n_ctx", "max_position_embeddings"),
    # what a block computes
    *("hidden_act", "hidden_activation", "activation_function", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
    *("attention_bias", "mlp_bias", "clip_qkv", "query_pre_attn_scalar", "attention_multiplier", "residual_multiplier"),
    *("embedding_multiplier", "use_parallel_residual", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
    *("reorder_and_upcast_attn", "decoder_sparse_step", "moe_intermediate_size", "num_experts", "num_experts_per_tok"),
    *("num_local_experts", "norm_topk_prob", "mlp_only_layers", "no_rope_layers", "no_rope_layer_interval"),
    *("partial_rotary_factor", "rope_theta", "rope_scaling", "original_max_position_embeddings"),
}
_OBEYED = {
    *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "_sliding_window_pattern"),
    *("final_logit_softcapping", "attn_logit_softcapping", "logits_scaling", "tie_word_embeddings", "rope_parameters"),
}
_WITHOUT_EFFECT = {
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "classifier_dropout"),
    *("initializer_range", "use_cache", "pretraining_tp", "router_aux_loss_coef", "output_router_logits", "is_decoder"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "model_type", "architectures", "dtype", "transformers_version"),
    *(
        "_name_or_path",
        "id2label",
        "label2id",
        "problem_type",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
    ),
    *("chunk_size_feed_forward", "_attn_implementation"),
}
# Fields that other families read. One of them in a config whose own family does not know it was meant, and would be ignored.
_OF_OTHERS = {
    *("sliding_window", "layer_types", "attention_chunk_size", "attn_logit_softcapping", "final_logit_softcapping"),
    *("logits_scaling", "logit_scale", "use_bidirectional_attention", "is_causal", "alibi", "kv_sharing_modes"),
    *("attention_sinks", "position_embedding_type", "quantization_config"),
}
_ASKS_FOR_NOTHING = {
    "is_causal": (None, True),
    "position_embedding_type": (None, "absolute"),
}  # of others None and False
_ROPES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")


def refuse_unknown_options(config: Any) -> None:
    """Raise BadInput unless the thinking engine computes what transformers computes for a base with this config.

    Raises:
        BadInput: The family is not in the table of anatomies, or a field is set that the engine does not reproduce.
    """
    anatomy = anatomy_of(config)
    if anatomy.windows == "typed" and (unknown := {*config.layer_types} - {FULL, SLIDING}):
        _refuse(config, "layer_types", sorted(unknown)[0])
    for rope in _ropes(config):
        if rope.get("rope_type", "default") not in _ROPES:
            _refuse(config, "rope_type", rope["rope_type"])
    if config._attn_implementation not in (None, "sdpa", "eager"):
        _refuse(config, "attn_implementation", config._attn_implementation)
    declared = type(config)().to_dict()
    known = _BY_BLOCKS | _OBEYED | _WITHOUT_EFFECT
    for name, value in config.to_dict().items():
        changed = name not in known and value != declared.get(name)
        asks = changed if name in declared else name in _OF_OTHERS
        if asks and value not in _ASKS_FOR_NOTHING.get(name, (None, False)):
            _refuse(config, name, value)


def _refuse(config: Any, field: str, value: object) -> None:
    place = f"{config.name_or_path}/config.json" if config.name_or_path else "the base's config"
    raise BadInput(
        f"{place}: {field} is {repr(value)[:60]}, which the thinking engine does not reproduce for {config.model_type}. "
        "Its states would be wrong; take another base."
    )


def _ropes(config: Any) -> Iterator[Mapping[str, Any]]:
    """The settings of rotary positions: of the whole model, or of each type of layer."""
    settings = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in settings.values() if isinstance(value, Mapping)]
    yield from nested or [settings]


def context_of(config: Any) -> int:
    """How many positions the engine may use.

    Rotary frequencies of the kind "longrope" change for all positions beyond the original length, those in the cache included,
    so such a base is used up to that length.
    """
    limits = [
        rope["original_max_position_embeddings"] for rope in _ropes(config) if rope.get("rope_type") == "longrope"
    ]
    return min([config.max_position_embeddings, *limits])


def masks_of(config: Any, allowed: Tensor, mask: Callable[[Tensor], Tensor]) -> Tensor | dict[str, Tensor]:
    """What the backbone takes as its attention mask.

    Args:
        config: The base's.
        allowed: Bool [n, q, T], what each of the last q positions may attend to where there is no window.
        mask: Bool [n, q, T] → the mask that the attention kernel takes.

    Returns:
        One mask for all blocks, or one for each type of layer where the family has types.
    """
    windows = anatomy_of(config).windows
    if windows == "none":
        return mask(allowed)
    if windows == "all":
        return mask(_within(config.sliding_window, allowed))
    by_type = {FULL: allowed}
    if SLIDING in config.layer_types:
        by_type[SLIDING] = _within(config.sliding_window, allowed)
    return {name: mask(seen) for name, seen in by_type.items()}


def _within(window: int | None, allowed: Tensor) -> Tensor:
    """Only the last `window` positions, each one's own included."""
    q, length = allowed.shape[1:]
    if window is None or length <= window:
        return allowed
    at = arange(length, device=allowed.device)
    return allowed & (at > at[length - q :, None] - window)


def cache_name(module: Any) -> str:
    """What a model of transformers calls its cache, as an argument and in its output: `cache` since 5.24."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
