"""Choices and cluster sizes for a reader at a terminal, and as JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Choice
from zero_sizer.advise.config import ASSUMED_PRECISION
from zero_sizer.advise.curve import Point
from zero_sizer.advise.emit import edits
from zero_sizer.advise.limits import Limits
from zero_sizer.advise.rejected import RejectedStrategy
from zero_sizer.advise.search import Search
from zero_sizer.advise.start import Start
from zero_sizer.advise.verdict import words_of
from zero_sizer.findings import Reason
from zero_sizer.hardware.device import Device
from zero_sizer.job.statements import NONE_GIVEN
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.document import print_document
from zero_sizer.report.emitted import edit_mapping, show_lines, start_mapping
from zero_sizer.report.json import reason_mapping
from zero_sizer.report.settings import checkpointing_words, split_lines, split_words
from zero_sizer.report.table import gib, show_line, show_table
from zero_sizer.report.training import MARKS, run_columns, show_run
from zero_sizer.report.training import as_mapping as training_mapping
from zero_sizer.report.verdict import WORDS, brings, rate_name, reason_line, show_words, untimed
from zero_sizer.speed import as_mapping
from zero_sizer.speed.rates import explain
from zero_sizer.units import format_gib
from zero_sizer.util.terminal import output_columns

_HEAD = {Device.GPU: "GPU", Device.HOST: "host", Device.NVME: "NVMe"}
_WIDE = 110  # columns for the plans and their runs in one table
_WORTH_SHOWING = 0.005  # share of the step below which a term is left out


def show_choice(choice: Choice, start: Start | None = None) -> None:
    """Print the winner, the runners-up, why the others lost, and where the winner's time goes."""
    winner = choice.winner
    if winner is None:
        _show_nothing(choice)
    else:
        show_doubt(choice.verdict, choice.reasons)
        show_line(f"CHOSEN: {plan_line(winner)}{with_flags(choice)}")
        show_line("; ".join(filter(None, (f"on {where(choice)}", pace(choice, winner)))), indent="")
        for line in assumptions(choice.search, winner, is_free=choice.is_free):
            show_line(line, indent="  ")
        show_run(choice.run, choice.in_time, is_alike=choice.search.job.cluster.has_equal_nodes)
        print()
        _show_ranked(choice)
        print()
        _show_time(choice, winner)
    if choice.losses and choice.search.refusal is None:
        print()
        _show_losses(choice.losses)
    print()
    for line in notes(choice):
        show_line(line)
    if start is not None:
        show_lines(start)


def _show_nothing(choice: Choice) -> None:
    show_words(nothing(choice), [reason_line(reason) for reason in choice.reasons])
    show_line(where(choice))
    for alternative, plan in choice.others:
        show_line(
            f"as another job, {alternative.name} fits: {plan.strategy.name}, micro batch "
            f"{plan.micro_batch}{split_words(plan)}, with {' '.join(alternative.flags)}"
        )
    if choice.others:
        show_line(f"they leave free: {_margins(choice.search.limits)}")
    for line in assumptions(choice.search, None, is_free=choice.is_free):
        show_line(line, indent="  ")


def nothing(choice: Choice) -> str:
    """Verdict where there is no plan."""
    if choice.verdict is Verdict.UNCERTAIN:
        return "NOTHING FITS FOR CERTAIN"
    refused = choice.losses and all(not loss.closest for loss in choice.losses)
    return f"NOTHING {'CAN RUN' if refused else 'FITS'}"


def with_flags(choice: Choice) -> str:
    """Options without which no plan fits, as the end of a sentence."""
    return f", with {' '.join(choice.flags)} (nothing fits without)" if choice.flags else ""


def assumptions(search: Search, plan: Candidate | None, *, is_free: bool) -> Iterator[str]:
    """Assumptions behind the figures: the batch, the tokens, the precision and the links."""
    job, batch = search.job, search.batch
    if is_free and plan is not None:
        yield (
            f"batch: free; all are compared at {plan.train_batch} a step, about what the "
            "fastest takes without accumulation (--train-batch-size fixes it)"
        )
    elif batch.train_batch is not None and not is_free:
        yield f"batch: held at {batch.train_batch} samples a step"
    elif batch.micro_batch is not None:
        yield f"batch: held at micro batch {batch.micro_batch} x {batch.grad_accum}, of each GPU"
    else:
        yield "batch: free (--train-batch-size fixes it)"
    yield from filter(None, [measured(search, "measured: "), untimed(job)])
    if not search.sweep:
        return
    of_first = search.sweep.values(search.usable[0].name)
    base = search.sweep.plan(of_first) if plan is None else search.plan(plan)
    is_said = "seq_len" in job.workload.origins or rate_name(job) != "tokens/s"
    length = "" if is_said else " (assumed: --seq-len)"
    dtype = base.autocast_dtype or base.model_dtype
    is_assumed = job.workload.origins.get("precision") == ASSUMED_PRECISION
    said = f"{dtype.value} {ASSUMED_PRECISION}" if is_assumed else dtype.value
    words = [f"{brings(base)} a sample{length}", said, base.optimizer.name]
    rates = {rate.name: rate for rate in explain(job.cluster, dtype)}
    names = ("intra_node_gb_per_s", "inter_node_gb_per_s", "hidden")
    for name, about in zip(names, ("inside a node", "between nodes", ""), strict=True):
        rate = rates.get(name)
        if rate is None or (name.startswith("inter") and plan is not None and plan.nodes == 1):
            continue
        expected = rate.values[1]
        if about:
            words.append(f"{expected:.3g} GB/s {about}")
        else:
            words.append(f"{expected:.0%} of communication beside compute at most")
    yield "assumed: " + ", ".join(words)


def measured(search: Search, head: str = "") -> str | None:
    """The cluster profile that the figures rest on, in words; None without one."""
    profile = search.job.cluster.measured
    return None if profile is None else f"{head}{'; '.join(profile.words())} ({profile.origin})"


def show_doubt(verdict: Verdict, reasons: Sequence[Reason]) -> None:
    """Print why a plan that was chosen may not fit after all."""
    if verdict is not Verdict.FITS:
        show_words(WORDS[verdict], [reason_line(reason) for reason in reasons])


def where(choice: Choice) -> str:
    """Model and machines."""
    job = choice.search.job
    gpu = job.cluster.gpu.name if job.cluster.gpu else "GPUs"
    return f"{job.model.name} on {job.cluster.layout} {gpu}"


def plan_line(candidate: Candidate) -> str:
    """One plan in words."""
    steps = candidate.grad_accum
    return (
        f"{candidate.strategy.name}, micro batch {candidate.micro_batch}, {steps} gradient "
        f"accumulation step{'s' if steps > 1 else ''}, {checkpointing_words(candidate)}"
        f"{split_words(candidate)}"
    )


def pace(choice: Choice, candidate: Candidate) -> str:
    """Speed of a plan in words; empty where nobody knows it."""
    speed = speed_of(choice, candidate)
    if speed is None:
        return ""
    step, rate = speed["step_seconds"], speed["tokens_per_second_per_gpu"]
    return (
        f"a step of {candidate.train_batch} samples takes {step['expected']:.2f} s "
        f"({step['low']:.2f} to {step['high']:.2f}), {rate['expected']:,.0f} "
        f"{speed['counted']}/s a GPU"
    )


def speed_of(choice: Choice, candidate: Candidate) -> Mapping[str, Any] | None:
    """The speed block of one candidate."""
    search = choice.search
    return as_mapping(search.plan(candidate), search.job.cluster)


def _show_ranked(choice: Choice) -> None:
    best = choice.ranked[0].seconds_per_token
    devices = [d for d in Device if any(c.uses[d].num_bytes for c in choice.ranked)]
    runs = run_columns(choice.runs)
    beside = runs if output_columns() >= _WIDE else []
    rows = [
        (
            candidate.strategy.name,
            f"{candidate.micro_batch} x {candidate.grad_accum}",
            candidate.checkpointed,
            f"{candidate.tokens_per_second:,.0f}",
            f"{candidate.seconds_per_token / best:.2f}x" if best else "",
            *(gib(candidate.uses[device].num_bytes) for device in devices),
            *(column[index + 1] for column in beside),
        )
        for index, candidate in enumerate(choice.ranked)
    ]
    used = (f"{_HEAD[device]} GiB" for device in devices)
    heads = ("fits", "batch x steps", "ckpt", rate_name(choice.search.job), "time", *used)
    heads = (*heads, *(column[0] for column in beside))
    words = 1 if runs and runs[-1][0] == MARKS else 0
    show_table(heads, rows, right=range(3, len(heads) - (words if beside else 0)))
    for line in split_lines(choice.ranked):
        show_line(line)
    if runs and not beside:
        names = ["the run on", *(candidate.strategy.name for candidate in choice.ranked)]
        table = list(zip(names, *runs, strict=True))
        print()
        show_table(table[0], table[1:], right=range(1, 1 + len(runs) - words))


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


def _show_losses(losses: Iterable[RejectedStrategy]) -> None:
    rows = [(loss.strategy.name, why(loss), least(loss), entries(loss)) for loss in losses]
    heads = ("strategy", "why not", "least of each, alone", "the largest there")
    show_table(heads, rows)


def why(loss: RejectedStrategy) -> str:
    """Shortfalls of a strategy in a line."""
    if loss.refusals:
        return "; ".join(filter(None, (loss.refusals[0].message, loss.refusals[0].remedy)))
    if loss.closest is None:
        return loss.reason
    if not loss.shortfalls:
        return "has room, but DeepSpeed would find no buffer for weights on NVMe"
    missing = ", ".join(words_of(shortfall) for shortfall in loss.shortfalls)
    checkpointing = ", checkpointing" if loss.closest.checkpointing else ""
    return f"{missing} (micro batch {loss.closest.micro_batch}{checkpointing})"


def least(loss: RejectedStrategy) -> str:
    """Bytes of each device, with the most frugal setting for it."""
    return ", ".join(f"{d.value} {format_gib(size)}" for d, size in loss.least.items() if size)


def entries(loss: RejectedStrategy) -> str:
    """Largest allocations there, with their sizes."""
    return ", ".join(f"{entry.name} {format_gib(entry.num_bytes)}" for entry in loss.entries[:2])


def notes(choice: Choice) -> Iterable[str]:
    """Notes on the search and on what the user has to do beside it."""
    yield f"{choice.considered:,} plans decided; left free: {_margins(choice.search.limits)}"
    yield from warnings(choice.search)
    if choice.is_tight:
        yield "nothing fits with the usual margin left free: it is left out"
    winner = choice.winner
    if winner is None:
        return
    if choice.search.job.origins.get("deepspeed") == NONE_GIVEN:
        dtype = choice.search.plan(winner).model_dtype.value
        optimizer = choice.search.job.workload.optim or "AdamW"
        yield f"no config was given: {optimizer} in {dtype}; --precision and --optim say otherwise"
    if choice.search.job.workload.checkpointing is None:
        yield _on_checkpointing(winner)


def _on_checkpointing(winner: Candidate) -> str:
    if winner.every > 1:
        return (
            f"turn on activation checkpointing of one block in {winner.every} in the training code "
            f'(the Trainer\'s gradient_checkpointing_kwargs: {{"every_n_layers": {winner.every}}}, '
            "in transformers 5.23): no DeepSpeed key does that; --checkpointing asks for all blocks"
        )
    verb = "turn on" if winner.checkpointing else "leave off"
    return f"{verb} activation checkpointing in the training code: no DeepSpeed key does that"


def warnings(search: Search) -> Iterable[str]:
    """Warnings about what the plans leave out, a line each."""
    for finding in search.warnings:
        yield (
            f"{finding.severity.value}: {finding.key}: {finding.message}; {finding.remedy} "
            f"[{finding.code}]"
        )
    if not search.knows_activations:
        yield "only the smallest micro batch was tried: what a larger one takes is not known"


def warnings_mapping(search: Search) -> list[dict[str, str]]:
    """Warnings about what the plans leave out, as JSON."""
    return [
        {"code": f.code, "key": f.key, "message": f.message, "remedy": f.remedy}
        for f in search.warnings
    ]


def _margins(limits: Limits) -> str:
    shares = ", ".join(f"{share:.0%} of {device.value}" for device, share in limits.margins.items())
    return f"{shares}, and on a GPU the most that context and communication took elsewhere"


def print_choice(choice: Choice, start: Start | None = None) -> None:
    """Print the choice as JSON, with what starts it where that was asked for."""
    started = start_mapping(start) if start and choice.winner and start.is_asked else {}
    print_document({**choice_mapping(choice), **started})


def choice_mapping(choice: Choice) -> dict[str, Any]:
    """The choice as JSON."""
    winner = choice.winner
    return {
        "schema_version": 1,
        "verdict": choice.verdict.value,
        "reasons": [reason_mapping(reason) for reason in choice.reasons],
        "chosen": None if winner is None else _candidate(choice, winner),
        "config": None if winner is None else choice.search.job_of(winner).document.values,
        "runners_up": [
            _candidate(choice, candidate, index)
            for index, candidate in enumerate(choice.ranked[1:], start=1)
        ],
        "fewest_in_time": None if choice.in_time is None else point_mapping(choice.in_time),
        "do_not_fit": [_loss(loss) for loss in choice.losses],
        "changes": [] if winner is None else list(map(edit_mapping, edits(choice.search, winner))),
        "flags": list(choice.flags),
        "other_jobs": [
            {"name": other.name, "flags": list(other.flags), "plan": plan_mapping(plan)}
            for other, plan in choice.others
        ],
        "batch": {
            "is_free": choice.is_free,
            "train_batch_size": choice.search.batch.train_batch,
            "seq_len": choice.search.seq_len if choice.search.sweep else None,
        },
        "considered": choice.considered,
        "measured": measured(choice.search),
        "warnings": warnings_mapping(choice.search),
        "margins": {device.value: share for device, share in choice.search.limits.margins.items()},
    }


def _candidate(choice: Choice, candidate: Candidate, index: int = 0) -> dict[str, Any]:
    run = training_mapping(choice.runs[index]) if choice.runs else None
    return {
        **plan_mapping(candidate),
        "speed": speed_of(choice, candidate),
        "training": run,
    }


def point_mapping(point: Point) -> dict[str, Any]:
    """One number of nodes as JSON."""
    return {
        **plan_mapping(point.plan),
        "efficiency": point.efficiency,
        "gained": point.gained,
        "training": None if point.training is None else training_mapping(point.training),
    }


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
        "checkpointing_how": candidate.checkpointed if candidate.every > 1 else "",
        "buckets": dict(candidate.setting.keys),
        "step_seconds": candidate.seconds,
        "tokens_per_second": candidate.tokens_per_second,
        "peak_bytes": {device.value: use.num_bytes for device, use in candidate.uses.items()},
    }


def _loss(loss: RejectedStrategy) -> dict[str, Any]:
    return {
        "strategy": loss.strategy.name,
        "reason": why(loss),
        "least_bytes": {device.value: size for device, size in loss.least.items()},
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
