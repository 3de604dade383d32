"""Layouts of decoders whose layers differ, or that add to Llama's (language: ``layout``)."""

from zero_sizer.models.layouts.language import Block
from zero_sizer.models.layouts.llama import (
    DEEPSEEK_LAYER,
    EXPERTS,
    GEMMA2_NORMS,
    LM_HEAD,
    MLP,
    NORMS,
    QK_NORM,
    QKVO,
    SCALED,
    decoder,
)

_CORRECTION = " ~e_score_correction_bias=experts"
_SHARED = """
model.layers.{i}.mlp.shared_experts.gate_proj Linear weight=shared_ffn,hidden bias=shared_ffn?mlp_bias ?sparse
model.layers.{i}.mlp.shared_experts.up_proj Linear weight=shared_ffn,hidden bias=shared_ffn?mlp_bias ?sparse
model.layers.{i}.mlp.shared_experts.down_proj Linear weight=hidden,shared_ffn bias=hidden?mlp_bias ?sparse
"""  # noqa: E501 (one line a module)
_ATTENTION_OF_V3, _, _ = DEEPSEEK_LAYER.partition(MLP)
_ROUTER = "model.layers.{i}.mlp.gate {C}TopkRouter weight=experts,hidden"

DEEPSEEK_V2 = decoder(_ATTENTION_OF_V3 + MLP + EXPERTS + _ROUTER + " ?sparse\n" + _SHARED + NORMS)
GLM4_MOE = decoder(
    QKVO
    + "".join(f"{line} ?qk_norm\n" for line in QK_NORM.split("\n") if line)
    + MLP
    + EXPERTS
    + _ROUTER
    + _CORRECTION
    + ":float32 ?sparse\n"
    + _SHARED
    + NORMS
)

GPT_OSS = decoder(
    "model.layers.{i}.self_attn {C}Attention sinks=heads"
    + QKVO
    + "model.layers.{i}.mlp.router {C}TopKRouter weight=experts,hidden bias=experts\n"
    "model.layers.{i}.mlp.experts {C}Experts gate_up_proj=experts,hidden,expert_2ffn "
    "gate_up_proj_bias=experts,expert_2ffn down_proj=experts,expert_ffn,hidden "
    "down_proj_bias=experts,hidden\n" + NORMS
)

_FREQUENCIES = "~{0}_inv_freq=rotary:float32?{0} ~{0}_original_inv_freq=rotary:float32?{0}"
_TWO_ROTATIONS = " ".join(map(_FREQUENCIES.format, ("full_attention", "sliding_attention")))
GEMMA3 = (
    Block(lines="model.embed_tokens " + SCALED),
    Block(lines=QKVO + QK_NORM + MLP + NORMS + GEMMA2_NORMS, count="layers"),
    Block(
        lines="model.norm {C}RMSNorm weight=hidden\n"
        f"model.rotary_emb {{C}}RotaryEmbedding {_TWO_ROTATIONS}\n{LM_HEAD}"
    ),
)

QWEN3_NEXT = decoder(
    """
model.layers.{i}.linear_attn {C}GatedDeltaNet dt_bias=linear_heads A_log=linear_heads ?linear
model.layers.{i}.linear_attn.conv1d Conv1d weight=conv,1,kernel ?linear
model.layers.{i}.linear_attn.in_proj_qkvz Linear weight=qkvz,hidden ?linear
model.layers.{i}.linear_attn.in_proj_ba Linear weight=ba,hidden ?linear
model.layers.{i}.linear_attn.norm {C}RMSNormGated weight=linear_value ?linear
model.layers.{i}.linear_attn.out_proj Linear weight=hidden,linear_out ?linear
model.layers.{i}.self_attn.q_proj Linear weight=2q,hidden bias=2q?qkv_bias ?!linear
model.layers.{i}.self_attn.k_proj Linear weight=kv,hidden bias=kv?qkv_bias ?!linear
model.layers.{i}.self_attn.v_proj Linear weight=kv,hidden bias=kv?qkv_bias ?!linear
model.layers.{i}.self_attn.o_proj Linear weight=hidden,q bias=hidden?o_bias ?!linear
model.layers.{i}.self_attn.q_norm {C}RMSNorm weight=head_dim ?!linear
model.layers.{i}.self_attn.k_norm {C}RMSNorm weight=head_dim ?!linear
"""
    + MLP
    + "model.layers.{i}.mlp.gate {C}TopKRouter weight=experts,hidden ?sparse"
    + EXPERTS
    + """
model.layers.{i}.mlp.shared_expert.gate_proj Linear weight=shared_ffn,hidden ?sparse
model.layers.{i}.mlp.shared_expert.up_proj Linear weight=shared_ffn,hidden ?sparse
model.layers.{i}.mlp.shared_expert.down_proj Linear weight=hidden,shared_ffn ?sparse
model.layers.{i}.mlp.shared_expert_gate Linear weight=1,hidden ?sparse
"""
    + NORMS
)

LLAMA4 = decoder(
    QKVO
    + """
model.layers.{i}.feed_forward.gate_proj Linear weight=ffn,hidden ?!sparse
model.layers.{i}.feed_forward.up_proj Linear weight=ffn,hidden ?!sparse
model.layers.{i}.feed_forward.down_proj Linear weight=hidden,ffn ?!sparse
model.layers.{i}.feed_forward.experts {C}Experts gate_up_proj=experts,hidden,expert_2ffn \
down_proj=experts,expert_ffn,hidden ?sparse
model.layers.{i}.feed_forward.router Llama4Router weight=experts,hidden ?sparse
model.layers.{i}.feed_forward.shared_expert.gate_proj Linear weight=expert_ffn,hidden ?sparse
model.layers.{i}.feed_forward.shared_expert.up_proj Linear weight=expert_ffn,hidden ?sparse
model.layers.{i}.feed_forward.shared_expert.down_proj Linear weight=hidden,expert_ffn ?sparse
"""
    + NORMS
)
