"""Models by the ids that people write: of the hub, of who copies from it, and of other machines."""

import json
from pathlib import Path

import pytest
from support.plans import make_job

from zero_sizer import models
from zero_sizer.errors import InputError
from zero_sizer.models.sources import hub
from zero_sizer.sizing import size

PUBLISHED = {  # parameters of the weights, from their safetensors or cards
    "Qwen/Qwen1.5-7B-Chat": 7_721_324_544,
    "Qwen/Qwen2-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen2.5-Coder-32B-Instruct": 32_763_876_352,
    "Qwen/QwQ-32B": 32_763_876_352,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 30_532_122_624,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "NousResearch/Llama-2-70b-chat-hf": 68_976_648_192,
    "unsloth/Meta-Llama-3.1-8B-Instruct": 8_030_261_248,
    "LLM-Research/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "huggyllama/llama-7b": 6_738_415_616,
    "lmsys/vicuna-13b-v1.5": 13_015_864_320,
    "codellama/CodeLlama-34b-Instruct-hf": 33_743_970_304,
    "deepseek-ai/deepseek-coder-33b-instruct": 33_342_991_360,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "HuggingFaceH4/zephyr-7b-beta": 7_241_732_096,
    "EleutherAI/gpt-j-6b": 6_050_882_784,
    "01-ai/Yi-34B-Chat": 34_388_917_248,
    "Qwen/Qwen-14B-Chat": 14_167_290_880,
    "THUDM/glm-4-9b-chat": 9_399_951_360,
    "baichuan-inc/Baichuan2-13B-Chat": 13_896_668_160,
    "internlm/internlm2_5-7b-chat": 7_737_708_544,
    "openai/gpt-oss-20b": 20_914_757_184,
    "unsloth/gpt-oss-20b-BF16": 20_914_757_184,
    "openai/gpt-oss-120b": 116_829_156_672,
    "deepseek-ai/DeepSeek-V2-Lite-Chat": 15_706_484_224,
    "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct": 15_706_484_224,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 108_641_793_536,
    "unsloth/Llama-4-Scout-17B-16E-Instruct": 108_641_793_536,
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506": 24_011_361_280,
    "mistralai/Magistral-Small-2506": 23_572_403_200,
    "HuggingFaceTB/SmolLM3-3B-Base": 3_075_098_624,
    "google/gemma-3-1b-pt": 999_885_952,
    "google/gemma-3-270m-it": 268_098_176,
    "THUDM/GLM-4-9B-0414": 9_400_279_040,
    "zai-org/GLM-4-32B-0414": 32_566_081_536,
    "allenai/OLMo-2-1124-7B-SFT": 7_298_617_344,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480_154_875_392,
    "Qwen/Qwen3-VL-30B-A3B-Thinking": 31_070_754_032,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "tiiuae/Falcon3-7B-Instruct": 7_455_550_464,
    "allenai/OLMoE-1B-7B-0924-Instruct": 6_919_161_856,
    "bigcode/starcoder2-3b": 3_030_371_328,
    "stabilityai/stablelm-3b-4e1t": 2_795_443_200,
    "HuggingFaceTB/SmolLM-1.7B-Instruct": 1_711_376_384,
    "unsloth/phi-4": 14_659_507_200,  # rewritten as a Llama, others as a Mistral
    "unsloth/Phi-3.5-mini-instruct": 3_821_079_552,
    "unsloth/Phi-3-mini-4k-instruct": 3_821_079_552,
    "mistralai/Magistral-Small-2507": 23_572_403_200,
    "mistralai/Magistral-Small-2509": 24_011_361_280,
    "ZhipuAI/GLM-4-9B-0414": 9_400_279_040,
}
# Billions of parameters that cards and guides give, and whether towers of images are among them.
ROUNDED = {
    "google/gemma-4-31B-it": ("30.7", False),
    "google/gemma-4-26B-A4B-it": ("25.2", False),
    "google/gemma-4-E2B-it": ("5.1", True),
    "unsloth/gemma-4-E4B-it": ("8", True),
    "mistralai/Ministral-3-3B-Instruct-2512": ("3.8", True),
    "mistralai/Ministral-3-8B-Reasoning-2512": ("8.9", True),
    "mistralai/Ministral-3-14B-Base-2512": ("13.9", True),
    "Qwen/Qwen3.5-27B": ("27", False),
    "Qwen/Qwen3.6-35B-A3B": ("35", True),
    "Qwen/Qwen3.5-122B-A10B": ("122", False),
    "Qwen/Qwen3.5-397B-A17B": ("397", True),
    "unsloth/Qwen3.5-4B": ("4.5", True),
    "Qwen/Qwen3.5-9B-Base": ("9", False),
    "zai-org/GLM-4.7-Flash": ("30", True),
    "MiniMaxAI/MiniMax-M2": ("229", True),
    "MiniMaxAI/MiniMax-M2.5": ("229", True),
    "zai-org/GLM-5": ("744", True),
    "Qwen/Qwen3-VL-235B-A22B-Instruct": ("235", False),
    "ibm-granite/granite-4.0-h-tiny": ("7", True),
    "allenai/Olmo-3-7B-Think-SFT": ("7.3", True),
    "allenai/Olmo-3.1-32B-Instruct": ("32.2", True),
    "ibm-granite/granite-3.0-8b-instruct": ("8.17", True),
    "ibm-granite/granite-4.0-micro": ("3.4", True),
    "LiquidAI/LFM2-1.2B": ("1.17", True),
}
TOWERS = ("vision", "visual", "audio")
UNTYPED = ("bloom", "clip", "gpt2", "siglip", "t5")  # whose configs name no dtype
DRAWN = json.loads((Path(__file__).parents[1] / "data" / "drawn_hub_ids.json").read_text("utf-8"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_that_people_write_resolve(name):
    assert models.load(name).num_params == PUBLISHED[name]
    assert models.load(name.lower()).num_params == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_ids_have_the_size_that_their_cards_round_to(name):
    said, has_towers = ROUNDED[name]
    counted = sum(
        tensor.numel
        for tensor in models.load(name).parameters
        if has_towers or not any(word in tensor.name for word in TOWERS)
    )
    digits = len(said.partition(".")[2])
    assert f"{counted / 1e9:.{digits}f}" == said


def test_three_of_four_ids_drawn_from_public_files_resolve():
    found = [name for name in DRAWN["ids"] if hub.find(name)]
    assert len(DRAWN["ids"]) == 150
    assert len(found) >= 115, sorted(set(DRAWN["ids"]) - set(found))


@pytest.mark.slow
def test_every_public_config_has_its_published_parameters():
    for name in hub.public_names():
        row = hub.public_config(name)
        spec = models.load(row["source"])
        assert spec.name == name
        assert spec.num_params == (row["params"] or spec.num_params), name
        assert spec.hf_config.get("dtype") or spec.arch.family in UNTYPED, name


def test_the_table_is_consistent():
    table = hub._table()
    ids = [hub_id.lower() for ids in table["same_shape"].values() for hub_id in ids]
    ids += [row["source"].lower() for row in table["configs"].values()]
    assert len(ids) == len(set(ids))
    assert set(table["same_shape"]) <= set(hub.known_names())
    assert not set(hub.public_names()) & set(models.bundled_names())


@pytest.mark.parametrize(
    "name",
    [
        "unsloth/Meta-Llama-3.1-8B-bnb-4bit",  # packed
        "TheBloke/Llama-2-7B-Chat-AWQ",
        "unsloth/Phi-3-medium-4k-instruct",  # rewritten, as no table says
        "somebody/Qwen2.5-7B-Instruct",  # may be anything
        "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4",
    ],
)
def test_other_shapes_and_unknown_owners_do_not_resolve(name):
    with pytest.raises(InputError, match=r"unknown model.*hf download"):
        models.load(name)


@pytest.mark.parametrize(
    ("asked", "offered"),
    [("gpt-neo-20b", "gpt-neox-20b"), ("llama3-8b", "llama-3-8b"), ("grok-1-314b", None)],
)
def test_a_suggestion_is_of_the_same_family(asked, offered):
    with pytest.raises(InputError, match=r"config\.json") as raised:
        models.load(asked)
    assert ("did you mean" in str(raised.value)) is (offered is not None)
    assert offered is None or f"did you mean {offered}" in str(raised.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/mnt/nvme_raid0/Qwen2-7B-Instruct", "qwen2.5-7b"),  # LlamaFactory#4642
        ("/data1/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),  # LlamaFactory#2379
        ("/mnt/data_nas/models/vicuna-7b-v1.5", "llama-2-7b"),  # LLaVA#528
    ],
)
def test_a_path_of_another_machine_says_which_model_it_may_be(path, name):
    with pytest.raises(InputError, match=f"--model {name}"):
        models.load(path)


def test_a_model_with_code_of_its_own_is_said_to_be_counted_as_another():
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}
    said = {
        name: [f.code for f in size(make_job(config, models.load(name), 8)).findings]
        for name in ("Qwen/Qwen-7B-Chat", "Qwen/Qwen1.5-7B-Chat")
    }
    assert "model-of-own-code" in said["Qwen/Qwen-7B-Chat"]
    assert "model-of-own-code" not in said["Qwen/Qwen1.5-7B-Chat"]
