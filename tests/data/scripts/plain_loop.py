# ruff: noqa: T201 (a script prints)
"""A training script as people write them around deepspeed.initialize."""

import json
import sys

import deepspeed
import torch
from transformers import AutoModelForCausalLM, LlamaConfig


def main(config_path):
    deepspeed.init_distributed()
    torch.cuda.set_device(torch.cuda.current_device())
    torch.manual_seed(1234)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=1000,
        )
    )
    with open(config_path) as file:
        config = json.load(file)
    engine, _, _, _ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=config
    )
    data = torch.utils.data.TensorDataset(torch.randint(0, 1000, (64, 128)))
    loader = torch.utils.data.DataLoader(data, batch_size=engine.train_micro_batch_size_per_gpu())
    for epoch in range(100):
        for step, (ids,) in enumerate(loader):
            ids = ids.to("cuda")
            loss = engine(input_ids=ids, labels=ids).loss
            engine.backward(loss)
            engine.step()
            if step % 10 == 0 and torch.distributed.get_rank() == 0:
                print(epoch, step, loss.item(), torch.cuda.max_memory_allocated() / 2**30)


if __name__ == "__main__":
    main(sys.argv[1])
