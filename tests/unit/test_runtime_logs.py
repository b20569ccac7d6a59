"""The logs: one JSON object or one line a record, with what was given as extra."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from nodepool_membership.runtime.logs import JsonFormatter, TextFormatter, configure


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("x").makeRecord("x.y", logging.WARNING, "f", 1, message, args, None, extra=extra)
    made.created = 1767323045.6789
    return made


def test_json_has_the_four_fields_and_the_extra_ones() -> None:
    line = JsonFormatter().format(record("batch %d\nsent", 7, object="ns/a", batch=7, jobID="j", set={1}))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "logger": "x.y",
        "msg": "batch 7\nsent",
        "object": "ns/a",
        "batch": 7,
        "jobID": "j",
        "set": "{1}",
    }


def test_an_error_carries_its_traceback() -> None:
    made = record("failed")
    try:
        int("x")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: invalid literal" in json.loads(JsonFormatter().format(made))["error"]
    assert "ValueError: invalid literal" in TextFormatter().format(made)


def test_text_is_for_people() -> None:
    assert TextFormatter().format(record("sent", object="ns/a")) == "2026-01-02T03:04:05.678Z WARNING sent object=ns/a"


def test_others_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "debug")
    for name in ("httpx", "httpcore.connection", "kopf.objects", "asyncio"):
        logging.getLogger(name).info("per event")
    logging.getLogger("kopf._core.reactor.running").warning("OS signals are ignored")
    logging.getLogger("nodepool_membership").debug("ours")
    logging.getLogger("kopf.x").warning("theirs")
    lines = [json.loads(line)["msg"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["ours", "theirs"]
