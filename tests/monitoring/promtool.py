"""Finds promtool, and gets it where it is not there yet: Debian's package, unpacked into the user's cache.

Not built from source: its module needs the clients of a dozen clouds, some minutes and a gigabyte. Nothing is
installed; `apt-get update` (root) is run where the machine has no package lists yet.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PACKAGE: Final = "prometheus"
_HINT: Final = "put promtool (from a release of Prometheus) on PATH"


class PromtoolError(Exception):
    """There is no promtool, and none could be had."""


def promtool() -> Path:
    """The program: the one on PATH, else the cached one, else Debian's (some 10 s once).

    Raises:
        PromtoolError: with what to do.
    """
    return program("promtool")


def program(name: str) -> Path:
    """`promtool` or `prometheus`, as above."""
    if on_path := shutil.which(name):
        return Path(on_path)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nodepool-membership"
    base.mkdir(parents=True, exist_ok=True)
    target = base / "prometheus"
    with (base / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _unpack(target)
    return target / "usr" / "bin" / name


def _unpack(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        download = ["apt-get", "download", "-qq", _PACKAGE]
        try:
            if subprocess.run(download, cwd=work, capture_output=True, check=False).returncode != 0:
                _run(["apt-get", "update", "-qq"], work)
                _run(download, work)
            (package,) = Path(work).glob(f"{_PACKAGE}_*.deb")
            _run(["dpkg-deb", "--extract", package.name, "files"], work)
        except FileNotFoundError as error:
            raise PromtoolError(f"no {error.filename} on this machine: {_HINT}") from None
        (Path(work) / "files").rename(target)


def _run(command: list[str], folder: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PromtoolError(f"{' '.join(command)}: {result.stderr.strip()}; {_HINT}")
