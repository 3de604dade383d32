"""Layouts of the decoders that are built like Llama, as data (language: ``layout``)."""

from zero_sizer.models.layouts.language import Block

ROTARY = "{C}RotaryEmbedding ~inv_freq=rotary:float32 ~original_inv_freq=rotary:float32\n"
QKVO = """
model.layers.{i}.self_attn.q_proj Linear weight=q,hidden bias=q?qkv_bias
model.layers.{i}.self_attn.k_proj Linear weight=kv,hidden bias=kv?qkv_bias
model.layers.{i}.self_attn.v_proj Linear weight=kv,hidden bias=kv?qkv_bias
model.layers.{i}.self_attn.o_proj Linear weight=hidden,q bias=hidden?o_bias
"""
QK_NORM = """
model.layers.{i}.self_attn.q_norm {C}RMSNorm weight=head_dim
model.layers.{i}.self_attn.k_norm {C}RMSNorm weight=head_dim
"""
MLP = """
model.layers.{i}.mlp.gate_proj Linear weight=ffn,hidden bias=ffn?mlp_bias ?!sparse
model.layers.{i}.mlp.up_proj Linear weight=ffn,hidden bias=ffn?mlp_bias ?!sparse
model.layers.{i}.mlp.down_proj Linear weight=hidden,ffn bias=hidden?mlp_bias ?!sparse
"""
EXPERTS = """
model.layers.{i}.mlp.experts {C}Experts gate_up_proj=experts,expert_2ffn,hidden \
down_proj=experts,hidden,expert_ffn ?sparse
"""
NORMS = """
model.layers.{i}.input_layernorm {C}RMSNorm weight=hidden
model.layers.{i}.post_attention_layernorm {C}RMSNorm weight=hidden
"""
LM_HEAD = "lm_head Linear weight=vocab,hidden ?!tie\n"
_END = "model.norm {C}RMSNorm weight=hidden\nmodel.rotary_emb " + ROTARY + LM_HEAD


def decoder(layer: str, *, embedding: str = "Embedding weight=vocab,hidden") -> tuple[Block, ...]:
    """Embedding, ``layer`` as often as there are layers, final norm, rotary buffers and head."""
    return (
        Block(lines="model.embed_tokens " + embedding),
        Block(lines=layer, count="layers"),
        Block(lines=_END),
    )


SCALED = "{C}TextScaledWordEmbedding weight=vocab,hidden ~embed_scale=-"
DENSE = decoder(QKVO + MLP + NORMS)

DEEPSEEK_LAYER = (
    """
model.layers.{i}.self_attn.q_proj Linear weight=q,hidden ?!q_lora
model.layers.{i}.self_attn.q_a_proj Linear weight=q_lora,hidden bias=q_lora?qkv_bias ?q_lora
model.layers.{i}.self_attn.q_a_layernorm {C}RMSNorm weight=q_lora ?q_lora
model.layers.{i}.self_attn.q_b_proj Linear weight=q,q_lora ?q_lora
model.layers.{i}.self_attn.kv_a_proj_with_mqa Linear weight=kv_a,hidden bias=kv_a?qkv_bias
model.layers.{i}.self_attn.kv_a_layernorm {C}RMSNorm weight=kv_lora
model.layers.{i}.self_attn.kv_b_proj Linear weight=kv_b,kv_lora
model.layers.{i}.self_attn.o_proj Linear weight=hidden,v bias=hidden?o_bias
"""
    + MLP
    + EXPERTS
    + """
model.layers.{i}.mlp.gate {C}TopkRouter weight=experts,hidden ~e_score_correction_bias=experts \
?sparse
model.layers.{i}.mlp.shared_experts.gate_proj Linear weight=shared_ffn,hidden ?sparse
model.layers.{i}.mlp.shared_experts.up_proj Linear weight=shared_ffn,hidden ?sparse
model.layers.{i}.mlp.shared_experts.down_proj Linear weight=hidden,shared_ffn ?sparse
"""
    + NORMS
)

GEMMA2_NORMS = """
model.layers.{i}.pre_feedforward_layernorm {C}RMSNorm weight=hidden
model.layers.{i}.post_feedforward_layernorm {C}RMSNorm weight=hidden
"""

PHI3_LAYER = (
    """
model.layers.{i}.self_attn.o_proj Linear weight=hidden,q
model.layers.{i}.self_attn.qkv_proj Linear weight=qkv,hidden
model.layers.{i}.mlp.gate_up_proj Linear weight=2ffn,hidden
model.layers.{i}.mlp.down_proj Linear weight=hidden,ffn
"""
    + NORMS
)
