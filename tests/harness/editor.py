"""Somebody who may edit one namespace, as `deploy/base/user-roles.yaml` and Kubernetes' own `edit` give it, and who
types `kubectl npmem`.

Not for: what the verbs do.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane import ControlPlane

VIEWER: Final = ("nodepoolmembership-viewer", "system:aggregate-to-view")
"""What `view` is made of; no controller puts it together here."""
EDITOR: Final = (*VIEWER, "nodepoolmembership-editor", "system:aggregate-to-edit")


@dataclass(frozen=True)
class Person:
    """A login with the rights of these ClusterRoles in one namespace."""

    kubeconfig: Path
    namespace: str

    @staticmethod
    def with_rights(control_plane: ControlPlane, namespace: str, roles: tuple[str, ...]) -> "Person":
        """Make a service account with these rights, and its kubeconfig."""
        name = f"person-{len(roles)}"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        bindings = [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"{name}-{number}", "namespace": namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            }
            for number, role in enumerate(roles)
        ]
        control_plane.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": [account, *bindings]}))
        token = control_plane.service_account_token(namespace, name)
        return Person(control_plane.kubeconfig_for_token(token, name=f"{namespace}-{name}"), namespace)

    def npmem(self, *words: str, namespace: str | None = None) -> subprocess.CompletedProcess[str]:
        """Type `kubectl npmem VERB ...` about the namespace."""
        where = () if "lint" in words else ("-n", namespace or self.namespace)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "NODEPOOL_MEMBERSHIP_"))}
        return subprocess.run(
            [sys.executable, "-m", "nodepool_membership.plugin.cli", *words, *where],
            capture_output=True,
            text=True,
            env={**environment, "KUBECONFIG": str(self.kubeconfig)},
            timeout=280,
            check=False,
        )


def everywhere(url: str, folder: Path) -> str:
    """The option that says where a simulator is: it is every service of its cloud."""
    path = folder / "everywhere.json"
    path.write_text(json.dumps([{"cce": url, **dict.fromkeys(("iam", "sts", "ecs", "bms", "evs", "vpc"), url)}]))
    return f"--endpoints={path}"
