"""Rules that people calculate by, beside the ledger: closed forms of papers and rules of thumb.

Every rule is one declared record. Its formula reads a few numbers of the job and gives bytes; the
ledger's number next to it is this job's, per GPU, and one line says why the two differ.
"""

from zero_sizer.crosscheck.rules.inference import INFERENCE_RULES
from zero_sizer.crosscheck.rules.record import Rule, numbers_of
from zero_sizer.crosscheck.rules.table import TRAINING_RULES
from zero_sizer.sizing import Sizing
from zero_sizer.util.records import dataclass

RULES = (*TRAINING_RULES, *INFERENCE_RULES)
"""All of them, in reading order; those about both tasks stand first."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A rule's bytes for one job, and the ledger's.

    Attributes:
        low: the rule's bytes.
        high: the same, or the upper end of its range.
        ledger: the ledger's bytes, per GPU.
    """

    rule: Rule
    low: int
    high: int
    ledger: int


def answers(sizing: Sizing) -> tuple[Answer, ...]:
    """Answers of the rules that are about this job; empty where the job could not be planned."""
    plan = sizing.plan
    if plan is None:
        return ()
    numbers = numbers_of(plan)
    return tuple(
        Answer(
            rule=rule,
            low=round(rule.formula(numbers)),
            high=round((rule.highest or rule.formula)(numbers)),
            ledger=rule.ledger(sizing),
        )
        for rule in RULES
        if plan.task in rule.tasks and rule.when(plan)
    )


def by_name(name: str) -> Rule:
    """The rule of this name.

    Raises:
        KeyError: there is none.
    """
    return {rule.name: rule for rule in RULES}[name]
