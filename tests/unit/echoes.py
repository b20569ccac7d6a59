"""The forms in which clouds, proxies and libraries repeat what was sent to them.

Not for: where they are repeated to (`test_redaction`, `test_secrets_stay`).
"""

import base64
import json
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import quote

FORMS: Final[dict[str, Callable[[str], str]]] = {
    "plain": lambda value: value,
    "quoted": lambda value: f"'{value}'",
    "lower case": str.lower,
    "url-encoded": lambda value: quote(value, safe=""),
    "url-encoded, lower-case digits": lambda value: quote(value, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "url-encoded twice": lambda value: quote(quote(value, safe=""), safe=""),
    "decoded once too often": lambda value: value.replace("+", " "),
    "json": json.dumps,
    "json with escaped slashes": lambda value: json.dumps(value).replace("/", "\\/"),
    "json in json": lambda value: json.dumps(json.dumps(value)),
    "json with every character escaped": lambda value: "".join(f"\\u{ord(character):04x}" for character in value),
    "html": lambda value: escape(value.replace("+", "&#43;")).replace("=", "&#x3d;"),
    "python repr of bytes": lambda value: repr(value.encode()),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for addresses": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "base64 with something before": lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    "base64 twice": lambda value: base64.b64encode(base64.b64encode(value.encode())).decode(),
    "base64, glued to a word": lambda value: "sent" + base64.b64encode(value.encode()).decode(),
    "base64, url-encoded": lambda value: quote(base64.b64encode(value.encode()).decode(), safe=""),
    "base64 in lines": lambda value: base64.encodebytes(value.encode()).decode(),
    "in lines": lambda value: "\n    ".join(value[at : at + 20] for at in range(0, len(value), 20)),
    "8 characters": lambda value: value[:8],
    "half": lambda value: value[: len(value) // 2] + "...",
    "half of it url-encoded": lambda value: quote(value, safe="")[: len(value) // 2],
    "8 characters of its base64": lambda value: base64.b64encode(value.encode()).decode()[:8],
    "20 characters of its base64": lambda value: base64.b64encode(value.encode()).decode()[:20],
}
