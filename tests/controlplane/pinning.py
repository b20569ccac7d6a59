"""Pins another Kubernetes: writes the go.mod and go.sum that its API server is built from.

Not for: building (`gobuild`), or which version is used (`pins`).
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from controlplane import gobuild, pins
from controlplane.binaries import Say
from controlplane.errors import ControlPlaneError

_HEAD = """\
// The Kubernetes commands of the test control plane, for another Kubernetes: `make test KUBERNETES={version}`. The
// replaces stand for the folders of its own repository that k8s.io/kubernetes has in their place.
module controlplane.test/kubernetes

go 1.26.0

godebug default=go1.26

require k8s.io/kubernetes v{version}

replace (
{replaces})
"""


def pin(version: str, cache: Path, say: Say) -> Path:
    """Write the module for a release such as 1.28.15 beside the newest one's; returns its folder.

    Raises:
        ControlPlaneError: there is no such release, or its modules cannot be had.
        ValueError: not the form of a release.
    """
    release = pins.KubernetesVersion.parse(f"v{version}")
    environment = {**gobuild._environment(os.environ), "GOFLAGS": "-modcacherw"}
    cache.mkdir(parents=True, exist_ok=True)
    go = str(gobuild._go(environment, cache, say))
    downloaded = _run([go, "mod", "download", "-json", f"k8s.io/kubernetes@v{release}"], cache, environment)
    original = Path(json.loads(downloaded)["GoMod"]).read_text()
    names = sorted(set(re.findall(r"^\s*(k8s\.io/\S+) => \./staging", original, re.MULTILINE)))
    replaces = "".join(f"\t{name} => {name} v0.{release.minor}.{release.patch}\n" for name in names)
    module = pins.HERE / f"kubernetes-{release}"
    module.mkdir(exist_ok=True)
    (module / "go.mod").write_text(_HEAD.format(version=release, replaces=replaces))
    shutil.copy(pins.NEWEST_MODULE / "tools.go", module)
    try:
        # -e: some tests of old dependencies import what cannot be had any more. What is built has to be complete.
        _run([go, "mod", "tidy", "-e"], module, environment)
        _run([go, "list", "-mod=readonly", "-deps", *gobuild.KUBERNETES_PACKAGES], module, environment)
    except ControlPlaneError:
        shutil.rmtree(module)
        raise
    return module


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ControlPlaneError(f"{' '.join(command[1:])}: {result.stderr.strip()[-400:]}")
    return result.stdout
