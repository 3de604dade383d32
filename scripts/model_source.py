"""The config.json of every bundled model, field by field, and the parameter count it is known for.

``source`` names the repository on the Hugging Face hub whose public config.json says these numbers.
Only fields that differ from the config class's defaults, or that decide a shape, are repeated here.
``params`` is the count published with that repository's weights (the safetensors metadata, tied
tensors once), or in its model card; None where none is published that counts the same class.
"""

from dataclasses import dataclass, field
from typing import Any

# The config fields that "auto", closed forms and layouts read; the rest is about generation.
_FIELDS = """
_remove_final_layer_norm activation_function add_cross_attention alibi attention_bias
attention_dropout attention_probs_dropout_prob attn_pdrop bias d_ff d_kv d_model
decoder_sparse_step do_layer_norm_before dropout dropout_rate embd_pdrop enable_bias
feed_forward_proj ffn_dim ffn_hidden_size first_k_dense_replace head_dim hidden_act
index_head_dim index_n_heads index_topk
attention_chunk_size hidden_activation hidden_dropout hidden_dropout_prob hidden_size
interleave_moe_layer_step intermediate_size intermediate_size_mlp is_decoder kv_lora_rank
linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads
linear_value_head_dim no_rope_layer_interval shared_expert_intermediate_size topk_method
use_qk_norm layer_norm_elementwise_affine max_position_embeddings mlp_bias mlp_only_layers
model_type moe_intermediate_size multi_query n_embd n_head n_inner n_layer n_positions
n_routed_experts n_shared_experts new_decoder_architecture num_attention_heads num_decoder_layers
num_experts num_experts_per_tok num_heads num_hidden_layers
num_key_value_heads num_kv_heads num_layers num_ln_in_parallel_attn num_local_experts
original_max_position_embeddings pad_token_id parallel_attn q_lora_rank qk_layernorm
qk_nope_head_dim qk_rope_head_dim query_pre_attn_scalar relative_attention_num_buckets
resid_pdrop sliding_window tie_word_embeddings type_vocab_size use_parallel_residual
use_sliding_window v_head_dim vocab_size word_embed_proj_dim
"""
CONFIG_FIELDS = frozenset(_FIELDS.split())


@dataclass(frozen=True, kw_only=True)
class Source:
    """One model to bundle: ``family`` is its ``model_type``, ``head`` the class that is trained.

    Of families that are laid out here the standard fields are kept; ``as_written`` keeps ``config``
    as it is.
    """

    family: str
    source: str
    head: str
    params: int | None
    as_written: bool = False
    config: dict[str, Any] = field(default_factory=dict)


def decoder(
    hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, **more: Any
) -> dict[str, Any]:
    """The config of a decoder like Llama, in bf16."""
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "dtype": "bfloat16",
        **more,
    }


def llama(source: str, params: int, **config: Any) -> Source:
    """A model of Llama's own class."""
    config.setdefault("rms_norm_eps", 1e-5)
    return Source(
        family="llama", source=source, head="LlamaForCausalLM", params=params, config=config
    )


def causal(family: str, head: str, source: str, params: int | None, **config: Any) -> Source:
    """A model of ``family`` trained by class ``head``."""
    return Source(family=family, source=source, head=head, params=params, config=config)


LLAMA_3: dict[str, Any] = {"max_position_embeddings": 8192}
