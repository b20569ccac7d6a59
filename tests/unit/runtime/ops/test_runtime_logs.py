"""The logs: one JSON object or one line a record, with what was given as extra."""

import json
import logging
import sys
import unicodedata
from collections.abc import Iterator

import pytest

from nodepool_membership import redaction
from nodepool_membership.runtime.ops.logs import JsonFormatter, TextFormatter, configure


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


def test_what_a_tenant_chose_as_its_secret_hides_when_a_record_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = redaction.Redactor()
    redactor.register("2026-01-02T03")
    monkeypatch.setattr(redaction, "redact", redactor.redact)
    monkeypatch.setattr(redaction, "redact_json", redactor.redact_json)
    made = record("at 2026-01-02T03", time="2026-01-02T03")
    told = json.loads(JsonFormatter().format(made))
    assert (told["time"], told["msg"]) == ("2026-01-02T03:04:05.678Z", "at <redacted>")
    line = "2026-01-02T03:04:05.678Z WARNING at <redacted> time=<redacted>"
    assert TextFormatter().format(made) == line


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


ORDERS = "\x00\x07\x08\t\n\r\x1b[31m\x7f\x85\x9b2J\u2028\u2029\u202e\u2066\ud800"


def has_orders(line: str) -> bool:
    return any(unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} or c in "\u202e\u2066" for c in line)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_nothing_in_a_record_is_an_order_to_a_terminal(formatter: logging.Formatter) -> None:
    line = formatter.format(record(f"a{ORDERS}b %s", ORDERS, requestID=ORDERS, other={"x": ORDERS}))
    assert not has_orders(line)
    assert "\\u001b[31m" in line or "\\x1b[31m" in line
    assert "\\u2028" in line
    assert "\\u0085" in line


def test_json_gives_back_what_was_escaped() -> None:
    text = ORDERS + "\u00fc\u4e2d\U0001f600"
    assert json.loads(JsonFormatter().format(record("%s", text)))["msg"] == text
    assert "\u00fc\u4e2d\U0001f600" in JsonFormatter().format(record("%s", text))


def test_an_error_cannot_forge_a_record_in_text() -> None:
    made = record("failed")
    error = ValueError("x\n2026-01-02T03:04:05.678Z ERROR   forged\r\x1b[2J")
    made.exc_info = (ValueError, error, None)
    first, *others = TextFormatter().format(made).split("\n")
    assert first == "2026-01-02T03:04:05.678Z WARNING failed"
    assert all(line.startswith("    ") and not has_orders(line) for line in others)
