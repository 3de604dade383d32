#!/usr/bin/env bash
set -euo pipefail

MODEL=${MODEL:-meta-llama/Llama-2-7b-hf}
export NCCL_DEBUG=WARN

deepspeed --num_gpus 8 run_clm.py \
    --deepspeed zero3_auto.json \
    --model_name_or_path "$MODEL" \
    --dataset_name our/text \
    --block_size 2048 \
    --do_train \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 2 \
    --gradient_checkpointing true \
    --bf16 \
    --learning_rate 2e-5 \
    --num_train_epochs 3 \
    --output_dir out/clm 2>&1 | tee clm.log
