"""Structured logs on stderr: one JSON object or one line of text a record, by the standard library's logging.

The last thing that happens to a record is that secrets are taken out, whoever's text, extra field or traceback they
are in. Not for: knowing them (`redaction`).
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal

from nodepool_membership import redaction

_logger = logging.getLogger(__name__)

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("kopf", "httpx", "httpcore", "asyncio", "aiohttp")
"""Their INFO lines are per event or per request and tell an operator's user nothing."""


_ORDERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls of C0 and C1, separators of lines and paragraphs, changes of the direction of writing, half characters."""

_LOUD: Final = "kopf._core.reactor.running"
"""Warns that it takes no signals outside the main thread, which is why it runs there (`watch`)."""


def configure(log_format: LogFormat, level: LogLevel) -> None:
    """Send all records of this process to stderr, warnings and what nobody caught among them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger(_LOUD).setLevel(logging.ERROR)
    logging.captureWarnings(True)  # noqa: FBT003 - the standard library's signature
    sys.excepthook = _uncaught
    threading.excepthook = lambda end: _uncaught(end.exc_type, end.exc_value, end.exc_traceback)
    sys.unraisablehook = lambda end: _uncaught(end.exc_type, end.exc_value, end.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """In place of the interpreter's own print, which knows nothing of secrets."""
    _logger.critical("not caught: %s", kind.__name__, exc_info=error and (kind, error, trace))


def _text(value: object) -> str:
    return redaction.redact(str(value))


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN and not name.startswith("_")}


def escaped(line: str) -> str:
    """What a terminal or a reader of lines could take for an order, made visible; JSON stays JSON."""
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "msg", ...}`: what was given as `extra` are fields beside these."""

    def format(self, record: logging.LogRecord) -> str:
        # Ours, whatever some tenant has as its secret: a time without its date is none.
        own = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        fields: dict[str, object] = {"msg": record.getMessage()}
        for name, value in _extra(record).items():
            fields.setdefault(name, value)
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        line = {**own, **redaction.redact_json(fields), **own}
        return escaped(json.dumps(line, default=_text, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """The same for a terminal: time, level, message, then `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        line = record.getMessage() + "".join(f" {name}={value}" for name, value in _extra(record).items())
        lines = [f"{_time(record)} {record.levelname:<7} {escaped(redaction.redact(line))}"]
        if record.exc_info:
            # Further to the right than a record begins: none can be forged by what was raised.
            trace = redaction.redact(self.formatException(record.exc_info))
            lines += [f"    {escaped(of_trace)}" for of_trace in trace.split("\n")]
        return "\n".join(lines)
