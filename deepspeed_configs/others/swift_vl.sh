#!/bin/bash
# Qwen2.5-VL under LoRA on eight GPUs, images scaled down to 1,280 tokens.
NPROC_PER_NODE=8 \
MAX_PIXELS=1003520 \
swift sft \
    --model Qwen/Qwen2.5-VL-7B-Instruct \
    --dataset our_pictures.jsonl \
    --tuner_type lora \
    --torch_dtype bfloat16 \
    --per_device_train_batch_size 1 \
    --gradient_accumulation_steps 2 \
    --learning_rate 1e-4 \
    --lora_rank 8 \
    --target_modules all-linear \
    --freeze_vit true \
    --max_length 4096 \
    --attn_impl flash_attn \
    --deepspeed zero2
