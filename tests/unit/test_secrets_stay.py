"""Every way out of the process, fed with an echo of a secret in every form: none of them lets it pass.

Not for: recognising the forms (`test_redaction`).
"""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from nodepool_membership import redaction
from nodepool_membership.api.membership import Metadata
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Condition, Failure, Operation, Phase, Status
from nodepool_membership.cce.credentials import AccessKey, Token, parse_credentials
from nodepool_membership.cce.errors import CloudError, from_answer, from_transport
from nodepool_membership.cce.signing import authentication
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.cloud import error_mapping
from nodepool_membership.runtime.ops.logs import JsonFormatter, TextFormatter
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.ops.options import Bind
from nodepool_membership.runtime.process.health import Health, serve
from unit.echoes import FORMS
from unit.issued import ISSUED, exchange, refusals

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
META = Metadata("pool", "ns", "uid", "1", 1, NOW)
KEY = AccessKey("HPUAQ7XKZ3M5T9WB2CDE", "k3yOfForty/Characters+AsTheConsoleShows=", "StsSecurityToken-" + "q8Zt" * 40)
IAM_TOKEN = Token("MIISkgYJKoZIhvcNAQcCoIISgzCCEn8CAQExDTALBglghkgBZQMEAgEwghCkBgkq" + "x7Wv" * 100)


def signature() -> str:
    """That of a request which was sent."""
    request = httpx.Request("GET", "https://cce.cn-north-4.myhuaweicloud.com/api/v3/projects/p/jobs/j")
    next(authentication(KEY, now=lambda: NOW).sync_auth_flow(request))
    return request.headers["Authorization"].rpartition("Signature=")[2]


SECRETS = {
    "access key": KEY.access_key,
    "secret key": KEY.secret_key,
    "security token": str(KEY.security_token),
    "token": IAM_TOKEN.value,
    "signature": signature(),
    **ISSUED,
}


@pytest.fixture(scope="module", autouse=True)
def _issued() -> None:
    """Whoever gets a secret makes it known: nothing of these is registered here."""
    asyncio.run(exchange())


@pytest.fixture(autouse=True)
def _in_use() -> None:
    KEY.register()
    IAM_TOKEN.register()
    redaction.register(SECRETS["signature"])


_ECHOES = {
    **{f"secret key, {form}": make(KEY.secret_key) for form, make in FORMS.items()},
    **{f"{name}, plain": value for name, value in SECRETS.items()},
    **{f"{name}, half": FORMS["half"](value) for name, value in SECRETS.items()},
}


@pytest.fixture(params=_ECHOES)
def echo(request: pytest.FixtureRequest) -> str:
    """A secret value, repeated in one of the forms."""
    return _ECHOES[request.param]


def shows(text: str, echo: str) -> bool:
    """Whether six characters in a row of an echo stand in a text."""
    folded, words = text.lower(), echo.lower()
    return any(words[at : at + 6] in folded for at in range(len(words) - 5))


BODIES: dict[str, Callable[[str], object]] = {
    "error_msg": lambda echo: {"error_code": "APIGW.0301", "error_msg": f"ak {echo} not exist"},
    "message": lambda echo: {"message": f"ak {echo} not exist", "request_id": "r"},
    "errorMessage": lambda echo: {"errorCode": "CCE.01400001", "errorMessage": echo},
    "error_code": lambda echo: {"error_code": echo, "error_msg": "no"},
    "request_id": lambda echo: {"error_code": "APIGW.0301", "error_msg": "no", "request_id": echo},
    "a text of nothing else": lambda echo: echo,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("changes", [True, False])
def test_errors_of_the_cloud(echo: str, body: str, changes: bool) -> None:
    raw = json.dumps(BODIES[body](echo)).encode()
    error = from_answer(httpx.Response(401, headers={"X-Request-Id": echo[:60].strip()}), raw, changes=changes)
    told = (
        error,
        error.message,
        error.code,
        error.request_id,
        error_mapping.of_read(error, "it"),
        error_mapping.of_call(error),
    )
    assert not shows(repr(told), echo)


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadError, ValueError])
def test_errors_of_libraries(echo: str, kind: type[Exception]) -> None:
    assert not shows(str(from_transport(kind(f"for header {echo}"), changes=True)), echo)


async def test_whoever_gives_keys_and_repeats_what_it_was_sent() -> None:
    errors = await refusals()
    assert len(errors) == 6
    for error in errors:
        told = f"{error_mapping.of_read(error, 'it')} {error_mapping.of_call(error)}"
        assert "as it was said" in told
        assert [name for name, value in ISSUED.items() if shows(redaction.redact(told), value)] == []


class Server(KubeApi):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[object] = []

    async def request(self, kind: str, method: str, resource: str, **rest: object) -> bytes:
        self.written.append((kind, method, resource, rest["body"]))
        return b'{"metadata": {"resourceVersion": "2"}}'


async def test_the_status(echo: str) -> None:
    server = Server()
    status = Status(
        observed_generation=1,
        conditions=(Condition("Ready", "False", Reason.UNAUTHENTICATED, f"ak {echo} not exist", 1, NOW),),
        failures=(Failure(FailureReason.REFUSED, f"no: {echo}", 1, count=0, server_ids=()),),
        jobs=(Batch(1, Operation.ADD, 1, Phase.REFUSED, job_id=echo, servers=1, message=f"no: {echo}"),),
        last_job_id=echo,
    )
    memberships = Memberships(server)
    await memberships.write_status(META, Status(), status)
    await memberships.write_conditions_only(META, 1, status.conditions)
    assert len(server.written) == 2
    assert not shows(json.dumps(server.written), echo)
    assert not shows(repr(server.written), echo)


async def test_what_a_user_asked_for_is_answered_as_it_was_asked() -> None:
    """Else it would be asked for ever."""
    server = Server()
    asked = KEY.secret_key
    await Memberships(server).write_status(META, Status(), Status(last_handled_reconcile_at=asked))
    assert asked in json.dumps(server.written)


async def test_what_others_chose_as_their_secrets_is_missing_in_no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant may have as its secret key what it likes: a server id of others, a word or a time of their status."""
    server, node = "aaaaaaaa-bbbb-cccc-dddd-000000000001", "bbbbbbbb-cccc-dddd-eeee-000000000002"
    redactor = redaction.Redactor()
    for word in (server, node, "Reconciling", "Progressing", "serverIDs", "conditions", f"{NOW:%Y-%m-%dT%H}"):
        redactor.register(word)
    monkeypatch.setattr(redaction, "redact", redactor.redact)
    monkeypatch.setattr(redaction, "redact_json", redactor.redact_json)
    batch = Batch(
        1, Operation.REMOVE, 1, Phase.SUBMITTING, job_id=node, servers=1, server_ids=(server,), node_ids=(node,)
    )
    condition = Condition("Reconciling", "True", Reason.PROGRESSING, "of us: Progressing", 1, NOW)
    status = Status(1, conditions=(condition,), jobs=(batch,), members=(server,), surplus_since=NOW, last_job_id=node)
    kept = Server()
    await Memberships(kept).write_status(META, Status(), status)
    written = json.dumps(kept.written)
    assert written.count(redaction.REDACTED) == 1, written
    assert f"of us: {redaction.REDACTED}" in written


@pytest.mark.usefixtures("own_redactor")
@pytest.mark.parametrize(
    "word", ["CCE.01400001", "servers+joined", "aaaaaaaa-bbbb-cccc-dddd-000000000001", "ServerInUse"], ids=str
)
@pytest.mark.parametrize("kind", ["secretKey", "token"])
def test_what_a_tenant_chose_as_its_secret_is_missing_in_its_own_texts_only(kind: str, word: str) -> None:
    """Decisions read codes and ids in texts of the cloud, and an engineer reads the rest."""
    KEY.register()
    values = {kind: word.encode()} | ({"accessKey": b"HPUAQ7XKZ3M5T9WB2CDF"} if kind == "secretKey" else {})
    parse_credentials(values, "attackers")
    said = f"3 servers joined, ServerInUse: aaaaaaaa-bbbb-cccc-dddd-000000000001, CCE.01400001: {KEY.secret_key}"
    body = json.dumps({"error_code": "CCE.01400001", "error_msg": said}).encode()
    told: dict[str, CloudError] = {}
    for namespace in ("victims", "attackers"):
        with redaction.done_for(namespace):
            told[namespace] = from_answer(httpx.Response(400), body, changes=True)
    assert told["victims"].code == "CCE.01400001"
    assert said.replace(KEY.secret_key, redaction.REDACTED) in told["victims"].message
    assert KEY.secret_key not in told["attackers"].message
    assert said.replace(KEY.secret_key, redaction.REDACTED) not in told["attackers"].message
    with redaction.done_for("others with the same secret"):
        parse_credentials(values, "others with the same secret")
        assert redaction.REDACTED in redaction.redact(said.replace(KEY.secret_key, ""))


@pytest.mark.usefixtures("own_redactor")
def test_no_secret_hides_by_which_code_a_call_was_refused() -> None:
    """Also where it is not known for whom the call was made."""
    redaction.register("CCE.01400001")
    body = json.dumps({"error_code": "CCE.01403003", "error_msg": "ak CCE.01400001 not exist"}).encode()
    error = from_answer(httpx.Response(403), body, changes=True)
    assert error.code == "CCE.01403003"
    assert redaction.REDACTED in error.message


async def test_a_status_that_says_the_same_is_not_written_again() -> None:
    server = Server()
    condition = Condition("Ready", "False", Reason.UNAUTHENTICATED, f"ak {KEY.secret_key} no", 1, NOW)
    told = Condition("Ready", "False", Reason.UNAUTHENTICATED, f"ak {redaction.REDACTED} no", 1, NOW)
    await Memberships(server).write_status(META, Status(conditions=(told,)), Status(conditions=(condition,)))
    assert server.written == []


async def test_events(echo: str) -> None:
    server = Server()
    async with Events(server, instance="pod") as events:
        events.post(META, "BatchRefused", "Warning", "Reconcile", f"ak {echo} not exist")
    assert len(server.written) == 1
    assert not shows(json.dumps(server.written), echo)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_logs(echo: str, formatter: logging.Formatter, level: int) -> None:
    extra = {"said": echo, "nested": {"list": [echo]}, "set": {echo}, echo: 1}
    error = RuntimeError(f"outer {echo}")
    error.__cause__ = ValueError(f"inner {echo}")
    caught = (RuntimeError, error, None)
    record = logging.getLogger("x").makeRecord("x", level, "f", 1, "ak %s no", (echo,), caught, extra=extra)
    line = formatter.format(record)
    assert not shows(line, echo)
    if isinstance(formatter, JsonFormatter):
        assert "RuntimeError" in json.loads(line)["error"]


_DYING = """
import asyncio, logging, sys, threading, warnings
from nodepool_membership import redaction
from nodepool_membership.runtime.ops import logs
redaction.register({secret!r})
logs.configure("text", "info")
echo = {echo!r}
warnings.warn("a warning " + echo)
thread = threading.Thread(target=lambda: int(echo)); thread.start(); thread.join()
class Odd:
    def __del__(self):
        raise ValueError(echo)
Odd()
async def lost():
    raise ValueError(echo)
async def main():
    task = asyncio.get_running_loop().create_task(lost())
    await asyncio.sleep(0)
    del task
asyncio.run(main())
raise ValueError(echo)
"""


@pytest.mark.parametrize("form", ["plain", "json", "url-encoded", "base64", "half"])
def test_what_nobody_catches(form: str) -> None:
    echo = FORMS[form](KEY.secret_key)
    program = _DYING.format(secret=KEY.secret_key, echo=echo)
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert died.returncode == 1
    assert died.stdout == ""
    assert died.stderr.count(redaction.REDACTED) >= 5, died.stderr
    assert not shows(died.stderr.replace("/site-packages/", ""), echo)


async def test_probes_and_metrics(echo: str) -> None:
    metrics = Metrics()
    status = Status(conditions=(Condition("Ready", "False", Reason.UNAUTHENTICATED, echo, 1, NOW),), last_job_id=echo)
    metrics.stored("ns", "pool", Status(), status)
    error = from_answer(httpx.Response(401), json.dumps({"error_code": echo, "error_msg": echo}).encode(), changes=True)
    metrics.cloud_request("addNodes", type(error).__name__, 1.0)
    checks = Health(alive=[lambda: f"watch: {echo}"], ready=[lambda: f"lease: {echo}"])
    async with serve(Bind("127.0.0.1", 0), checks, metrics) as port, httpx.AsyncClient() as http:
        for path in ("healthz", "readyz", "metrics"):
            answer = await http.get(f"http://127.0.0.1:{port}/{path}")
            assert not shows(answer.text, echo)


def test_the_command_line(echo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from nodepool_membership import cli

    monkeypatch.setattr(sys, "argv", ["nodepool-membership", "run", f"--bind={echo}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not shows(printed.err + printed.out, echo)


async def test_the_operators_own_token() -> None:
    """It is known from the first request on, whoever echoes it."""
    token = "eyJhbGciOiJSUzI1NiJ9.own-service-account.c2ln"

    async def authorization() -> str:
        return f"Bearer {token}"

    api = KubeApi.__new__(KubeApi)
    api._login = type("Login", (), {"server": "https://x", "authorization": staticmethod(authorization)})()

    class Client:
        async def call_api(self, *_: object) -> object:
            raise OSError(token)

    api._client = Client()  # type: ignore[assignment]
    api._observer = lambda *_: None
    with pytest.raises(Exception, match="OSError"):
        await api.request("lease", "GET", "/x")
    assert redaction.redact(f"no: {token}") == f"no: {redaction.REDACTED}"
