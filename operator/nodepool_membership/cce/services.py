"""The addresses of a cloud's other services, by the CCE endpoint of a membership: a file's, else the public cloud's.

Not for: which endpoints a membership may name (`endpoints`), or calling anything. Facts: the official SDK's region
files, 3.1.219.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from nodepool_membership.cce.endpoints import (
    REGIONS,
    EndpointNotAllowedError,
    Origin,
    origin_of,
    region_endpoint,
    url_of,
)
from nodepool_membership.listfile import read_list

_URLS: Final = ("cce", "iam", "sts", "ecs", "bms", "evs", "vpc")
_FIELDS: Final = (*_URLS, "region")
_REMEDY: Final = f"write a YAML list of mappings with {', '.join(_FIELDS)}, all but cce optional"
_STS_REGIONS: Final = frozenset(
    (
        *("cn-north-4", "cn-south-1", "cn-east-3", "cn-southwest-2", "ap-southeast-1", "ap-southeast-2"),
        *("ap-southeast-3", "ap-southeast-4", "sa-brazil-1", "la-south-2", "af-south-1", "tr-west-1"),
    )
)


class EndpointsFileError(ValueError):
    """The file of `--endpoints` cannot be used; the text names file, entry, field and remedy."""


@dataclass(frozen=True, slots=True)
class Services:
    """URLs of one cloud, without a slash at the end; None where an address is not known."""

    cce: str
    region: str | None = None
    iam: str | None = None
    sts: str | None = None
    ecs: str | None = None
    bms: str | None = None
    evs: str | None = None
    vpc: str | None = None


def public_services(region: str) -> Services:
    """Those of a known region. The European one's servers are below another domain than its CCE and IAM."""
    cce = region_endpoint(region)
    domain = cce.partition(f"cce.{region}")[2]
    return Services(
        cce=cce,
        region=region,
        iam=f"https://iam.{region}{domain}",
        sts=f"https://sts.{region}.myhuaweicloud.com" if region in _STS_REGIONS else None,
        **{name: f"https://{name}.{region}.myhuaweicloud.com" for name in ("ecs", "bms", "evs", "vpc")},
    )


_PUBLIC: Final[Mapping[Origin, Services]] = MappingProxyType(
    {origin_of(region_endpoint(region)): public_services(region) for region in REGIONS}
)


@dataclass(frozen=True, slots=True)
class ServiceBook:
    """All services that are known, by the CCE endpoint that a membership resolves to."""

    named: Mapping[Origin, Services]

    def of(self, endpoint: str) -> Services:
        """The services beside a CCE endpoint.

        Raises:
            EndpointNotAllowedError: it is no endpoint.
        """
        origin = origin_of(endpoint)
        return self.named.get(origin) or _PUBLIC.get(origin) or Services(url_of(origin))

    def cce_endpoints(self) -> tuple[str, ...]:
        """Those that the file names: each counts as allowed."""
        return tuple(services.cce for services in self.named.values())

    def identity_origins(self) -> frozenset[Origin]:
        """The IAM and STS addresses that a membership may name: the public ones over https, and the file's."""
        found = (url for one in (*_PUBLIC.values(), *self.named.values()) for url in (one.iam, one.sts))
        return frozenset(origin_of(url) for url in found if url is not None)


PUBLIC_ONLY: Final = ServiceBook(MappingProxyType({}))
"""No file."""


def read_endpoints_file(path: Path) -> ServiceBook:
    """Read a file of `--endpoints`: a YAML list of mappings, keyed by their `cce`.

    Raises:
        EndpointsFileError: it cannot be used.
    """
    document = read_list(path, _REMEDY, EndpointsFileError)
    named: dict[Origin, Services] = {}
    for number, entry in enumerate(document):
        where = f"{str(path)!r}, entry {number + 1}"
        services = _entry(where, entry)
        origin = origin_of(services.cce)
        if origin in named:
            raise EndpointsFileError(f"{where}: cce {services.cce!r} is there twice: merge the two entries")
        named[origin] = services
    return ServiceBook(MappingProxyType(named))


def _entry(where: str, entry: object) -> Services:
    if not isinstance(entry, dict):
        raise EndpointsFileError(f"{where} is not a mapping: {_REMEDY}")
    values: dict[str, str] = {}
    for name, value in entry.items():
        if name not in _FIELDS:
            raise EndpointsFileError(f"{where}: {str(name)!a} is not known; there are {', '.join(_FIELDS)}")
        if not isinstance(value, str) or not value:
            raise EndpointsFileError(f"{where}: {name} is not text: write it in quotes, or leave it out")
        values[name] = _url(where, name, value) if name in _URLS else value
    if "cce" not in values:
        raise EndpointsFileError(f"{where} has no cce: name the CCE endpoint that it is about")
    return replace(_PUBLIC.get(origin_of(values["cce"]), Services(values["cce"])), **values)


def _url(where: str, name: str, value: str) -> str:
    try:
        # IAM's address is often written with the version of its API.
        return url_of(origin_of(value.removesuffix("/v3") if name == "iam" else value))
    except EndpointNotAllowedError as error:
        raise EndpointsFileError(f"{where}: {name} {error}") from None
