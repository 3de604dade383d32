"""Direct preference optimisation with trl, beside a frozen reference model."""

import sys
from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser
from trl import DPOConfig, DPOTrainer


@dataclass
class ScriptArguments:
    model: str = field()
    data: str = field()
    watch: str = field(default="")


def main():
    parser = HfArgumentParser((ScriptArguments, DPOConfig))
    script_args, training_args = parser.parse_args_into_dataclasses()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(script_args.model),
        args=training_args,
        train_dataset=load_dataset("json", data_files=script_args.data, split="train"),
        processing_class=AutoTokenizer.from_pretrained(script_args.model),
    )
    if script_args.watch:
        from zero_sizer.integrations.transformers import MemoryCallback

        trainer.add_callback(MemoryCallback(script_args.watch))
    trainer.train()


if __name__ == "__main__":
    sys.exit(main())
