"""Gets the control plane from the archives that the Kubernetes project publishes for such tests (envtest).

The index and the form of the archives: https://book.kubebuilder.io/reference/envtest. Not for choosing between
sources, and not for builds.
"""

import hashlib
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controlplane import pins
from controlplane.errors import ControlPlaneError, UnavailableError

INDEX_URL = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"

_TIMEOUT = httpx.Timeout(30, connect=5)


class Archive(BaseModel):
    """One archive of the index."""

    model_config = ConfigDict(frozen=True)

    sha512: str = Field(alias="hash", pattern=r"^[0-9a-f]{128}$")
    url: str = Field(alias="selfLink")


class Index(BaseModel):
    """The index: releases such as `v1.36.3`, in each the archives by file name."""

    model_config = ConfigDict(frozen=True)

    releases: dict[str, dict[str, Archive]]


def download(destination: Path, say: Callable[[str], None], *, index_url: str = INDEX_URL) -> None:
    """Fetch, check and unpack the newest archive of the pinned minor release.

    Not every patch release gets an archive, hence the newest of the same minor. Raises UnavailableError when the
    index or the archive cannot be reached or has nothing for this kind of machine, ControlPlaneError when
    what came is not what the index promises.
    """
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
        release, archive = _newest(_index(client, index_url), pins.kubernetes_version(), pins.go_platform())
        say(f"downloading the official envtest archive of Kubernetes {release}")
        with tempfile.TemporaryFile() as file:
            digest = _fetch(client, archive.url, file)
            if digest != archive.sha512:
                raise ControlPlaneError(
                    f"{archive.url} has SHA-512 {digest}, its index says {archive.sha512}; "
                    "do not use it: try again later, or set KUBEBUILDER_ASSETS to a directory that you trust"
                )
            file.seek(0)
            _unpack(file, destination, archive.url)


def _index(client: httpx.Client, url: str) -> Index:
    try:
        response = client.get(url)
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise UnavailableError(f"{url}: {error}") from error
    try:
        return Index.model_validate(yaml.safe_load(response.text))
    except (yaml.YAMLError, ValidationError) as error:
        # Gateways answer 200 with a page of their own.
        raise UnavailableError(f"{url} answered something other than the index") from error


def _newest(index: Index, wanted: pins.KubernetesVersion, platform: str) -> tuple[str, Archive]:
    found: dict[int, tuple[str, Archive]] = {}
    for release, archives in index.releases.items():
        archive = archives.get(f"envtest-{release}-{platform}.tar.gz")
        try:
            version = pins.KubernetesVersion.parse(release)
        except ValueError:
            continue  # alphas and release candidates
        if archive is not None and (version.major, version.minor) == (wanted.major, wanted.minor):
            found[version.patch] = (release, archive)
    if not found:
        raise UnavailableError(f"its index has no {wanted.major}.{wanted.minor} for {platform}")
    return found[max(found)]


def _fetch(client: httpx.Client, url: str, file: IO[bytes]) -> str:
    digest = hashlib.sha512()
    try:
        with client.stream("GET", url) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                digest.update(chunk)
                file.write(chunk)
    except httpx.HTTPError as error:
        raise UnavailableError(f"{url}: {error}") from error
    return digest.hexdigest()


def _unpack(file: IO[bytes], destination: Path, url: str) -> None:
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            content = archive.extractfile(member) if member.isfile() and name in pins.PROGRAMS else None
            if content is not None:
                path = destination / name
                with path.open("wb") as program:
                    while block := content.read(1 << 20):
                        program.write(block)
                path.chmod(0o755)
    missing = pins.PROGRAMS - {path.name for path in destination.iterdir()}
    if missing:
        raise ControlPlaneError(f"{url} lacks {', '.join(sorted(missing))}; set KUBEBUILDER_ASSETS instead")
