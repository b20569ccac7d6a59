"""The operator under test as a process of its own, exactly as a user starts it.

Not for: its parts; those have unit tests.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from controlplane.ports import free_ports
from harness.programs import Program, wait_for

FAST: Sequence[str] = (
    "--poll-interval=200ms",
    "--resync-interval=2s",
    "--settle-window=4s",
    "--writes-per-minute=600",
    "--reads-per-second=1000",
    "--no-leader-elect",
)
"""Waits of a size that tests can sit through; the program is the same. Tests run many operators at a time, each for a
namespace of its own: `ELECTING` is for those that are about replicas."""
ELECTING: Sequence[str] = (*FAST, "--leader-elect", "--lease-duration=6s", "--renew-deadline=4s")


class Operator(Program):
    """`nodepool-membership run`, allowed to talk to these endpoints.

    It logs in with the kubeconfig or, without one, as a pod does; `program` is what Python is told to run instead of
    the package.
    """

    def __init__(
        self,
        workdir: Path,
        kubeconfig: Path | None,
        endpoints: Sequence[str],
        options: Sequence[str] = FAST,
        *,
        environment: Mapping[str, str] | None = None,
        name: str = "operator",
        program: Sequence[str] = ("-m", "nodepool_membership"),
        python: Path = Path(sys.executable),
    ) -> None:
        (self.port,) = free_ports(1)
        self.endpoints = services = workdir / f"{name}-endpoints.json"
        # Beside its CCE, a simulator is all other services that are asked.
        others = ("iam", "sts", "ecs", "bms", "evs", "vpc")
        services.write_text(json.dumps([{"cce": url, **dict.fromkeys(others, url)} for url in endpoints]))
        command = [
            str(python),
            *program,
            "run",
            f"--bind=127.0.0.1:{self.port}",
            *(f"--allow-endpoint={endpoint}" for endpoint in endpoints),
            f"--endpoints={services}",
            *options,
        ]
        foreign = ("NODEPOOL_MEMBERSHIP_", "KUBECONFIG", "KUBERNETES_SERVICE_", "POD_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        login = {} if kubeconfig is None else {"KUBECONFIG": str(kubeconfig)}
        everything = {**inherited, **login, **(environment or {})}
        super().__init__(command, workdir / f"{name}.log", everything)

    def get(self, path: str) -> httpx.Response:
        """GET a path such as `/healthz`."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=10)

    def wait_ready(self, seconds: float = 120.0) -> None:
        """Return when `/readyz` answers 200."""

        def ready() -> bool | None:
            self.check()
            try:
                return True if self.get("/readyz").status_code == 200 else None
            except httpx.TransportError:
                return None

        wait_for("the operator is ready", ready, seconds=seconds)

    def leads(self) -> bool:
        """Whether it says that it may call the cloud."""
        return "nodepool_membership_leader 1.0" in self.get("/metrics").text.splitlines()

    def wait_leads(self, seconds: float = 30.0) -> None:
        """Return when it leads."""

        def leads() -> bool | None:
            self.check()
            return self.leads() or None

        wait_for(f"{self.log.stem} leads", leads, seconds=seconds)

    def peak_memory_mib(self) -> float:
        """VmHWM of the process, MiB."""
        return self._status("VmHWM") / 1024

    def memory_mib(self) -> float:
        """VmRSS of the process, MiB."""
        return self._status("VmRSS") / 1024

    def _status(self, field: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return float(line.split()[1])
        raise self.failed(f"/proc has no {field}")
