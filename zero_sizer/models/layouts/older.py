"""Layouts of the families with shapes of their own, as data (language: ``layout``)."""

from zero_sizer.models.layouts.language import Block
from zero_sizer.models.layouts.llama import LM_HEAD, ROTARY

PHI = (
    Block(lines="model.embed_tokens Embedding weight=vocab,hidden"),
    Block(
        count="layers",
        lines="""
model.layers.{i}.self_attn.q_proj Linear weight=q,hidden bias=q
model.layers.{i}.self_attn.k_proj Linear weight=kv,hidden bias=kv
model.layers.{i}.self_attn.v_proj Linear weight=kv,hidden bias=kv
model.layers.{i}.self_attn.dense Linear weight=hidden,q bias=hidden
model.layers.{i}.self_attn.q_layernorm LayerNorm weight=plain_head bias=plain_head ?qk_layernorm
model.layers.{i}.self_attn.k_layernorm LayerNorm weight=plain_head bias=plain_head ?qk_layernorm
model.layers.{i}.mlp.fc1 Linear weight=ffn,hidden bias=ffn
model.layers.{i}.mlp.fc2 Linear weight=hidden,ffn bias=hidden
model.layers.{i}.input_layernorm LayerNorm weight=hidden bias=hidden
""",
    ),
    Block(
        lines="model.rotary_emb "
        + ROTARY
        + "model.final_layernorm LayerNorm weight=hidden bias=hidden\n"
        + "lm_head Linear weight=vocab,hidden?!tie bias=vocab"
    ),
)

GPT2 = (
    Block(
        lines="""
transformer.wte Embedding weight=vocab,hidden
transformer.wpe Embedding weight=positions,hidden
"""
    ),
    Block(
        count="layers",
        lines="""
transformer.h.{i}.ln_1 LayerNorm weight=hidden bias=hidden
transformer.h.{i}.attn.c_attn Conv1D weight=hidden,3hidden bias=3hidden
transformer.h.{i}.attn.c_proj Conv1D weight=hidden,hidden bias=hidden
transformer.h.{i}.ln_2 LayerNorm weight=hidden bias=hidden
transformer.h.{i}.crossattention.c_attn Conv1D weight=hidden,2hidden bias=2hidden ?cross
transformer.h.{i}.crossattention.q_attn Conv1D weight=hidden,hidden bias=hidden ?cross
transformer.h.{i}.crossattention.c_proj Conv1D weight=hidden,hidden bias=hidden ?cross
transformer.h.{i}.ln_cross_attn LayerNorm weight=hidden bias=hidden ?cross
transformer.h.{i}.mlp.c_fc Conv1D weight=hidden,ffn bias=ffn
transformer.h.{i}.mlp.c_proj Conv1D weight=ffn,hidden bias=hidden
""",
    ),
    Block(lines="transformer.ln_f LayerNorm weight=hidden bias=hidden\n" + LM_HEAD),
)

BLOOM = (
    Block(
        lines="""
transformer.word_embeddings Embedding weight=vocab,hidden
transformer.word_embeddings_layernorm LayerNorm weight=hidden bias=hidden
"""
    ),
    Block(
        count="layers",
        lines="""
transformer.h.{i}.input_layernorm LayerNorm weight=hidden bias=hidden
transformer.h.{i}.self_attention.query_key_value Linear weight=3hidden,hidden bias=3hidden
transformer.h.{i}.self_attention.dense Linear weight=hidden,hidden bias=hidden
transformer.h.{i}.post_attention_layernorm LayerNorm weight=hidden bias=hidden
transformer.h.{i}.mlp.dense_h_to_4h Linear weight=ffn,hidden bias=ffn
transformer.h.{i}.mlp.dense_4h_to_h Linear weight=hidden,ffn bias=hidden
""",
    ),
    Block(lines="transformer.ln_f LayerNorm weight=hidden bias=hidden\n" + LM_HEAD),
)

FALCON = (
    Block(lines="transformer.word_embeddings Embedding weight=vocab,hidden"),
    Block(
        count="layers",
        lines="""
transformer.h.{i}.self_attention.query_key_value FalconLinear weight=qkv,hidden bias=qkv?bias
transformer.h.{i}.self_attention.dense FalconLinear weight=hidden,hidden bias=hidden?bias
transformer.h.{i}.mlp.dense_h_to_4h FalconLinear weight=ffn,hidden bias=ffn?bias
transformer.h.{i}.mlp.dense_4h_to_h FalconLinear weight=hidden,ffn bias=hidden?bias
transformer.h.{i}.post_attention_layernorm LayerNorm weight=hidden bias=hidden ?!parallel
transformer.h.{i}.input_layernorm LayerNorm weight=hidden bias=hidden ?!two_norms
transformer.h.{i}.ln_attn LayerNorm weight=hidden bias=hidden ?two_norms
transformer.h.{i}.ln_mlp LayerNorm weight=hidden bias=hidden ?two_norms
""",
    ),
    Block(
        lines="transformer.ln_f LayerNorm weight=hidden bias=hidden\ntransformer.rotary_emb "
        + ROTARY
        + LM_HEAD
    ),
)

GPT_NEOX = (
    Block(lines="gpt_neox.embed_in Embedding weight=vocab,hidden"),
    Block(
        count="layers",
        lines="""
gpt_neox.layers.{i}.input_layernorm LayerNorm weight=hidden bias=hidden
gpt_neox.layers.{i}.post_attention_layernorm LayerNorm weight=hidden bias=hidden
gpt_neox.layers.{i}.attention.query_key_value Linear weight=3hidden,hidden bias=3hidden?qkv_bias
gpt_neox.layers.{i}.attention.dense Linear weight=hidden,hidden bias=hidden?o_bias
gpt_neox.layers.{i}.mlp.dense_h_to_4h Linear weight=ffn,hidden bias=ffn
gpt_neox.layers.{i}.mlp.dense_4h_to_h Linear weight=hidden,ffn bias=hidden
""",
    ),
    Block(
        lines="gpt_neox.final_layer_norm LayerNorm weight=hidden bias=hidden\ngpt_neox.rotary_emb "
        + ROTARY
        + LM_HEAD
    ),
)

OPT = (
    Block(
        lines="""
model.decoder.embed_tokens Embedding weight=vocab,word
model.decoder.embed_positions OPTLearnedPositionalEmbedding weight=positions_2,hidden
model.decoder.project_out Linear weight=word,hidden ?projects
model.decoder.project_in Linear weight=hidden,word ?projects
model.decoder.final_layer_norm LayerNorm weight=hidden?affine bias=hidden?affine ?final_norm
"""
    ),
    Block(
        count="layers",
        lines="""
model.decoder.layers.{i}.self_attn.k_proj Linear weight=hidden,hidden bias=hidden?bias
model.decoder.layers.{i}.self_attn.v_proj Linear weight=hidden,hidden bias=hidden?bias
model.decoder.layers.{i}.self_attn.q_proj Linear weight=hidden,hidden bias=hidden?bias
model.decoder.layers.{i}.self_attn.out_proj Linear weight=hidden,hidden bias=hidden?bias
model.decoder.layers.{i}.self_attn_layer_norm LayerNorm weight=hidden?affine bias=hidden?affine
model.decoder.layers.{i}.fc1 Linear weight=ffn,hidden bias=ffn?bias
model.decoder.layers.{i}.fc2 Linear weight=hidden,ffn bias=hidden?bias
model.decoder.layers.{i}.final_layer_norm LayerNorm weight=hidden?affine bias=hidden?affine
""",
    ),
    Block(lines="lm_head Linear weight=vocab,word ?!tie"),
)

BERT = (
    Block(
        lines="""
bert.embeddings BertEmbeddings ~position_ids=1,positions:int64 ~token_type_ids=1,positions:int64
bert.embeddings.word_embeddings Embedding weight=vocab,hidden
bert.embeddings.position_embeddings Embedding weight=positions,hidden
bert.embeddings.token_type_embeddings Embedding weight=types,hidden
bert.embeddings.LayerNorm LayerNorm weight=hidden bias=hidden
"""
    ),
    Block(
        count="layers",
        lines="""
bert.encoder.layer.{i}.attention.self.query Linear weight=hidden,hidden bias=hidden
bert.encoder.layer.{i}.attention.self.key Linear weight=hidden,hidden bias=hidden
bert.encoder.layer.{i}.attention.self.value Linear weight=hidden,hidden bias=hidden
bert.encoder.layer.{i}.attention.output.dense Linear weight=hidden,hidden bias=hidden
bert.encoder.layer.{i}.attention.output.LayerNorm LayerNorm weight=hidden bias=hidden
bert.encoder.layer.{i}.intermediate.dense Linear weight=ffn,hidden bias=ffn
bert.encoder.layer.{i}.output.dense Linear weight=hidden,ffn bias=hidden
bert.encoder.layer.{i}.output.LayerNorm LayerNorm weight=hidden bias=hidden
""",
    ),
    Block(
        lines="""
bert.pooler.dense Linear weight=hidden,hidden bias=hidden ?pooler
cls.predictions BertLMPredictionHead bias=vocab
cls.predictions.transform.dense Linear weight=hidden,hidden bias=hidden
cls.predictions.transform.LayerNorm LayerNorm weight=hidden bias=hidden
cls.predictions.decoder Linear weight=vocab,hidden bias=vocab ?!tie
cls.seq_relationship Linear weight=2,hidden bias=2 ?next_sentence
"""
    ),
)


def _t5_stack(stack: str, count: str, *, cross: bool) -> tuple[Block, ...]:
    start, last = f"{stack}.block.{{i}}.layer", 2 if cross else 1
    attention = ["0.SelfAttention", *(["1.EncDecAttention"] if cross else [])]
    lines = []
    for part in attention:
        lines += [f"{start}.{part}.{p} Linear weight=inner,hidden" for p in "qkv"]
        lines.append(f"{start}.{part}.o Linear weight=hidden,inner")
        if part.startswith("0"):
            bias = "relative_attention_bias Embedding weight=buckets,heads ?first"
            lines.append(f"{start}.{part}.{bias}")
        lines.append(f"{start}.{part[0]}.layer_norm T5LayerNorm weight=hidden")
    ff = f"{start}.{last}.DenseReluDense"
    lines += [
        f"{ff}.wi Linear weight=ffn,hidden ?!gated",
        f"{ff}.wi_0 Linear weight=ffn,hidden ?gated",
        f"{ff}.wi_1 Linear weight=ffn,hidden ?gated",
        f"{ff}.wo Linear weight=hidden,ffn",
        f"{start}.{last}.layer_norm T5LayerNorm weight=hidden",
    ]
    return (
        Block(lines="\n".join(lines), count=count),
        Block(lines=f"{stack}.final_layer_norm T5LayerNorm weight=hidden"),
    )


T5 = (
    Block(lines="shared Embedding weight=vocab,hidden"),
    *_t5_stack("encoder", "layers", cross=False),
    *_t5_stack("decoder", "decoder_layers", cross=True),
)
