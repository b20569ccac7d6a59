"""Run the demo: `python -m demo [--keep] [--servers N]`.

Not for: tests; they use the same harness. What there is to play with is told by `playing`.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.live import Live

from cce_simulator.config import Behaviour, SimulatorConfig, server_id
from controlplane import ControlPlane
from demo.playing import MISTYPED, NAME, NAMESPACE, Playground
from demo.story import differences, progress
from harness import Cluster, MembershipSpec, Object, Operator, ProgramError, SimulatorProcess
from harness.cluster import is_ready

_BATCH = 200
_JOB_SECONDS = 8.0
_OPTIONS = ("--poll-interval=1s", "--resync-interval=5s")
_LOGIN_SECONDS = 86_400
_LOOK_SECONDS = 0.5
_DEADLINE_SECONDS = 600.0


def _follow(cluster: Cluster, console: Console, programs: tuple[SimulatorProcess, Operator]) -> Object:
    begun = time.monotonic()
    membership = cluster.get(NAMESPACE, NAME)
    shown: object = None
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        while not is_ready(membership):
            for program in programs:
                program.check()
            if time.monotonic() - begun > _DEADLINE_SECONDS:
                raise TimeoutError(f"not Ready after {_DEADLINE_SECONDS:.0f} s")
            time.sleep(0.25)
            membership = cluster.get(NAMESPACE, NAME)
            screen = progress(membership, time.monotonic() - begun)
            live.update(screen)
            if not console.is_terminal and membership.get("status") != shown:
                shown = membership.get("status")
                console.print(screen)
        if console.is_terminal:
            live.update(progress(membership, time.monotonic() - begun))
    return membership


def _play(control_plane: ControlPlane, workdir: Path, servers: int, console: Console, *, keep: bool) -> int:
    config = SimulatorConfig(behaviour=Behaviour(job_seconds=_JOB_SECONDS), unknown_servers=(MISTYPED,))
    wanted = [server_id("demo", index) for index in range(servers)]
    with Cluster(control_plane) as cluster, SimulatorProcess(workdir, config) as simulator:
        console.print("installing: kubectl apply -k deploy", markup=False)
        cluster.install()
        control_plane.ensure_namespace(NAMESPACE)
        cluster.create_secret(NAMESPACE, config)
        login = cluster.operator_kubeconfig(seconds=_LOGIN_SECONDS)

        def begin() -> Operator:
            # What a killed one leaves behind goes with the rest.
            return Operator(workdir, login, [simulator.url], _OPTIONS, environment={"TMPDIR": str(workdir)})

        with begin() as operator:
            operator.wait_ready()
            console.print(f"operator and simulator run; creating {NAMESPACE}/{NAME} with {servers} server ids")
            cluster.create(MembershipSpec(NAME, wanted, simulator.url, NAMESPACE))
            membership = _follow(cluster, console, (simulator, operator))
            for command in (("get", "npmem"), ("get", "npmem", "-o", "wide"), ("events", "--for", f"npmem/{NAME}")):
                console.print(f"$ kubectl {' '.join(command)} -n {NAMESPACE}", style="bold")
                console.print(control_plane.kubectl(*command, "-n", NAMESPACE).stdout, highlight=False, soft_wrap=True)
            found = list(differences(membership, simulator.entries("addNodes"), wanted, _BATCH))
            for difference in found:
                console.print(f"status and ledger differ: {difference}", style="red")
            if not found:
                console.print(f"the cloud's ledger and the status agree: {servers} servers, each accepted once")
            if keep:
                kubectl = control_plane.binaries.kubectl
                playground = Playground(
                    workdir,
                    simulator.url,
                    config,
                    wanted,
                    operator.endpoints,
                    control_plane.admin_kubeconfig,
                    (kubectl.parent, Path(sys.executable).parent),
                )
                _stay(playground, simulator, operator, begin, console)
            elif operator.terminate() != 0:
                raise operator.failed("did not end with exit code 0")
            return 1 if found else 0


def _stay(
    playground: Playground,
    simulator: SimulatorProcess,
    operator: Operator,
    begin: Callable[[], Operator],
    console: Console,
) -> None:
    """Tell what there is to play with, and start the operator again whenever it ends, until a signal comes."""
    playground.write()
    playground.pid_file.write_text(f"{operator.pid}\n")
    for line in playground.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    told = (
        "",
        f"The operator's log: {operator.log}; the simulator: {simulator.url}/_sim/summary, docs/simulator.md",
        f"To end everything: Ctrl-C here, or kill {os.getpid()}",
    )
    for line in told:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    try:
        while True:
            time.sleep(_LOOK_SECONDS)
            simulator.check()
            if operator.exit_code is not None:
                code = operator.exit_code
                operator = begin()
                playground.pid_file.write_text(f"{operator.pid}\n")
                console.print(f"the operator ended with {code}: started again as process {operator.pid}")
    except KeyboardInterrupt:
        console.print("ending")
    finally:
        operator.kill()


def _interrupt(_: int, __: object) -> NoReturn:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Nothing keeps what was begun from being cleaned up.
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything up at the end until Ctrl-C, and print the kubeconfig.")
@click.option("--servers", default=450, show_default=True, type=click.IntRange(0, 10_000), help="How many server ids.")
def main(keep: bool, servers: int) -> None:
    """Control plane, simulator, operator and one membership; exit code 1 when status and the cloud's ledger differ."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A shell starts what it runs in the background with SIGINT ignored.
        signal.signal(number, _interrupt)
    console = Console()
    workdir = Path(tempfile.mkdtemp(prefix="nodepool-membership-demo-"))
    try:
        console.print("starting etcd and kube-apiserver")
        with ControlPlane(workdir / "controlplane") as control_plane:
            code = _play(control_plane, workdir, servers, console, keep=keep)
    except (ProgramError, TimeoutError) as error:
        console.print(str(error), style="red", markup=False)
        code = 1
    except KeyboardInterrupt:
        code = 130
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
