"""Summarization and speech recognition with Seq2SeqTrainer, as transformers' examples do."""

import sys
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import (
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)


@dataclass
class Arguments:
    task: str = field()


class Rows(torch.utils.data.Dataset):
    def __init__(self, speech):
        self.speech = speech

    def __len__(self):
        return 64

    def __getitem__(self, index):
        labels = np.arange(4 + index % 8).tolist()
        if self.speech:
            return {"input_features": np.zeros((20, 200), np.float32), "labels": labels}
        return {"input_ids": np.arange(16).tolist(), "labels": labels}


def collate(rows):
    longest = max(len(row["labels"]) for row in rows)
    labels = [row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows]
    batch = {"labels": torch.tensor(labels)}
    if "input_features" in rows[0]:
        features = np.stack([row["input_features"] for row in rows])
        batch["input_features"] = torch.from_numpy(features)
    else:
        batch["input_ids"] = torch.tensor([row["input_ids"] for row in rows])
    if (batch["labels"][:, 0] == 0).all().cpu().item():
        batch["labels"] = batch["labels"][:, 1:]
    return batch


def model_for(speech):
    if not speech:
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=512,
                d_model=64,
                d_ff=128,
                d_kv=16,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=0,
            )
        )
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=512,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            num_mel_bins=20,
            max_source_positions=100,
            max_target_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )
    model.model.encoder.gradient_checkpointing = False
    model.freeze_encoder()
    return model


def main():
    parser = HfArgumentParser((Arguments, Seq2SeqTrainingArguments))
    args, training_args = parser.parse_args_into_dataclasses()
    speech = args.task == "speech"
    trainer = Seq2SeqTrainer(
        model=model_for(speech),
        args=training_args,
        train_dataset=Rows(speech),
        eval_dataset=Rows(speech),
        data_collator=collate,
        compute_metrics=lambda p: {"length": np.mean([np.count_nonzero(r) for r in p.predictions])},
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    sys.exit(main())
