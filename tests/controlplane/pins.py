"""Which versions the control plane is made of, read from the go.mod files that pin them.

Not a place for version numbers: those are in `kubernetes*/go.mod` and `etcd/go.mod` only.
"""

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = frozenset({"etcd", "kube-apiserver", "kubectl"})
NEWEST_MODULE = HERE / "kubernetes"
ETCD_MODULE = HERE / "etcd"
HELM_MODULE = HERE / "helm"
GO_REQUIREMENTS = HERE.parent.parent / "requirements" / "go.txt"


def _kubernetes_module(version: str) -> Path:
    """The newest one, or that of the release which is asked for."""
    if not version or f" v{version}\n" in (NEWEST_MODULE / "go.mod").read_text():
        return NEWEST_MODULE
    module = HERE / f"kubernetes-{version}"
    if not module.is_dir():
        known = ", ".join(sorted(path.name.removeprefix("kubernetes-") for path in HERE.glob("kubernetes-*")))
        raise SystemExit(
            f"KUBERNETES={version}: no such release is pinned (there are {known}); `python -m controlplane pin VERSION`"
            " pins one"
        )
    return module


KUBERNETES_MODULE = _kubernetes_module(os.environ.get("KUBERNETES", ""))
"""`$KUBERNETES`, such as 1.28.15, names another release than the newest one."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}


@dataclass(frozen=True, slots=True, order=True)
class KubernetesVersion:
    """A Kubernetes release, such as 1.36.3."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "KubernetesVersion":
        """Read `v1.36.3`; pre-releases are not accepted. Raises ValueError."""
        match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)", text)
        if match is None:
            raise ValueError(f"{text!r} is not a Kubernetes release; expected the form v1.36.3")
        return cls(*(int(part) for part in match.groups()))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def kubernetes_version() -> KubernetesVersion:
    """The release that `kubernetes/go.mod` requires."""
    return KubernetesVersion.parse(_required(KUBERNETES_MODULE, "k8s.io/kubernetes"))


def oldest_version() -> KubernetesVersion:
    """The oldest release that is pinned: what the operator needs is its minor version, or a newer one."""
    releases = [_required(path.parent, "k8s.io/kubernetes") for path in HERE.glob("kubernetes*/go.mod")]
    return min(KubernetesVersion.parse(release) for release in releases)


def etcd_version() -> str:
    """The release that `etcd/go.mod` requires, such as `3.6.16`."""
    return _required(ETCD_MODULE, "go.etcd.io/etcd/server/v3").removeprefix("v")


def go_version() -> tuple[int, int, int]:
    """The oldest Go that builds all modules: the highest of their `go` directives."""
    return max(_go_directive(module) for module in (KUBERNETES_MODULE, ETCD_MODULE, HELM_MODULE))


def go_platform() -> str:
    """Operating system and machine as Go names them, such as `linux-amd64`."""
    machine = platform.machine()
    return f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


def cache_key() -> str:
    """Names what the pinned files of the control plane produce here; changes with every one of these files."""
    versions = f"kubernetes-{kubernetes_version()}-etcd-{etcd_version()}"
    return f"{versions}-{go_platform()}-{_digest(KUBERNETES_MODULE, ETCD_MODULE)}"


def helm_cache_key() -> str:
    """Names what the pinned files of Helm produce here."""
    version = _required(HELM_MODULE, "helm.sh/helm/v4").removeprefix("v")
    return f"helm-{version}-{go_platform()}-{_digest(HELM_MODULE)}"


def program_cache_key(module: Path) -> str:
    """Names what the pinned files of another Go module produce here."""
    return f"{module.name}-{go_platform()}-{_digest(module)}"


def _digest(*modules: Path) -> str:
    digest = hashlib.sha256()
    for module in modules:
        for path in sorted(module.iterdir()):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _required(module: Path, name: str) -> str:
    pattern = rf"^(?:require\s+|\s+){re.escape(name)}\s+(v\S+)"
    match = re.search(pattern, (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{module / 'go.mod'} requires no {name}")
    return match.group(1)


def _go_directive(module: Path) -> tuple[int, int, int]:
    match = re.search(r"^go (\d+)\.(\d+)\.(\d+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{module / 'go.mod'} has no line of the form 'go 1.26.0'")
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch
