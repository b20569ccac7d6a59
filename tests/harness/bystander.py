"""A plain client of the API server, which hears of memberships beside the operator: both wait for the server alike.

Not for: judging; `tests/cluster/test_attacks.py` prints how late it hears.
"""

import json
import threading
from time import monotonic
from types import TracebackType
from typing import Final, Self

from controlplane import ControlPlane
from harness.cluster import connection
from harness.programs import wait_for

_PATH: Final = "/apis/cce.nodepools.dev/v1alpha1/nodepoolmemberships"
_SECONDS: Final = 2
_ACCEPT: Final = "application/json;g=meta.k8s.io;v=v1;as=PartialObjectMetadata"


class Bystander:
    """Watches all memberships, as metadata; a context manager."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._http = connection(control_plane, control_plane.admin_kubeconfig)
        self._heard: dict[tuple[str, str], float] = {}
        self._thread = threading.Thread(target=self._watch)
        self._version = ""
        self._over = False

    def __enter__(self) -> Self:
        listed = self._http.get(_PATH, params={"limit": "1"}, headers={"Accept": f"{_ACCEPT}List"})
        self._version = str(listed.raise_for_status().json()["metadata"]["resourceVersion"])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()
        self._http.close()

    def heard(self, namespace: str, name: str) -> float:
        """When it heard of a membership that was made, by the monotonic clock."""
        return wait_for(f"a plain client hears of {name}", lambda: self._heard.get((namespace, name)))

    def _watch(self) -> None:
        while not self._over:
            self._stream()

    def _stream(self) -> None:
        """What is made after the last version that it knows of, for a few seconds."""
        query = {"watch": "1", "timeoutSeconds": str(_SECONDS), "resourceVersion": self._version}
        with self._http.stream("GET", _PATH, params=query, headers={"Accept": _ACCEPT}) as stream:
            for line in stream.raise_for_status().iter_lines():
                now, meta = monotonic(), json.loads(line)["object"]["metadata"]
                self._heard.setdefault((meta["namespace"], meta["name"]), now)
                self._version = meta["resourceVersion"]
