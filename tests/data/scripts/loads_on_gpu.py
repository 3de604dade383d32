"""A script that loads its model onto the GPU, and may cast what it trains to fp32 there."""

import json
import sys

import deepspeed
import torch
from transformers import AutoModelForCausalLM, LlamaConfig


def main(config_path, how):
    deepspeed.init_distributed()
    with open("model/config.json") as file:
        fields = LlamaConfig.from_dict(json.load(file))
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = AutoModelForCausalLM.from_config(fields)
        torch.set_default_dtype(torch.float32)
    for name, param in model.named_parameters():
        if "embed" in name and how == "frozen":
            param.requires_grad_(False)
        elif how != "gpu":
            param.data = param.data.to(torch.float32)
    with open(config_path) as file:
        config = json.load(file)
    trained = [param for param in model.parameters() if param.requires_grad]
    engine, _, _, _ = deepspeed.initialize(model=model, model_parameters=trained, config=config)
    for _ in range(3):
        ids = torch.randint(0, 1000, (1, 128), device="cuda")
        engine.backward(engine(input_ids=ids, labels=ids).loss)
        engine.step()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
