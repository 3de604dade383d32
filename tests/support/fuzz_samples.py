"""What a sensible file of each kind holds."""

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MOE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "head_dim": 16,
}
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": 128,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 64,
    "d_ff": 128,
    "d_kv": 16,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 128,
}
QUANTIZED = {
    **LLAMA,
    "quantization_config": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": True,
        "llm_int8_skip_modules": ["lm_head"],
    },
}
MODELS = (LLAMA, MOE, GPT2, T5, QUANTIZED)
ADAPTER = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": None,
    "bias": "none",
    "task_type": "CAUSAL_LM",
    "rank_pattern": {"layers.0.self_attn.q_proj": 4},
    "layers_to_transform": [0],
    "layers_pattern": ["layers"],
    "exclude_modules": ["k_proj"],
}
RECORDING = {
    "schema_version": 1,
    "how": "simulated",
    "versions": {"deepspeed": "0.19.8"},
    "world_size": 8,
    "rank": 0,
    "job": {"layers": None, "local_world_size": 8},
    "phases": [
        {
            "name": name,
            "step": 0,
            "micro_step": 0,
            "device": {"gpu": {"allocated": 1000, "max_allocated": 2000}},
            "live": [
                {
                    "name": "p",
                    "category": "parameters",
                    "device": "gpu",
                    "pinned": False,
                    "num_bytes": 512,
                    "num_storages": 1,
                }
            ],
        }
        for name in ("init", "forward", "backward", "step")
    ],
    "log": [],
    "notes": [],
    "rooms": [{"num_bytes": 10**9, "fits": True}],
    "ranks": [],
}
JOB = {
    "model": "gpt2",
    "deepspeed": {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}},
    "cluster": {
        "nodes": 1,
        "gpus_per_node": 8,
        "gpu": "h100-80gb",
        "gpu_memory": "80GB",
        "host_memory": "2TiB",
        "nvme": "7TB",
        "matmul_tflops": 400,
    },
    "workload": {
        "seq_len": 1024,
        "micro_batch": 1,
        "grad_accum": 2,
        "checkpointing": True,
        "attention": "sdpa",
        "precision": "bf16",
        "zero_init": True,
    },
    "adapter": {"r": 8, "target_modules": ["c_attn"]},
    "quantization": "nf4",
}
SAMPLE = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8}},
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": 5e8,
        "stage3_prefetch_bucket_size": 5e7,
        "stage3_param_persistence_threshold": 1e5,
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "sub_group_size": 1e9,
        "offload_optimizer": {"device": "cpu", "pin_memory": True, "buffer_count": 4},
        "leaf_module": {"classes": [], "names": ["h.0"], "name_suffixes": []},
    },
    "activation_checkpointing": {"partition_activations": False},
}
