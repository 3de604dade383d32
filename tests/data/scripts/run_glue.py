"""Text classification as transformers' run_glue does: padding, metrics, evaluation on the way."""

import sys
from dataclasses import dataclass, field

import evaluate
import numpy as np
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class Arguments:
    model_name_or_path: str = field()
    train_file: str = field()


def main():
    parser = HfArgumentParser((Arguments, TrainingArguments))
    args, training_args = parser.parse_args_into_dataclasses()
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    config = AutoConfig.from_pretrained(
        args.model_name_or_path,
        num_labels=3,
        finetuning_task="mnli",
        pad_token_id=tokenizer.pad_token_id,
    )
    model, info = AutoModelForSequenceClassification.from_pretrained(
        args.model_name_or_path,
        config=config,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    assert model.config.num_labels == 3
    assert set(info) >= {"missing_keys", "unexpected_keys"}
    model.config.label2id = {name: i for i, name in enumerate("abc")}
    rows = load_dataset("json", data_files=args.train_file, split="train")
    with training_args.main_process_first(desc="dataset map pre-processing"):
        rows = rows.map(
            lambda row: tokenizer(row["text"], truncation=True, max_length=32), batched=True
        )
    metric = evaluate.load("accuracy")

    def compute_metrics(p: EvalPrediction):
        predictions = p.predictions[0] if isinstance(p.predictions, tuple) else p.predictions
        predictions = np.argmax(predictions, axis=1)
        result = metric.compute(predictions=predictions, references=p.label_ids)
        if len(result) > 1:
            result["combined_score"] = np.mean(list(result.values())).item()
        return result

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=rows,
        eval_dataset=rows.select(range(16)),
        compute_metrics=compute_metrics,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
    )
    trainer.train()
    trainer.save_model()
    trainer.log_metrics("eval", trainer.evaluate(eval_dataset=rows))


if __name__ == "__main__":
    sys.exit(main())
