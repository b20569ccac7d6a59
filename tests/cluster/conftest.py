"""Fixtures for tests against a real API server. Each test in this folder is marked `cluster`; none is skipped."""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from controlplane import ControlPlane, pins
from gitops.judges import complaints
from gitops.recorder import Recorder
from harness import Case, Cluster, Operator, Program, Scene, SimulatorProcess
from harness.kustomize import QUICK, TEAM
from harness.leaks import check_unharmed
from harness.operator_process import FAST
from harness.sources import copy_sources

_HERE = Path(__file__).parent
_CRD = _HERE.parent.parent / "crds" / "nodepoolmemberships.yaml"
_TAIL_LINES = 60
_LINE = 1500
_QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    minor, too_new = pins.kubernetes_version().minor, []
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.cluster)
            if any(minor < marker.args[0] for marker in item.iter_markers("since_kubernetes")):
                too_new.append(item)
    # Taken out, where a test would be skipped elsewhere: a skipped cluster test is a failure (tests/conftest.py).
    items[:] = [item for item in items if item not in too_new]
    config.hook.pytest_deselected(items=too_new)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One control plane for all tests of the session."""
    with ControlPlane() as running:
        yield running


def _new_namespace(control_plane: ControlPlane) -> str:
    name = f"test-{secrets.token_hex(4)}"
    control_plane.ensure_namespace(name)
    return name


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A new, empty namespace of the test's own."""
    return _new_namespace(control_plane)


@pytest.fixture(scope="session")
def crd(control_plane: ControlPlane) -> str:
    """The CRD under test, applied and served; its name."""
    return control_plane.install_crd(_CRD)


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    """The control plane with `deploy/` applied."""
    with Cluster(control_plane) as installed:
        installed.install()
        with Recorder(installed.http) as recorder:
            yield installed
        if folder := os.environ.get("STATES"):
            (Path(folder) / f"{secrets.token_hex(4)}.json").write_text(json.dumps(list(recorder.states.values())))
        # Of every state that any test brought about: what kstatus, Flux and Argo CD make of it.
        assert complaints(recorder.states.values()) == []


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Cluster) -> Path:
    """A login as the service account of `deploy/`, with its rights."""
    return cluster.operator_kubeconfig()


@pytest.fixture
def free_lease(cluster: Cluster) -> None:
    """There is no Lease: not that of an operator of an earlier test either."""
    cluster.delete_lease()


@pytest.fixture
def programs() -> Iterator[ExitStack]:
    """What is entered here is left when the test ends, the newest first."""
    with ExitStack() as stack:
        yield stack


def _shown_if_the_test_fails(program: Program) -> None:
    """pytest shows what a teardown printed under a failed test only."""
    print(f"--- the end of {program.log.name}, exit code {program.exit_code}")
    print("\n".join(line[:_LINE] for line in program.output().splitlines()[-_TAIL_LINES:]))


@pytest.fixture
def simulate(programs: ExitStack, tmp_path: Path) -> Callable[..., SimulatorProcess]:
    """`simulate(config=SimulatorConfig())` starts a cloud of the test's own."""

    def start(config: SimulatorConfig | None = None, *, port: int = 0) -> SimulatorProcess:
        return programs.enter_context(SimulatorProcess(tmp_path, config or SimulatorConfig(), port=port))

    return start


@pytest.fixture
def operate(
    cluster: Cluster, programs: ExitStack, tmp_path: Path, operator_kubeconfig: Path, namespace: str
) -> Callable[..., Operator]:
    """`operate(simulator, options=FAST)` starts an operator for the test's namespace, and returns when it is ready.

    It is the service account of `deploy/`, or whom `kubeconfig` names (None: whom a pod would be). `endpoints` are
    those that a spec may name, a simulator stands for its own.
    """
    programs.callback(cluster.clear, namespace)

    def start(
        endpoints: SimulatorProcess | Sequence[str],
        options: Sequence[str] = FAST,
        *,
        kubeconfig: Path | None = operator_kubeconfig,
        environment: Mapping[str, str] | None = None,
        name: str = "operator",
        program: Sequence[str] = ("-m", "nodepool_membership"),
        wait: bool = True,
    ) -> Operator:
        urls = [endpoints.url] if isinstance(endpoints, SimulatorProcess) else endpoints
        every = [f"--namespace={namespace}", *options]
        operator = Operator(tmp_path, kubeconfig, urls, every, environment=environment, name=name, program=program)
        programs.enter_context(operator)
        programs.callback(_shown_if_the_test_fails, operator)
        if wait:
            operator.wait_ready()
        return operator

    return start


@pytest.fixture
def stage(
    cluster: Cluster, namespace: str, simulate: Callable[..., SimulatorProcess], operate: Callable[..., Operator]
) -> Callable[..., Scene]:
    """`stage(config)` starts a cloud and an operator, and makes the Secret; what else is given is for `operate`."""

    def start(config: SimulatorConfig = _QUICK, **operator: object) -> Scene:
        simulator = simulate(config)
        cluster.create_secret(namespace, config)
        return Scene(cluster, namespace, simulator, operate(simulator, **operator))

    return start


@pytest.fixture(scope="module")
def crowd(
    cluster: Cluster, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Sequence[Case]], Mapping[str, Scene]]]:
    """`crowd(cases)` makes a membership for each case, all at once on one cloud and one operator; scenes by name.

    Starting programs for each case would take longer than the cases do. They are gone when the module's tests end.
    """
    with ExitStack() as stack:

        def start(cases: Sequence[Case]) -> Mapping[str, Scene]:
            directory = tmp_path_factory.mktemp("crowd")
            config = _QUICK.model_copy(update={"clusters": (), "access_keys": ()})
            for case in cases:
                config = case.configure(config)
            space = _new_namespace(cluster.control_plane)
            stack.callback(cluster.clear, space)
            simulator = stack.enter_context(SimulatorProcess(directory, config))
            options = [f"--namespace={space}", *FAST]
            operator = stack.enter_context(Operator(directory, operator_kubeconfig, [simulator.url], options))
            operator.wait_ready()
            scenes = {c.name: Scene(cluster, space, simulator, operator, c.name, c.corner) for c in cases}
            for case in cases:
                if (secret := case.its_secret()) is not None:
                    scenes[case.name].secret(secret)
                scenes[case.name].create(case.servers, pool=case.pool, **case.spec)
            return scenes

        yield start


@pytest.fixture(scope="module")
def scenes(
    request: pytest.FixtureRequest, crowd: Callable[[Sequence[Case]], Mapping[str, Scene]]
) -> Mapping[str, Scene]:
    """A crowd of the module's `CASES`, by name."""
    return crowd(request.module.CASES)


@pytest.fixture
def scene_of(request: pytest.FixtureRequest, scenes: Mapping[str, Scene]) -> Iterator[Callable[[Case], Scene]]:
    """`scene_of(case)`; and the check that holds after each."""
    used: list[Scene] = []

    def of(case: Case) -> Scene:
        used.append(scenes[case.name])
        return scenes[case.name]

    yield of
    for scene in used:
        check_unharmed(scene, [case.secret_key for case in request.module.CASES])


@pytest.fixture
def own_plane() -> Iterator[ControlPlane]:
    """A control plane of the test's own, with nothing but the team's namespace: for tests that install."""
    with ControlPlane() as running:
        running.ensure_namespace(TEAM)
        yield running


@pytest.fixture
def own_cluster(own_plane: ControlPlane) -> Iterator[Cluster]:
    with Cluster(own_plane) as connected:
        yield connected


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """A cloud that is quick, with two access keys."""
    with SimulatorProcess(tmp_path, QUICK) as running:
        yield running


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with a copy of what a kustomization refers to."""
    return copy_sources(tmp_path)
