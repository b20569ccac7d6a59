"""The operator's processes: one, or several that hold a lease in turn; started, killed, frozen.

Not for: when (`kills`).
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from harness import Operator, wait_for
from harness.cluster import OPERATOR_NAMESPACE

_LEASE: Final = ("--leader-elect", "--lease-duration=2s", "--renew-deadline=1s")
_LEADS: Final = '"leading"'
_ALONE: Final = {"NODEPOOL_MEMBERSHIP_LEADER_ELECT": "false"}


class Operators:
    """So many replicas, each with an identity (`POD_NAME`) and a log of its own. To be closed."""

    def __init__(
        self,
        workdir: Path,
        kubeconfig: Path,
        endpoint: str,
        options: Sequence[str],
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
        """SIGKILL one that leads; while none does, any."""
        name = self._random.choice(self._leading() or sorted(self._running))
        operator = self._running[name]
        if operator is not None:
            operator.kill()
            self._running[name] = None

    def freeze(self, meanwhile: Callable[[], None]) -> None:
        """Stop the leader, do something, and wake it when another one leads: it is to end by itself (rule P22).

        Raises:
            TimeoutError: it did not end.
            ProgramError: it ended as if nothing had happened.
        """
        name = wait_for("a replica leads", lambda: next(iter(self._leading()), None))
        operator = self._running[name]
        assert operator is not None

        def is_replaced() -> bool | None:
            # The other one may have lost a lease of its own and ended since it was started.
            self.start()
            return self._leading() != [name] or None

        operator.signal(signal.SIGSTOP)
        try:
            meanwhile()
            wait_for("another replica leads", is_replaced)
        finally:
            operator.signal(signal.SIGCONT)
        if wait_for("the replica that was frozen ends", lambda: operator.exit_code) == 0:
            raise operator.failed("ended with 0 after its lease was lost")
        self.check()

    def close(self) -> None:
        """End them all."""
        for operator in self._running.values():
            if operator is not None:
                operator.kill()

    def _leading(self) -> list[str]:
        """Those that say so in their logs; one that leads no longer ends."""
        running = {name: o for name, o in self._running.items() if o is not None and o.exit_code is None}
        return [name for name, operator in running.items() if not self.several or _LEADS in operator.output()]
