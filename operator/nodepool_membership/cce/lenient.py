"""Types for fields that nothing depends on being there: null, missing or of an odd type, they were not told.

Not for: answers that decide something by their shape (`wire`): there an odd one must not pass for an empty one.
"""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator

_MAX_DIGITS: Final = 12
_MAX_TEXT: Final = 256
"""Characters of a text; what is longer is none that a rule knows, and some are kept for an hour."""
MAX_PARTS: Final = 128
"""Of a list within a document: interfaces or disks of a server (it has 60 at most), groups or subnets of a pool."""


def text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    told = str(value) if isinstance(value, str | int) else ""
    return told if len(told) <= _MAX_TEXT else ""


def number(value: object) -> int:
    digits = text(value)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else 0


def table(value: object) -> dict[object, object]:
    return value if isinstance(value, dict) else {}


def a_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def tables(value: object) -> list[object]:
    return [item for item in a_list(value) if isinstance(item, dict)]


def texts(value: object) -> list[str]:
    return [item for item in a_list(value) if isinstance(item, str)]


def few(value: object) -> list[str]:
    return [told for item in texts(value)[:MAX_PARTS] if (told := text(item))]


Text = Annotated[str, BeforeValidator(text)]
Number = Annotated[int, BeforeValidator(number)]
Texts = Annotated[list[str], BeforeValidator(few)]


class Reservation(BaseModel):
    """Which capacity reservation is asked for, as CCE and ECS both write it."""

    id: Text = ""
    preference: Text = ""

    @property
    def asked(self) -> str:
        """Its id; none where the preference is `none`, with which the SDK's model says that the id is ignored."""
        return "" if self.preference == "none" else self.id.lower()
