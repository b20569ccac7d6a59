"""Copies of `deploy` and `crds`, as the Kubernetes that is used can take them.

Not for: what is built over them (`kustomize`), or rendering what is shipped for every version.
"""

import shutil
from pathlib import Path
from typing import Final

import yaml

from controlplane import pins

ROOT: Final = Path(__file__).parent.parent.parent
ADMISSION_POLICY_SINCE: Final = 30
"""The first 1.x that serves admissionregistration.k8s.io/v1 with ValidatingAdmissionPolicy."""
HAS_ADMISSION_POLICY: Final = pins.kubernetes_version().minor >= ADMISSION_POLICY_SINCE


def copy_sources(folder: Path) -> Path:
    """Put a copy of what an overlay refers to into the folder; returns it.

    Before Kubernetes 1.30 `deploy` has the component for that, as docs/install.md says.
    """
    for source in ("deploy", "crds"):
        shutil.copytree(ROOT / source, folder / source, symlinks=True)
    if not HAS_ADMISSION_POLICY:
        # Into the base, which the overlay for certain namespaces has, too.
        file = folder / "deploy" / "base" / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text())
        kustomization["components"].append("../components/without-admission-policy")
        file.write_text(yaml.safe_dump(kustomization))
    return folder
