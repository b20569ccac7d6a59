"""A Python of the image's version with the packages of a lock file, and what the image sets beside that.

The unpacked packages and the virtual environments are kept in the user's cache directory. Not for running tests.
"""

import functools
import hashlib
import platform
import re
import subprocess
import sys
from pathlib import Path

from controlplane.binaries import Say, cache_root, kept, say_on_stderr
from imagepython import debian

ROOT = Path(__file__).parents[2]


def image_version(dockerfile: str) -> str:
    """The Python of the image, such as "3.13"; raises ValueError where the Dockerfile does not say it."""
    found = re.search(r"^ARG PYTHON_IMAGE=\S*python:(\d+\.\d+)", dockerfile, re.MULTILINE)
    if found is None:
        raise ValueError("the Dockerfile does not say `ARG PYTHON_IMAGE=python:3.x`")
    return found[1]


def image_variables(dockerfile: str) -> dict[str, str]:
    """What the image sets for the memory of its process, by name."""
    return dict(re.findall(r"(MALLOC_\w+)=(\w+)", dockerfile.partition(" AS runtime\n")[2]))


def python_with(locked: Path) -> Path:
    """The interpreter of an environment that holds what is in the lock file, and nothing else; made once.

    Raises:
        ControlPlaneError: Debian's packages cannot be had, or have no Python of the image's version.
        ValueError: the Dockerfile does not say which.
        subprocess.CalledProcessError: the packages cannot be installed.
    """
    version = image_version((ROOT / "Dockerfile").read_text())
    unpacked = cache_root() / f"python-{version}-{platform.machine()}-{_digest(Path(debian.__file__))}"
    kept(unpacked, lambda target, say: debian.get(version, target, unpacked, say), say_on_stderr)
    environment = unpacked.with_name(f"{unpacked.name}-{_digest(locked)}")
    make = functools.partial(_environment, unpacked / f"usr/bin/python{version}", locked, environment)
    kept(environment, make, say_on_stderr)
    return environment / "bin/python"


def _environment(base: Path, locked: Path, final: Path, target: Path, say: Say) -> None:
    say(f"installing the hash-locked packages of {locked.name} for it (about a minute)")
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
    subprocess.run([*pip, "install", "--require-hashes", "--requirement", locked], check=True)
    for script in (target / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and script.read_bytes().startswith(b"#!"):
            script.write_text(script.read_text().replace(str(target), str(final)))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]
