"""What `nodepool-membership run` can be told: one frozen value, checked before anything starts.

Not for: the command line itself (`cli`).
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from nodepool_membership.api.names import COMPONENT
from nodepool_membership.cce.services import PUBLIC_ONLY, ServiceBook, read_endpoints_file
from nodepool_membership.net.proxies import DIRECT, Proxies
from nodepool_membership.net.trust import read_ca_file
from nodepool_membership.runtime.ops.grants import ANY, Grants
from nodepool_membership.runtime.ops.logs import LogFormat, LogLevel

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT: Final = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_GRANT: Final = re.compile(r"([^/]+)/([0-9a-f]{32})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
SAFE_SETTLE_WINDOW: Final = timedelta(minutes=20)
"""The gateway accepts a signature for 15 minutes, and clocks differ by up to 5."""
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Bind:
    """Where the health endpoints listen; the host "" or "::" stands for every address, of IPv4 and of IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


POD_IDENTITY: Final = "pod-identity"
DEFAULT_SESSION_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class OidcFile:
    """A token of the operator's own in a file, and who takes it: a provider of IAM v3, or one of STS and an agency."""

    path: Path
    provider: str
    agency_urn: str | None = None
    seconds: int = DEFAULT_SESSION_SECONDS


OperatorIdentity = Literal["pod-identity"] | OidcFile


@dataclass(frozen=True, slots=True)
class Options:
    """Lower and upper bounds are those of the command line (`cli`)."""

    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    allow_endpoints: tuple[str, ...] = ()
    """Beyond the public CCE domains, as `scheme://host:port` in lower case with the port always there."""
    grants: Grants = ANY
    """Which namespaces may name which pools."""
    poll_interval: timedelta = timedelta(seconds=15)
    resync_interval: timedelta = timedelta(minutes=5)
    settle_window: timedelta = timedelta(minutes=30)
    removal_delay: timedelta = timedelta(minutes=2)
    writes_per_minute: int = 10
    reads_per_second: int = 20
    http_timeout: timedelta = timedelta(seconds=60)
    leader_elect: bool = True
    lease_name: str = COMPONENT
    lease_namespace: str = ""
    """Empty: that of the pod."""
    lease_duration: timedelta = timedelta(seconds=15)
    renew_deadline: timedelta = timedelta(seconds=10)
    """Shorter than `lease_duration`."""
    bind: Bind = Bind("", 8080)
    metrics_auth: bool = False
    """Whether who reads /metrics has to show a token that may."""
    log_format: LogFormat = "json"
    log_level: LogLevel = "info"
    ca_file: Path | None = None
    """CAs that are trusted beside the system's, for the cloud."""
    services: ServiceBook = PUBLIC_ONLY
    """Addresses of clouds beside the public one; its CCE endpoints count as allowed."""
    operator_identity: OperatorIdentity | None = None
    """None: the operator has no identity of its own in the cloud."""
    operator_identity_for: tuple[tuple[str, str, str], ...] = ()
    """Namespace, project id and cluster id of memberships that may use it."""
    proxies: Proxies = DIRECT
    """On the way to the cloud. Not of the command line: from the environment."""


def parse_duration(text: str) -> timedelta:
    """Read a duration the way Go's `time.ParseDuration` does: `500ms`, `15s`, `1h30m`, `1.5h`. No sign.

    Raises:
        ValueError: with the remedy.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write it like 500ms, 15s or 1h30m")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def format_duration(duration: timedelta) -> str:
    """Write whole seconds the way they are read: `1h30m`, `15s`; below one second in `ms`."""
    if duration < timedelta(seconds=1):
        return f"{duration // timedelta(milliseconds=1)}ms"
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if n)


def parse_endpoint(text: str) -> str:
    """Read an endpoint of the allow list into `scheme://host:port`.

    Raises:
        ValueError: with the remedy.
    """
    remedy = f"{text!r} is not an endpoint: write scheme, host and, if need be, port, like https://cce.example.com:8443"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(remedy) from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in _PORTS or not parts.hostname or extra:
        raise ValueError(remedy)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or _PORTS[parts.scheme]}"


def parse_namespace(text: str) -> str:
    """Check the name of a namespace (RFC 1123 label).

    Raises:
        ValueError: with the remedy.
    """
    if not _NAMESPACE.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a namespace: lower-case letters, digits and '-', at most 63")
    return text


def parse_object_name(text: str) -> str:
    """Check the name of an object (RFC 1123 subdomain).

    Raises:
        ValueError: with the remedy.
    """
    if not _OBJECT.fullmatch(text):
        remedy = "lower-case letters, digits, '-' and '.', at most 253"
        raise ValueError(f"{text!r} is not the name of an object: {remedy}")
    return text


def parse_bind(text: str) -> Bind:
    """Read `host:port`, `:port` or `[::1]:port` as Go programs do: `:port` and `[::]:port` take IPv4 and IPv6.

    Port 0 takes a free one.

    Raises:
        ValueError: with the remedy.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is not an address: write host:port, like :8080 or [::1]:8080")
    return Bind(host.strip("[]"), int(port))


def parse_ca_file(text: str) -> Path:
    """Check a file with CA certificates.

    Raises:
        ValueError: with the remedy.
    """
    path = Path(text)
    read_ca_file(path)
    return path


def parse_operator_identity(text: str) -> Path | Literal["pod-identity"]:
    """Read `pod-identity` or `oidc-file:PATH`. The file is read at each exchange, not now.

    Raises:
        ValueError: with the remedy.
    """
    if text == POD_IDENTITY:
        return POD_IDENTITY
    kind, _, path = text.partition(":")
    if kind != "oidc-file" or not path.startswith("/"):
        raise ValueError(f"{text!r} is no identity: write pod-identity, or oidc-file: and the path of a token file")
    return Path(path)


def parse_identity_grant(text: str) -> tuple[str, str, str]:
    """Read `namespace/projectID/clusterID`.

    Raises:
        ValueError: with the remedy.
    """
    found = _GRANT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} does not say for whom: write NAMESPACE/PROJECT-ID/CLUSTER-ID, ids in lower case")
    return parse_namespace(found[1]), found[2], found[3]


def parse_endpoints_file(text: str) -> ServiceBook:
    """Read the file of `--endpoints`.

    Raises:
        ValueError: with the remedy.
    """
    return read_endpoints_file(Path(text))
