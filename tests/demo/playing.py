"""What `make demo ARGS=--keep` offers to play with: files to apply, and five things to break, each with its remedy.

Not for: starting or ending anything (`__main__`). Each command can be pasted into a shell; a test types them.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from cce_simulator.config import SimulatorConfig, server_id
from harness import MembershipSpec

NAMESPACE: Final = "cce-system"
NAME: Final = "gpu-workers"
SECRET: Final = "cce-credentials"
_NEW: Final = range(100_000, 100_050)
"""Indices of servers that no membership has yet."""
MISTYPED: Final = server_id("demo", 200_000)
"""The simulator is told that no such server exists."""


@dataclass(frozen=True)
class Thing:
    """Something to break."""

    title: str
    breaking: tuple[str, ...]
    look: tuple[str, ...]
    """Where it shows."""
    reason: str
    """What it shows there; the page of that name says the rest."""
    mending: tuple[str, ...]


@dataclass(frozen=True)
class Playground:
    """A demo that was left up."""

    folder: Path
    simulator: str
    config: SimulatorConfig
    servers: Sequence[str]
    """Those of the first membership."""
    endpoints: Path
    """The operator's `--endpoints`."""
    kubeconfig: Path
    programs: Sequence[Path]
    """Folders of kubectl and its plugin."""

    @property
    def pid_file(self) -> Path:
        """Holds the operator's process id."""
        return self.folder / "operator.pid"

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    def write(self) -> None:
        """Write the manifests that the commands name."""
        new = [server_id("demo", index) for index in _NEW]
        lists = {
            "more": new[:20],
            "mistyped": [*new[20:22], MISTYPED],
            "conflict": [*self.servers[:1], *new[22:24]],
            "killed": new[24:],
        }
        for name, ids in lists.items():
            manifest = MembershipSpec(name, ids, self.simulator, NAMESPACE, secret=SECRET).manifest()
            self.file(name).write_text(yaml.safe_dump(manifest, sort_keys=False))

    @property
    def first_steps(self) -> tuple[str, ...]:
        """Look around, and let another membership join."""
        return (
            "kubectl get npmem -A --watch",
            f"kubectl apply -f {self.file('more')}",
            f"kubectl npmem explain more -n {NAMESPACE}",
            f"kubectl events --for npmem/more -n {NAMESPACE}",
        )

    @property
    def things(self) -> Sequence[Thing]:
        return (self._mistyped(), self._conflict(), self._wrong_key(), self._killed(), self._vanished())

    def lines(self) -> Iterator[str]:
        """What is printed."""
        yield "In another terminal:"
        yield ""
        yield f"  export KUBECONFIG={self.kubeconfig}"
        yield f"  export PATH={':'.join(str(folder) for folder in self.programs)}:$PATH"
        yield from (f"  {step}" for step in self.first_steps)
        for number, thing in enumerate(self.things, 1):
            yield ""
            yield f"Break it, {number} of {len(self.things)}: {thing.title}"
            yield from (f"  {command}" for command in (*thing.breaking, *thing.look))
            mending = "; to mend it:" if thing.mending else ""
            yield f"  REASON becomes {thing.reason}: docs/reasons/{_page(thing.reason)}.md{mending}"
            yield from (f"  {command}" for command in thing.mending)

    def _mistyped(self) -> Thing:
        return Thing(
            "a mistyped id: no such server",
            (f"kubectl apply -f {self.file('mistyped')}",),
            (_get("mistyped"),),
            "ServerNotFound",
            (_take_off(self.file("mistyped"), MISTYPED),),
        )

    def _conflict(self) -> Thing:
        return Thing(
            f"a conflict: a server that {NAME} has",
            (f"kubectl apply -f {self.file('conflict')}",),
            (_get("conflict"),),
            "Conflict",
            (_take_off(self.file("conflict"), self.servers[0]),) if self.servers else (),
        )

    def _wrong_key(self) -> Thing:
        right = self.config.access_keys[0].secret_key
        return Thing(
            "a wrong key: told after three reads",
            (_key("wrong-secret-key"),),
            (_get(NAME),),
            "Unauthenticated",
            (_key(right), _look_again(NAME)),
        )

    def _killed(self) -> Thing:
        return Thing(
            "a killed operator, in the middle of a join: it is started again here, and no server is sent twice",
            (f"kubectl apply -f {self.file('killed')}; sleep 2; kill -KILL $(cat {self.pid_file})",),
            (_get("killed"), _curl(self.simulator, "summary")),
            "Succeeded",
            (),
        )

    def _vanished(self) -> Thing:
        gone = {"remove": list(self.servers[-1:])}
        return Thing(
            "a vanished node: told after three looks; to add it again WIPES it, so look at that first",
            (_curl(self.simulator, "nodes", gone),),
            (_get(NAME),),
            "MemberMissing",
            (
                f"kubectl npmem suspend {NAME} -n {NAMESPACE}",
                f"kubectl npmem reset {NAME} -n {NAMESPACE} --only MemberMissing",
                f"kubectl npmem plan {NAME} -n {NAMESPACE} --endpoints {self.endpoints}",
                f"kubectl npmem resume {NAME} -n {NAMESPACE}",
            ),
        )


def _page(reason: str) -> str:
    return "healthy" if reason == "Succeeded" else reason


def _get(name: str) -> str:
    return f"kubectl -n {NAMESPACE} get npmem {name} -o wide"


def _look_again(name: str) -> str:
    return f"kubectl npmem reconcile {name} -n {NAMESPACE}"


def _key(value: str) -> str:
    return f"kubectl -n {NAMESPACE} patch secret {SECRET} -p {_quoted({'stringData': {'secretKey': value}})}"


def _take_off(file: Path, server: str) -> str:
    return f"sed -i /{server}/d {file} && kubectl apply -f {file}"


def _curl(simulator: str, route: str, body: object = None) -> str:
    data = "" if body is None else f" -d {_quoted(body)}"
    return f"curl -s --noproxy '*' {simulator}/_sim/{route}{data}"


def _quoted(document: object) -> str:
    return shlex.quote(json.dumps(document))
