"""Helm is built once and kept beside the control plane."""

from pathlib import Path

import pytest

from controlplane import ControlPlaneError, ensure_helm, pins
from controlplane.binaries import Say


def test_it_is_built_once_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}

    def failing(destination: Path, _: Say) -> None:
        (destination / "helm").write_text("half")
        raise ControlPlaneError("compiler")

    def build(destination: Path, say: Say) -> None:
        say("helm is built")
        (destination / "helm").write_text("helm")

    lines: list[str] = []
    with pytest.raises(ControlPlaneError, match="compiler"):
        ensure_helm(environ=environ, say=lines.append, build=failing)
    for _ in range(2):
        assert ensure_helm(environ=environ, say=lines.append, build=build).read_text() == "helm"
    assert lines == ["helm is built"]
    (kept,) = (path for path in (tmp_path / "nodepool-membership" / "controlplane").iterdir() if path.is_dir())
    assert kept.name == pins.helm_cache_key()
