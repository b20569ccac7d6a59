"""May the bearer of a token read a path of ours? The API server says so: TokenReview, then SubjectAccessReview.

Not for: serving the path. An answer is used again for a minute; one token is reviewed at a time, for whoever reaches
the port can send any number of them. Tokens are kept as their hashes only.
"""

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import Final

from nodepool_membership import redaction
from nodepool_membership.api.membership import Json
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import RejectedError

KEPT_SECONDS: Final = 60.0
MAX_TOKEN: Final = 16_384
"""Characters; the API server's own are below 2,000."""
_MAX_KEPT: Final = 100
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
"""RFC 6750. Whoever reaches the port may send any bytes as one."""


class TokenAccess(Enum):
    """What the API server says of a token."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    """It is known, and may not."""
    UNKNOWN = "unknown"
    """It is nobody's."""


class Reviews:
    """Answers for GETs of one path."""

    def __init__(self, api: KubeApi, path: str, *, clock: Callable[[], float] = monotonic) -> None:
        self._api = api
        self._path = path
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, TokenAccess]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def access(self, token: str) -> TokenAccess:
        """What the bearer of this token may do.

        Raises:
            KubeForbiddenError: the operator may make no reviews.
            RejectedError, UnansweredError: the API server did not say.
        """
        if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            return TokenAccess.UNKNOWN
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._known(key)) is not None:
            return known
        async with self._turn:
            if (known := self._known(key)) is not None:
                return known
            with redaction.done_for(self._path):
                found = await self._review(token)
            self._kept[key] = (self._clock() + KEPT_SECONDS, found)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return found

    def _known(self, key: bytes) -> TokenAccess | None:
        until, found = self._kept.get(key, (0.0, TokenAccess.UNKNOWN))
        return found if self._clock() < until else None

    async def _review(self, token: str) -> TokenAccess:
        # It was not looked at yet: whoever reaches the port sends what he likes.
        redaction.register_token(token, chosen_by=self._path)
        told = await self._ask("authentication.k8s.io", "TokenReview", "tokenreviews", {"token": token})
        user = told.get("user")
        if told.get("authenticated") is not True or not isinstance(user, dict):
            return TokenAccess.UNKNOWN
        who: dict[str, Json] = {name: user[name] for name in ("uid", "groups", "extra") if name in user}
        what: dict[str, Json] = {"path": self._path, "verb": "get"}
        spec: dict[str, Json] = {"user": user.get("username"), "nonResourceAttributes": what, **who}
        told = await self._ask("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", spec)
        return TokenAccess.ALLOWED if told.get("allowed") is True else TokenAccess.FORBIDDEN

    async def _ask(self, group: str, kind: str, plural: str, spec: dict[str, Json]) -> dict[str, Json]:
        body: Json = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        answer = await self._api.request("review", "POST", f"/apis/{group}/v1/{plural}", body=body)
        try:
            status = json.loads(answer)["status"]
        except (ValueError, TypeError, KeyError):
            status = None
        if not isinstance(status, dict):
            raise RejectedError("the API server's answer to a review cannot be read")
        return status
