"""Models that see, in files of LLaMA-Factory and ms-swift: what is frozen, how large images are."""

from pathlib import Path

import pytest

from zero_sizer import sizing
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Direction
from zero_sizer.job import read as job
from zero_sizer.job.fields import Flags
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.feeds import feed_of

OTHERS = Path(__file__).parents[2] / "deepspeed_configs" / "others"
QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"
LANGUAGE = 7_615_616_512
"""Parameters of Qwen2.5-7B (its model card: 7.61 B), which the 7B that sees has as its own."""
PATCHES = 5120  # merged by four, of 1280 each
MERGER = 1280 + PATCHES * PATCHES + PATCHES + PATCHES * 3584 + 3584
FACTORY = (
    f"model_name_or_path: {QWEN}\ntemplate: qwen2_vl\ncutoff_len: 4096\n"
    f"deepspeed: {OTHERS / 'zero3_auto.json'}\nfinetuning_type: "
)
SWIFT = f"model: {QWEN}\nmax_length: 4096\ndeepspeed: zero3\ntuner_type: "


def read(tmp_path, text, **flags):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return job.read(str(path), Flags(gpu="h100-80gb", gpus_per_node=8, **flags))


@pytest.mark.parametrize(
    ("text", "trained"),
    [
        (FACTORY + "full", LANGUAGE),
        (FACTORY + "full\nfreeze_multi_modal_projector: false", LANGUAGE + MERGER),
        (FACTORY + "full\nfreeze_vision_tower: false\nfreeze_multi_modal_projector: false", None),
        (SWIFT + "full", LANGUAGE),
        # ms-swift's tower holds the projector, which it takes out again
        (SWIFT + "full\nfreeze_aligner: false", LANGUAGE + MERGER),
        (SWIFT + "full\nfreeze_vit: false\nfreeze_aligner: false", None),
        (SWIFT + "full\nfreeze_llm: true\nfreeze_aligner: false", MERGER),
        (SWIFT + "full\nfreeze_parameters: [model.language_model, lm_head]\nfreeze_aligner: false",
         MERGER),
    ],
)  # fmt: skip
def test_full_tuning_leaves_out_what_the_switches_freeze(tmp_path, text, trained):
    model = read(tmp_path, text).model
    assert model.num_trainable == (trained or model.num_params)


def test_a_tool_freezes_nothing_of_a_model_that_only_reads(tmp_path):
    for text in (FACTORY, SWIFT):
        found = read(tmp_path, text.replace(QWEN, "Qwen/Qwen2.5-7B") + "full")
        assert found.model.num_trainable == LANGUAGE
        assert found.model.freeze is None


@pytest.mark.parametrize("text", [FACTORY, SWIFT])
def test_adapters_on_the_language_model_alone(tmp_path, text):
    """As many as Qwen2.5-7B has, whose layers these are."""
    seeing, reading = (
        read(tmp_path, text.replace(QWEN, name) + "lora").model
        for name in (QWEN, "Qwen/Qwen2.5-7B")
    )
    assert seeing.num_trainable == reading.num_trainable > 0
    every = "freeze_vision_tower: false" if text == FACTORY else "freeze_vit: false"
    assert read(tmp_path, f"{text}lora\n{every}").model.num_trainable > seeing.num_trainable


def test_modules_that_swift_is_given_by_name_are_adapted_everywhere(tmp_path):
    named = read(tmp_path, SWIFT + "lora\ntarget_modules: [gate_proj]").model
    language = read(tmp_path, SWIFT.replace(QWEN, "Qwen/Qwen2.5-7B") + "lora\ntarget_modules: "
                    "[gate_proj]").model  # fmt: skip
    assert named.num_trainable > language.num_trainable


def test_frozen_layers_and_a_frozen_tower(tmp_path):
    text = FACTORY + "freeze\nfreeze_trainable_layers: 28"
    layers = LANGUAGE - 2 * 152_064 * 3584 - 3584  # without embeddings, head and last norm
    assert read(tmp_path, text).model.num_trainable == layers
    more = read(tmp_path, text + "\nfreeze_multi_modal_projector: false").model
    assert more.num_trainable == layers + MERGER


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FACTORY + "full", "freeze_vision_tower (default of LLaMA-Factory (August 2026))"),
        (FACTORY + "full\nfreeze_vision_tower: true", "freeze_vision_tower ({}:6)"),
        (FACTORY + "lora", "freeze_vision_tower (default of LLaMA-Factory (August 2026))"),
        (SWIFT + "full\nfreeze_vit: true", "freeze_vit ({}:5)"),
        (SWIFT + "lora", "freeze_aligner (default of ms-swift (August 2026))"),
    ],
)
def test_what_is_frozen_is_said_with_its_line_or_as_a_default(tmp_path, text, words):
    findings = sizing.size(read(tmp_path, text)).findings
    (note,) = [f for f in findings if f.code == "frozen-by-tool"]
    assert words.format(tmp_path / "job.yaml") in note.message


@pytest.mark.parametrize(
    ("text", "sides", "origin"),
    [
        (FACTORY + "full", (560, 1092), "default of LLaMA-Factory (August 2026)"),
        (FACTORY + "full\nimage_max_pixels: 262144\nimage_min_pixels: 1024", (448, 616), "{}:6"),
        (
            SWIFT + "full",
            (1036, 1036),
            None,
        ),  # qwen_vl_utils' bound of 12.8 million is beyond a photograph
        (SWIFT + "full\nmax_pixels: 602112", (672, 896), "{}:5"),
        (SWIFT + "full\nmax_pixels: 768*28*28", (672, 896), "{}:5"),
        (SWIFT + "full\nmax_pixels: 12845056", (1036, 1036), "{}:5"),
    ],
)
def test_images_are_as_large_as_the_bound_lets_them_be(tmp_path, text, sides, origin):
    found = read(tmp_path, text)
    feed = feed_of(found.model, found.workload.said)
    assert feed.brief == "1 image of {} x {}".format(*sides)
    assert found.workload.origins.get("max_pixels") == (
        origin and origin.format(tmp_path / "job.yaml")
    )


def test_a_bound_comes_from_the_environment_with_its_line():
    path = OTHERS / "swift_vl.sh"
    found = job.read(str(path), Flags(gpu="h100-80gb"))
    assert found.workload.max_pixels == 1_003_520
    assert found.workload.origins["max_pixels"] == f"{path}:4"
    assert found.model.adapter.exclude_modules == r"(model\.visual|model\.visual\.merger)(\..*)?"


def test_variables_of_ms_swifts_users_bound_images_in_tokens(tmp_path):
    """A public script of Qwen3-VL: tokens of 32 x 32 pixels; bounds on videos are told."""
    path = tmp_path / "train.sh"
    path.write_text(
        "NPROC_PER_NODE=8 \\\nVIDEO_MAX_PIXELS=157456 \\\nVIDEO_MAX_TOKEN_NUM=768 \\\n"
        "IMAGE_MAX_TOKEN_NUM=512 MAX_PIXELS=1003520 \\\nFPS_MAX_FRAMES=64 \\\n"
        "swift sft --model Qwen/Qwen3-VL-4B-Instruct --tuner_type lora --deepspeed zero2\n"
    )
    found = job.read(str(path), Flags(gpu="h100-80gb"))
    assert found.workload.max_pixels == 512 * 32 * 32
    assert found.workload.origins["max_pixels"] == f"{path}:4"
    assert {f.key for f in found.findings if f.code == "tool-option-of-data"} == {
        *("VIDEO_MAX_PIXELS", "VIDEO_MAX_TOKEN_NUM", "FPS_MAX_FRAMES")
    }


def test_a_bound_on_videos_decides_nothing_and_images_do(tmp_path):
    text = FACTORY.replace(QWEN, "llava-hf/llava-1.5-7b-hf") + (
        "full\nvideo_max_pixels: 16384\nbf16: true\nper_device_train_batch_size: 1"
    )
    sizes = sizing.size(read(tmp_path, text))
    (note,) = [f for f in sizes.findings if f.code == "tool-option-of-data"]
    assert note.direction is None
    assert sizes.verdict is Verdict.UNCERTAIN
    sure = sizing.size(read(tmp_path, text, images="1", host_memory="2TiB"))
    assert sure.verdict is Verdict.FITS


def test_a_bound_on_images_of_one_size_says_that_it_changes_nothing(tmp_path):
    text = FACTORY.replace(QWEN, "llava-hf/llava-1.5-7b-hf") + "full\nimage_max_pixels: 262144"
    (note,) = [f for f in sizing.size(read(tmp_path, text)).findings if f.code == "input-not-taken"]
    assert note.direction is not Direction.COST
    assert "336 x 336" in note.message


def test_axolotl_freezes_what_sees(tmp_path):
    text = (
        f"base_model: {QWEN}\nsequence_len: 4096\nfreeze_mm_modules: true\n"
        "deepspeed: deepspeed_configs/zero3_bf16.json\n"
    )
    found = read(tmp_path, text)
    assert found.model.num_trainable == LANGUAGE
    adapted, of_text = (
        read(tmp_path, given + "adapter: lora\nlora_r: 8\nlora_target_linear: true").model
        for given in (text, text.replace(QWEN, "Qwen/Qwen2.5-7B"))
    )
    assert adapted.num_trainable == of_text.num_trainable


@pytest.mark.parametrize(
    ("text", "file", "stage"),
    [
        (FACTORY, "examples/deepspeed/ds_z3_offload_config.json", 3),
        (FACTORY, "LlamaFactory/examples/deepspeed/ds_z2_config.json", 2),
        ("base_model: llama-3-8b\nx: ", "deepspeed_configs/zero1.json", 1),
    ],
)
def test_a_config_that_comes_with_the_tool_is_known_where_it_is_not_there(
    tmp_path, text, file, stage
):
    lines = [line for line in text.splitlines() if not line.startswith("deepspeed")]
    found = read(tmp_path, "\n".join([*lines[:-1], f"deepspeed: {file}", lines[-1] + "full"]))
    assert found.document.values["zero_optimization"]["stage"] == stage
    (note,) = [f for f in found.findings if f.code == "file-of-tool"]
    assert file in note.message


def test_an_older_ms_swift_is_refused_by_name(tmp_path):
    with pytest.raises(UnsupportedError, match="ms-swift 2"):
        read(tmp_path, "model: llama-3-8b\nsft_type: full\nlora_rank: 8\ndeepspeed: default-zero2")


def test_a_path_in_the_hubs_cache_names_its_model(tmp_path):
    path = "/data/hub/models--Qwen--Qwen2.5-7B/snapshots/5d8e171e"
    with pytest.raises(InputError) as error:
        read(tmp_path, FACTORY.replace(QWEN, path) + "full")
    assert error.value.remedy == "if that is qwen2.5-7b, say --model qwen2.5-7b"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("quantization_type: nf4\ndouble_quantization: true", 0),
        ("double_quantization: true\nquantization_bit: 4", None),
        ("double_quantization: false", None),
    ],
)
def test_words_of_bitsandbytes_without_its_bits_pack_nothing(tmp_path, more, line):
    """src/llamafactory/model/model_utils/quantization.py:177 asks for quantization_bit alone."""
    text = f"{FACTORY}lora\n"
    found = read(tmp_path, text + more)
    told = [finding for finding in found.findings if finding.code == "not-quantized"]
    assert [finding.line for finding in told] == (
        [] if line is None else [len(text.splitlines()) + 1]
    )
    assert (found.model.quantization is None) == ("_bit" not in more)


def test_a_variable_that_nobody_reads_is_told(tmp_path):
    """modelscope/ms-swift issue 3399: images of any size, and out of memory."""
    path = tmp_path / "train.sh"
    line = f"swift sft --model {QWEN} --tuner_type full --deepspeed zero2 --max_length 4096\n"
    path.write_text(f"NPROC_PER_NODE=2 \\\nMAX_PIXEL=191296 \\\nMIN_PIXELS=3136 \\\n{line}")
    found = job.read(str(path), Flags(gpu="a100-80gb"))
    told = [finding for finding in found.findings if finding.code == "unknown-variable"]
    assert [(of.key, of.line, of.remedy) for of in told] == [
        ("MAX_PIXEL", 2, "did you mean MAX_PIXELS?")
    ]


def test_a_launcher_inside_a_container_is_read_with_its_variables(tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(
        "#!/bin/bash\n#SBATCH --nodes=1\n"
        "timeout --signal=TERM 2400 apptainer exec --nv --bind /data:/data \\\n"
        "    --env HF_HUB_OFFLINE=1 --env MAX_PIXELS=262144 image.sif \\\n"
        "    /opt/bin/torchrun --standalone --nnodes=1 --nproc_per_node=4 /opt/bin/swift sft \\\n"
        f"    --model {QWEN} --tuner_type full --deepspeed zero3 --max_length 4096\n"
    )
    found = job.read(str(path), Flags(gpu="h100-80gb"))
    assert (found.cluster.nodes, found.cluster.gpus_per_node) == (1, 4)
    assert found.workload.max_pixels == 262_144
    assert found.workload.origins["max_pixels"] == f"{path}:4"
    assert found.model.num_trainable == LANGUAGE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # cut to 886 x 665, which is nearer to 32 x 24 patches than to 31 x 23
        (FACTORY + "full\nimage_max_pixels: 589824", "1 image of 672 x 896, 768 of the tokens"),
        (SWIFT + "full\nmax_pixels: 589824", "1 image of 644 x 868, 713 of the tokens"),
        (SWIFT + "full\nMIN_PIXELS: 15680000", "1 image of 3444 x 4592, 20,172 of the tokens"),
    ],
)
def test_images_are_scaled_by_whom_the_tool_lets_scale(tmp_path, text, words):
    found = read(tmp_path, text, images="1,size=3000x4000")
    assert feed_of(found.model, found.workload.said).about == words


def test_two_images_that_llama_factory_rounds_up_are_beyond_their_sequence(tmp_path):
    text = FACTORY.replace("cutoff_len: 4096", "cutoff_len: 1500") + "full\nbf16: true"
    assert "cutoff_len: 1500" in text
    found = sizing.size(read(tmp_path, text, images="2,size=3000x4000"))
    (error,) = [f for f in found.findings if f.code == "images-beyond-sequence"]
    assert "1,536 of the tokens" in error.message
