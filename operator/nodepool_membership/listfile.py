"""Reads the file of an option that is a YAML list: bounded, and with an error that names the file and the remedy.

Not for: what its entries are (`cce.services`, `runtime.ops.grants`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

_MAX_BYTES: Final = 1 << 20


def read_list(path: Path, remedy: str, error: Callable[[str], Exception]) -> list[object]:
    """The entries of the file, as YAML has them.

    Raises:
        what `error` makes of the text: it cannot be read, is too large, or is no YAML list.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as cause:
        raise error(f"{str(path)!r} cannot be read: {cause.strerror}") from None
    if len(text) > _MAX_BYTES:
        raise error(f"{str(path)!r} has more than {_MAX_BYTES >> 20} MiB: {remedy}")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise error(f"{str(path)!r} is not YAML: {remedy}") from None
    if not isinstance(document, list):
        raise error(f"{str(path)!r} is not a list: {remedy}")
    return document
