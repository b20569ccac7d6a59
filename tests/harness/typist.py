"""An administrator who types kubectl in one namespace, and is let do it or refused.

Not for: somebody with a namespace's rights only (`editor`).
"""

from controlplane import ControlPlane


class Typist:
    """In one namespace."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self._control_plane = control_plane
        self._namespace = namespace

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl, which must succeed; returns what it printed."""
        return self._control_plane.kubectl(f"--namespace={self._namespace}", *args, input=stdin).stdout

    def refusal(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl, which must fail; returns what it complained."""
        result = self._control_plane.kubectl(f"--namespace={self._namespace}", *args, input=stdin, check=False)
        assert result.returncode != 0, f"accepted: {args}"
        return result.stderr
