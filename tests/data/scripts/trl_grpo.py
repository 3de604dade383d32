"""Group relative policy optimisation with trl: completions are generated, then scored."""

import sys
from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import AutoTokenizer, HfArgumentParser
from trl import GRPOConfig, GRPOTrainer


@dataclass
class ScriptArguments:
    model: str = field()
    data: str = field()


def length_reward(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def main():
    script_args, training_args = HfArgumentParser(
        (ScriptArguments, GRPOConfig)
    ).parse_args_into_dataclasses()
    trainer = GRPOTrainer(
        model=script_args.model,
        args=training_args,
        reward_funcs=length_reward,
        train_dataset=load_dataset("json", data_files=script_args.data, split="train"),
        processing_class=AutoTokenizer.from_pretrained(script_args.model),
    )
    trainer.train()


if __name__ == "__main__":
    sys.exit(main())
