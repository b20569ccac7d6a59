"""Argo CD's fixtures and settings, made of the recorded states and of the scripts.

Not for: the scripts themselves. Argo CD's repository runs `health_test.yaml` and `action_test.yaml` beside the
scripts; the ConfigMap is for everybody until its releases have them.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Final

import yaml

from gitops.judges import ARGO, Object, actions, expected, health
from nodepool_membership.api.names import APPROVED_PLAN_ANNOTATION

STATES: Final = Path(__file__).parent / "states.json"
"""What the operator wrote during cluster tests. To record it anew: `STATES=FOLDER pytest tests/cluster`, then
`python -m gitops FOLDER`."""
ACTIONS: Final = ("reconcile", "suspend", "resume", "reset", "approve")
_NOW: Final = "By Argo CD at: 0001-01-01T00:00:00"
_ANNOTATIONS: Final = {
    "reconcile": ("reconcile.fluxcd.io/requestedAt",),
    "reset": ("reconcile.fluxcd.io/requestedAt", "reconcile.fluxcd.io/resetAt"),
}


class _Block(str):
    """Text that YAML shall hold as it is, line by line."""

    __slots__ = ()


yaml.SafeDumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def states() -> list[Object]:
    """Every distinct recorded state."""
    found: list[Object] = json.loads(STATES.read_text())
    return found


def _reason(state: Object) -> str:
    return str({c["type"]: c for c in state["status"]["conditions"]}["Ready"]["reason"])


def first(wanted: Callable[[Object], bool]) -> Object:
    """The first recorded state of this kind."""
    return next(deepcopy(state) for state in states() if wanted(state))


def chosen() -> dict[str, Object]:
    """One recorded state for each thing that health tells apart."""
    return {
        "new": first(lambda s: s["status"]["observedGeneration"] == -1),
        "progressing": first(lambda s: expected(s)[1] == "Progressing" and _reason(s) == "Progressing"),
        "hindered": first(lambda s: expected(s) == ("InProgress", "Progressing") and _reason(s) == "QuotaExceeded"),
        "degraded": first(lambda s: expected(s)[1] == "Degraded" and "failures" in s["status"]),
        "healthy": first(lambda s: expected(s)[1] == "Healthy"),
        "waiting": first(lambda s: expected(s) == ("InProgress", "Progressing") and _reason(s) == "AwaitingApproval"),
        "suspended": first(lambda s: expected(s)[1] == "Suspended"),
        "deleting": first(lambda s: "deletionTimestamp" in s["metadata"]),
    }


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=90, allow_unicode=True)


def _acted(name: str, state: Object) -> Object:
    """What the action makes of the state, with the time that Argo CD's tests put there."""
    made = deepcopy(state)
    if name in _ANNOTATIONS:
        annotations = made["metadata"].setdefault("annotations", {})
        annotations.update(dict.fromkeys(_ANNOTATIONS[name], _NOW))
    elif name == "approve":
        made["metadata"].setdefault("annotations", {})[APPROVED_PLAN_ANNOTATION] = made["status"]["plan"]["id"]
    else:
        made["spec"]["suspend"] = name == "suspend"
    return made


def _discovered(path: str, state: Object) -> Object:
    found = actions(state)
    return {"inputPath": path, "result": [{"name": name, "disabled": not found[name]} for name in ACTIONS]}


def files() -> Mapping[Path, str]:
    """Path and text of everything that is generated for Argo CD."""
    picked = chosen()
    made = {ARGO / "testdata" / f"{name}.yaml": _yaml(state) for name, state in picked.items()}
    tests = [{"healthStatus": health(state), "inputPath": f"testdata/{name}.yaml"} for name, state in picked.items()]
    made[ARGO / "health_test.yaml"] = _yaml({"tests": tests})
    inputs = {
        "reconcile": "healthy",
        "suspend": "healthy",
        "resume": "suspended",
        "reset": "degraded",
        "approve": "waiting",
    }
    folder = ARGO / "actions"
    for name in sorted(set(inputs.values())):
        made[folder / "testdata" / f"{name}.yaml"] = _yaml(picked[name])
    for action, name in inputs.items():
        made[folder / "testdata" / f"{name}_{action}.yaml"] = _yaml(_acted(action, picked[name]))
    made[folder / "action_test.yaml"] = _yaml(
        {
            "discoveryTests": [
                _discovered(f"testdata/{name}.yaml", picked[name]) for name in sorted({*inputs.values()})
            ],
            "actionTests": [
                {
                    "action": action,
                    "inputPath": f"testdata/{name}.yaml",
                    "expectedOutputPath": f"testdata/{name}_{action}.yaml",
                }
                for action, name in inputs.items()
            ],
        }
    )
    made[ARGO.parent.parent.parent / "argocd-cm.yaml"] = _settings()
    return made


def _settings() -> str:
    """A patch of Argo CD's ConfigMap with the scripts."""
    kind = "_".join(ARGO.parts[-2:])
    scripts = {action: (ARGO / "actions" / action / "action.lua").read_text() for action in ACTIONS}
    acts = {
        "discovery.lua": _Block((ARGO / "actions" / "discovery.lua").read_text()),
        "definitions": [{"name": name, "action.lua": _Block(text)} for name, text in scripts.items()],
    }
    data = {
        f"resource.customizations.health.{kind}": _Block((ARGO / "health.lua").read_text()),
        f"resource.customizations.actions.{kind}": _Block(_yaml(acts)),
    }
    head = "# Generated by `make pages`. Merge it into Argo CD's settings:\n"
    head += "#   kubectl apply --server-side -f argocd-cm.yaml\n"
    meta = {"name": "argocd-cm", "namespace": "argocd"}
    return head + _yaml({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
