"""A virtual environment with what the image holds, and nothing else: requirements/run.txt, hash-locked, as bytecode.

Not for: tests. Packages that only tests need cost the operator memory where httpx imports them if they are there.
"""

import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from controlplane.binaries import cache_root, locked
from harness.sources import ROOT


def environment_of_the_image() -> dict[str, str]:
    """What the image sets beside that."""
    stage = (ROOT / "Dockerfile").read_text().partition(" AS runtime\n")[2]
    return dict(re.findall(r"(MALLOC_\w+)=(\w+)", stage))


def python_of_the_image(say: Callable[[str], None]) -> Path:
    """The interpreter of that environment; it is made once per lock and interpreter, in the user's cache directory."""
    lock = ROOT / "requirements" / "run.txt"
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    target = cache_root(os.environ) / f"run-{key}"
    python = target / "bin" / "python"
    done = target / "complete"
    with locked(target.with_name(target.name + ".lock"), say):
        if not done.exists():
            say("installing requirements/run.txt for the operator under measurement: half a minute, once")
            venv.create(target, with_pip=True, clear=True)
            install = (
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "-r",
                str(lock),
            )
            subprocess.run([str(python), *install], check=True)
            done.touch()
    return python
