"""Run the demo: `python -m demo [--keep] [--servers N]`.

Not for: tests; they use the same harness.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from cce_simulator.config import Behaviour, SimulatorConfig, server_id
from controlplane import ControlPlane
from demo.story import differences, progress
from harness import Cluster, MembershipSpec, Object, Operator, ProgramError, SimulatorProcess
from harness.cluster import is_ready

_NAMESPACE = "cce-system"
_NAME = "gpu-workers"
_BATCH = 200
_JOB_SECONDS = 8.0
_OPTIONS = ("--poll-interval=1s", "--resync-interval=30s", "--log-format=text")
_DEADLINE_SECONDS = 600.0


def _follow(cluster: Cluster, console: Console, programs: tuple[SimulatorProcess, Operator]) -> Object:
    begun = time.monotonic()
    membership = cluster.get(_NAMESPACE, _NAME)
    shown: object = None
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        while not is_ready(membership):
            for program in programs:
                program.check()
            if time.monotonic() - begun > _DEADLINE_SECONDS:
                raise TimeoutError(f"not Ready after {_DEADLINE_SECONDS:.0f} s")
            time.sleep(0.25)
            membership = cluster.get(_NAMESPACE, _NAME)
            screen = progress(membership, time.monotonic() - begun)
            live.update(screen)
            if not console.is_terminal and membership.get("status") != shown:
                shown = membership.get("status")
                console.print(screen)
        if console.is_terminal:
            live.update(progress(membership, time.monotonic() - begun))
    return membership


def _play(control_plane: ControlPlane, workdir: Path, servers: int, console: Console, *, keep: bool) -> int:
    config = SimulatorConfig(behaviour=Behaviour(job_seconds=_JOB_SECONDS))
    wanted = [server_id("demo", index) for index in range(servers)]
    with Cluster(control_plane) as cluster, SimulatorProcess(workdir, config) as simulator:
        console.print("installing: kubectl apply -k deploy", markup=False)
        cluster.install()
        control_plane.ensure_namespace(_NAMESPACE)
        cluster.create_secret(_NAMESPACE, config)
        with Operator(workdir, cluster.operator_kubeconfig(), [simulator.url], _OPTIONS) as operator:
            operator.wait_ready()
            console.print(f"operator and simulator run; creating {_NAMESPACE}/{_NAME} with {servers} server ids")
            cluster.create(MembershipSpec(_NAME, wanted, simulator.url, _NAMESPACE))
            membership = _follow(cluster, console, (simulator, operator))
            for command in (("get", "npmem"), ("get", "npmem", "-o", "wide"), ("events", "--for", f"npmem/{_NAME}")):
                console.print(f"$ kubectl {' '.join(command)} -n {_NAMESPACE}", style="bold")
                console.print(control_plane.kubectl(*command, "-n", _NAMESPACE).stdout, highlight=False, soft_wrap=True)
            found = list(differences(membership, simulator.entries("addNodes"), wanted, _BATCH))
            for difference in found:
                console.print(f"status and ledger differ: {difference}", style="red")
            if not found:
                console.print(f"the cloud's ledger and the status agree: {servers} servers, each accepted once")
            if keep:
                _stay(control_plane, simulator, operator, console)
            if operator.exit_code is None and operator.terminate() != 0:
                raise operator.failed("did not end with exit code 0")
            return 1 if found else 0


def _stay(control_plane: ControlPlane, simulator: SimulatorProcess, operator: Operator, console: Console) -> None:
    console.print(f"export KUBECONFIG={control_plane.admin_kubeconfig}", soft_wrap=True)
    console.print(f"simulator: {simulator.url}/_sim/summary; operator's log: {operator.log}", soft_wrap=True)
    console.print("press Ctrl-C to end everything")
    try:
        while True:
            time.sleep(1)
            operator.check()
            simulator.check()
    except KeyboardInterrupt:
        console.print("ending")


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything up at the end until Ctrl-C, and print the kubeconfig.")
@click.option("--servers", default=450, show_default=True, type=click.IntRange(0, 10_000), help="How many server ids.")
def main(keep: bool, servers: int) -> None:
    """Control plane, simulator, operator and one membership; exit code 1 when status and the cloud's ledger differ."""
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
