"""Llamas whose loss allocates what the fused kernels' Python does; its values are nothing."""

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from zero_sizer import models

LAYERS = 4


class Fused(torch.autograd.Function):
    """flash_attn/ops/triton/cross_entropy.py (058ad35): loss, log-sum-exp and z-loss of tokens."""

    @staticmethod
    def forward(ctx, logits, labels):
        losses, sums, _ = (torch.empty_like(labels, dtype=torch.float32) for _ in range(3))
        ctx.save_for_backward(logits, sums, labels)
        return losses

    @staticmethod
    def backward(ctx, gradient):
        logits, *_ = ctx.saved_tensors
        return torch.empty_like(logits), None


class Megatron(torch.autograd.Function):
    """NVIDIA/Megatron-LM megatron/mpu/cross_entropy.py (34ed99d): softmax and gradient in place."""

    @staticmethod
    def forward(ctx, logits, labels):
        ctx.save_for_backward(logits, labels)
        return torch.empty_like(labels, dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient):
        softmax, _ = ctx.saved_tensors
        return softmax, None


class FusedLinear(torch.autograd.Function):
    """Liger 0.8.5 ops/fused_linear_cross_entropy.py: gradients in the forward, chunk by chunk."""

    @staticmethod
    def forward(ctx, hidden, weight, labels):
        tokens, width = hidden.shape
        wanted = tokens / -(-len(weight) // width)
        rows = 1
        while rows < min(wanted, tokens):
            rows *= 2
        for_hidden = torch.zeros_like(hidden)
        for_weight = torch.zeros_like(weight) if weight.requires_grad else None
        losses = torch.zeros_like(labels, dtype=torch.float32)
        chunk = hidden.new_empty(min(rows, tokens), len(weight))  # logits, their gradient in place
        if weight.dtype == torch.float32:  # a product that is added: 16-bit ones add in place
            torch.empty_like(weight)
        del chunk
        ctx.save_for_backward(for_hidden, for_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx, gradient):
        return *ctx.saved_tensors, None


def shifted_loss(logits, labels):
    """The loss of transformers 4.45's GPT2LMHeadModel: a shifted copy, nothing in fp32."""
    shifted, labels = logits[..., :-1, :].contiguous(), labels[..., 1:].contiguous()
    return nn.CrossEntropyLoss()(shifted.view(-1, shifted.size(-1)), labels.view(-1))


class Llama(LlamaForCausalLM):
    """Shifts labels as transformers does; returns the loss alone."""

    kind = "fused"

    def forward(self, input_ids, labels):
        hidden = self.model(input_ids).last_hidden_state
        if self.kind != "transformers-16bit":
            labels = nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].contiguous().view(-1)
        if self.kind == "fused-linear":
            flat = hidden.view(-1, hidden.shape[-1])
            return FusedLinear.apply(flat, self.lm_head.weight, labels)
        logits = self.lm_head(hidden)
        if self.kind == "transformers-16bit":
            return shifted_loss(logits, labels)
        if self.kind == "megatron":
            return Megatron.apply(logits.float().view(-1, logits.shape[-1]), labels).mean()
        return Fused.apply(logits.view(-1, logits.shape[-1]), labels).mean()


class Gpt2(GPT2LMHeadModel):
    """With the loss of its class before transformers 4.46."""

    def forward(self, labels, **batch):
        return shifted_loss(super().forward(**batch).logits, labels)


def gpt2_52b():
    """bigscience-workshop experiments/gpt2-hf-ds/hf_ds_gpt2_perf_n16.slurm, MSIZE 48."""
    config = GPT2Config(
        n_layer=64, n_embd=8192, n_head=32, use_cache=False, attn_implementation="eager"
    )
    return Gpt2(config)


def _build(name, kind):
    config = LlamaConfig(**{**models.load(name).hf_config, "num_hidden_layers": LAYERS})
    config.use_cache = False
    model = Llama(config)
    model.kind = kind
    return model


def tied_fused():
    return _build("smollm2-135m", "fused")


def tied_fused_linear():
    return _build("smollm2-135m", "fused-linear")


def untied_fused():
    return _build("tinyllama-1.1b", "fused")


def untied_megatron():
    return _build("tinyllama-1.1b", "megatron")


def untied_fused_linear():
    return _build("tinyllama-1.1b", "fused-linear")


def untied_transformers_16bit():
    return _build("tinyllama-1.1b", "transformers-16bit")


def tied_transformers_16bit():
    return _build("smollm2-135m", "transformers-16bit")
