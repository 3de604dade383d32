"""Summarization as transformers' example does: texts, prefixes, generation at every evaluation."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import evaluate
import numpy as np
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)


@dataclass
class Arguments:
    model_name_or_path: str = field()
    train_file: str = field()
    validation_file: str = field()
    source_prefix: str = ""
    max_source_length: int = 64
    max_target_length: int = 16
    val_max_target_length: int | None = None
    num_beams: int | None = None


def main():
    parser = HfArgumentParser((Arguments, Seq2SeqTrainingArguments))
    args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    raw = load_dataset(
        "json", data_files={"train": args.train_file, "validation": args.validation_file}
    )
    config = AutoConfig.from_pretrained(args.model_name_or_path, revision="main")
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, use_fast=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(
        args.model_name_or_path,
        from_tf=bool(".ckpt" in args.model_name_or_path),
        config=config,
        revision="main",
        trust_remote_code=False,
    )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))
    if model.config.decoder_start_token_id is None:
        raise ValueError("decoder_start_token_id must be defined")

    def preprocess(examples):
        texts = [args.source_prefix + text for text in examples["document"]]
        found = tokenizer(texts, max_length=args.max_source_length, truncation=True)
        labels = tokenizer(
            text_target=examples["summary"], max_length=args.max_target_length, truncation=True
        )
        found["labels"] = labels["input_ids"]
        return found

    names = raw["train"].column_names
    with training_args.main_process_first(desc="train dataset map pre-processing"):
        train = raw["train"].map(preprocess, batched=True, remove_columns=names)
    with training_args.main_process_first(desc="validation dataset map pre-processing"):
        validation = raw["validation"].map(preprocess, batched=True, remove_columns=names)
    collator = DataCollatorForSeq2Seq(
        tokenizer,
        model=model,
        label_pad_token_id=-100,
        pad_to_multiple_of=8 if training_args.fp16 else None,
    )
    metric = evaluate.load("rouge")

    def compute_metrics(predictions):
        preds, labels = predictions
        preds = preds[0] if isinstance(preds, tuple) else preds
        preds = np.where(preds != -100, preds, tokenizer.pad_token_id)
        labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
        texts = [
            [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            for ids in (preds, labels)
        ]
        result = metric.compute(predictions=texts[0], references=texts[1], use_stemmer=True)
        result = {name: round(value * 100, 4) for name, value in result.items()}
        lengths = [np.count_nonzero(row != tokenizer.pad_token_id) for row in preds]
        return {**result, "gen_len": np.mean(lengths)}

    training_args.generation_max_length = args.val_max_target_length or args.max_target_length
    if args.num_beams is not None:
        training_args.generation_num_beams = args.num_beams
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=collator,
        compute_metrics=compute_metrics if training_args.predict_with_generate else None,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate(metric_key_prefix="eval")
    trainer.save_metrics("eval", metrics)
    predicted = trainer.predict(validation, metric_key_prefix="predict")
    texts = tokenizer.batch_decode(predicted.predictions, skip_special_tokens=True)
    Path(training_args.output_dir, "generated_predictions.txt").write_text("\n".join(texts))


if __name__ == "__main__":
    sys.exit(main())
