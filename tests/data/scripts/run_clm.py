"""Causal language modelling as transformers' example does: text file, grouping, evaluation."""

import logging
import math
import os
import sys
from dataclasses import dataclass, field
from itertools import chain

import datasets
import transformers
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    model_name_or_path: str = field()
    config_overrides: str | None = None


@dataclass
class DataArguments:
    train_file: str = field()
    validation_file: str = field()
    block_size: int = 64


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    transformers.utils.logging.set_verbosity(training_args.get_process_log_level())
    datasets.utils.logging.set_verbosity(training_args.get_process_log_level())
    logger.warning(
        "rank %s, device %s, n_gpu %s",
        training_args.local_process_index,
        training_args.device,
        training_args.n_gpu,
    )
    if os.path.isdir(training_args.output_dir):
        get_last_checkpoint(training_args.output_dir)
    set_seed(training_args.seed)
    files = {"train": data_args.train_file, "validation": data_args.validation_file}
    raw = load_dataset("json", data_files=files)
    config = AutoConfig.from_pretrained(model_args.model_name_or_path)
    if model_args.config_overrides:
        config.update_from_string(model_args.config_overrides)
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(
        model_args.model_name_or_path,
        from_tf=False,
        config=config,
        dtype="auto",
    )
    logger.info(
        "%.2fM parameters",
        sum({p.data_ptr(): p.numel() for p in model.parameters()}.values()) / 2**20,
    )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))

    def grouped(examples):
        ids = list(chain(*examples["input_ids"]))
        size = data_args.block_size
        rows = [ids[i : i + size] for i in range(0, len(ids) // size * size, size)]
        return {"input_ids": rows, "labels": [row.copy() for row in rows]}

    with training_args.main_process_first(desc="dataset map tokenization"):
        tokenized = raw.map(
            lambda rows: tokenizer(rows["text"]), batched=True, remove_columns=["text"]
        )
        lm = tokenized.map(grouped, batched=True, remove_columns=tokenized["train"].column_names)

    def preprocess_logits_for_metrics(logits, labels):
        logits = logits[0] if isinstance(logits, tuple) else logits
        return logits.argmax(dim=-1)

    def compute_metrics(predictions):
        preds, labels = predictions
        return {"accuracy": float((preds[:, :-1] == labels[:, 1:]).mean())}

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=lm["train"],
        eval_dataset=lm["validation"],
        processing_class=tokenizer,
        data_collator=default_data_collator,
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=preprocess_logits_for_metrics,
    )
    result = trainer.train(resume_from_checkpoint=None)
    trainer.save_model()
    metrics = result.metrics
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    metrics["perplexity"] = math.exp(metrics["eval_loss"])
    trainer.log_metrics("eval", metrics)


if __name__ == "__main__":
    sys.exit(main())
