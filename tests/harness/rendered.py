"""What an installer renders, and the operator run the way its Deployment says: environment, arguments, service account.

Not for: a kubelet. Of the downward API it knows what the pod template holds, and the pod's name.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from controlplane import ControlPlane
from harness.operator_process import FAST, Operator

Manifest = dict[str, Any]
"""As yaml reads it."""

_POD: Final = "operator-0"
_REFERENCE: Final = re.compile(r"\$\(([A-Za-z0-9_]+)\)")
_ELECTING: Final = [option for option in FAST if option != "--no-leader-elect"]


class Rendered:
    """The objects of one installation."""

    def __init__(self, text: str) -> None:
        self.objects: Sequence[Manifest] = [found for found in yaml.safe_load_all(text) if found]

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.objects)

    def only(self, kind: str) -> Manifest:
        """The one object of this kind."""
        (found,) = (candidate for candidate in self.objects if candidate["kind"] == kind)
        return found

    def without(self, *kinds: str) -> "Rendered":
        """The same installation by somebody who leaves these kinds out."""
        rest = Rendered("")
        rest.objects = [found for found in self.objects if found["kind"] not in kinds]
        return rest

    def yaml(self) -> str:
        return yaml.safe_dump_all(self.objects)

    @property
    def namespace(self) -> str:
        """Where the pod is."""
        return str(self.only("Deployment")["metadata"]["namespace"])

    @property
    def service_account(self) -> str:
        return str(self.pod["spec"]["serviceAccountName"])

    @property
    def pod(self) -> Manifest:
        """The template, with what the kubelet would add to its metadata."""
        template = self.only("Deployment")["spec"]["template"]
        return {**template, "metadata": {**template["metadata"], "name": _POD, "namespace": self.namespace}}

    @property
    def container(self) -> Manifest:
        (found,) = (one for one in self.pod["spec"]["containers"] if one["name"] == "operator")
        return dict(found)

    def environment(self) -> Mapping[str, str]:
        """The container's variables, those of the downward API filled in."""
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            found |= self._data(source)
        for variable in self.container.get("env", []):
            name = variable["name"]
            found[name] = variable["value"] if "value" in variable else self._field(variable["valueFrom"]["fieldRef"])
        return found

    def _data(self, source: Mapping[str, Manifest]) -> Mapping[str, str]:
        """What an entry of envFrom brings; nothing if it is optional and not there."""
        ((field, reference),) = source.items()
        kind = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[field]
        for found in self.objects:
            if (found["kind"], found["metadata"]["name"]) == (kind, reference["name"]):
                assert found["metadata"]["namespace"] == self.namespace
                data: Mapping[str, str] = found["data"]
                return {k: base64.b64decode(v).decode() for k, v in data.items()} if kind == "Secret" else data
        assert reference.get("optional"), f"there is no {kind} {reference['name']}"
        return {}

    def _field(self, reference: Mapping[str, str]) -> str:
        value: Any = self.pod
        for step in reference["fieldPath"].split("."):
            value = value[step]
        assert isinstance(value, str)
        return value

    def arguments(self) -> Sequence[str]:
        """The container's arguments after `run`, with `$(NAME)` replaced as the kubelet does."""
        variables = self.environment()
        first, *rest = self.container["args"]
        assert first == "run"
        return [_REFERENCE.sub(lambda match: variables.get(match[1], match[0]), argument) for argument in rest]

    def apply(self, control_plane: ControlPlane) -> None:
        """Apply it as the administrator, and wait until memberships are served."""
        self._make_namespaces(control_plane)
        control_plane.kubectl("apply", "--filename=-", input=self.yaml())
        for found in self.objects:
            if found["kind"] == "CustomResourceDefinition":
                control_plane.wait_until_served(found["metadata"]["name"])

    def _make_namespaces(self, control_plane: ControlPlane) -> None:
        """Those that are not part of the installation, as a person would before it."""
        own = {found["metadata"]["name"] for found in self.objects if found["kind"] == "Namespace"}
        named = {found["metadata"].get("namespace") for found in self.objects}
        for name in named - own - {None}:
            control_plane.ensure_namespace(name)

    def kubeconfig(self, control_plane: ControlPlane) -> Path:
        """A login as the Deployment's service account."""
        token = control_plane.service_account_token(self.namespace, self.service_account)
        return control_plane.kubeconfig_for_token(token, name=f"{self.namespace}-{self.service_account}"[:200])

    def operator(
        self,
        control_plane: ControlPlane,
        workdir: Path,
        endpoints: Sequence[str],
        *more: str,
        name: str = "operator",
        mounts: Mapping[str, Path] = MappingProxyType({}),
    ) -> Operator:
        """Start it as rendered; `more` options, and the waits that tests can sit through, come on top.

        `mounts` says which directory stands for a volume's mount path.
        """
        arguments = " ".join(self.arguments())
        for mount in self.container.get("volumeMounts", []):
            arguments = arguments.replace(mount["mountPath"], str(mounts[mount["mountPath"]]))
        return Operator(
            workdir,
            self.kubeconfig(control_plane),
            endpoints,
            [*arguments.split(), *_ELECTING, *more],
            environment=self.environment(),
            name=name,
        )
