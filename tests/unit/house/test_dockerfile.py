"""The Dockerfile, as far as it goes without a container engine: linted, and its builder's steps run in a directory.

Not held here: that the base image exists, and what the finished image weighs.

The steps are read from the Dockerfile, so what is tested is what is built. `/build` and `/venv` become directories of
the test, `python` is the interpreter that runs the tests.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent.parent
DOCKERFILE: Final = ROOT / "Dockerfile"
VENV: Final = "/venv"
UNCHECKED_HASH: Final = 0b01
"""Bytes 4 to 8 of a .pyc file say how it is checked against its source (PEP 552)."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, continuation lines joined."""

    word: str
    rest: str


def _read(path: Path) -> list[list[Instruction]]:
    """The instructions before the first FROM, then those of each stage."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = [[]]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append(Instruction(word, " ".join(rest.split())))
    return stages


HEAD, BUILDER, BASE, SIMULATOR, OPERATOR = _read(DOCKERFILE)
RUNTIME = BASE + OPERATOR[1:]
"""The operator's image: its stage begins with what the simulator's begins with, too."""


def _only(stage: list[Instruction], word: str) -> str:
    (instruction,) = (i for i in stage if i.word == word)
    return instruction.rest


def test_hadolint_has_no_complaint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_base_is_pinned_by_arguments_and_no_digest_is_made_up() -> None:
    defaults = dict(i.rest.split("=", 1) for i in HEAD)
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", defaults["PYTHON_IMAGE"])
    assert defaults["PYTHON_DIGEST"] == '""'
    assert not re.search(r"sha256:[0-9a-f]", DOCKERFILE.read_text())
    bases = {_only(stage, "FROM").rpartition(" AS ")[0] for stage in (BUILDER, BASE)}
    assert bases == {"${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"}


def test_the_operator_is_what_is_built_unless_told_otherwise() -> None:
    assert [_only(stage, "FROM") for stage in (SIMULATOR, OPERATOR)] == ["runtime AS simulator", "runtime AS operator"]


def test_nothing_is_installed_but_what_is_locked_by_hash() -> None:
    installs = [step for i in BUILDER if i.word == "RUN" for step in i.rest.split("&&") if "pip" in step.split("#")[0]]
    installs = [step for step in installs if " install " in step or " wheel " in step]
    assert len(installs) == 4
    for step in installs:
        assert "--require-hashes --only-binary :all: --requirement requirements/" in step or "--no-deps" in step


def test_the_image_starts_the_operator_without_a_shell() -> None:
    assert json.loads(_only(RUNTIME, "ENTRYPOINT")) == [f"{VENV}/bin/python", "-m", "nodepool_membership"]
    assert json.loads(_only(RUNTIME, "CMD")) == ["run"]


def test_the_image_does_not_run_as_root() -> None:
    """Kubernetes checks `runAsNonRoot` only for a user that is a number."""
    user, group = _only(RUNTIME, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_has_nothing_but_the_venv() -> None:
    copies = [i.rest for i in RUNTIME if i.word in {"COPY", "ADD"}]
    assert copies == [f"--from=builder {VENV} {VENV}"]


def test_the_image_has_no_pip(tmp_path: Path) -> None:
    """The base image brings one; the step is run on a tree like the base image's."""
    kept = ["lib/python3.13/site-packages/README.txt", "lib/python3.13/json/__init__.py", "bin/python3"]
    gone = ["bin/pip", "bin/pip3.13", "lib/python3.13/site-packages/pip/main.py", "lib/python3.13/ensurepip/main.py"]
    gone.append("lib/python3.13/site-packages/pip-25.0.dist-info/METADATA")
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    _run(_only(BASE, "RUN").replace("/usr/local", str(tmp_path)), tmp_path, {"PATH": os.defpath})
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_the_simulator_has_an_image_of_its_own() -> None:
    assert [i.rest for i in SIMULATOR if i.word == "COPY"] == ["--from=builder /simulator /simulator"]
    assert json.loads(_only(SIMULATOR, "ENTRYPOINT")) == [f"{VENV}/bin/python", "-m", "cce_simulator"]


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    arguments = dict(i.rest.split("=", 1) for i in RUNTIME if i.word == "ARG")
    assert arguments["VERSION"] == project["version"]
    assert 'org.opencontainers.image.version="${VERSION}"' in _only(RUNTIME, "LABEL")


def test_the_builder_is_sent_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {source for i in BUILDER if i.word == "COPY" for source in i.rest.split()[:-1]}
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert "*" in lines


@dataclass(frozen=True, slots=True)
class Scratch:
    """The directories that stand for `/build`, `/venv` and `/simulator`."""

    build: Path
    venv: Path
    simulator: Path

    def place(self, text: str) -> str:
        """Put these directories in the place of the image's own."""
        places = {"/build": str(self.build), VENV: str(self.venv), "/simulator": str(self.simulator)}
        return re.sub(r"(?<![\w.-])/(?:build|venv|simulator)\b", lambda match: places[match.group()], text)


def _copy(rest: str, workdir: Path) -> None:
    *sources, target = rest.split()
    for source in sources:
        origin, destination = ROOT / source, workdir / target
        if origin.is_dir():
            shutil.copytree(origin, destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, destination)


def _run(step: str, workdir: Path, environment: dict[str, str]) -> None:
    result = subprocess.run(
        ["sh", "-c", step],
        cwd=workdir,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        umask=0o022,  # a container engine's
    )
    assert result.returncode == 0, f"{step}\n{result.stdout}"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    """What the builder makes, with packages from the index that pip is set up for; then made read-only."""
    base = tmp_path_factory.mktemp("image")
    scratch = Scratch(base / "build", base / "venv", base / "simulator")
    python = str(Path(sys.executable).parent)
    # PYTHONPATH or VIRTUAL_ENV would let the steps find what the image does not have; others change what Python writes.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = {**own, "PATH": os.pathsep.join([python, os.environ["PATH"]])}
    workdir = base
    for instruction in BUILDER:
        rest = scratch.place(instruction.rest)
        match instruction.word:
            case "FROM":
                continue
            case "ENV":
                environment |= dict(pair.split("=", 1) for pair in rest.split())
            case "WORKDIR":
                workdir = Path(rest)
                workdir.mkdir()
            case "COPY":
                _copy(rest, workdir)
            case "RUN":
                _run(rest, workdir, environment)
            case other:
                pytest.fail(f"a step that this test cannot run: {other} {rest}")
    shutil.rmtree(scratch.build)
    trees = (scratch.venv, scratch.simulator)
    for tree in trees:
        _chmod(tree, add=0, remove=0o222)
    yield scratch
    for tree in trees:
        _chmod(tree, add=0o200, remove=0)


@pytest.fixture(scope="module")
def built(scratch: Scratch) -> Path:
    """The venv of the images."""
    return scratch.venv


def _chmod(tree: Path, *, add: int, remove: int) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~remove | add)


_WITHOUT_CAPABILITIES: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused for all but root, who alone needs it
os.execv(sys.argv[1], sys.argv[1:])
"""


def _python(venv: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the venv's Python as a container would: no capabilities, so that read-only holds for root, too."""
    return subprocess.run(
        [sys.executable, "-I", "-c", _WITHOUT_CAPABILITIES, str(venv / "bin" / "python"), *arguments],
        cwd=venv,
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_source_has_bytecode_that_is_never_checked(built: Path) -> None:
    sources = list(built.rglob("*.py"))
    assert any(path.match("nodepool_membership/__main__.py") for path in sources)
    tag = sys.implementation.cache_tag
    for source in sources:
        head = (source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc").read_bytes()[:8]
        assert int.from_bytes(head[4:], "little") == UNCHECKED_HASH, source


def test_the_tree_is_indeed_read_only_where_it_is_run(built: Path) -> None:
    result = _python(built, "-c", "open('proof', 'w')")
    assert result.returncode == 1
    assert "PermissionError" in result.stderr


def test_the_operator_runs_from_a_read_only_tree(built: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    result = _python(built, *json.loads(_only(RUNTIME, "ENTRYPOINT"))[1:], "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert version in result.stdout


def test_any_user_can_read_it(built: Path) -> None:
    for path in (built, *built.rglob("*")):
        mode = path.stat().st_mode
        wanted = 0o555 if stat.S_ISDIR(mode) else 0o444
        assert mode & wanted == wanted, path


def test_it_holds_what_is_locked_and_nothing_else(built: Path) -> None:
    listing = _python(
        built, "-c", "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    )
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in listing.stdout.split()}
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE))
    assert "nodepool-membership" in installed
    assert installed - {"nodepool-membership"} <= locked
    assert {"kopf", "kubernetes", "httpx", "pydantic"} <= installed


def test_the_operators_image_does_not_hold_the_simulator_and_its_own_does(scratch: Scratch) -> None:
    assert list(scratch.venv.rglob("*cce*simulator*")) == []
    without = _python(scratch.venv, "-m", "cce_simulator", "--help")
    assert "No module named cce_simulator" in without.stderr
    command = json.loads(_only(SIMULATOR, "ENTRYPOINT"))[1:]
    (path,) = (i.rest for i in SIMULATOR if i.word == "ENV")
    name, value = path.split("=")
    its_own = _python(scratch.venv, *command, "--help", **{name: scratch.place(value)})
    assert (its_own.returncode, its_own.stderr) == (0, "")
    options = [word for word in json.loads(_only(SIMULATOR, "CMD")) if word.startswith("--")]
    assert [option for option in options if option not in its_own.stdout] == []
