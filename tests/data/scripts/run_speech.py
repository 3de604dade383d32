"""Speech recognition with a sequence-to-sequence model, as transformers' example does."""

import sys
from dataclasses import dataclass, field
from typing import Any

import evaluate
import torch
from datasets import DatasetDict, load_dataset
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.trainer_utils import is_main_process


@dataclass
class Arguments:
    model_name_or_path: str = field()
    dataset_name: str = field()
    freeze_encoder: bool = False
    apply_spec_augment: bool = False


@dataclass
class DataCollatorSpeechSeq2SeqWithPadding:
    processor: Any
    decoder_start_token_id: int

    def __call__(self, features):
        name = self.processor.model_input_names[0]
        batch = self.processor.feature_extractor.pad(
            [{name: feature[name]} for feature in features], return_tensors="pt"
        )
        labels = self.processor.tokenizer.pad(
            [{"input_ids": feature["labels"]} for feature in features], return_tensors="pt"
        )
        found = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        if (found[:, 0] == self.decoder_start_token_id).all().cpu().item():
            found = found[:, 1:]
        batch["labels"] = found
        return batch


def main():
    parser = HfArgumentParser((Arguments, Seq2SeqTrainingArguments))
    args, training_args = parser.parse_args_into_dataclasses()
    raw = DatasetDict()
    raw["train"] = load_dataset(args.dataset_name, split="train")
    raw["eval"] = load_dataset(args.dataset_name, split="train").select(range(16))
    config = AutoConfig.from_pretrained(args.model_name_or_path)
    config.update({"apply_spec_augment": args.apply_spec_augment})
    extractor = AutoFeatureExtractor.from_pretrained(args.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, use_fast=True)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(args.model_name_or_path, config=config)
    if model.config.decoder_start_token_id is None:
        raise ValueError("decoder_start_token_id must be defined")
    if args.freeze_encoder:
        model.freeze_encoder()
        model.model.encoder.gradient_checkpointing = False
    name = extractor.model_input_names[0]

    def prepare(batch):
        inputs = extractor(batch["audio"], sampling_rate=extractor.sampling_rate)
        batch[name] = inputs.get(name)[0]
        batch["input_length"] = len(batch["audio"])
        batch["labels"] = tokenizer(batch["sentence"].lower()).input_ids
        return batch

    with training_args.main_process_first(desc="dataset map pre-processing"):
        columns = next(iter(raw.values())).column_names
        vectorized = raw.map(prepare, remove_columns=columns)
    vectorized = vectorized.filter(lambda length: length > 0, input_columns=["input_length"])
    metric = evaluate.load("wer")

    def compute_metrics(pred):
        pred.label_ids[pred.label_ids == -100] = tokenizer.pad_token_id
        texts = tokenizer.batch_decode(pred.predictions, skip_special_tokens=True)
        labels = tokenizer.batch_decode(pred.label_ids, skip_special_tokens=True)
        return {"wer": metric.compute(predictions=texts, references=labels)}

    with training_args.main_process_first():
        if is_main_process(training_args.local_process_index):
            extractor.save_pretrained(training_args.output_dir)
            tokenizer.save_pretrained(training_args.output_dir)
            config.save_pretrained(training_args.output_dir)
    processor = AutoProcessor.from_pretrained(training_args.output_dir)
    collator = DataCollatorSpeechSeq2SeqWithPadding(
        processor=processor, decoder_start_token_id=model.config.decoder_start_token_id
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=vectorized["train"],
        eval_dataset=vectorized["eval"],
        processing_class=extractor,
        data_collator=collator,
        compute_metrics=compute_metrics if training_args.predict_with_generate else None,
    )
    assert torch.cuda.is_available()
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate(
        metric_key_prefix="eval",
        max_length=training_args.generation_max_length,
        num_beams=training_args.generation_num_beams,
    )
    trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    sys.exit(main())
