"""A client of the cloud over a transport that answers as told and keeps what was asked.

Not for: behaviour like the cloud's; that is cce_simulator.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from nodepool_membership.cce.calls import Observe
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Credentials

ENDPOINT = "https://cce.example.com"
PROJECT = "0123456789abcdef0123456789abcdef"
CLUSTER = "11111111-2222-3333-4444-555555555555"
POOL = "66666666-7777-8888-9999-000000000000"
SERVERS = ["aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "aaaaaaaa-bbbb-cccc-dddd-ffffffffffff"]
JOB = "2ec9b78d-9368-46f3-8f29-d1a95622a568"
KEY = AccessKey("AKEXAMPLE", "SK-IS-SECRET", "TOKEN-IS-SECRET")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INTENT = NOW - timedelta(seconds=7)
HTML = "<html><h1>504 Gateway Time-out</h1></html>"
GONE = {"errorCode": "CCE.01404001", "errorMessage": "Resource not found."}


@dataclass
class Wire(httpx.AsyncBaseTransport):
    """Answers each request by `respond` and keeps it."""

    respond: Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]
    seen: list[httpx.Request] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.respond(request)
        return answer if isinstance(answer, httpx.Response) else await answer


def client(
    wire: Wire, credentials: Credentials = KEY, *, timeout: float = 60, observe: Observe | None = None
) -> CloudClient:
    http = httpx.AsyncClient(transport=wire, follow_redirects=True)
    told = observe or (lambda *_: None)
    return CloudClient(http, ENDPOINT, PROJECT, credentials, now=lambda: NOW, timeout_seconds=timeout, observe=told)


def always(status: int, document: object = None, **headers: str) -> Wire:
    content = document if isinstance(document, str | bytes) else b"" if document is None else json.dumps(document)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Wire(lambda _: httpx.Response(status, content=content, headers=names))
