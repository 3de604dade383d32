"""Flags of ``text_to_image.py``, by the names and with the defaults of diffusers'."""

import argparse
import os

from torchvision import transforms


def parse_args():
    modes = [name.lower() for name in dir(transforms.InterpolationMode) if name[0] != "_"]
    parser = argparse.ArgumentParser(description="Stable Diffusion")
    for name in ("pretrained_model_name_or_path", "train_data_dir"):
        parser.add_argument(f"--{name}", type=str, required=True)
    for name in ("revision", "non_ema_revision", "variant", "prediction_type", "report_to"):
        parser.add_argument(f"--{name}", type=str)
    parser.add_argument("--cache_dir", type=str)
    parser.add_argument("--image_column", default="image")
    parser.add_argument("--caption_column", default="text")
    parser.add_argument("--output_dir", default="sd-finetuned")
    parser.add_argument("--logging_dir", default="logs")
    parser.add_argument("--resume_from_checkpoint", type=str)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"])
    parser.add_argument("--image_interpolation_mode", default="lanczos", choices=modes)
    for name in ("seed", "max_train_samples", "max_train_steps", "checkpoints_total_limit"):
        parser.add_argument(f"--{name}", type=int)
    wholes = {"resolution": 512, "train_batch_size": 16, "num_train_epochs": 100}
    wholes |= {"gradient_accumulation_steps": 1, "lr_warmup_steps": 500, "local_rank": -1}
    wholes |= {"dataloader_num_workers": 0, "checkpointing_steps": 500}
    for name, usual in wholes.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    numbers = {"learning_rate": 1e-4, "adam_beta1": 0.9, "adam_beta2": 0.999}
    numbers |= {"adam_weight_decay": 1e-2, "adam_epsilon": 1e-8, "max_grad_norm": 1.0}
    numbers |= {"noise_offset": 0, "input_perturbation": 0, "dream_detail_preservation": 1.0}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=float, default=number)
    parser.add_argument("--snr_gamma", type=float)
    parser.add_argument("--validation_prompts", nargs="+", help="looked at now and then")
    parser.add_argument("--validation_epochs", type=int, default=5)
    parser.add_argument("--lr_scheduler", default="constant")
    switches = ("center_crop", "random_flip", "gradient_checkpointing", "scale_lr", "allow_tf32")
    switches += ("use_8bit_adam", "use_ema", "offload_ema", "foreach_ema", "dream_training")
    for name in (*switches, "enable_xformers_memory_efficient_attention"):
        parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args()
    args.local_rank = int(os.environ.get("LOCAL_RANK", args.local_rank))
    return args
