"""Supervised fine-tuning with trl: a model folder and a file of texts."""

import sys
from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import AutoTokenizer, HfArgumentParser
from trl import SFTConfig, SFTTrainer


@dataclass
class ScriptArguments:
    model: str = field()
    data: str = field()


def main():
    parser = HfArgumentParser((ScriptArguments, SFTConfig))
    script_args, training_args = parser.parse_args_into_dataclasses()
    trainer = SFTTrainer(
        model=script_args.model,
        args=training_args,
        train_dataset=load_dataset("json", data_files=script_args.data, split="train"),
        processing_class=AutoTokenizer.from_pretrained(script_args.model),
    )
    trainer.train()
    trainer.save_model(training_args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
