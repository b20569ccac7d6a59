"""The command line and its options: values, bounds, the environment, one line for what is wrong."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership import __version__
from nodepool_membership.runtime.ops import options as o
from nodepool_membership.runtime.ops.options import Bind, OidcFile, Options


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodepool_membership", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/nowhere", "PYTHONPATH": ":".join(sys.path), **environment},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("15s", 15), ("1h30m", 5400), ("1.5h", 5400), ("1m0s", 60), ("2h0m0.5s", 7200.5)],
)
def test_durations_read_like_go(text: str, seconds: float) -> None:
    assert o.parse_duration(text) == timedelta(seconds=seconds)


FOR = f"team/{'0' * 32}/11111111-2222-3333-4444-555555555555"
BY_FILE = ("--operator-identity=oidc-file:/t", f"--operator-identity-for={FOR}")


@pytest.mark.parametrize(
    ("provider", "agency", "remedy"),
    [
        ("cce", "iam::a:agency:b", "is a URN with --operator-identity-agency"),
        ("iam::a:oidcProvider:b", None, "a name without"),
        ("iam::a:oidcProvider:b", "b", "write iam::ACCOUNT:agency:NAME"),
    ],
)
def test_who_takes_the_operators_token_must_fit(provider: str, agency: str | None, remedy: str) -> None:
    more = [] if agency is None else [f"--operator-identity-agency={agency}"]
    result = run("run", *BY_FILE, f"--operator-identity-provider={provider}", *more)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert remedy in line


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5s", "1d", "s", "1h 2m", "1.s", "٣s"])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="15s or 1h30m"):
        o.parse_duration(text)


@given(st.integers(1, 10**6))
def test_a_duration_reads_as_it_is_written(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert o.parse_duration(o.format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("https://cce.example.com", "https://cce.example.com:443"),
        ("https://CCE.example.com/", "https://cce.example.com:443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]", "http://[::1]:80"),
    ],
)
def test_endpoints_are_scheme_host_and_port(text: str, endpoint: str) -> None:
    assert o.parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    ["cce.example.com", "ftp://a", "https://", "https://a/path", "https://u@a", "https://a:99999", "https://a?b"],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint"):
        o.parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:80", Bind("127.0.0.1", 80)),
        (":8080", Bind("", 8080)),
        ("[::]:8080", Bind("::", 8080)),
        ("[::1]:0", Bind("::1", 0)),
    ],
)
def test_addresses(text: str, bind: Bind) -> None:
    assert o.parse_bind(text) == bind


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--poll-interval", "5x", "15s or 1h30m"),
        ("--poll-interval", "1ms", "between 100ms and 1h"),
        ("--resync-interval", "25h", "between 1s and 24h"),
        ("--settle-window", "0s", "between 1s and 24h"),
        ("--removal-delay", "25h", "between 0s and 24h"),
        ("--http-timeout", "11m", "between 1s and 10m"),
        ("--writes-per-minute", "0", "1<=x<=1000"),
        ("--reads-per-second", "1001", "1<=x<=1000"),
        ("--namespace", "Not_A_Name", "lower-case letters"),
        ("--allow-endpoint", "example.com", "https://cce.example.com"),
        ("--lease-name", "A_B", "'-' and '.'"),
        ("--lease-name", "a..b", "'-' and '.'"),
        ("--lease-name", "x" * 254, "at most 253"),
        ("--lease-namespace", "a.b", "at most 63"),
        ("--lease-duration", "0s", "between 1s and 10m"),
        ("--renew-deadline", "11m", "between 500ms and 10m"),
        ("--renew-deadline", "15s", "shorter than --lease-duration (15s)"),
        ("--lease-duration", "9s", "--renew-deadline (10s)"),
        ("--operator-identity", "me", "write pod-identity, or oidc-file:"),
        ("--operator-identity", "oidc-file:token", "the path of a token file"),
        ("--operator-identity", "oidc-file:/t", "needs --operator-identity-provider"),
        ("--operator-identity-provider", "cce", "for --operator-identity=oidc-file:PATH"),
        ("--operator-identity-agency", "iam::a:agency:b", "for --operator-identity=oidc-file:PATH"),
        ("--operator-identity-for", "team/project", "write NAMESPACE/PROJECT-ID/CLUSTER-ID"),
        ("--operator-identity-for", f"{'0' * 32}/{'0' * 32}/{'0' * 8}", "write NAMESPACE/PROJECT-ID/CLUSTER-ID"),
        ("--operator-identity-for", FOR, "--operator-identity-for without --operator-identity"),
        ("--bind", "8080", ":8080"),
        ("--log-format", "xml", "json"),
        ("--log-level", "loud", "debug"),
    ],
)
@pytest.mark.parametrize("by_environment", [False, True])
def test_a_bad_option_is_one_line_and_exit_code_2(option: str, value: str, remedy: str, by_environment: bool) -> None:
    name = "NODEPOOL_MEMBERSHIP_" + option.strip("-").replace("-", "_").upper()
    result = run("run", **{name: value}) if by_environment else run("run", option, value)
    assert result.returncode == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert option in line
    assert remedy in line


def test_unknown_words_are_one_line_too() -> None:
    for arguments in (["run", "--nope"], ["nope"], []):
        result = run(*arguments)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1


def test_values_arrive_from_both_sides_and_lists_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Options] = []

    async def fake_run(options: Options, _: object) -> int:
        got.append(options)
        return 7

    from nodepool_membership import cli
    from nodepool_membership.runtime.process import process

    monkeypatch.setattr(process, "run", fake_run)
    monkeypatch.setenv("NODEPOOL_MEMBERSHIP_NAMESPACE", "team-a,team-b")
    monkeypatch.setenv("NODEPOOL_MEMBERSHIP_WRITES_PER_MINUTE", "3")
    monkeypatch.setenv("NODEPOOL_MEMBERSHIP_LEADER_ELECT", "false")
    monkeypatch.setenv("NODEPOOL_MEMBERSHIP_LEASE_NAME", "prod-operator.v2")
    monkeypatch.setenv("NODEPOOL_MEMBERSHIP_LEASE_NAMESPACE", "infra")
    monkeypatch.setenv("NODEPOOL_MEMBERSHIP_LEASE_DURATION", "30s")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *("x", "run", "--poll-interval", "2s", "--allow-endpoint", "http://a:1", "--allow-endpoint", "https://b"),
            *(*BY_FILE, "--operator-identity-provider=cce"),
        ],
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 7
    assert got == [
        Options(
            namespaces=("team-a", "team-b"),
            allow_endpoints=("http://a:1", "https://b:443"),
            poll_interval=timedelta(seconds=2),
            writes_per_minute=3,
            leader_elect=False,
            lease_name="prod-operator.v2",
            lease_namespace="infra",
            lease_duration=timedelta(seconds=30),
            operator_identity=OidcFile(Path("/t"), "cce"),
            operator_identity_for=(("team", "0" * 32, "11111111-2222-3333-4444-555555555555"),),
        )
    ]


def test_version_and_help_import_nothing_heavy() -> None:
    assert __version__ in run("--version").stdout
    assert "--settle-window" in run("run", "--help").stdout
    code = "import sys; sys.argv = ['x', '--version']; import nodepool_membership.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"kopf", "kubernetes", "aiohttp", "httpx", "pydantic", "prometheus_client"} & set(loaded)


def test_without_a_cluster_it_says_so(tmp_path: object) -> None:
    result = run("run", "--bind", "127.0.0.1:0", HOME=str(tmp_path))
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "set KUBECONFIG" in line


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy"])
@pytest.mark.parametrize("value", ["socks5://proxy:1080", "http://me:hidden99@", "http://me:hid/den99@proxy:3128"])
def test_a_proxy_that_cannot_be_used_ends_it_before_anything_is_done(name: str, value: str) -> None:
    result = run("run", **{name: value, "HOME": "/nowhere"})
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert f"{name} cannot be used" in line
    assert "den99" not in line


def test_entries_of_no_proxy_that_cannot_be_used_are_one_warning() -> None:
    no_proxy = "localhost,127.0.0.1,::1,10.0.0.0/8,fd00::/8,10.0.0.0/99,:80"
    result = run("run", HTTPS_PROXY="http://p:3128", NO_PROXY=no_proxy, HOME="/nowhere")
    assert result.returncode == 1
    warning, error = result.stderr.splitlines()
    assert "NO_PROXY: left out" in warning
    assert "'10.0.0.0/99', ':80'" in warning
    assert "::1" not in warning
    assert "no cluster" in error


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("hello", "no whole certificate"),
        ("-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n", "holds a private key"),
    ],
)
@pytest.mark.parametrize("by_environment", [False, True])
def test_a_ca_file_that_cannot_be_used(content: str | None, remedy: str, by_environment: bool, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    environment = {"NODEPOOL_MEMBERSHIP_CA_FILE": str(file)} if by_environment else {}
    result = run("run", *(() if by_environment else (f"--ca-file={file}",)), **environment)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert remedy in line
    assert "SECRET" not in line


def test_plain_http_is_warned_of_at_the_start() -> None:
    result = run("run", "--allow-endpoint=http://cce.example.com", "--allow-endpoint=https://cce.example.com", HOME="/")
    assert "http://cce.example.com:80: without TLS" in result.stderr
    assert "https://cce.example.com:443" not in result.stderr


def test_no_dump_of_the_process_is_written() -> None:
    """One byte, not none: see `man 5 core` of dumps that are piped to a program."""
    code = (
        "import asyncio, resource; from nodepool_membership.runtime.process import process; from nodepool_membership"
        ".runtime.ops.options import Options; asyncio.run(process.run(Options(), None));"
        " print(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": "/nowhere", "HOME": "/nowhere", "PYTHONPATH": ":".join(sys.path)},
        timeout=60,
        check=True,
    )
    assert result.stdout == "(1, 1)\n"
