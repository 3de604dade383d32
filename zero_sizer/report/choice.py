"""The answer of ``choose`` in sections: as an HTML page, and as Markdown."""

from collections.abc import Iterator

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Choice
from zero_sizer.advise.emit import edits
from zero_sizer.advise.start import Start
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report import advice, markdown, page
from zero_sizer.report.emitted import config_text, edit_row
from zero_sizer.report.settings import split_lines
from zero_sizer.report.sheet import Section, Sheet
from zero_sizer.report.text import NAMES
from zero_sizer.report.training import lines as training_lines
from zero_sizer.report.training import run_columns
from zero_sizer.report.verdict import WORDS, rate_name, reason_line
from zero_sizer.units import format_gib


def show_page(choice: Choice, start: Start | None = None) -> None:
    """Print a page of HTML."""
    print(page.page_of_sheet(sheet_of(choice, start), command=page.command()))


def show_markdown(choice: Choice, start: Start | None = None) -> None:
    """Print Markdown."""
    markdown.show_sheet(sheet_of(choice, start))


def sheet_of(choice: Choice, start: Start | None = None) -> Sheet:
    """Lays a choice out."""
    winner = choice.winner
    reasons = tuple(map(reason_line, choice.reasons))
    if winner is None:
        verdict = advice.nothing(choice)
    else:
        verdict = advice.plan_line(winner)
        if choice.verdict is not Verdict.FITS:
            verdict += f": {WORDS[choice.verdict]}"
        chosen = (advice.pace(choice, winner), advice.with_flags(choice).removeprefix(", "))
        reasons = (*filter(None, chosen), *reasons)
    return Sheet(
        verdict=verdict[:1].upper() + verdict[1:],
        kind=choice.verdict,
        reasons=reasons,
        job=advice.where(choice),
        sections=tuple(_sections(choice, start)),
    )


def _sections(choice: Choice, start: Start | None) -> Iterator[Section]:
    winner = choice.winner
    if winner is not None:
        yield _ranked(choice)
        yield _config(choice, winner)
        for launch in start.launches if start is not None else ():
            yield Section(title=f"What starts it: {launch.how}", code=launch.text)
    if choice.run is not None:
        yield Section(title="Training run", lines=tuple(training_lines(choice.run)))
    if choice.others:
        yield _others(choice)
    if choice.losses and choice.search.refusal is None:
        yield Section(
            title="What does not fit, and why",
            heads=("strategy", "why not", "least of each, alone", "the largest there"),
            rows=tuple(
                (loss.strategy.name, advice.why(loss), advice.least(loss), advice.entries(loss))
                for loss in choice.losses
            ),
        )
    assumed = advice.assumptions(choice.search, winner, is_free=choice.is_free)
    yield Section(title="Notes", lines=(*assumed, *advice.notes(choice)), is_list=True)


def _ranked(choice: Choice) -> Section:
    best = choice.ranked[0].seconds_per_token
    devices = [d for d in Device if any(plan.uses[d].num_bytes for plan in choice.ranked)]
    runs = run_columns(choice.runs)
    rows = [
        (
            plan.strategy.name,
            f"{plan.micro_batch} x {plan.grad_accum}",
            plan.checkpointed,
            f"{plan.tokens_per_second:,.0f}",
            f"{plan.seconds_per_token / best:.2f}x" if best else "",
            *(format_gib(plan.uses[device].num_bytes) for device in devices),
            *(column[index + 1] for column in runs),
        )
        for index, plan in enumerate(choice.ranked)
    ]
    first = ("plan", "batch x steps", "checkpointing", rate_name(choice.search.job), "time")
    heads = (*first, *(NAMES[device] for device in devices), *(column[0] for column in runs))
    return Section(
        title="What fits, the fastest first",
        lines=tuple(split_lines(choice.ranked)),
        name="plans",
        heads=heads,
        rows=tuple(rows),
        numbers=tuple(range(3, 5 + len(devices))),
    )


def _config(choice: Choice, winner: Candidate) -> Section:
    found = edits(choice.search, winner)
    return Section(
        title="Its DeepSpeed config",
        name="config",
        lines=("Changed in it:",) if found else ("Nothing had to change.",),
        heads=("key", "was", "is", "why") if found else (),
        rows=tuple(map(edit_row, found)),
        code=config_text(choice, winner),
    )


def _others(choice: Choice) -> Section:
    return Section(
        title="Other jobs that would fit",
        heads=("job", "plan", "micro batch", "with"),
        rows=tuple(
            (other.name, plan.strategy.name, str(plan.micro_batch), " ".join(other.flags))
            for other, plan in choice.others
        ),
    )
