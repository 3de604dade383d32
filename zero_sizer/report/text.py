"""The answer for a reader at a terminal."""

from collections.abc import Iterable

from zero_sizer.capacity import headroom
from zero_sizer.findings import Finding, Severity
from zero_sizer.ledger import Allocation
from zero_sizer.moments import Moment, Phase
from zero_sizer.peak import Peak, phase_peaks
from zero_sizer.plan import Device, Plan
from zero_sizer.report.table import show_table
from zero_sizer.sizing import Sizing, Verdict
from zero_sizer.terminal import one_line
from zero_sizer.units import format_gib

_VERDICT = {
    Verdict.FITS: "FITS",
    Verdict.DOES_NOT_FIT: "DOES NOT FIT",
    Verdict.UNCERTAIN: "COULD NOT TELL",
}
_NAME = {Device.GPU: "each GPU", Device.HOST: "each host", Device.NVME: "NVMe of each node"}
_SHOWN = 10  # allocations listed per device; the rest is one line
_EVERYWHERE = ("zero_optimization.stage", "bf16.enabled", "fp16.enabled", "optimizer.type")
_KEYS_SHOWN = 1
_NOTES = 6  # notes listed; the JSON has them all
_WORTH_A_TABLE = 2**20  # bytes: below, a device's composition is not listed


def show(sizing: Sizing, *, timeline: bool = False) -> None:
    """Print the report, with the plot where it is asked for."""
    print("\n".join(_head(sizing)))
    if sizing.plan:
        print()
        _devices(sizing)
        for device in Device:
            if sizing.peaks[device].num_bytes >= _WORTH_A_TABLE:
                print()
                _composition(sizing, device)
        if timeline:
            from zero_sizer.report.timeline import show_timeline

            show_timeline(sizing)
        _speed(sizing)
        if sizing.verdict is Verdict.DOES_NOT_FIT:
            _fixes(sizing)
    if sizing.findings:
        print()
        print("\n".join(_findings(sizing)))


def _head(sizing: Sizing) -> Iterable[str]:
    job = sizing.job
    cluster = job.cluster
    gpu = cluster.gpu.name if cluster.gpu else "GPUs of unknown size"
    yield (
        f"{_verdict(sizing)}: {one_line(job.model.name, 500)} "
        f"({job.model.num_params:,} parameters) on "
        f"{cluster.layout} {gpu}"
    )
    if sizing.plan:
        yield _job_line(sizing.plan)


def _verdict(sizing: Sizing) -> str:
    """Nobody launches a job that fits and is refused."""
    memory = _VERDICT[sizing.verdict]
    errors = _errors(sizing)
    if not errors:
        return memory
    counted = f"{errors} error{'s' if errors > 1 else ''} below"
    if sizing.verdict is Verdict.FITS:
        return f"NOT VALID, {counted} (it would fit)"
    return f"{memory}, AND NOT VALID, {counted}"


def _errors(sizing: Sizing) -> int:
    return sum(finding.severity is Severity.ERROR for finding in sizing.findings)


def _job_line(plan: Plan) -> str:
    checkpointing = "with" if plan.checkpointing else "without"
    how = plan.checkpointing_how.about if plan.checkpointing else ""
    return (
        f"ZeRO-{plan.stage}, {plan.model_dtype.value}, {plan.optimizer.name}, "
        f"micro batch {plan.micro_batch} x {plan.seq_len} tokens, "
        f"{plan.grad_accum} micro step{'s' if plan.grad_accum > 1 else ''}, "
        f"{checkpointing} checkpointing" + (f" ({how})" if how else "")
    )


def _devices(sizing: Sizing) -> None:
    rows = []
    for device in Device:
        peak, capacity = sizing.peaks[device], sizing.capacities[device]
        if not peak.num_bytes:
            continue
        phases = phase_peaks(sizing.moments[device])
        left = headroom(peak, capacity)
        rows.append(
            (
                _NAME[device],
                *(format_gib(phases[phase]) for phase in Phase),
                format_gib(peak.num_bytes),
                format_gib(capacity.num_bytes) if capacity.num_bytes else "not stated",
                format_gib(left[0]) if left else "",
            )
        )
    heads = ("highest in", *(phase.value for phase in Phase), "peak", "there is", "headroom")
    show_table(heads, rows, right=range(1, len(heads)))
    gpu = sizing.capacities[Device.GPU]
    low, high = gpu.outside_bytes
    if gpu.num_bytes is not None and high:
        print(
            "headroom of a GPU: left when context and communication take "
            f"{format_gib(high)} outside PyTorch, their most (least {format_gib(low)})"
        )


def _composition(sizing: Sizing, device: Device) -> None:
    peak = sizing.peaks[device]
    print(f"{_NAME[device]} at its peak, in {peak.moment.phase.value} ({_place(sizing, peak)}):")
    ranks = 1 if device is Device.GPU else sizing.job.cluster.gpus_per_node
    live = _live(sizing, device, peak.moment)
    rows = [
        (
            format_gib(ranks * _size(allocation)),
            allocation.name + (" (pinned)" if allocation.pinned else ""),
            allocation.about,
            _keys(sizing, allocation),
        )
        for allocation in live[:_SHOWN]
    ]
    rest = sum(_size(a) for a in live[_SHOWN:])
    if rest:
        rows.append((format_gib(ranks * rest), f"{len(live) - _SHOWN} smaller ones", "", ""))
    show_table(("", "", "", "key:line in your config"), rows, right=(0,))


def _place(sizing: Sizing, peak: Peak) -> str:
    if sizing.plan and peak.moment is Moment.FORWARD:
        return sizing.plan.timeline.forward.place
    if sizing.plan and peak.moment is Moment.BACKWARD:
        return sizing.plan.timeline.backward.place
    return peak.moment.value


def _size(allocation: Allocation) -> int:
    return allocation.num_bytes + allocation.rounding_bytes


def _live(sizing: Sizing, device: Device, moment: Moment) -> list[Allocation]:
    found = [a for a in sizing.allocations if a.device is device and moment in a.moments]
    return sorted(found, key=lambda a: -_size(a))


def _keys(sizing: Sizing, allocation: Allocation) -> str:
    """Keys of the config that decide this, with their lines; defaults stay in the JSON."""
    document = sizing.job.document
    lines = {key: document.line(key) for key in allocation.keys if document.line(key)}
    telling = {key: line for key, line in lines.items() if key not in _EVERYWHERE} or lines
    shown = [f"{key.rpartition('.')[2]}:{line}" for key, line in telling.items()][:_KEYS_SHOWN]
    return ", ".join(shown) + (", ..." if len(telling) > _KEYS_SHOWN else "")


def _fixes(sizing: Sizing) -> None:
    from zero_sizer.advise.fixes import fixes
    from zero_sizer.report.fixes import show_fixes

    print()
    found = fixes(sizing)
    show_fixes(found)
    if not found and _errors(sizing):
        print("What would make it fit is looked for once the errors are mended.")


def _speed(sizing: Sizing) -> None:
    from zero_sizer import speed

    estimate = speed.estimate(sizing)
    if estimate is not None:
        step, rate = estimate["step_seconds"], estimate["tokens_per_second_per_gpu"]
        print(
            f"\nA step takes about {step['expected']:.3g} s ({step['low']:.3g} to "
            f"{step['high']:.3g}): {rate['expected']:,.0f} tokens a second on each GPU "
            f"({rate['low']:,.0f} to {rate['high']:,.0f})."
        )


def _findings(sizing: Sizing) -> Iterable[str]:
    notes = 0
    for finding in sizing.findings:
        if finding.severity is Severity.NOTE:
            notes += 1
            if notes > _NOTES:
                continue
        yield _line(sizing, finding)
    if notes > _NOTES:
        more = notes - _NOTES
        yield f"and {more} more note{'s' if more > 1 else ''} (--format json lists them all)"


def _line(sizing: Sizing, finding: Finding) -> str:
    source = sizing.job.document.source
    where = f"{source}:{finding.line}: " if finding.line else ""
    key = f"{finding.key}: " if finding.key else ""
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    line = f"{finding.severity.value}: {where}{key}{finding.message}{remedy} [{finding.code}]"
    return one_line(line)
