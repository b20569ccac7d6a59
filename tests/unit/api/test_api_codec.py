"""How fields, ids, moments and texts of the resource are written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from nodepool_membership.api.codec import MAX_MESSAGE, LowerID, Moment, camel, plain_text, rfc3339

ID = "11111111-2222-3333-4444-55555555AAAA"
TIMES: TypeAdapter[datetime] = TypeAdapter(Moment)
IDS: TypeAdapter[str] = TypeAdapter(LowerID)


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("name", "name"),
        ("server_ids", "serverIDs"),
        ("project_id", "projectID"),
        ("node_pool_id", "nodePoolID"),
        ("last_job_id", "lastJobID"),
        ("last_handled_reconcile_at", "lastHandledReconcileAt"),
        ("join_timeout_seconds", "joinTimeoutSeconds"),
    ],
)
def test_names_are_camel_case_with_kubernetes_acronyms(name: str, wire: str) -> None:
    assert camel(name) == wire


@pytest.mark.parametrize(
    "text",
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.999999Z", "2026-01-02T11:04:05+08:00", "2026-01-01T22:04:05-05:00"],
)
def test_moments_are_utc_in_whole_seconds(text: str) -> None:
    moment = TIMES.validate_python(text)
    assert moment == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert moment.utcoffset() == timedelta(0)
    assert TIMES.dump_python(moment, mode="json") == "2026-01-02T03:04:05Z"


def test_a_moment_without_a_zone_is_refused_with_an_example() -> None:
    with pytest.raises(ValidationError, match="a moment needs a time zone, as in 2026-"):
        TIMES.validate_python("2026-01-02T03:04:05")


def test_rfc3339_turns_other_zones_into_utc() -> None:
    assert rfc3339(datetime(2026, 1, 2, 11, tzinfo=timezone(timedelta(hours=8)))) == "2026-01-02T03:00:00Z"


def test_ids_are_compared_in_lower_case() -> None:
    assert IDS.validate_python(ID) == ID.lower()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", ""),
        ("  two\twords \r\n here ", "two words here"),
        ("a\x00b\x1b[31mc\x7fd\x9be", "a b [31mc d e"),
        (f"server {ID} is bad", "server <id> is bad"),
        (f"({ID.lower()}),{ID}", "(<id>),<id>"),
        ("request 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f ended", "request <id> ended"),
        ("request req-0f0f0f0f0f0f0f0f0f0f0f0f ended", "request <id> ended"),
        ("commit 0f0f0f0f stays", "commit 0f0f0f0f stays"),
        ("half \ud800 a pair", "half a pair"),
        ("磁盘 已分区", "磁盘 已分区"),
    ],
)
def test_texts_are_one_line_without_ids_and_control_characters(text: str, plain: str) -> None:
    assert plain_text(text) == plain
    assert plain_text(plain) == plain


def test_texts_that_differ_in_ids_only_are_the_same() -> None:
    assert plain_text(f"server {ID} is bad") == plain_text("server 99999999-2222-3333-4444-555555550000 is bad")


@pytest.mark.parametrize("limit", [10, MAX_MESSAGE])
def test_texts_are_cut_at_the_limit_and_say_so(limit: int) -> None:
    assert plain_text("x" * limit, limit) == "x" * limit
    cut = plain_text("x" * (limit + 1), limit)
    assert (len(cut), cut[-1]) == (limit, "…")
    assert plain_text(cut, limit) == cut


def test_every_text_can_be_written_as_utf8() -> None:
    assert plain_text("".join(map(chr, range(0xD7FF, 0xE001)))).encode() == "\ud7ff \ue000".encode()
