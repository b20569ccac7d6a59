"""`kubectl npmem plan` on 10,000 ids: how long a person waits, and what the cloud is asked for it.

Not for: what a plan says.
"""

import json
from statistics import median
from time import monotonic
from typing import Final

from bench.figures import Figure, Limit, Section
from bench.world import NAMESPACE, Say, world
from cce_simulator.config import SimulatorConfig, server_id
from harness import MembershipSpec, ProgramError
from harness.editor import Person, everywhere

_IDS: Final = 10_000
_IDS_PER_READ: Final = 50
_RUNS: Final = 5
_NAME: Final = "plan"
_SEED: Final = "bench"
_WIPES: Final = 2


def measure(say: Say) -> Section:
    """The median over some runs of the program, each as a person starts it; every server is read in each."""
    with world(SimulatorConfig(seed=_SEED)) as here:
        wanted = sorted(server_id(_SEED, index) for index in range(_IDS))
        more = {"suspend": True}
        here.cluster.create(MembershipSpec(_NAME, wanted, here.simulator.url, NAMESPACE, more=more))
        person = Person(here.cluster.control_plane.admin_kubeconfig, NAMESPACE)
        where = everywhere(here.simulator.url, here.workdir)
        spent = []
        for _ in range(_RUNS):
            begun = monotonic()
            done = person.npmem("plan", _NAME, "-o", "json", where)
            spent.append(monotonic() - begun)
            if done.returncode != _WIPES:
                raise ProgramError(f"plan ended with {done.returncode}: {done.stderr}")
            if json.loads(done.stdout)["add"] != wanted:
                raise ProgramError("the plan does not add all servers, and no other")
            say(f"plan: {spent[-1]:.2f} s")
        servers, reads = here.calls("listServers"), here.cloud_reads()
    figures = (
        Figure("time from typing to the whole plan", median(spent), "s", Limit(3)),
        Figure(
            f"reads of servers / (n/{_IDS_PER_READ} + 1)",
            servers / _RUNS / (_IDS // _IDS_PER_READ + 1),
            "",
            Limit(1, counted=True),
            f"{servers // _RUNS} reads of servers, {reads // _RUNS} reads in all",
        ),
    )
    return Section("plan", f"{_IDS:,} ids, none of them a node, median of {_RUNS} runs", figures)
