"""Refusals of the simulated API: codes, and the bodies they travel in.

Not for: transport faults; see faults.
"""

import json
from http import HTTPStatus
from typing import Literal

ErrorBody = Literal["full", "documented", "older"]

_TITLES = {
    400: "Invalid request.",
    401: "Authentication failed.",
    403: "Forbidden.",
    404: "Resource not found.",
    409: "The resource is in conflict.",
    429: "Resource locked.",
    500: "Internal error.",
}
_WRAPPED = ("Ecs.", "BMS.", "EVS.", "VPC.", "Pdp.", "Common.")  # services whose errors stand one level deeper
_PLAIN = ("APIGW.", "IAM.", "STS5.")  # the gateway, and the services that give keys
# The second family rides along for these; for other statuses no public sample shows one.
_SECOND_FAMILY = {400: ("CCE_CM.0004", "Request is invalid"), 404: ("CCE_CM.0003", "Resource not found")}


class ApiError(Exception):
    """The simulated cloud says no: HTTP status, code (`CCE.01400001` or `APIGW.0308`), detail in plain words."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail

    def body(self, style: ErrorBody, request_id: str) -> bytes:
        """The answer's JSON. Codes of gateway, IAM and STS have one form, CCE's the three seen in the field."""
        return json.dumps(self._document(style, request_id)).encode()

    def _document(self, style: ErrorBody, request_id: str) -> dict[str, object]:
        if self.code.startswith(_WRAPPED):
            return {"error": {"code": self.code, "message": self.detail}}
        if self.code.startswith(_PLAIN):
            return {"error_msg": self.detail, "error_code": self.code, "request_id": request_id}
        title = _TITLES.get(self.status, "Request failed.")
        if style == "documented":
            return {"errorMessage": f"{title} {self.detail}", "errorCode": self.code}
        second = _SECOND_FAMILY.get(self.status)
        document: dict[str, object] = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.status,
            "errorCode": self.code, "errorMessage": title, "message": self.detail,
            "reason": HTTPStatus(self.status).phrase.replace(" ", ""),
        }  # fmt: skip
        if second is not None:
            document["error_code"], document["error_msg"] = second
        if style == "older" and self.status == HTTPStatus.BAD_REQUEST:
            document["errorCode"], document["error_code"] = "E.CFE.4000201", "CCE_CM.0201"
        return document


def invalid(detail: str, code: str = "CCE.01400001") -> ApiError:
    """400 for a request whose content is wrong."""
    return ApiError(400, code, detail)


def not_found(what: str, uid: str) -> ApiError:
    """404; the code is the same for clusters, pools, nodes and jobs."""
    return ApiError(404, "CCE.01404001", f"{what} {uid} not found")


def forbidden(detail: str, code: str = "CCE.01403001") -> ApiError:
    """403, for permissions and (other codes) for states."""
    return ApiError(403, code, detail)


def denied(action: str) -> ApiError:
    """403 for an IAM action, in the form of the service that the action belongs to."""
    code = "CCE.01403001" if action.startswith("cce:") else "Pdp.0001"
    return ApiError(403, code, f"Policy doesn't allow {action} to be performed.")


def bad_credentials(detail: str) -> ApiError:
    """401 of the gateway."""
    return ApiError(401, "APIGW.0301", f"Incorrect IAM authentication information: {detail}")


def by_code(code: str, detail: str) -> ApiError:
    """A refusal whose status is in its code: `CCE.01429002` -> 429. Raises ValueError for other forms."""
    digits = code.partition(".")[2]
    if len(digits) != 8 or not digits.isdigit():
        raise ValueError(f"error code {code!r} does not read like CCE.01429002")
    return ApiError(int(digits[2:5]), code, detail)
