"""Numbers with their nouns, and ids by name: the small words of every text that people read.

Not for: whole texts (`core.conditions.texts`).
"""

from collections.abc import Sequence
from typing import Final

_NAMED: Final = 3


def some(names: Sequence[str], where: str, total: int | None = None) -> str:
    """Up to three by name, and how many more there are: of `total`, where not all have a name here."""
    more = (len(names) if total is None else total) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more in {where}" if more > 0 else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"


def them(number: int) -> str:
    return "it" if number == 1 else "them"
