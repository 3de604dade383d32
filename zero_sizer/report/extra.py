"""Libraries that only an HTML report needs, of the extra ``report``."""

from zero_sizer.errors import InputError


def missing(error: ImportError) -> InputError:
    """The error for a user who has not installed one of them."""
    return InputError(
        f"an HTML report needs {error.name}",
        remedy="pip install 'zero-sizer[report]'",
        where="--format html",
    )
