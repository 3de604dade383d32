"""A latent diffusion model fine-tuned as diffusers' text-to-image example does."""

import argparse

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_snr
from torch.nn import functional
from transformers import CLIPTextModel
from transformers.utils import ContextManagers


def deepspeed_zero_init_disabled_context_manager():
    plugin = AcceleratorState().deepspeed_plugin
    return [plugin.zero3_init_context_manager(enable=False)] if plugin is not None else []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pretrained_model_name_or_path", required=True)
    parser.add_argument("--snr_gamma", type=float, default=5.0)
    args = parser.parse_args()
    root = args.pretrained_model_name_or_path
    accelerator = Accelerator(
        mixed_precision="bf16", project_config=ProjectConfiguration(project_dir="out")
    )
    scheduler = DDPMScheduler.from_pretrained(root, subfolder="scheduler")
    with ContextManagers(deepspeed_zero_init_disabled_context_manager()):
        text_encoder = CLIPTextModel.from_pretrained(
            root, subfolder="text_encoder", revision=None, variant=None
        )
        vae = AutoencoderKL.from_pretrained(root, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet")
    assert text_encoder.config.hidden_size == unet.config.cross_attention_dim
    vae.requires_grad_(False)
    text_encoder.requires_grad_(False)
    unet.train()
    ema = EMAModel(unet.parameters(), model_cls=UNet2DConditionModel, model_config=unet.config)
    unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
    rows = [{"pixel_values": torch.rand(3, 32, 32), "input_ids": torch.arange(77)}] * 64
    loader = torch.utils.data.DataLoader(rows, shuffle=True, batch_size=2)
    lr = get_scheduler("constant", optimizer=optimizer, num_warmup_steps=0, num_training_steps=9)
    unet, optimizer, loader, lr = accelerator.prepare(unet, optimizer, loader, lr)
    ema.to(accelerator.device)
    text_encoder.to(accelerator.device, dtype=torch.bfloat16)
    vae.to(accelerator.device, dtype=torch.bfloat16)
    accelerator.init_trackers("text2image", config={"lr": 1e-5})
    for _ in range(9):
        train_loss = 0.0
        for batch in loader:
            with accelerator.accumulate(unet):
                pixels = batch["pixel_values"].to(torch.bfloat16)
                latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
                noise = torch.randn_like(latents)
                timesteps = torch.randint(
                    0, scheduler.config.num_train_timesteps, (len(latents),), device=latents.device
                ).long()
                noisy = scheduler.add_noise(latents, noise, timesteps)
                states = text_encoder(batch["input_ids"], return_dict=False)[0]
                predicted = unet(noisy, timesteps, states, return_dict=False)[0]
                weights = torch.stack(
                    [
                        compute_snr(scheduler, timesteps),
                        args.snr_gamma * torch.ones_like(timesteps),
                    ],
                    dim=1,
                ).min(dim=1)[0]
                loss = functional.mse_loss(predicted.float(), noise.float(), reduction="none")
                loss = (loss.mean(dim=list(range(1, len(loss.shape)))) * weights).mean()
                train_loss += accelerator.gather(loss.repeat(2)).mean().item()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                lr.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                ema.step(unet.parameters())
                accelerator.log({"train_loss": f"{train_loss:.4f}"}, step=1)


if __name__ == "__main__":
    main()
