"""A child process with a log, ended with its owner; and waiting for something that is polled, with a deadline.

Not for: what the programs are (`operator_process`, `simulator_process`).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from controlplane.leash import leashed

T = TypeVar("T")
_TAIL = 40


class ProgramError(Exception):
    """A program ended, or did not do what was waited for; the text has the end of its log."""


def wait_for(what: str, ask: Callable[[], T | None], *, seconds: float = 60.0, every: float = 0.05) -> T:
    """Ask until the answer is not None.

    Raises:
        TimeoutError: names what was waited for.
    """
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)
    return answer


class Program:
    """A running program as a context manager; it is gone when the block, or this process, ends."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self._begin = log.stat().st_size if log.exists() else 0
        # One thread starts the child and lives as long: the kernel ends a leashed child with the thread that made it.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="program")
        self._process = self._starter.submit(self._start, command, environment).result()

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                leashed(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def output(self) -> str:
        """The whole lines that this run has written so far: what is being written while we read is no line yet."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            lines, end, _ = log.read().rpartition(b"\n")
            return (lines + end).decode(errors="replace")

    def kill(self) -> None:
        """End it at once (SIGKILL), if it still runs."""
        self._process.kill()
        self._process.wait()
        self._starter.shutdown()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self, seconds: float = 30.0) -> int:
        """SIGTERM, and its exit code; ProgramError if it does not end in time."""
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {seconds:.0f} s of SIGTERM") from None

    def check(self) -> None:
        """Raise ProgramError if it has ended."""
        if self.exit_code is not None:
            raise self.failed(f"ended with {self.exit_code}")

    def failed(self, why: str) -> ProgramError:
        tail = "\n".join(self.output().splitlines()[-_TAIL:])
        return ProgramError(f"{self.log.stem} {why}; the end of its log:\n{tail}")
