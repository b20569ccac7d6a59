"""The command line: `python -m imagepython` prints a Python of the image's version that has the tests' locked packages.

The unpacked packages and the virtual environment are kept in the cache directory. Not for running the tests.
"""

import functools
import hashlib
import platform
import re
import subprocess
import sys
from pathlib import Path

from controlplane.binaries import Say, cache_root, kept, say_on_stderr
from controlplane.errors import ControlPlaneError
from imagepython import debian

ROOT = Path(__file__).parents[2]
LOCKED = ROOT / "requirements/dev.txt"


def image_version(dockerfile: str) -> str:
    """The Python of the image, such as "3.13"; raises ValueError where the Dockerfile does not say it."""
    found = re.search(r"^ARG PYTHON_IMAGE=\S*python:(\d+\.\d+)", dockerfile, re.MULTILINE)
    if found is None:
        raise ValueError("the Dockerfile does not say `ARG PYTHON_IMAGE=python:3.x`")
    return found[1]


def _environment(base: Path, final: Path, target: Path, say: Say) -> None:
    say("installing the hash-locked packages of the tests for it (about a minute)")
    subprocess.run([base, "-m", "venv", "--without-pip", target], check=True)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        target / "bin/python",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "install", "--require-hashes", "--requirement", LOCKED], check=True)
    for script in (target / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and script.read_bytes().startswith(b"#!"):
            script.write_text(script.read_text().replace(str(target), str(final)))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def main() -> int:
    """Print the path of that Python; returns the exit code: 1 where it cannot be had."""
    try:
        version = image_version((ROOT / "Dockerfile").read_text())
        if version == platform.python_version().rpartition(".")[0]:
            print(sys.executable)
            return 0
        made_by = _digest(Path(debian.__file__))
        unpacked = cache_root() / f"python-{version}-{platform.machine()}-{made_by}"
        kept(unpacked, lambda target, say: debian.get(version, target, unpacked, say), say_on_stderr)
        environment = unpacked.with_name(f"{unpacked.name}-{_digest(LOCKED)}")
        base = unpacked / f"usr/bin/python{version}"
        kept(environment, functools.partial(_environment, base, environment), say_on_stderr)
    except (ControlPlaneError, ValueError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(environment / "bin/python")
    return 0


if __name__ == "__main__":
    sys.exit(main())
