"""Reading Secrets by name, with a short memory so that a thousand memberships cost one read.

Not for: what is in them (`cce` knows the keys). No list and no watch: the operator has no right to either.
"""

import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Final

from nodepool_membership.kube.api import KubeApi, path
from nodepool_membership.kube.errors import GoneError, RejectedError

_MAX_REMEMBERED: Final = 1000

SecretData = Mapping[str, bytes]


class Secrets:
    """Secrets on one API server; an answer is used again for `ttl_seconds`, also the answer that there is none."""

    def __init__(self, api: KubeApi, *, ttl_seconds: float = 15.0, clock: Callable[[], float] = monotonic) -> None:
        self._api = api
        self._ttl = ttl_seconds
        self._clock = clock
        self._remembered: OrderedDict[tuple[str, str], tuple[float, SecretData | None]] = OrderedDict()

    async def read(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        """The decoded values of a Secret, None if it does not exist; `fresh` asks the API server in any case.

        Raises:
            ForbiddenError, UnansweredError, RejectedError: it could not be read; nothing is remembered.
        """
        key = (namespace, name)
        now = self._clock()
        if not fresh and key in self._remembered and now < self._remembered[key][0]:
            return self._remembered[key][1]
        data = await self._fetch(namespace, name)
        self._remembered[key] = (now + self._ttl, data)
        self._remembered.move_to_end(key)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return data

    async def _fetch(self, namespace: str, name: str) -> SecretData | None:
        try:
            raw = await self._api.request("secret", "GET", path("/api/v1/namespaces", namespace, "secrets", name))
        except GoneError:
            return None
        try:
            wire = json.loads(raw).get("data") or {}
            return MappingProxyType({name: base64.b64decode(value, validate=True) for name, value in wire.items()})
        except (ValueError, binascii.Error):
            raise RejectedError("the API server's answer for a Secret cannot be read") from None
