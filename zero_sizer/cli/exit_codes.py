"""Exit codes of the documented contract: one table for every command."""

from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import Sizing

OK, DOES_NOT_FIT, UNCERTAIN = 0, 1, 3

_CODES = {Verdict.FITS: OK, Verdict.DOES_NOT_FIT: DOES_NOT_FIT, Verdict.UNCERTAIN: UNCERTAIN}


def of_verdict(verdict: Verdict | None) -> int:
    """0 fits, or nothing was asked; 1 does not fit, 3 could not tell."""
    return OK if verdict is None else _CODES[verdict]


def exit_code(sizing: Sizing) -> int:
    """0 fits and valid, 1 does not fit or an error-level finding, 3 could not tell."""
    return of_verdict(sizing.verdict) if sizing.is_valid else DOES_NOT_FIT
