"""The child processes of one control plane: started, watched and ended together. Knows nothing of Kubernetes."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from controlplane.errors import ControlPlaneError
from controlplane.leash import leashed

_LOG_TAIL_LINES = 30


class Children:
    """Named child processes; each writes to `<log_directory>/<name>.log` and ends when this process does."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # The kernel ends a leashed child together with the *thread* that started it. Callers come from threads that
        # end early, such as those of an event loop's executor, so one thread of our own starts all children.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="controlplane")

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children that are running."""
        return {name: process.pid for name, process in self._processes.items() if process.poll() is None}

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a child; its log is continued, not begun again."""
        if name in self.pids:
            raise ControlPlaneError(f"{name} is already running")
        self._processes[name] = self._starter.submit(self._start, name, command).result()

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for us, and we end them.
            return subprocess.Popen(
                leashed(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self, name: str) -> None:
        """Raise ControlPlaneError, with the end of its log, unless the child is running."""
        code = self._processes[name].poll()
        if code is not None:
            raise ControlPlaneError(f"{name} ended with {code}\n{self.log_tail(name)}")

    def stop(self, name: str) -> None:
        """End a child at once (SIGKILL); nothing happens if it is not running."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End all children, the newest first."""
        for name in reversed(list(self._processes)):
            self.stop(name)
        self._starter.shutdown()

    def log_tail(self, name: str) -> str:
        """The last lines that a child wrote."""
        path = self._log(name)
        lines = path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"the end of {path}:", *lines])

    def _log(self, name: str) -> Path:
        return self._log_directory / f"{name}.log"
