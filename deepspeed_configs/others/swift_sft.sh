#!/bin/bash
# full fine-tuning with ms-swift, which brings the DeepSpeed config
nproc_per_node=8

CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 \
NPROC_PER_NODE=$nproc_per_node \
swift sft \
    --model Qwen/Qwen2.5-7B \
    --tuner_type full \
    --dataset 'our/chats#20000' \
    --torch_dtype bfloat16 \
    --num_train_epochs 1 \
    --per_device_train_batch_size 1 \
    --gradient_accumulation_steps $(expr 32 / $nproc_per_node) \
    --learning_rate 1e-5 \
    --max_length 8192 \
    --attn_impl flash_attn \
    --warmup_ratio 0.05 \
    --dataloader_num_workers 4 \
    --output_dir output \
    --deepspeed zero3
