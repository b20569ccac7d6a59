"""Which proxy a request takes. `GO` holds facts from the test table of golang.org/x/net/http/httpproxy."""

import pytest

from nodepool_membership.net.proxies import Proxies, ProxyError, describe, proxies_from

PROXY = "http://proxy.example.com:3128"

NO_PROXY = (
    "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30,"
    " 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64"
)
GO = {
    "localhost": False,
    "127.0.0.1": False,
    "127.0.0.2": False,
    "[::1]": False,
    "[::2]": True,
    "192.168.1.1": False,
    "192.168.1.2": True,
    "192.168.1.3": False,
    "192.168.1.4": True,
    "10.0.0.2": False,
    "[2001:db8::52:0:1]": False,
    "[2001:db8::52:0:2]": True,
    "[2001:db8::52:0:3]": False,
    "[2002:db8:a::123]": False,
    "[fe80::424b:c8be:1643:a1b6]": True,
    "barbaz.net": True,
    "www.barbaz.net": False,
    "foobar.com": False,
    "www.foobar.com": False,
    "foofoobar.com": True,
    "baz.com": True,
    "localhost.net": True,
    "local.localhost": True,
    "barbarbaz.net": True,
    "wildcard.io": True,
    "nested.wildcard.io": False,
    "awildcard.io": True,
}


@pytest.mark.parametrize(("host", "proxied"), GO.items())
def test_hosts_are_excluded_as_by_go(host: str, proxied: bool) -> None:
    proxies = proxies_from({"HTTP_PROXY": PROXY, "NO_PROXY": NO_PROXY})
    assert proxies.warnings == ()
    assert (proxies.for_url(f"http://{host}:80/path") is not None) is proxied
    everything = proxies_from({"HTTP_PROXY": PROXY, "NO_PROXY": f"{NO_PROXY}, *"})
    assert everything.for_url(f"http://{host}:80/path") is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "proxied"),
    [
        ("10.0.0.0/8,172.16.0.0/12,.svc", "https://172.20.0.1:443", False),
        ("10.0.0.0/8,172.16.0.0/12,.svc", "https://172.32.0.1", True),
        ("10.0.0.0/8,172.16.0.0/12,.svc", "https://kubernetes.default.svc", False),
        ("localhost,127.0.0.1,::1,10.0.0.0/8,fd00::/8", "https://[fd12::1]:6443", False),
        ("localhost,127.0.0.1,::1,10.0.0.0/8,fd00::/8", "https://[fe12::1]:6443", True),
        ("10.1.2.3/8", "https://10.9.9.9", False),
        ("10.0.0.1", "https://[::ffff:10.0.0.1]", False),
        ("10.0.0.0/8", "https://[::ffff:10.0.0.1]", False),
        ("[2001:db8::1]", "https://[2001:db8::1]:6443", False),
        ("2001:DB8::1", "https://[2001:db8::1]:6443", False),
        ("[2001:db8::1]:6443", "https://[2001:db8::1]:6443", False),
        ("[2001:db8::1]:6443", "https://[2001:db8::1]", True),
        ("2001:db8::1:6443", "https://[2001:db8::1]:6443", True),
        ("EXAMPLE.com", "https://Api.Example.COM", False),
        ("example.com:443", "https://api.example.com", False),
        ("example.com:443", "https://api.example.com:8443", True),
        ("*.example.com:443", "https://api.example.com", False),
        (".example.com:8443", "https://api.example.com", True),
        (".example.com", "https://example.com", True),
        ("ample.com", "https://example.com", True),
        ("example.com", "https://[1000::%25.example.com]:123", True),
        ("*", "https://example.com", False),
        ("a.com,*,b.com", "https://example.com", False),
        (".\u793a\u4f8b.com", "https://www.xn--fsq092h.com", False),
        ("\u793a\u4f8b.com", "https://www.xn--fsq092h.com", False),
        ("xn--fsq092h.com", "https://www.\u793a\u4f8b.com", False),
        (" , ,example.com ,", "https://example.com", False),
        ("10.0.0.0/8", "https://10.example.com", True),
        ("", "https://example.com", True),
    ],
)
def test_more_of_the_kind(no_proxy: str, url: str, proxied: bool) -> None:
    proxies = proxies_from({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert (proxies.for_url(url) is not None) is proxied
    assert proxies.warnings == ()


@pytest.mark.parametrize(
    "entry",
    [
        ":80",
        "10.0.0.0/99",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/8:443",
        "fd00::/129",
        "/8",
        "10.*",
        "192.168.",
        "300.1.1.1",
        "*example.com",
        "example.com:https",
        "example.com:99999",
        "http://example.com",
        "[::1",
        "[example.com]:80",
        "[fd00::/8]",
        "10.0.0.0/8 .svc",
        "a..b",
        "<none>",
        '"example.com"',
        "..",
        "*.",
    ],
)
def test_an_entry_that_cannot_be_used_is_said_and_left_out(entry: str) -> None:
    proxies = proxies_from({"HTTPS_PROXY": PROXY, "NO_PROXY": f"before.com,{entry},after.com"})
    (warning,) = proxies.warnings
    assert ascii(entry) in warning
    assert warning.startswith("NO_PROXY: left out")
    assert proxies.for_url("https://before.com") is None
    assert proxies.for_url("https://after.com") is None
    assert proxies.for_url("https://example.com") is not None


def test_one_warning_names_all_and_shows_no_credentials() -> None:
    entries = ["http://me:hidden@host", "10.0.0.0/99", "x" * 1000 + "/", "a\nb\x1b[31m"]
    (warning,) = proxies_from({"NO_PROXY": ",".join(entries)}).warnings
    assert "hidden" not in warning
    assert warning.isprintable()
    assert len(warning) < 500


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("cache.corp.example.com:1234", "http://cache.corp.example.com:1234"),
        ("cache.corp.example.com", "http://cache.corp.example.com:80"),
        ("localhost", "http://localhost:80"),
        ("https://cache.corp.example.com", "https://cache.corp.example.com:443"),
        ("HTTP://Proxy:3128/", "http://proxy:3128"),
        (" http://proxy:3128\n", "http://proxy:3128"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("http://proxy:3128/a/path", "http://proxy:3128"),
        ("http://\u793a\u4f8b.com:3128", "http://xn--fsq092h.com:3128"),
    ],
)
def test_a_proxy_is_written_as_for_go(value: str, url: str) -> None:
    proxies = proxies_from({"https_proxy": value})
    assert proxies.https is not None
    assert proxies.https.url == url
    assert list(describe(proxies)) == [("HTTPS_PROXY", url)]


@pytest.mark.parametrize(
    ("value", "username", "password"),
    [
        ("http://me:secret99@proxy:3128", "me", "secret99"),
        ("me:secret99@proxy:3128", "me", "secret99"),
        ("http://corp%5Cme:p%40ss%3Aw%2Frd@proxy:3128", "corp\\me", "p@ss:w/rd"),
        ("http://me:p@ss@proxy:3128", "me", "p@ss"),
        ("http://me:p\u00e4ss@proxy:3128", "me", "p\u00e4ss"),
        ("http://me@proxy:3128", "me", ""),
    ],
)
def test_credentials_are_taken_out_of_the_address(value: str, username: str, password: str) -> None:
    proxy = proxies_from({"HTTPS_PROXY": value}).https
    assert proxy is not None
    assert (proxy.url, proxy.username, proxy.password) == ("http://proxy:3128", username, password)
    assert repr(proxy) == "Proxy(url='http://proxy:3128')"


@pytest.mark.parametrize(
    "value",
    [
        "socks5://proxy:1080",
        "ftp://proxy",
        "foo://host",
        "http://",
        "http:///path",
        "://proxy:3128",
        "http://:3128",
        "http://proxy:port",
        "http://proxy:99999",
        "http://proxy:0",
        "http://me:hidden99@",
        "http://me:hid#den99@proxy:3128",
        "http://me:12/hidden99@proxy:3128",
        "http://me:hid?den99@proxy:3128",
        "http://me:[hidden99@proxy:3128",
        '"http://me:hidden99@proxy:3128"',
        "http://me:hid den99@proxy:3128",
        "http://pro xy:3128",
        "http://[fd00::1:3128",
        "http://300.1.1.1:3128",
        "proxy:3128,other:3128",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY"])
def test_a_proxy_that_cannot_be_used_is_an_error_that_does_not_show_it(name: str, value: str) -> None:
    with pytest.raises(ProxyError, match=f"^{name} cannot be used: ") as raised:
        proxies_from({name: value})
    assert "den99" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_scheme_has_its_own_and_the_upper_case_name_comes_first() -> None:
    proxies = proxies_from({"HTTP_PROXY": "a", "http_proxy": "b", "HTTPS_PROXY": "", "https_proxy": "c"})
    assert [proxy.url for proxy in (proxies.http, proxies.https) if proxy] == ["http://a:80", "http://c:80"]
    assert proxies.for_url("http://x.com") == proxies.http
    assert proxies.for_url("https://x.com") == proxies.https
    assert proxies.for_url("ftp://x.com") is None
    assert proxies_from({"HTTP_PROXY": "a"}).for_url("https://x.com") is None
    assert proxies_from({"ALL_PROXY": "a", "all_proxy": "b"}) == Proxies()


def test_http_proxy_is_left_out_under_cgi() -> None:
    proxies = proxies_from({"HTTP_PROXY": "a", "HTTPS_PROXY": "b", "REQUEST_METHOD": "GET"})
    assert proxies.for_url("http://x.com") is None
    assert proxies.for_url("https://x.com") is not None
    assert len(proxies.warnings) == 1
    assert "REQUEST_METHOD" in proxies.warnings[0]
