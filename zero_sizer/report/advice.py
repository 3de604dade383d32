"""Choices and cluster sizes for a reader at a terminal, and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zero_sizer.advise.choose import Choice
from zero_sizer.advise.limits import Limits
from zero_sizer.advise.search import Candidate, Loss, Search
from zero_sizer.advise.verdict import words_of
from zero_sizer.findings import Reason
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import NONE_GIVEN
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.json import reason_mapping
from zero_sizer.report.table import gib, show_line, show_table
from zero_sizer.report.verdict import WORDS, reason_line, show_words
from zero_sizer.speed import as_mapping
from zero_sizer.units import format_gib

_HEAD = {Device.GPU: "GPU", Device.HOST: "host", Device.NVME: "NVMe"}
_REASONS = 3  # printed where nothing fits
_WORTH_SHOWING = 0.005  # share of the step below which a term is left out


def show_choice(choice: Choice) -> None:
    """Print the winner, the runners-up, why the others lost, and where the winner's time goes."""
    winner = choice.winner
    if winner is None:
        _show_nothing(choice)
    else:
        show_line(f"CHOSEN: {_plan_line(winner)}")
        show_line(f"on {_where(choice)}; {_pace(choice, winner)}", indent="")
        show_doubt(choice.verdict, choice.reasons)
        print()
        _show_ranked(choice)
        print()
        _show_time(choice, winner)
    if choice.losses:
        print()
        _show_losses(choice.losses)
    print()
    for line in _notes(choice):
        show_line(line)


def _show_nothing(choice: Choice) -> None:
    refused = choice.losses and all(not loss.closest for loss in choice.losses)
    word = f"NOTHING {'CAN RUN' if refused else 'FITS'}"
    if choice.verdict is Verdict.UNCERTAIN:
        word = "NOTHING FITS FOR CERTAIN"
    show_line(f"{word}: {_where(choice)}")
    for reason in choice.reasons[:_REASONS]:
        show_line(f"    {reason_line(reason)}", indent="      ")


def show_doubt(verdict: Verdict, reasons: Sequence[Reason]) -> None:
    """Print why a plan that was chosen may not fit after all."""
    if verdict is not Verdict.FITS:
        show_words(WORDS[verdict], [reason_line(reason) for reason in reasons])


def _where(choice: Choice) -> str:
    job = choice.search.job
    gpu = job.cluster.gpu.name if job.cluster.gpu else "GPUs"
    return f"{job.model.name} on {job.cluster.layout} {gpu}"


def _plan_line(candidate: Candidate) -> str:
    checkpointing = "with" if candidate.checkpointing else "without"
    steps = candidate.grad_accum
    return (
        f"{candidate.strategy.name}, micro batch {candidate.micro_batch}, {steps} gradient "
        f"accumulation step{'s' if steps > 1 else ''}, {checkpointing} activation checkpointing"
    )


def _pace(choice: Choice, candidate: Candidate) -> str:
    speed = speed_of(choice, candidate)
    if speed is None:
        return ""
    step, rate = speed["step_seconds"], speed["tokens_per_second_per_gpu"]
    return (
        f"a step of {candidate.train_batch} samples takes {step['expected']:.2f} s "
        f"({step['low']:.2f} to {step['high']:.2f}), {rate['expected']:,.0f} tokens/s a GPU"
    )


def speed_of(choice: Choice, candidate: Candidate) -> Mapping[str, Any] | None:
    """The speed block of one candidate."""
    search = choice.search
    return as_mapping(search.plan(candidate), search.job.cluster)


def _show_ranked(choice: Choice) -> None:
    best = choice.ranked[0].seconds_per_token
    devices = [d for d in Device if any(c.uses[d].num_bytes for c in choice.ranked)]
    rows = [
        (
            candidate.strategy.name,
            f"{candidate.micro_batch} x {candidate.grad_accum}",
            "yes" if candidate.checkpointing else "no",
            f"{candidate.tokens_per_second:,.0f}",
            f"{candidate.seconds_per_token / best:.2f}x" if best else "",
            *(gib(candidate.uses[device].num_bytes) for device in devices),
        )
        for candidate in choice.ranked
    ]
    used = (f"{_HEAD[device]} GiB" for device in devices)
    heads = ("fits", "batch x steps", "ckpt", "tokens/s", "time", *used)
    show_table(heads, rows, right=range(3, len(heads)))


def _show_time(choice: Choice, winner: Candidate) -> None:
    speed = speed_of(choice, winner)
    if speed is None:
        return
    total = speed["step_seconds"]["expected"]
    rows = [
        (
            f"{term['visible_seconds']:.3f} s",
            f"{term['visible_seconds'] / total:.0%}",
            term["name"].replace("_", " "),
            term["formula"],
        )
        for term in speed["terms"]
        if term["visible_seconds"] >= _WORTH_SHOWING * total
    ]
    show_table(("", "", "where the step's time goes", ""), rows, right=(0, 1))


def _show_losses(losses: Iterable[Loss]) -> None:
    rows = [(loss.strategy.name, why(loss), _entries(loss)) for loss in losses]
    show_table(("strategy", "why not", "the largest there"), rows)


def why(loss: Loss) -> str:
    """What a strategy is short of, in a line."""
    if loss.refusals:
        return loss.refusals[0].message
    if loss.closest is None:
        return loss.reason
    missing = ", ".join(words_of(shortfall) for shortfall in loss.shortfalls)
    checkpointing = ", checkpointing" if loss.closest.checkpointing else ""
    return f"{missing} (micro batch {loss.closest.micro_batch}{checkpointing})"


def _entries(loss: Loss) -> str:
    return ", ".join(f"{entry.name} {format_gib(entry.num_bytes)}" for entry in loss.entries[:2])


def _notes(choice: Choice) -> Iterable[str]:
    yield f"{choice.considered:,} plans considered; left free: {_margins(choice.search.limits)}"
    yield from warnings(choice.search)
    winner = choice.winner
    if winner is None:
        return
    if choice.search.job.origins.get("deepspeed") == NONE_GIVEN:
        dtype = choice.search.plan(winner).model_dtype.value
        yield f"no config was given: AdamW in {dtype}; --precision says otherwise"
    batch = choice.search.batch
    if batch.train_batch is None:
        yield (
            f"the batch was free: {winner.train_batch} samples of {choice.search.seq_len} tokens a "
            "step; fix it with --train-batch-size"
        )
    if choice.search.job.workload.checkpointing is None:
        verb = "turn on" if winner.checkpointing else "leave off"
        yield f"{verb} activation checkpointing in the training code: no DeepSpeed key does that"


def warnings(search: Search) -> Iterable[str]:
    """What the plans leave out, a line each."""
    for finding in search.warnings:
        yield (
            f"{finding.severity.value}: {finding.key}: {finding.message}; {finding.remedy} "
            f"[{finding.code}]"
        )
    if not search.knows_activations:
        yield "only the smallest micro batch was tried: what a larger one takes is not known"


def warnings_mapping(search: Search) -> list[dict[str, str]]:
    """The same as JSON."""
    return [
        {"code": f.code, "key": f.key, "message": f.message, "remedy": f.remedy}
        for f in search.warnings
    ]


def _margins(limits: Limits) -> str:
    shares = ", ".join(f"{share:.0%} of {device.value}" for device, share in limits.margins.items())
    return f"{shares}, and on a GPU the most that context and communication took elsewhere"


def choice_mapping(choice: Choice) -> dict[str, Any]:
    """The choice as JSON."""
    winner = choice.winner
    return {
        "schema_version": 1,
        "verdict": choice.verdict.value,
        "reasons": [reason_mapping(reason) for reason in choice.reasons],
        "chosen": None if winner is None else _candidate(choice, winner),
        "config": None if winner is None else choice.search.job_of(winner).document.values,
        "runners_up": [_candidate(choice, candidate) for candidate in choice.ranked[1:]],
        "do_not_fit": [_loss(loss) for loss in choice.losses],
        "considered": choice.considered,
        "warnings": warnings_mapping(choice.search),
        "margins": {device.value: share for device, share in choice.search.limits.margins.items()},
    }


def _candidate(choice: Choice, candidate: Candidate) -> dict[str, Any]:
    return {**plan_mapping(candidate), "speed": speed_of(choice, candidate)}


def plan_mapping(candidate: Candidate) -> dict[str, Any]:
    """One plan as JSON, without its speed."""
    return {
        "strategy": candidate.strategy.name,
        "stage": candidate.strategy.stage,
        "nodes": candidate.nodes,
        "world_size": candidate.world_size,
        "micro_batch": candidate.micro_batch,
        "gradient_accumulation_steps": candidate.grad_accum,
        "checkpointing": candidate.checkpointing,
        "buckets": dict(candidate.setting.keys),
        "step_seconds": candidate.seconds,
        "tokens_per_second": candidate.tokens_per_second,
        "peak_bytes": {device.value: use.num_bytes for device, use in candidate.uses.items()},
    }


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "strategy": loss.strategy.name,
        "reason": why(loss),
        "short": [
            {
                "device": shortfall.device.value,
                "need_bytes": shortfall.need_bytes,
                "missing_bytes": shortfall.missing_bytes,
                "moment": shortfall.moment.value,
            }
            for shortfall in loss.shortfalls
        ],
        "largest": [{"name": e.name, "num_bytes": e.num_bytes} for e in loss.entries],
    }
