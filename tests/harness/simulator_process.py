"""The simulator as a process of its own, driven through its control API.

Not for: tests inside one event loop; those use `cce_simulator.Simulator`.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from cce_simulator.config import SimulatorConfig
from harness.programs import Program, wait_for

Document = dict[str, object]


class SimulatorProcess(Program):
    """`cce-simulator` on a port of 127.0.0.1 (0: a free one); returns from the constructor when it listens."""

    def __init__(self, workdir: Path, config: SimulatorConfig, *, port: int = 0) -> None:
        file = workdir / "simulator.json"
        file.write_text(json.dumps(config.to_json()))
        self.config = config
        command = [sys.executable, "-m", "cce_simulator", "--port", str(port), "--config", str(file)]
        super().__init__(command, workdir / "simulator.log", os.environ)
        try:
            self.url = wait_for("the simulator listens", self._listening)
        except BaseException:
            # Nobody has entered the context, so nobody else ends it; there is no client to close yet.
            Program.kill(self)
            raise
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    def _listening(self) -> str | None:
        self.check()
        words = self.output().split()
        return words[2] if words[:2] == ["listening", "on"] else None

    def kill(self) -> None:
        self._http.close()
        super().kill()

    def get(self, path: str, **query: str | int) -> Document:
        """GET /_sim/<path>."""
        return self._answer(self._http.get(f"/_sim/{path}", params=query))

    def post(self, path: str, body: Mapping[str, object]) -> Document:
        """POST /_sim/<path>."""
        return self._answer(self._http.post(f"/_sim/{path}", json=body))

    def delete(self, path: str) -> Document:
        """DELETE /_sim/<path>."""
        return self._answer(self._http.delete(f"/_sim/{path}"))

    def _answer(self, response: httpx.Response) -> Document:
        response.raise_for_status()
        document = response.json()
        assert isinstance(document, dict)
        return document

    def entries(self, route: str | None = None) -> Sequence[Document]:
        """The ledger, oldest first."""
        found = self.get("ledger", **({"route": route} if route else {}))["entries"]
        assert isinstance(found, list)
        return found

    def accepted(self) -> dict[str, int]:
        """How often an add was accepted for each server."""
        found = self.get("servers")["accepted"]
        assert isinstance(found, dict)
        return found
