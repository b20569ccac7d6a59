"""What an answer of the API server becomes, and that no value of an object gets into its text."""

import json

import pytest

from nodepool_membership.kube.errors import (
    GoneError,
    KubeError,
    KubeForbiddenError,
    RejectedError,
    StaleError,
    UnansweredError,
    error_for,
)


def status(code: int, reason: str, message: str = "", *causes: dict[str, str]) -> bytes:
    details = {"causes": list(causes)}
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, RejectedError),
        (401, KubeForbiddenError),
        (403, KubeForbiddenError),
        (404, GoneError),
        (409, StaleError),
        (413, RejectedError),
        (422, RejectedError),
        (408, UnansweredError),
        (429, UnansweredError),
        (500, UnansweredError),
        (503, UnansweredError),
        (504, UnansweredError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>proxy</html>", b"[]", status(0, "Some", "text")])
def test_the_http_status_decides(code: int, kind: type[KubeError], body: bytes) -> None:
    assert type(error_for(code, body)) is kind


def test_too_large_for_etcd_is_final() -> None:
    error = error_for(500, status(500, "", "etcdserver: request is too large"))
    assert isinstance(error, RejectedError)
    assert "too large" in str(error)


def test_fields_are_named_and_values_are_not() -> None:
    secret = "00000000-aaaa-4000-8000-000000000001"
    error = error_for(
        422,
        status(
            422,
            "Invalid",
            f"everything: {secret}",
            {"field": "spec.serverIDs[1]", "message": f'Invalid value: "{secret}": should match a UUID'},
            {"field": "spec.batchSize", "message": "Invalid value: 4711: should be less than or equal to 200"},
            {"field": "status", "message": f'Invalid value: map[string]interface{{}}{{"a":"{secret}"}}: odd'},
            {
                "field": "patch",
                "message": f'Invalid value: {{"x":"{secret}"}}: strict decoding error: unknown field "status.y"',
            },
        ),
    )
    text = str(error)
    assert secret not in text
    assert "4711" not in text
    assert "spec.serverIDs[1]: Invalid value: should match a UUID" in text
    assert 'unknown field "status.y"' in text


def test_texts_are_short_and_one_line() -> None:
    causes = [{"field": f"spec.serverIDs[{n}]", "message": "bad\nid"} for n in range(10_000)]
    text = str(error_for(422, status(422, "Invalid", "", *causes)))
    assert len(text) <= 400
    assert "\n" not in text


def test_forbidden_says_what_right_is_missing() -> None:
    message = 'secrets "keys" is forbidden: User "op" cannot get resource "secrets"'
    assert "cannot get resource" in str(error_for(403, status(403, "Forbidden", message)))
