"""Reading Secrets by name, with a short memory so that a thousand memberships cost one read.

Only Secrets that their owner marked are used, and of them only the known keys: who may edit a membership must not have
the use of every Secret in its namespace. Not for: what is in them (`cce.credentials`). No list and no watch: the
operator has no right to either.
"""

import base64
import binascii
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Final

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import CREDENTIALS_KEYS, CREDENTIALS_MARK
from nodepool_membership.kube.api import KubeApi, path
from nodepool_membership.kube.errors import GoneError, RejectedError
from nodepool_membership.shares import Shares, only

MAX_VALUE_BYTES: Final = 32 << 10
"""The longest credential, an IAM token, has about 16 KB."""
_MAX_REMEMBERED: Final = 1000
_MAX_REMEMBERED_BYTES: Final = 4 << 20
_LARGEST_SECRET: Final = 3 << 19
"""A Secret has at most 1 MiB of values, a third more in base64."""
_OVERHEAD_BYTES: Final = 1000
_OF_KUBERNETES: Final = re.compile(r"(?:.*\.)?kubernetes\.io/.*")

SecretData = Mapping[str, bytes]


class UnusableSecretError(Exception):
    """A Secret that must not be used; the text names the remedy, and nothing of what an unmarked Secret holds."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    until: float
    found: SecretData | UnusableSecretError | None

    @property
    def size(self) -> int:
        values = self.found if isinstance(self.found, Mapping) else {}
        return _OVERHEAD_BYTES + sum(map(len, values.values()))


class Secrets:
    """Secrets on one API server; an answer is used again for `ttl_seconds`, also the answer that there is none."""

    def __init__(self, api: KubeApi, *, ttl_seconds: float = 15.0, clock: Callable[[], float] = monotonic) -> None:
        self._api = api
        self._ttl = ttl_seconds
        self._clock = clock
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._bytes = 0
        self._in_flight = Shares(2 * _LARGEST_SECRET)

    async def read(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        """The decoded values of the known keys, None if there is no such Secret; `fresh` asks the API server anew.

        Raises:
            UnusableSecretError: it is not marked for this use, of a type of Kubernetes' own, or a value is too long.
            KubeForbiddenError, UnansweredError, RejectedError: it could not be read; nothing is remembered.
        """
        key = (namespace, name)
        self._evict()
        known = self._remembered.get(key)
        if fresh or known is None:
            known = _Remembered(self._clock() + self._ttl, await self._fetch(namespace, name))
            self._remember(key, known)
        if isinstance(known.found, UnusableSecretError):
            raise UnusableSecretError(*known.found.args)
        return known.found

    def _evict(self) -> None:
        """Forget what is too old, or too much."""
        now = self._clock()
        while self._remembered:
            oldest = next(iter(self._remembered))
            within = self._bytes <= _MAX_REMEMBERED_BYTES and len(self._remembered) <= _MAX_REMEMBERED
            if within and now < self._remembered[oldest].until:
                return
            self._bytes -= self._remembered.pop(oldest).size

    def _remember(self, key: tuple[str, str], entry: _Remembered) -> None:
        if (old := self._remembered.pop(key, None)) is not None:
            self._bytes -= old.size
        self._remembered[key] = entry
        self._bytes += entry.size
        self._evict()

    async def _fetch(self, namespace: str, name: str) -> SecretData | UnusableSecretError | None:
        async with self._in_flight.hold(only(namespace), _LARGEST_SECRET):
            try:
                raw = await self._api.request("secret", "GET", path("/api/v1/namespaces", namespace, "secrets", name))
            except GoneError:
                return None
            try:
                secret = json.loads(raw)
                return _why_not(name, secret) or _values(secret)
            except (ValueError, TypeError, AttributeError, binascii.Error):
                raise RejectedError("the API server's answer for a Secret cannot be read") from None


def _why_not(name: str, secret: Mapping[str, Json]) -> UnusableSecretError | None:
    """Why a Secret must not be used. Of one without the mark nothing is told, not even its type."""
    kind, metadata = secret.get("type") or "", secret.get("metadata") or {}
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    is_labelled = isinstance(labels, dict) and labels.get(CREDENTIALS_MARK) == "true"
    if kind != CREDENTIALS_MARK and not is_labelled:
        return UnusableSecretError(
            f"Secret {name!r} is not marked for this use: if it holds the credentials, set the label {CREDENTIALS_MARK}"
            f' to "true" (kubectl label secret {name} {CREDENTIALS_MARK}=true), or make it of type {CREDENTIALS_MARK}'
        )
    if _OF_KUBERNETES.fullmatch(str(kind)):
        return UnusableSecretError(
            f"Secret {name!r} is of a type of Kubernetes' own ({kind}), which is never sent to a cloud: make another"
            f" one of type {CREDENTIALS_MARK}"
        )
    for key, value in _encoded(secret).items():
        if len(value) > (MAX_VALUE_BYTES + 2) // 3 * 4:
            return UnusableSecretError(
                f"Secret {name!r}: {key} has more than {MAX_VALUE_BYTES >> 10} KiB, so it is no credential: store the"
                " value as the console shows it"
            )
    return None


def _encoded(secret: Mapping[str, Json]) -> dict[str, str]:
    data = secret.get("data") or {}
    if not isinstance(data, dict):
        raise TypeError("data is a map")
    return {key: str(data[key]) for key in CREDENTIALS_KEYS if key in data}


def _values(secret: Mapping[str, Json]) -> SecretData:
    return MappingProxyType({key: base64.b64decode(value, validate=True) for key, value in _encoded(secret).items()})
