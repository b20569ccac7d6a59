"""What can go wrong in this package, as types. Not for errors of the operator under test."""

import subprocess


class ControlPlaneError(RuntimeError):
    """The control plane cannot be had or does not work; the message names the cause and the remedy."""


class UnavailableError(ControlPlaneError):
    """One source of binaries cannot deliver here; the next one is tried."""


class KubectlError(subprocess.CalledProcessError):
    """kubectl ended with an exit code other than 0; the message carries what it wrote to stderr."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stderr}".rstrip()
