"""Where the models of training tools lie before DeepSpeed takes them."""

import pytest

from zero_sizer.config import document
from zero_sizer.job.readers import axolotl, llama_factory

FACTORY = {"model_name_or_path": "m", "stage": "sft", "bf16": True}
AXOLOTL = {"base_model": "m", "micro_batch_size": 1, "bf16": True}


@pytest.mark.parametrize(
    ("read", "values", "loaded_on"),
    [
        (llama_factory.read, {**FACTORY, "finetuning_type": "full"}, "gpu-fp32"),
        (llama_factory.read, {**FACTORY, "finetuning_type": "freeze"}, "gpu-fp32"),
        (llama_factory.read, {**FACTORY, "finetuning_type": "full", "pure_bf16": True}, "gpu"),
        (llama_factory.read, {**FACTORY, "finetuning_type": "lora"}, "gpu"),
        (llama_factory.read, FACTORY, "gpu"),
        (axolotl.read, AXOLOTL, "gpu"),
    ],
)
def test_tools_load_onto_the_gpu(read, values, loaded_on):
    """LLaMA-Factory casts what is trained whole to fp32 there, but for pure_bf16."""
    said = read(document.from_mapping(values))
    assert said.workload["loaded_on"].value == loaded_on
