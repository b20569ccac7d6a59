"""Which proxy a request takes: the variables HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go programs read them.

kubectl and the cluster's own programs are written in Go, so what works for them works here. The rules are those of
https://pkg.go.dev/golang.org/x/net/http/httpproxy with two additions: an address in brackets needs no port, and what
cannot be used is said instead of being ignored. ALL_PROXY is not read, as there.

Not for: talking to a proxy. No text here holds a proxy's user or password.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import unquote, urlsplit

from nodepool_membership import redaction

_PORTS: Final = {"https": 443, "http": 80}
_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?", re.ASCII)
_NUMBERS: Final = re.compile(r"[0-9.]+", re.ASCII)
_LONGEST_SHOWN: Final = 80

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class ProxyError(ValueError):
    """A proxy's address cannot be used. The text names the variable and the remedy, never the value."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `url` has no credentials in it."""

    url: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One entry of NO_PROXY: a network, or a domain with a dot in front; `port` None means any."""

    network: Network | None = None
    domain: str = ""
    only_below: bool = False
    """The domain itself is not meant."""
    port: int | None = None

    def matches(self, host: str, address: Address | None, port: int) -> bool:
        if self.port not in {None, port}:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        is_it = host == self.domain[1:] and not self.only_below
        return address is None and (is_it or host.endswith(self.domain))


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of this process; the default is none."""

    http: Proxy | None = None
    https: Proxy | None = None
    bypass_all: bool = False
    rules: tuple[_Rule, ...] = ()
    warnings: tuple[str, ...] = ()
    """What was left out, for the log."""

    def for_url(self, url: str) -> Proxy | None:
        """The proxy for a request to an http(s) URL, None for a direct connection (always to localhost)."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http if parts.scheme == "http" else None
        host = _ascii(parts.hostname or "")
        if proxy is None or self.bypass_all or host == "localhost":
            return None
        address, port = _address(host), parts.port or _PORTS[parts.scheme]
        if address is not None and address.is_loopback:
            return None
        return None if any(rule.matches(host, address, port) for rule in self.rules) else proxy


DIRECT: Final = Proxies()
"""No proxy at all."""


def proxies_from(environ: Mapping[str, str]) -> Proxies:
    """Read HTTP_PROXY, HTTPS_PROXY and NO_PROXY, or their lower-case names where those are not set.

    HTTP_PROXY is left out where REQUEST_METHOD is set: under CGI, whoever sends a request sets it.

    Raises:
        ProxyError: a proxy's address cannot be used.
    """
    warnings = []
    http = _proxy_of(environ, "HTTP_PROXY")
    if http is not None and environ.get("REQUEST_METHOD"):
        http = None
        warnings.append("HTTP_PROXY is left out, because REQUEST_METHOD is set: a request could have set it, under CGI")
    entries = [entry.strip() for entry in _either(environ, "NO_PROXY")[1].split(",")]
    bypass_all = "*" in entries
    rules = [(entry, _rule(entry)) for entry in entries if entry and not bypass_all]
    if unusable := [_shown(entry) for entry, rule in rules if rule is None]:
        warnings.append(
            f"NO_PROXY: left out, because they are no host, domain, address or network: {', '.join(unusable)};"
            " write them like example.com, .svc, 10.0.0.1:443, 10.0.0.0/8 or fd00::/8, with commas between them"
        )
    return Proxies(
        http=http,
        https=_proxy_of(environ, "HTTPS_PROXY"),
        bypass_all=bypass_all,
        rules=tuple(rule for _, rule in rules if rule is not None),
        warnings=tuple(warnings),
    )


def parse_proxy(name: str, value: str) -> Proxy:
    """Read a proxy's address, `[http[s]://][user:password@]host[:port]`; `name` is where it was written.

    Raises:
        ProxyError: it cannot be used.
    """
    text = value.strip()
    try:
        return _parsed(text if "://" in text else f"http://{text}")
    except ValueError as error:
        raise ProxyError(
            f"{name} cannot be used: {error}; write it like http://proxy.example.com:3128, and percent-encode what is"
            " no letter or digit in a user name or password"
        ) from None


def _parsed(text: str) -> Proxy:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("there is a space or a control character in it")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if parts.scheme not in _PORTS:
        raise ValueError("its scheme is neither http nor https (SOCKS is not supported)")
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError("there is a '/', '?' or '#' before its '@'")
    host = _ascii(parts.hostname or "")
    if _address(host) is None and not _is_name(host):
        raise ValueError("it names no host" if not host else "its host is neither a name nor an address")
    if port == 0:
        raise ValueError("its port is 0")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    for secret in (password, parts.password or ""):
        redaction.register(secret, math.inf)
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{parts.scheme}://{shown}:{port or _PORTS[parts.scheme]}", username, password)


def _either(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The spelling that is set, and its value."""
    for spelling in (name, name.lower()):
        if value := environ.get(spelling, "").strip():
            return spelling, value
    return name, ""


def _proxy_of(environ: Mapping[str, str], name: str) -> Proxy | None:
    spelling, value = _either(environ, name)
    return parse_proxy(spelling, value) if value else None


def _rule(entry: str) -> _Rule | None:
    """What an entry of NO_PROXY excludes; None if it cannot exclude anything."""
    text = entry.lower()
    if "/" in text:
        return _network_rule(text)
    host, port = _split_port(text)
    if port and not (port.isdecimal() and 0 < int(port) <= 65535):
        return None
    number = int(port) if port else None
    if (address := _address(host)) is not None:
        return _Rule(network=ip_network(address), port=number)
    below = host.removeprefix("*") if host.startswith("*.") else host
    domain = _ascii(below.removeprefix("."))
    if not _is_name(domain):
        return None
    return _Rule(domain=f".{domain}", only_below=below.startswith("."), port=number)


def _network_rule(text: str) -> _Rule | None:
    _, _, length = text.partition("/")
    if not (length.isascii() and length.isdecimal()):
        return None
    try:
        return _Rule(network=ip_network(text, strict=False))
    except ValueError:
        return None


def _split_port(text: str) -> tuple[str, str]:
    """`host:port`, `[IPv6]:port`, or a host alone, which may be an IPv6 address, with or without brackets."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        is_address = bool(closed) and ":" in host and (not rest or rest.startswith(":"))
        return (host, rest[1:]) if is_address else ("", "")
    host, _, port = text.rpartition(":")
    return (host, port) if host and ":" not in host else (text, "")


def _address(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _ascii(host: str) -> str:
    """A name as DNS has it; as it is where that cannot be."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _is_name(host: str) -> bool:
    # A last label of digits is a piece of an address, such as 10.1 or 300.1.2.3.
    return _NAME.fullmatch(host) is not None and _NUMBERS.fullmatch(host.rstrip(".").rpartition(".")[2]) is None


def _shown(entry: str) -> str:
    text = entry if len(entry) <= _LONGEST_SHOWN else f"{entry[:_LONGEST_SHOWN]}..."
    return "one with an '@', not shown" if "@" in entry else ascii(text)


def describe(proxies: Proxies) -> Iterator[tuple[str, str]]:
    """Names of the variables and the proxies' addresses, for the log."""
    for name, proxy in (("HTTP_PROXY", proxies.http), ("HTTPS_PROXY", proxies.https)):
        if proxy is not None:
            yield name, proxy.url
