"""Arguments of a YAML file, a model with LoRA, a Trainer of its own."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)


@dataclass
class ModelArguments:
    model_name_or_path: str = field()
    lora_rank: int = 8
    cutoff_len: int = 64


class CustomTrainer(Seq2SeqTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        return super().compute_loss(model, inputs, *args, **kwargs)


def run_exp():
    values = yaml.safe_load(Path(sys.argv[1]).read_text())
    parser = HfArgumentParser((ModelArguments, Seq2SeqTrainingArguments))
    model_args, training_args = parser.parse_dict(values)
    name = model_args.model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right")
    config = AutoConfig.from_pretrained(name)
    config.use_cache = False
    model = AutoModelForCausalLM.from_pretrained(
        pretrained_model_name_or_path=name,
        config=config,
        dtype=torch.bfloat16,
        low_cpu_mem_usage=False,
        attn_implementation="flash_attention_2",
    )
    assert model.config.name_or_path == name
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model.enable_input_require_grads()
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=model_args.lora_rank, target_modules="all-linear"
    )
    model = get_peft_model(model, lora)
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        parameter.data = parameter.data.to(torch.float32)
    length = model_args.cutoff_len
    rows = [{"input_ids": [4] * length, "labels": [4] * length} for _ in range(64)]
    trainer = CustomTrainer(
        model=model,
        args=training_args,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(
            tokenizer, pad_to_multiple_of=8, label_pad_token_id=-100
        ),
        processing_class=tokenizer,
    )
    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
