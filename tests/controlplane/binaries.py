"""Finds the programs of the control plane, and gets them once where they are not there yet.

In this order: `$KUBEBUILDER_ASSETS`; the cache directory; the official envtest archive; a build from source.
Not for starting them.
"""

import fcntl
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from controlplane import envtest, gobuild, pins
from controlplane.errors import ControlPlaneError, UnavailableError

Say = Callable[[str], None]
"""Receives one line at a time of what is being done."""

Source = Callable[[Path, Say], None]
"""Puts `pins.PROGRAMS` into the empty directory given; raises UnavailableError if it cannot do so here."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory that holds all of `pins.PROGRAMS`."""

    directory: Path

    def __post_init__(self) -> None:
        missing = [name for name in pins.PROGRAMS if not os.access(self.directory / name, os.X_OK)]
        if missing:
            raise ControlPlaneError(f"{self.directory} lacks {', '.join(missing)}")

    @property
    def etcd(self) -> Path:
        return self.directory / "etcd"

    @property
    def kube_apiserver(self) -> Path:
        return self.directory / "kube-apiserver"

    @property
    def kubectl(self) -> Path:
        return self.directory / "kubectl"


def say_on_stderr(line: str) -> None:
    """Print a line of progress where it mixes with no output that a program might read."""
    print(line, file=sys.stderr, flush=True)


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """The directory that keeps what was downloaded or built: `$XDG_CACHE_HOME`, else `~/.cache`."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nodepool-membership" / "controlplane"


def ensure_binaries(
    *,
    environ: Mapping[str, str] = os.environ,
    say: Say = say_on_stderr,
    download: Source = envtest.download,
    build: Source = gobuild.build,
) -> Binaries:
    """Return the programs, after getting them if need be (minutes, once a machine and version).

    Raises ControlPlaneError when `$KUBEBUILDER_ASSETS` is set but incomplete, when a download is corrupt, or
    when neither download nor build is possible.
    """
    assets = environ.get("KUBEBUILDER_ASSETS")
    if assets:
        try:
            return Binaries(Path(assets).absolute())
        except ControlPlaneError as error:
            raise ControlPlaneError(f"KUBEBUILDER_ASSETS: {error}; complete it or unset the variable") from error

    def get(partial: Path, say: Say) -> None:
        try:
            download(partial, say)
        except UnavailableError as reason:
            say(f"no official envtest archive ({reason}); building from source instead")
            _empty(partial)
            build(partial, say)
        Binaries(partial)

    return Binaries(kept(cache_root(environ) / pins.cache_key(), get, say))


def ensure_helm(
    *, environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr, build: Source = gobuild.build_helm
) -> Path:
    """Return the helm for the tests of the chart, after building it if need be (a minute, once a machine and version).

    Raises ControlPlaneError when it cannot be built.
    """
    return kept(cache_root(environ) / pins.helm_cache_key(), build, say) / "helm"


def ensure_program(
    module: Path, package: str, *, environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr
) -> Path:
    """Return the program of a package of a Go module, after building it if need be.

    Raises ControlPlaneError when it cannot be built.
    """
    build = functools.partial(gobuild.build_program, module, package)
    (program,) = kept(cache_root(environ) / pins.program_cache_key(module), build, say).iterdir()
    return program


def kept(target: Path, get: Source, say: Say) -> Path:
    """Return a directory of the cache; where it is absent, one process fills it and others wait.

    `get` fills another directory beside it, which is renamed; it raises what it likes, and then nothing is kept.
    """
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock"), say):
            if not target.is_dir():
                _fill(target, get, say)
    return target


def _fill(target: Path, get: Source, say: Say) -> None:
    partial = target.with_name(target.name + ".partial")
    try:
        _empty(partial)
        get(partial, say)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _empty(directory: Path) -> None:
    # A killed builder leaves its directory behind; the lock says that nobody works in it any more.
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir()


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Alone with what is made at this path, among all processes of this machine that ask."""
    with path.open("w") as file:
        _lock(file, path, say)
        yield


def _lock(file: TextIO, path: Path, say: Say) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another process is getting {path.stem}; waiting for it ({path})")
        fcntl.flock(file, fcntl.LOCK_EX)
