"""The test control plane is what the other cluster tests take it for, and leaves nothing behind."""

import asyncio
import ctypes
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controlplane import ControlPlane, ControlPlaneError, KubectlError

_TESTS = Path(__file__).parent.parent

_PRIVILEGED_POD = """
apiVersion: v1
kind: Pod
metadata: {name: intruder}
spec:
  containers:
    - {name: shell, image: example.invalid/shell, securityContext: {privileged: true}}
"""


def running(pid: int) -> bool:
    """Whether the process exists and is no zombie: where init does not reap, a dead orphan stays as one."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not state.startswith("Z")


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def service_account(control_plane: ControlPlane, namespace: str, name: str) -> Path:
    """Create a service account without any rights; a kubeconfig with a token of its own."""
    control_plane.kubectl("create", "serviceaccount", name, f"--namespace={namespace}")
    token = control_plane.service_account_token(namespace, name)
    return control_plane.kubeconfig_for_token(token, name=f"{namespace}-{name}")


def test_kubectl_is_of_the_release_of_the_server(control_plane: ControlPlane) -> None:
    versions = json.loads(control_plane.kubectl("version", "-o", "json").stdout)

    assert versions["clientVersion"]["gitVersion"] == versions["serverVersion"]["gitVersion"]
    assert versions["serverVersion"]["major"] == "1"
    assert int(versions["serverVersion"]["minor"]) >= 27


def test_token_of_a_service_account_authenticates_as_it(control_plane: ControlPlane, namespace: str) -> None:
    kubeconfig = service_account(control_plane, namespace, "robot")

    review = json.loads(control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig).stdout)

    assert review["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:robot"


def test_service_account_without_a_role_is_forbidden(control_plane: ControlPlane, namespace: str) -> None:
    kubeconfig = service_account(control_plane, namespace, "robot")

    arguments = ("get", "secrets", f"--namespace={namespace}")
    with pytest.raises(KubectlError, match=r"\(Forbidden\).*cannot list resource") as refusal:
        control_plane.kubectl(*arguments, kubeconfig=kubeconfig)

    assert refusal.value.returncode == 1
    assert control_plane.kubectl(*arguments).returncode == 0


def test_role_grants_what_it_names_and_no_more(control_plane: ControlPlane, namespace: str) -> None:
    kubeconfig = service_account(control_plane, namespace, "reader")
    scope = f"--namespace={namespace}"
    control_plane.kubectl("create", "role", "reader", "--verb=get", "--resource=configmaps", scope)
    control_plane.kubectl("create", "rolebinding", "r", "--role=reader", f"--serviceaccount={namespace}:reader", scope)

    def allowed(verb: str) -> bool:
        command = ("auth", "can-i", verb, "configmaps", scope)
        return control_plane.kubectl(*command, check=False, kubeconfig=kubeconfig).returncode == 0

    wait_until(lambda: allowed("get"))
    assert not allowed("list")


def test_restricted_namespace_refuses_a_privileged_pod(control_plane: ControlPlane, namespace: str) -> None:
    create = ("create", f"--namespace={namespace}", "--dry-run=server", "-f", "-")
    control_plane.kubectl(*create, input=_PRIVILEGED_POD)

    control_plane.ensure_namespace(namespace, {"pod-security.kubernetes.io/enforce": "restricted"})

    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        control_plane.kubectl(*create, input=_PRIVILEGED_POD)


def test_certificate_of_the_server_is_verified_by_the_ca_file(control_plane: ControlPlane) -> None:
    address = urlsplit(control_plane.url)
    context = ssl.create_default_context(cafile=control_plane.ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT

    with (
        socket.create_connection((address.hostname, address.port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=address.hostname) as secured,
    ):
        assert secured.version() is not None


def test_secrets_are_readable_by_their_owner_only(control_plane: ControlPlane) -> None:
    workdir = control_plane.admin_kubeconfig.parent

    assert workdir.stat().st_mode & 0o077 == 0
    for name in ("admin.kubeconfig", "tokens.csv", "service-accounts.key"):
        assert (workdir / name).stat().st_mode & 0o077 == 0, name


def test_crd_is_served_when_the_fixture_returns(control_plane: ControlPlane, crd: str, namespace: str) -> None:
    plural, _, group = crd.partition(".")
    assert control_plane.kubectl("get", f"{plural}.{group}", "-n", namespace, "-o", "name").stdout == ""


def test_outage_keeps_data_port_and_credentials(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "work") as control_plane:
        url, etcd = control_plane.url, control_plane.pids["etcd"]
        control_plane.ensure_namespace("kept")
        kubeconfig = service_account(control_plane, "kept", "robot")

        control_plane.stop_apiserver()
        assert control_plane.pids == {"etcd": etcd}
        result = control_plane.kubectl("get", "namespaces", check=False)
        assert "refused" in result.stderr

        control_plane.start_apiserver()
        assert control_plane.url == url
        assert control_plane.pids["etcd"] == etcd
        control_plane.kubectl("get", "namespace", "kept")
        control_plane.kubectl("auth", "whoami", kubeconfig=kubeconfig)


def test_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "work") as control_plane:
        before = control_plane.pids["kube-apiserver"]

        # The loop's executor, and the thread with it, is gone when `run` returns.
        asyncio.run(asyncio.to_thread(control_plane.restart_apiserver))

        after = control_plane.pids["kube-apiserver"]
        assert after != before
        assert not running(before)
        control_plane.kubectl("get", "namespaces")
        assert control_plane.pids["kube-apiserver"] == after


def test_nothing_is_left_when_a_test_fails() -> None:
    control_plane = ControlPlane()
    workdir = control_plane.admin_kubeconfig.parent
    pids: dict[str, int] = {}

    def failing_test() -> None:
        with control_plane:
            pids.update(control_plane.pids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_test()

    assert set(pids) == {"etcd", "kube-apiserver"}
    assert [pid for pid in pids.values() if running(pid)] == []
    assert control_plane.pids == {}
    assert not workdir.exists()


def test_server_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    control_plane = ControlPlane(tmp_path / "work")
    (tmp_path / "work" / "service-accounts.key").write_text("no key")

    with pytest.raises(ControlPlaneError, match=r"(?s)kube-apiserver ended with 1.*service-accounts\.key"):
        control_plane.start()

    assert control_plane.pids == {}


def up(workdir: Path) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """Start `python -m controlplane up`; the process ids of its servers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane", "up", "--workdir", str(workdir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"export KUBECONFIG={workdir / 'admin.kubeconfig'}\n"
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for task in children for pid in task.read_text().split()]
        return process, {Path(f"/proc/{pid}/exe").readlink().name: pid for pid in pids}
    except BaseException:
        # The caller has nothing to end yet.
        process.kill()
        process.communicate()
        raise


def test_a_signal_that_another_of_its_threads_is_given_ends_it_too(tmp_path: Path) -> None:
    """The kernel gives it to any thread that does not hold it back."""
    process, pids = up(tmp_path / "work")
    try:
        (other,) = {int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()} - {process.pid}
        assert ctypes.CDLL(None).tgkill(process.pid, other, signal.SIGTERM) == 0
        assert process.wait(20) == 0
        wait_until(lambda: not any(running(pid) for pid in pids.values()))
    finally:
        process.kill()
        process.communicate()
        for pid in filter(running, pids.values()):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("kill", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 0), (signal.SIGINT, 0)])
def test_no_server_survives_its_supervisor(tmp_path: Path, kill: signal.Signals, code: int) -> None:
    process, pids = up(tmp_path / "work")
    try:
        assert set(pids) == {"etcd", "kube-apiserver"}
        process.send_signal(kill)
        assert process.wait(20) == code
        wait_until(lambda: not any(running(pid) for pid in pids.values()))
    finally:
        process.kill()
        process.communicate()
        for pid in filter(running, pids.values()):
            os.kill(pid, signal.SIGKILL)
