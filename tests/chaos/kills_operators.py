"""The operator's processes: one, or several that hold a lease in turn; started, killed, frozen.

Not for: when (`kills`).
"""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from controlplane import ControlPlane
from harness import Operator, wait_for
from harness.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE

LEASE_SECONDS: Final = 3
_LEASE: Final = ("--leader-elect", f"--lease-duration={LEASE_SECONDS}s", "--renew-deadline=2s")
_ALONE: Final = {"NODEPOOL_MEMBERSHIP_LEADER_ELECT": "false"}


class Operators:
    """So many replicas, each with an identity (`POD_NAME`) and a log of its own. To be closed."""

    def __init__(
        self,
        workdir: Path,
        kubeconfig: Path,
        endpoint: str,
        options: Sequence[str],
        control_plane: ControlPlane,
        random: Random,
        *,
        replicas: int,
    ) -> None:
        self._workdir = workdir
        self._kubeconfig = kubeconfig
        self._endpoint = endpoint
        self._options = (*options, *(_LEASE if replicas > 1 else ()))
        # One alone need not wait until the lease of the one before it ends.
        self._environment = {"POD_NAMESPACE": OPERATOR_NAMESPACE, **({} if replicas > 1 else _ALONE)}
        self._control_plane = control_plane
        self._random = random
        self._running: dict[str, Operator | None] = dict.fromkeys(f"replica-{n}" for n in range(replicas))

    @property
    def several(self) -> bool:
        return len(self._running) > 1

    def start(self) -> None:
        """Start those that do not run. Raises ProgramError as `check` does."""
        self.check()
        for name, operator in self._running.items():
            if operator is None:
                environment = {**self._environment, "POD_NAME": name}
                self._running[name] = Operator(
                    self._workdir,
                    self._kubeconfig,
                    [self._endpoint],
                    self._options,
                    environment=environment,
                    name=name,
                )

    def check(self) -> None:
        """Raise ProgramError if one that was alone has ended by itself."""
        for name, operator in self._running.items():
            if operator is not None and operator.exit_code is not None:
                if not self.several:
                    operator.check()
                # A holder that could not renew its lease in time ends itself (rule P22).
                operator.kill()
                self._running[name] = None

    def kill(self) -> None:
        """SIGKILL the one that acts: the holder of the lease, where there is one."""
        name = self._holder() or self._random.choice(sorted(self._running))
        operator = self._running[name]
        if operator is not None:
            operator.kill()
            self._running[name] = None

    def freeze(self) -> bool:
        """Stop the holder until another one has the lease, and wake it; whether there was one to stop."""
        name = self._holder()
        operator = None if name is None else self._running[name]
        if operator is None or operator.exit_code is not None:
            return False
        operator.signal(signal.SIGSTOP)
        try:
            wait_for("another replica has the lease", lambda: self._holder() not in {None, name} or None)
        finally:
            operator.signal(signal.SIGCONT)
        return True

    def close(self) -> None:
        """End them all."""
        for operator in self._running.values():
            if operator is not None:
                operator.kill()

    def _holder(self) -> str | None:
        if not self.several:
            return next(iter(self._running))
        command = ("get", "lease", OPERATOR_ACCOUNT, "-n", OPERATOR_NAMESPACE, "-o", "json")
        lease = json.loads(self._control_plane.kubectl(*command).stdout)
        identity = str(lease.get("spec", {}).get("holderIdentity", ""))
        return next((name for name in self._running if identity.startswith(name)), None)
