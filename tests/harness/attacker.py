"""Somebody who wants to stop the operator for others, with nothing but the shipped roles in one namespace.

Not for: what a victim sees of it; `tests/cluster/test_attacks.py` looks at that.
"""

import base64
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import httpx

from cce_simulator.config import generated_id
from controlplane import ControlPlane
from harness.cluster import CREDENTIALS_TYPE, MembershipSpec, connection
from harness.editor import EDITOR, Person
from harness.scene import server_ids

_PATH: Final = "/apis/cce.nodepools.dev/v1alpha1/namespaces"
_AT_ONCE: Final = 4
_MANY_IDS: Final = 10_000
"""The most that the definition takes."""


class Attacker:
    """A connection to the API server with an editor's rights in a namespace; a context manager."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self.namespace = namespace
        person = Person.with_rights(control_plane, namespace, EDITOR)
        self._http = connection(control_plane, person.kubeconfig)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create(self, membership: MembershipSpec, **metadata: object) -> httpx.Response:
        """Create a membership; whether that is taken is for the caller to say."""
        manifest = membership.manifest()
        named = {"name": membership.name, "namespace": self.namespace, **metadata}
        return self._http.post(f"{_PATH}/{self.namespace}/nodepoolmemberships", json={**manifest, "metadata": named})

    def create_all(self, memberships: Iterable[MembershipSpec], **metadata: object) -> None:
        """Create them, a few at a time; all must be taken."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for answer in pool.map(lambda membership: self.create(membership, **metadata), memberships):
                answer.raise_for_status()

    def delete(self, name: str) -> None:
        self._http.delete(f"{_PATH}/{self.namespace}/nodepoolmemberships/{name}").raise_for_status()

    def edit(self, name: str, spec: Mapping[str, object]) -> None:
        """Merge into the spec of a membership."""
        self._http.patch(
            f"{_PATH}/{self.namespace}/nodepoolmemberships/{name}",
            json={"spec": spec},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def create_secrets(self, names: Iterable[str], data: Mapping[str, bytes]) -> None:
        encoded = {k: base64.b64encode(v).decode() for k, v in data.items()}

        def create(name: str) -> None:
            body = {"metadata": {"name": name}, "type": CREDENTIALS_TYPE, "data": encoded}
            self._http.post(f"/api/v1/namespaces/{self.namespace}/secrets", json=body).raise_for_status()

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(create, names):
                pass

    def memberships(self) -> str:
        """All that its own objects say."""
        return self._http.get(f"{_PATH}/{self.namespace}/nodepoolmemberships").raise_for_status().text

    def one_each(
        self,
        count: int,
        endpoint: str,
        secret: Callable[[int], str] = lambda _: MembershipSpec.secret or "",
        *,
        ids: int = 1,
    ) -> Iterator[MembershipSpec]:
        """So many memberships, every one in a cluster of its own, of so many ids; `secret` names that of each."""
        for number in range(count):
            name = f"attack-{number}"
            cluster_id = generated_id(name, "cluster", 0)
            listed = server_ids(ids, name)
            yield MembershipSpec(name, listed, endpoint, self.namespace, cluster_id, secret=secret(number))

    def largest(self, count: int, endpoint: str) -> None:
        """Make so many memberships that are as large as they may be."""
        self.create_all(self.one_each(count, endpoint, ids=_MANY_IDS), **large_metadata())


def large_metadata() -> dict[str, object]:
    """As much as is let in: few entries, and the bytes of annotations that the API server takes."""
    labels = {f"{'a' * 60}.{'b' * 60}.{'c' * 58}/{'d' * 55}{number:06}": "e" * 63 for number in range(100)}
    return {"labels": labels, "annotations": {"large": "x" * 260_000}}


@contextmanager
def silent_endpoint() -> Iterator[str]:
    """An address that takes no connection and refuses none: what is sent to it is dropped."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # The kernel drops whatever comes once its queue is full.
        for caller in (first, second):
            caller.settimeout(0)
            caller.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"


@dataclass
class Hammer:
    """Does something again and again, in threads, while the block lasts."""

    blow: Callable[[int], object]
    """Is given the number of the blow."""
    threads: int = 1
    pause: float = 0.0
    """Seconds between two blows of a thread."""
    blows: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _failed: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._work) for _ in range(self.threads)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if error is None and self._failed:
            raise self._failed[0]

    def _work(self) -> None:
        try:
            while not self._over.wait(self.pause):
                self.blows += 1
                self.blow(self.blows)
        except Exception as error:  # noqa: BLE001 - told by the block, in its own thread
            self._failed.append(error)
