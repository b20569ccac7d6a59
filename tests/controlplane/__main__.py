"""The command line: `python -m controlplane build`, `up`, `program` and `pin` (with `tests` on PYTHONPATH)."""

import argparse
import os
import signal
import sys
from pathlib import Path

from controlplane import ControlPlane, ControlPlaneError, ensure_binaries, ensure_helm, pinning
from controlplane.binaries import cache_root, ensure_program, say_on_stderr


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code: 1 if it failed, 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m controlplane", description="A throw-away Kubernetes API server.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="fetch or build the programs and helm, and print the programs' directory")
    program = commands.add_parser("program", help="build a program of another Go module, and print where it is")
    program.add_argument("module", type=Path)
    program.add_argument("package")
    pin = commands.add_parser("pin", help="make another Kubernetes available as $KUBERNETES")
    pin.add_argument("version", help="a release, such as 1.28.15")
    up = commands.add_parser("up", help="run until SIGINT or SIGTERM")
    up.add_argument("--workdir", type=Path, help="keep keys, logs and data here (default: a temporary directory)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.command == "build":
            print(ensure_binaries().directory)
            ensure_helm()
        elif options.command == "program":
            print(ensure_program(options.module.resolve(), options.package))
        elif options.command == "pin":
            print(pinning.pin(options.version, cache_root(), say_on_stderr))
        else:
            _up(options.workdir)
    except (ControlPlaneError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # An end of `up` while it starts; a build that was interrupted is no success.
        return 0 if options.command == "up" else 130
    return 0


def _up(workdir: Path | None) -> None:
    ended, ends = os.pipe()
    os.set_blocking(ends, False)
    with ControlPlane(workdir) as control_plane:
        # Whichever thread gets the signal, and also right before it is waited for: a byte stays until it is read.
        signal.set_wakeup_fd(ends)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        print(f"export KUBECONFIG={control_plane.admin_kubeconfig}")
        print(f"export PATH={control_plane.binaries.directory}:$PATH", flush=True)
        os.read(ended, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
