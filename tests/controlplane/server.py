"""Starts, serves and ends a throw-away control plane: etcd and kube-apiserver on free ports of 127.0.0.1.

RBAC and the default admission plugins, PodSecurity among them, are on. Only ServiceAccount is off, which would refuse
every pod: no controller makes the accounts named `default`. Request limits are those of a default installation.
"""

import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import yaml

from controlplane import credentials
from controlplane.binaries import Binaries, ensure_binaries
from controlplane.children import Children
from controlplane.errors import ControlPlaneError, KubectlError
from controlplane.ports import free_ports

_ETCD = "etcd"
_APISERVER = "kube-apiserver"
_HOST = "127.0.0.1"
_DEADLINE_SECONDS = 60.0
_POLL_SECONDS = 0.05
_POLL_TIMEOUT = 5.0


class ControlPlane:
    """A running etcd and kube-apiserver, as a context manager; everything is gone when it is left.

    Every method blocks: from asyncio use `asyncio.to_thread`. With `workdir`, keys, logs and data are kept there;
    else they are in a temporary directory that goes too. `quota_backend_bytes` is how large etcd's data may
    become (etcd's own default: 2 GiB). Programs that are missing are fetched or built first, which takes minutes.
    """

    def __init__(self, workdir: Path | None = None, *, quota_backend_bytes: int | None = None) -> None:
        self._keep = workdir is not None
        self._workdir = (workdir or Path(tempfile.mkdtemp(prefix="controlplane-"))).absolute()
        self._workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._quota_backend_bytes = quota_backend_bytes
        self._admin_token = secrets.token_urlsafe(32)
        client, peer, self._port = free_ports(3)
        self._etcd_url, self._etcd_peer_url = f"http://{_HOST}:{client}", f"http://{_HOST}:{peer}"
        self._children = Children(self._workdir)
        self._binaries: Binaries | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both servers and return when the API server is ready; to be called once.

        Raises ControlPlaneError, with the end of the log, if one of them ends or is not ready within 60 s.
        """
        try:
            self._binaries = ensure_binaries()
            credentials.write_token_file(self._token_file, self._admin_token)
            if not self._signing_key.exists():
                credentials.write_signing_key(self._signing_key)
            self._start_etcd()
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise
        self._write_kubeconfig(self.admin_kubeconfig, "admin", self._admin_token)

    def stop(self) -> None:
        """End both servers for good and remove the temporary directory."""
        self._children.close()
        if not self._keep:
            shutil.rmtree(self._workdir, ignore_errors=True)

    def restart_apiserver(self, down_seconds: float = 0) -> None:
        """An outage of the API server that lasts at least `down_seconds`; data, port and certificate stay."""
        self.stop_apiserver()
        time.sleep(down_seconds)
        self.start_apiserver()

    def stop_apiserver(self) -> None:
        """End the API server only, as a crash: connections break, and are refused until `start_apiserver`."""
        self._children.stop(_APISERVER)

    def start_apiserver(self) -> None:
        """Start the API server and return when it is ready. Raises ControlPlaneError as `start` does."""
        options = {
            "etcd-servers": self._etcd_url,
            "bind-address": _HOST,
            "advertise-address": _HOST,
            "secure-port": self._port,
            "cert-dir": self._certificates,
            "token-auth-file": self._token_file,
            "authorization-mode": "RBAC",
            "disable-admission-plugins": "ServiceAccount",
            # As in every cluster with a CNI plugin: what refuses a privileged pod is PodSecurity, by namespace.
            "allow-privileged": "true",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._signing_key,
            "service-account-signing-key-file": self._signing_key,
            "service-cluster-ip-range": "10.0.0.0/24",
            # The address of this server is a loopback address, which an Endpoints object must not hold.
            "endpoint-reconciler-type": "none",
        }
        self._start(_APISERVER, self.binaries.kube_apiserver, options)
        self._wait_until_ready(_APISERVER, f"{self.url}/readyz", token=self._admin_token)

    @property
    def binaries(self) -> Binaries:
        """The programs in use. Raises ControlPlaneError before `start`."""
        if self._binaries is None:
            raise ControlPlaneError("the control plane was not started")
        return self._binaries

    @property
    def url(self) -> str:
        """Where the API server listens; the same after a restart."""
        return f"https://{_HOST}:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The certificates (PEM) that the API server is verified with."""
        return self._certificates / "apiserver.crt"

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig for a user in `system:masters`."""
        return self._workdir / "admin.kubeconfig"

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the servers that are running, by name: `etcd`, `kube-apiserver`."""
        return self._children.pids

    def kubectl(
        self,
        *args: str,
        input: str | bytes | None = None,  # noqa: A002 - as in subprocess.run
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout_seconds: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run the kubectl of the same release, as the admin unless another kubeconfig is given.

        Raises KubectlError where `check` is set and it fails, subprocess.TimeoutExpired where it takes too long.
        """
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.admin_kubeconfig),
            # Neither what kubectl remembers of other clusters nor its user's preferences play a part.
            "KUBECACHEDIR": str(self._workdir / "kubectl-cache"),
            "KUBERC": "off",
        }
        result = subprocess.run(
            [str(self.binaries.kubectl), *args],
            input=input.decode() if isinstance(input, bytes) else input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout_seconds,
            check=False,
        )
        if check and result.returncode != 0:
            raise KubectlError(result.returncode, result.args, result.stdout, result.stderr)
        return result

    def apply(self, manifest: Path | str) -> None:
        """Apply YAML text, a file or a directory (as a kustomization if it is one) server-side, as the admin."""
        command = ("apply", "--server-side", "--force-conflicts", "--field-manager=controlplane")
        if isinstance(manifest, str):
            self.kubectl(*command, "-f", "-", input=manifest)
        elif (manifest / "kustomization.yaml").exists():
            self.kubectl(*command, "-k", str(manifest))
        else:
            self.kubectl(*command, "-f", str(manifest))

    def install_crd(self, manifest: Path) -> str:
        """Apply a file with one CustomResourceDefinition, wait until it is served, and return its name."""
        crd = yaml.safe_load(manifest.read_text())
        name = str(crd["metadata"]["name"])
        self.apply(manifest)
        self.wait_until_served(name)
        return name

    def wait_until_served(self, crd: str) -> None:
        """Wait until clients find a custom resource by discovery, which comes after its definition is Established.

        `kubectl wait` fails at once where the definition has no conditions yet.
        """
        group, deadline = crd.partition(".")[2], time.monotonic() + _DEADLINE_SECONDS
        while crd not in self.kubectl("api-resources", f"--api-group={group}", "-o", "name").stdout.split():
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"{crd} is not served")
            time.sleep(_POLL_SECONDS)

    def ensure_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Create a namespace, or give the one that is there these labels."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))

    def service_account_token(self, namespace: str, name: str, *, seconds: int = 3600) -> str:
        """A token of an existing service account by TokenRequest; the API server wants at least 600 s."""
        arguments = ("create", "token", name, f"--namespace={namespace}", f"--duration={seconds}s")
        return self.kubectl(*arguments).stdout.strip()

    def kubeconfig_for_token(self, token: str, *, name: str) -> Path:
        """Write the kubeconfig `<name>.kubeconfig` into the work directory, for this token."""
        path = self._workdir / f"{name}.kubeconfig"
        self._write_kubeconfig(path, name, token)
        return path

    @property
    def _certificates(self) -> Path:
        return self._workdir / "certificates"

    @property
    def _token_file(self) -> Path:
        return self._workdir / "tokens.csv"

    @property
    def _signing_key(self) -> Path:
        return self._workdir / "service-accounts.key"

    def _write_kubeconfig(self, path: Path, user: str, token: str) -> None:
        credentials.write_kubeconfig(path, server=self.url, ca_file=self.ca_file, user=user, token=token)

    def _start_etcd(self) -> None:
        options: dict[str, object] = {
            "data-dir": self._workdir / "etcd",
            "listen-client-urls": self._etcd_url,
            "advertise-client-urls": self._etcd_url,
            "listen-peer-urls": self._etcd_peer_url,
            "initial-advertise-peer-urls": self._etcd_peer_url,
            "initial-cluster": f"default={self._etcd_peer_url}",
            "log-level": "warn",
            # Surviving a power cut is worth nothing here, and fsync is what makes etcd slow.
            "unsafe-no-fsync": "true",
        }
        if self._quota_backend_bytes is not None:
            options["quota-backend-bytes"] = self._quota_backend_bytes
        self._start(_ETCD, self.binaries.etcd, options)
        self._wait_until_ready(_ETCD, f"{self._etcd_url}/health")

    def _start(self, name: str, program: Path, options: Mapping[str, object]) -> None:
        self._children.start(name, [str(program), *(f"--{key}={value}" for key, value in options.items())])

    def _wait_until_ready(self, name: str, url: str, *, token: str = "") -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            self._children.check(name)
            answer = self._ask(url, token)
            if answer is None:
                return
            if time.monotonic() > deadline:
                log = self._children.log_tail(name)
                raise ControlPlaneError(f"{name} not ready after {_DEADLINE_SECONDS:.0f} s: {answer}\n{log}")
            time.sleep(_POLL_SECONDS)

    def _ask(self, url: str, token: str) -> str | None:
        """None if the server says that it is ready, else why not."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # The API server writes its certificate when it first starts: until then there is nothing to load.
            verify = ssl.create_default_context(cafile=self.ca_file) if url.startswith("https:") else False
            response = httpx.get(url, headers=headers, verify=verify, trust_env=False, timeout=_POLL_TIMEOUT)
        except (OSError, httpx.TransportError) as error:
            return repr(error)
        return None if response.is_success else f"{response.status_code} {response.text}"
