"""The tools that judge a membership's state: kstatus and Flux in Go, Argo CD's health and actions in Lua.

Not for: what they should say; the tests know.
"""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lupa.lua51

from controlplane.binaries import Say, ensure_program, say_on_stderr

ROOT: Final = Path(__file__).parent.parent.parent
ARGO: Final = (
    ROOT / "deploy" / "gitops" / "argocd" / "resource_customizations" / "cce.nodepools.dev" / "NodePoolMembership"
)

Object = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What kstatus says (Current, InProgress, Failed, Terminating), and what Flux's checks have against it."""

    kstatus: str
    fail: str
    warn: str


def conditions_program(*, say: Say = say_on_stderr) -> Path:
    """The program of `conditions/`, built once a machine (some 90 s on two cores)."""
    return ensure_program(Path(__file__).parent / "conditions", ".", say=say)


def judge(states: Iterable[Object]) -> list[Verdict]:
    """Kstatus' and Flux's verdicts, in the order of the states."""
    text = "\n".join(json.dumps(state) for state in states)
    result = subprocess.run([conditions_program()], input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [Verdict(**json.loads(line)) for line in result.stdout.splitlines()]


def _run(script: Path, obj: Object) -> Object:
    """What an Argo CD script returns for the object. It has only what Argo CD's sandbox has."""
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    variables = lua.globals()
    keep = {"date": variables.os.date, "time": variables.os.time}
    variables.require = {"os": lua.table_from(keep)}.__getitem__
    for name in ("os", "io", "package", "dofile", "loadfile", "load", "loadstring", "debug", "python"):
        variables[name] = None
    variables.obj = lua.table_from(obj, recursive=True)
    returned = _plain(lua.execute(script.read_text()))
    assert isinstance(returned, dict)
    return returned


def _plain(value: object) -> object:
    """A Lua table as dict or list; an empty one is a dict."""
    if lupa.lua51.lua_type(value) != "table":
        return value
    table: dict[object, object] = dict(value.items())  # type: ignore[attr-defined]
    found = {key: _plain(inner) for key, inner in table.items()}
    if found and set(found) == set(range(1, len(found) + 1)):
        return [found[index] for index in range(1, len(found) + 1)]
    return found


def health(obj: Object) -> dict[str, str]:
    """Argo CD's health of it: `status` and `message`."""
    return _run(ARGO / "health.lua", obj)


def actions(obj: Object) -> dict[str, bool]:
    """Argo CD's actions, by name; whether each can be used now."""
    found = _run(ARGO / "actions" / "discovery.lua", obj)
    return {name: not action.get("disabled", False) for name, action in found.items()}


def act(name: str, obj: Object) -> Object:
    """The object as the action makes it."""
    return _run(ARGO / "actions" / name / "action.lua", obj)


def expected(state: Object) -> tuple[str, str]:
    """What kstatus and Argo CD must say, from Ready and the generations alone (docs/lifecycle.md, Conditions)."""
    metadata, status = state["metadata"], state.get("status", {})
    if "deletionTimestamp" in metadata:
        return "Terminating", "Progressing"
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    if status.get("observedGeneration") != metadata["generation"] or "Ready" not in conditions:
        return "InProgress", "Progressing"
    if "Stalled" in conditions:
        return "Failed", "Degraded"
    suspended, done = conditions["Ready"]["reason"] == "Suspended", conditions["Ready"]["status"] == "True"
    return "Current" if done else "InProgress", "Suspended" if suspended else "Healthy" if done else "Progressing"


def complaints(states: Iterable[Object]) -> list[str]:
    """Every state that a tool reads otherwise than it is meant, or that breaks one of Flux's rules."""
    states = list(states)
    found = []
    for state, verdict in zip(states, judge(states), strict=True):
        kstatus, argo = expected(state)
        what = json.dumps(state["status"].get("conditions"))
        if verdict.kstatus != kstatus:
            found.append(f"kstatus says {verdict.kstatus}, not {kstatus}: {what}")
        if (said := health(state)["status"]) != argo:
            found.append(f"Argo CD says {said}, not {argo}: {what}")
        # Between an edit and the operator's next look nobody can have written what Flux wants.
        if verdict.fail and state["status"].get("observedGeneration") in {-1, state["metadata"]["generation"]}:
            found.append(f"Flux: {verdict.fail}: {what}")
    return found
