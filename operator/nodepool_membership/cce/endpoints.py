"""Where the cloud is: the endpoint of a region, and which endpoints a membership may name.

Not for: calling it. The allow list keeps a resource's author from sending signed requests to a host of their choice.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_EUROPEAN: Final = "eu-west-101"
REGIONS: Final = frozenset(
    (
        *("cn-north-1", "cn-north-2", "cn-north-4", "cn-north-9", "cn-north-11", "cn-north-12"),
        *("cn-south-1", "cn-south-2", "cn-south-4", "cn-east-2", "cn-east-3", "cn-east-4", "cn-east-5"),
        *("cn-southwest-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4"),
        *("ap-southeast-5", "af-south-1", "af-north-1", "sa-brazil-1", "la-south-2", "la-north-2", "na-mexico-1"),
        *("ru-northwest-2", "ru-moscow-1", "tr-west-1", "ae-ad-1", "me-east-1", "my-kualalumpur-1"),
        *("eu-west-0", _EUROPEAN),
    )
)
"""Regions with CCE (the official SDK's region file, 3.1.219)."""

_PORTS: Final = {"https": 443, "http": 80}
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
"""A name in ASCII, or an address of IPv4 or IPv6."""


class UnknownRegionError(ValueError):
    """The region is not known and no endpoint is given."""


class EndpointNotAllowedError(ValueError):
    """The endpoint cannot be used, or is not on the allow list."""


def region_endpoint(region: str) -> str:
    """The public endpoint of a known region."""
    domain = "myhuaweicloud.eu" if region == _EUROPEAN else "myhuaweicloud.com"
    return f"https://cce.{region}.{domain}"


Origin = tuple[str, str, int]
"""Scheme, host in lower case, port."""


def origin_of(endpoint: str) -> Origin:
    """An endpoint in the form by which endpoints are compared.

    Raises:
        EndpointNotAllowedError: it is none.
    """
    try:
        parts = urlsplit(endpoint)
        port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise EndpointNotAllowedError(f"{endpoint!r} is not a URL: write it like https://cce.example.com") from None
    host = (parts.hostname or "").lower()
    extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or extra:
        raise EndpointNotAllowedError(
            f"{endpoint!r} cannot be an endpoint: write scheme and host only, like https://cce.example.com"
        )
    return parts.scheme, host, port


@dataclass(frozen=True, slots=True)
class AllowList:
    """Origins that a membership may name: the public CCE endpoints over https, and those added."""

    origins: frozenset[Origin]

    @staticmethod
    def parse(more: Iterable[str]) -> "AllowList":
        """The list with further endpoints.

        Raises:
            EndpointNotAllowedError: one of them is no endpoint.
        """
        public = (region_endpoint(region) for region in REGIONS)
        return AllowList(frozenset(origin_of(endpoint) for endpoint in (*public, *more)))


def resolve_endpoint(region: str | None, endpoint: str | None, allow: AllowList) -> str:
    """The endpoint to call, without a trailing slash; the one given wins over the region's.

    Raises:
        UnknownRegionError: no endpoint, and a region that is not in `REGIONS`.
        EndpointNotAllowedError: the endpoint is malformed or not on the list.
    """
    if endpoint is None:
        if region not in REGIONS:
            raise UnknownRegionError(
                f"spec.nodePool.region {region!r} is not a known region: correct it, or name the endpoint in"
                " spec.nodePool.endpoint and allow it with --allow-endpoint"
            )
        return region_endpoint(region)
    scheme, host, port = origin = origin_of(endpoint)
    name = f"[{host}]" if ":" in host else host
    if origin not in allow.origins:
        hint = " (plain http must be allowed explicitly, too)" if scheme == "http" else ""
        raise EndpointNotAllowedError(
            f"spec.nodePool.endpoint {endpoint!r} is not allowed{hint}: start the operator with"
            f" --allow-endpoint={scheme}://{name}:{port}, or name an allowed one"
        )
    return url_of(origin)


def url_of(origin: Origin) -> str:
    """The endpoint as it is called: without a slash at the end, and without the port that the scheme implies."""
    scheme, host, port = origin
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if port == _PORTS[scheme] else f"{scheme}://{name}:{port}"
