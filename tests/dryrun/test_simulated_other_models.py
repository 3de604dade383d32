"""Models that are no plain decoder: what check traces on the way, beside the simulated engine.

The whole table, at full width: ``benchmarks/other_models.py``.
"""

import json

import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.questions.profile import with_profile
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

CLIP = {"model_type": "clip_vision_model", "hidden_size": 128, "intermediate_size": 512}
CLIP |= {"num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 56, "patch_size": 14}
LLAMA = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "vocab_size": 4096}
LLAMA |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
QWEN = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 4096, "num_hidden_layers": 4}
QWEN |= {"num_attention_heads": 4, "num_key_value_heads": 2}
QWEN |= {"rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12]}}
SEEN = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
SEEN |= {"num_attention_heads": 4, "image_size": 56, "patch_size": 14}
EXPERTS = {"intermediate_size_mlp": 512, "num_local_experts": 4, "num_experts_per_tok": 1}
EXPERTS |= {"head_dim": 64, "interleave_moe_layer_step": 1, "pad_token_id": 0}
PROJECTOR = {"vision_output_dim": 128, "projector_input_dim": 128, "projector_output_dim": 128}
TOWER = {"depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4}
TOWER |= {"out_hidden_size": 256, "fullatt_block_indexes": [1, 3], "window_size": 56}
DEEP = {key: size for key, size in TOWER.items() if key[:4] not in ("full", "wind")}
DEEP |= {"deepstack_visual_indexes": [0, 2]}
MODELS = {
    "whisper": {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        **{"d_model": 128, "encoder_layers": 4, "decoder_layers": 4, "vocab_size": 4096},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "pad_token_id": 0},
        **{"encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "max_source_positions": 200},
        **{"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    },
    "vit": {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        **{"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4},
        **{"num_attention_heads": 4},
    },
    "llava": {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        **{"vision_config": CLIP, "text_config": LLAMA, "image_token_index": 4000},
        "vision_feature_layer": -2,
    },
    "qwen2.5-vl": {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **{"vision_config": TOWER, "text_config": QWEN, "image_token_id": 4000},
        **{"video_token_id": 4001, "vision_start_token_id": 4002, "vision_end_token_id": 4003},
    },
    "llama4": {
        "model_type": "llama4",
        "architectures": ["Llama4ForConditionalGeneration"],
        **{"vision_config": {**SEEN, **PROJECTOR, "intermediate_size": 512}},
        "image_token_index": 4000,
        "text_config": {**QWEN, **EXPERTS, "rope_parameters": {"rope_type": "default"}},
    },
    "mistral3": {
        "model_type": "mistral3",
        "architectures": ["Mistral3ForConditionalGeneration"],
        **{"vision_config": {**SEEN, "model_type": "pixtral", "head_dim": 32}},
        **{"text_config": {**LLAMA, "model_type": "mistral"}, "image_token_index": 4000},
    },
    "internvl": {
        "model_type": "internvl",
        "architectures": ["InternVLForConditionalGeneration"],
        "vision_config": {**SEEN, "model_type": "internvl_vision", "image_size": [56, 56]}
        | {"patch_size": [14, 14]},
        **{"text_config": {**LLAMA, "model_type": "qwen2"}, "image_token_id": 4000},
    },
    "qwen3-vl": {
        "model_type": "qwen3_vl",
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "vision_config": {**DEEP, "num_position_embeddings": 64},
        **{"text_config": {**QWEN, "model_type": "qwen3_vl_text", "head_dim": 64}},
        **{"image_token_id": 4000, "video_token_id": 4001},
        **{"vision_start_token_id": 4002, "vision_end_token_id": 4003},
    },
    "qwen3-next": {
        "model_type": "qwen3_next",
        "architectures": ["Qwen3NextForCausalLM"],
        **{"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 2048, "head_dim": 64},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512},
        **{"linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_num_key_heads": 4},
        **{"linear_num_value_heads": 8, "num_experts": 8, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 128, "shared_expert_intermediate_size": 128},
    },
    "t5": {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        **{"d_model": 128, "d_ff": 512, "d_kv": 32, "num_heads": 4, "num_layers": 4},
    },
    "unet": {
        "_class_name": "UNet2DConditionModel",
        **{"sample_size": 32, "block_out_channels": [64, 128], "layers_per_block": 1},
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        **{"cross_attention_dim": 128, "attention_head_dim": [4, 8], "norm_num_groups": 16},
    },
}
SAID = {"whisper": {"seq_len": 64}, "llava": {"seq_len": 128}, "t5": {"seq_len": 96}}
SAID |= {"llama4": {"seq_len": 128, "images": "1,size=112x112"}}  # four tiles and the whole
SAID |= {"internvl": {"seq_len": 128, "images": "2,size=112x56"}, "mistral3": {"seq_len": 96}}
SAID |= {"qwen3-next": {"seq_len": 192}}  # three chunks of its linear attention
SAID |= {"qwen2.5-vl": {"seq_len": 256, "images": "1,size=224x280"}}
# Text alone runs no block of a tower, and adds nothing between the first ones of the decoder.
LORA = {"adapter": "r=8,targets=q_proj+v_proj"}
SAID |= {"qwen3-vl": {"seq_len": 256, "images": "0", **LORA}}
SAID |= {"internvl with LoRA": {**SAID["internvl"], **LORA}}
# stage, samples, activation checkpointing, attention
RUNS = [(2, 8, False, "sdpa"), (3, 4, True, "sdpa")]
# One run each of those whose families are bundled: what they keep is compared in both ways, by
# test_fed_families and, of T5, tests/ledger/test_parity_answers.py.
IN_TURNS = ("whisper", "vit", "llava", "qwen2.5-vl", "t5", "qwen3-vl")
CASES = [
    (name, run)
    for place, run in enumerate(RUNS)
    for name in MODELS
    if name not in IN_TURNS or IN_TURNS.index(name) % 2 == place
]
CASES[CASES.index(("internvl", RUNS[1]))] = ("internvl with LoRA", RUNS[1])


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(model, run) -> the sizing, and the recording of the rank that it is about."""
    for package in ("transformers", "diffusers", "deepspeed"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("models")
    found, requests = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name, run in CASES:
            fields = MODELS[name.partition(" with")[0]]
            (folder / f"{name}.json").write_text(json.dumps(fields))
            job = job_of(str(folder / f"{name}.json"), SAID.get(name, {}), *run)
            sizing = with_profile(size(job), lambda line: None)
            found[name, run] = sizing
            requests.append(request_of(job, rank=sizing.plan.rank, steps=2))
    return dict(zip(found, zip(found.values(), run_requests(requests), strict=True), strict=True))


def job_of(model, said, stage, batch, checkpointing, attention):
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        # small buckets, so that activations count
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 100_000},
        "train_micro_batch_size_per_gpu": batch,
    }
    cluster = {
        "gpus_per_node": 4,
        "gpu": "a100-80gb",
        "checkpointing": checkpointing,
        "attention": attention,
    }
    return read(config, Flags(model=model, sequences="equal", **cluster, **said))


@pytest.mark.parametrize(("name", "run"), CASES, ids=str)
def test_the_peak_is_the_simulated_one(answers, name, run):
    sizing, recording = answers[name, run]
    codes = {finding.code for finding in sizing.findings}
    assert not codes & {"activations-in-closed-form", "inputs-not-modelled", "not-traced"}
    predicted = sizing.peaks[Device.GPU].num_bytes
    assert predicted == pytest.approx(recording.first.peak()["gpu"], rel=0.005)


def _first(answers, model):
    return next(found for (name, _), found in answers.items() if name == model)


def test_inputs_are_said_with_where_they_come_from(answers):
    sizing, _ = _first(answers, "vit")
    setting = sizing.settings["images"]
    assert (setting.value, setting.is_default) == ("1,size=224x224", True)
    note = next(f for f in sizing.findings if f.code == "assumed-images")
    assert "196 patches" in note.message
    assert "vit" in note.message
    sizing, _ = _first(answers, "qwen2.5-vl")
    assert sizing.settings["images"].origin == "--images"
    assert "assumed-images" not in {f.code for f in sizing.findings}
