"""Types for fields that nothing depends on being there: null, missing or of an odd type, they were not told.

Not for: answers that decide something by their shape (`wire`): there an odd one must not pass for an empty one.
"""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator

_MAX_DIGITS: Final = 12


def text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else ""


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


Text = Annotated[str, BeforeValidator(text)]
Number = Annotated[int, BeforeValidator(number)]
Texts = Annotated[list[str], BeforeValidator(texts)]


class Reservation(BaseModel):
    """Which capacity reservation is asked for, as CCE and ECS both write it."""

    id: Text = ""
    preference: Text = ""

    @property
    def asked(self) -> str:
        """Its id; none where the preference is `none`, with which the SDK's model says that the id is ignored."""
        return "" if self.preference == "none" else self.id.lower()
