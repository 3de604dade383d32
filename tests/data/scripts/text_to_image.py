"""Stable Diffusion fine-tuned on captioned pictures, by the calls of diffusers' example."""

import logging
import math
import os
import shutil
from contextlib import nullcontext

import accelerate
import datasets
import diffusers
import torch
import transformers
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_dream_and_update_latents, compute_snr
from diffusers.utils import check_min_version
from diffusers.utils.import_utils import is_xformers_available
from diffusers.utils.torch_utils import is_compiled_module
from packaging import version
from text_to_image_arguments import parse_args
from text_to_image_data import collate, pictures
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import ContextManagers

check_min_version("0.30.0")
logger = get_logger(__name__, log_level="INFO")


def without_zero_init():
    """Contexts in which models are whole at stage 3: accelerate prepares one model alone."""
    is_known = accelerate.state.is_initialized()
    plugin = AcceleratorState().deepspeed_plugin if is_known else None
    return [plugin.zero3_init_context_manager(enable=False)] if plugin is not None else []


def frozen_parts(args):
    root, of = args.pretrained_model_name_or_path, args.revision
    tokenizer = CLIPTokenizer.from_pretrained(root, subfolder="tokenizer", revision=of)
    with ContextManagers(without_zero_init()):
        text = CLIPTextModel.from_pretrained(
            root, subfolder="text_encoder", revision=of, variant=args.variant
        )
        vae = AutoencoderKL.from_pretrained(
            root, subfolder="vae", revision=of, variant=args.variant
        )
    vae.requires_grad_(False)
    text.requires_grad_(False)
    return tokenizer, text, vae


def averaged(args):
    """A second U-Net from the same folder, whose weights follow the first's."""
    unet = UNet2DConditionModel.from_pretrained(
        args.pretrained_model_name_or_path,
        subfolder="unet",
        revision=args.revision,
        variant=args.variant,
    )
    return EMAModel(
        unet.parameters(),
        model_cls=UNet2DConditionModel,
        model_config=unet.config,
        foreach=args.foreach_ema,
    )


def use_xformers(unet):
    if not is_xformers_available():
        raise ValueError("xformers is not installed")
    import xformers

    if version.parse(xformers.__version__) == version.parse("0.0.16"):
        logger.warning("xformers 0.0.16 fails on some GPUs")
    unet.enable_xformers_memory_efficient_attention()


def add_hooks(accelerator, args, ema):
    def on_save(models, weights, output_dir):
        if not accelerator.is_main_process:
            return
        if ema is not None:
            ema.save_pretrained(os.path.join(output_dir, "unet_ema"))
        for model in models:
            model.save_pretrained(os.path.join(output_dir, "unet"))
        weights.clear()  # diffusers pops one for each, and there are none under DeepSpeed

    def on_load(models, input_dir):
        if ema is not None:
            folder = os.path.join(input_dir, "unet_ema")
            loaded = EMAModel.from_pretrained(
                folder, UNet2DConditionModel, foreach=args.foreach_ema
            )
            ema.load_state_dict(loaded.state_dict())
            ema.to(accelerator.device)
        while models:
            model = models.pop()
            loaded = UNet2DConditionModel.from_pretrained(input_dir, subfolder="unet")
            model.register_to_config(**loaded.config)
            model.load_state_dict(loaded.state_dict())

    accelerator.register_save_state_pre_hook(on_save)
    accelerator.register_load_state_pre_hook(on_load)


def optimizer_class(args):
    if not args.use_8bit_adam:
        return torch.optim.AdamW
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit


def noisy_and_target(args, unet, scheduler, latents, states):
    """What the U-Net sees, when, and what it is to answer."""
    noise = torch.randn_like(latents)
    if args.noise_offset:
        shape = (latents.shape[0], latents.shape[1], 1, 1)
        noise += args.noise_offset * torch.randn(shape, device=latents.device)
    seen = noise
    if args.input_perturbation:
        seen = noise + args.input_perturbation * torch.randn_like(noise)
    count = scheduler.config.num_train_timesteps
    steps = torch.randint(0, count, (latents.shape[0],), device=latents.device).long()
    noisy = scheduler.add_noise(latents, seen, steps)
    if args.prediction_type is not None:
        scheduler.register_to_config(prediction_type=args.prediction_type)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        target = noise
    elif kind == "v_prediction":
        target = scheduler.get_velocity(latents, noise, steps)
    else:
        raise ValueError(kind)
    if args.dream_training:
        noisy, target = compute_dream_and_update_latents(
            unet, scheduler, steps, noise, noisy, target, states, args.dream_detail_preservation
        )
    return noisy, steps, target


def loss_of(args, scheduler, predicted, target, steps):
    if args.snr_gamma is None:
        return functional.mse_loss(predicted.float(), target.float(), reduction="mean")
    snr = compute_snr(scheduler, steps)
    bound = args.snr_gamma * torch.ones_like(steps)
    weights = torch.stack([snr, bound], dim=1).min(dim=1)[0]
    is_noise = scheduler.config.prediction_type == "epsilon"
    weights = weights / (snr if is_noise else snr + 1)
    loss = functional.mse_loss(predicted.float(), target.float(), reduction="none")
    return (loss.mean(dim=list(range(1, len(loss.shape)))) * weights).mean()


def begin(accelerator, args):
    logging.basicConfig(
        format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO
    )
    logger.info(accelerator.state, main_process_only=False)
    if accelerator.is_local_main_process:
        datasets.utils.logging.set_verbosity_warning()
        transformers.utils.logging.set_verbosity_warning()
        diffusers.utils.logging.set_verbosity_info()
    else:
        datasets.utils.logging.set_verbosity_error()
        transformers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.set_verbosity_error()
    if args.seed is not None:
        set_seed(args.seed)
    if accelerator.is_main_process:
        os.makedirs(args.output_dir, exist_ok=True)


def keep(accelerator, args, step):
    """Saves the state, and removes the oldest of those that are too many."""
    if not accelerator.is_main_process:
        return
    if args.checkpoints_total_limit is not None:
        kept = [d for d in os.listdir(args.output_dir) if d.startswith("checkpoint")]
        kept.sort(key=lambda name: int(name.split("-")[1]))
        for name in kept[: max(0, len(kept) - args.checkpoints_total_limit + 1)]:
            shutil.rmtree(os.path.join(args.output_dir, name))
    accelerator.save_state(os.path.join(args.output_dir, f"checkpoint-{step}"))


def look(accelerator, args, unet, parts, dtype):
    """Pictures of the prompts, by a pipeline of the parts as they are now."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        args.pretrained_model_name_or_path,
        vae=accelerator.unwrap_model(parts["vae"]),
        text_encoder=accelerator.unwrap_model(parts["text_encoder"]),
        tokenizer=parts["tokenizer"],
        unet=accelerator.unwrap_model(unet),
        safety_checker=None,
        revision=args.revision,
        variant=args.variant,
        torch_dtype=dtype,
    )
    pipeline = pipeline.to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    if args.enable_xformers_memory_efficient_attention:
        pipeline.enable_xformers_memory_efficient_attention()
    generator = None
    if args.seed is not None:
        generator = torch.Generator(device=accelerator.device).manual_seed(args.seed)
    for prompt in args.validation_prompts:
        is_mps = torch.backends.mps.is_available()
        with nullcontext() if is_mps else torch.autocast(accelerator.device.type):
            found = pipeline(prompt, num_inference_steps=20, generator=generator).images
        logger.info(f"{prompt}: {found[0].size}")
    del pipeline
    torch.cuda.empty_cache()


def resumed(accelerator, args):
    """The step that training begins with."""
    named = args.resume_from_checkpoint
    if named == "latest":
        kept = [d for d in os.listdir(args.output_dir) if d.startswith("checkpoint")]
        kept.sort(key=lambda name: int(name.split("-")[1]))
        named = kept[-1] if kept else None
    if not named:
        return 0
    accelerator.print(f"resuming from {named}")
    accelerator.load_state(os.path.join(args.output_dir, os.path.basename(named)))
    return int(named.split("-")[1])


def main():  # noqa: C901
    args = parse_args()
    project = ProjectConfiguration(
        project_dir=args.output_dir, logging_dir=os.path.join(args.output_dir, args.logging_dir)
    )
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=args.report_to,
        project_config=project,
    )
    if torch.backends.mps.is_available():
        accelerator.native_amp = False
    begin(accelerator, args)

    root = args.pretrained_model_name_or_path
    scheduler = DDPMScheduler.from_pretrained(root, subfolder="scheduler")
    tokenizer, text, vae = frozen_parts(args)
    unet = UNet2DConditionModel.from_pretrained(
        root, subfolder="unet", revision=args.non_ema_revision
    )
    unet.train()
    ema = averaged(args) if args.use_ema else None
    if args.enable_xformers_memory_efficient_attention:
        use_xformers(unet)
    add_hooks(accelerator, args, ema)
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if args.allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
    samples = args.train_batch_size * accelerator.num_processes * args.gradient_accumulation_steps
    optimizer = optimizer_class(args)(
        unet.parameters(),
        lr=args.learning_rate * (samples if args.scale_lr else 1),
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    rows = pictures(args, tokenizer, accelerator)
    loader = torch.utils.data.DataLoader(
        rows,
        shuffle=True,
        collate_fn=collate,
        batch_size=args.train_batch_size,
        num_workers=args.dataloader_num_workers,
    )
    ranks = accelerator.num_processes
    an_epoch = math.ceil(math.ceil(len(loader) / ranks) / args.gradient_accumulation_steps)
    steps = args.max_train_steps or args.num_train_epochs * an_epoch
    rate = get_scheduler(
        args.lr_scheduler,
        optimizer=optimizer,
        num_warmup_steps=args.lr_warmup_steps * ranks,
        num_training_steps=steps * ranks,
    )
    unet, optimizer, loader, rate = accelerator.prepare(unet, optimizer, loader, rate)
    if ema is not None and args.offload_ema:
        ema.pin_memory()
    elif ema is not None:
        ema.to(accelerator.device)
    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = kinds.get(accelerator.mixed_precision, torch.float32)
    text.to(accelerator.device, dtype=dtype)
    vae.to(accelerator.device, dtype=dtype)
    an_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
    if accelerator.is_main_process:
        known = dict(vars(args))
        known.pop("validation_prompts")
        accelerator.init_trackers("text2image", known)
    logger.info(f"  Total train batch size = {samples}")
    step = resumed(accelerator, args)
    bar = tqdm(
        range(steps),
        initial=step,
        desc="Steps",
        disable=not accelerator.is_local_main_process,
    )
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer}
    for epoch in range(step // an_epoch, math.ceil(steps / an_epoch)):
        train_loss = 0.0
        for batch in loader:
            with accelerator.accumulate(unet):
                latents = vae.encode(batch["pixel_values"].to(dtype)).latent_dist.sample()
                latents = latents * vae.config.scaling_factor
                states = text(batch["input_ids"], return_dict=False)[0]
                noisy, when, target = noisy_and_target(args, unet, scheduler, latents, states)
                predicted = unet(noisy, when, states, return_dict=False)[0]
                loss = loss_of(args, scheduler, predicted, target, when)
                of_all = accelerator.gather(loss.repeat(args.train_batch_size)).mean()
                train_loss += of_all.item() / args.gradient_accumulation_steps
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), args.max_grad_norm)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                if ema is not None:
                    if args.offload_ema:
                        ema.to(device="cuda", non_blocking=True)
                    ema.step(unet.parameters())
                    if args.offload_ema:
                        ema.to(device="cpu", non_blocking=True)
                bar.update(1)
                step += 1
                accelerator.log({"train_loss": train_loss}, step=step)
                train_loss = 0.0
                if step % args.checkpointing_steps == 0:
                    keep(accelerator, args, step)
            bar.set_postfix(step_loss=loss.detach().item(), lr=rate.get_last_lr()[0])
            if step >= steps:
                break
        is_looked_at = args.validation_prompts and epoch % args.validation_epochs == 0
        if accelerator.is_main_process and is_looked_at:
            if ema is not None:
                ema.store(unet.parameters())
                ema.copy_to(unet.parameters())
            look(accelerator, args, unet, parts, dtype)
            if ema is not None:
                ema.restore(unet.parameters())
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        model = accelerator.unwrap_model(unet)
        model = model._orig_mod if is_compiled_module(model) else model
        if ema is not None:
            ema.copy_to(model.parameters())
        pipeline = StableDiffusionPipeline.from_pretrained(
            root,
            text_encoder=text,
            vae=vae,
            unet=model,
            revision=args.revision,
            variant=args.variant,
        )
        pipeline.save_pretrained(args.output_dir)
    accelerator.end_training()


if __name__ == "__main__":
    main()
