"""What the demo shows and what it checks, from the membership's status and the simulator's ledger.

Not for: starting anything (`__main__`).
"""

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness import Object
from harness.cluster import condition, status

_WIDTH = 40


def _jobs(membership: Object) -> list[Object]:
    jobs = status(membership).get("jobs", [])
    assert isinstance(jobs, list)
    return jobs


def progress(membership: Object, seconds: float) -> Group:
    """One screen: batches with their jobs, the joined count, and what Ready says. All of it is read from status."""
    batches = Table(title="status.jobs", title_justify="left", expand=False)
    for column in ("BATCH", "PHASE", "SERVERS", "JOB ID"):
        batches.add_column(column)
    for job in _jobs(membership):
        batches.add_row(str(job["batch"]), str(job["phase"]), str(job["servers"]), str(job.get("jobID", "")))
    now = status(membership)
    joined, desired = int(str(now.get("joined", 0))), int(str(now.get("desired", 0)))
    bar = ProgressBar(total=max(desired, 1), completed=joined, width=_WIDTH)
    ready = condition(membership)
    said = Text(f"Ready={ready.get('status')} {ready.get('reason')}: {ready.get('message', '')}")
    line = Table.grid(padding=(0, 1))
    line.add_row(bar, Text(f"{joined} of {desired} joined after {seconds:.0f} s"))
    return Group(batches, line, said)


def differences(membership: Object, ledger: Sequence[Object], wanted: Sequence[str], batch_size: int) -> Iterator[str]:
    """Every way in which the status and the cloud's ledger of add calls tell different stories."""
    now = status(membership)
    calls = -(-len(wanted) // batch_size)
    if len(ledger) != calls:
        yield f"{len(ledger)} add calls, {calls} expected"
    accepted = [server for call in ledger for server in _strings(call["accepted"])]
    if len(accepted) != len(set(accepted)):
        yield "a server was accepted by the cloud more than once"
    if sorted(set(accepted)) != sorted(wanted):
        yield f"the cloud accepted {len(set(accepted))} servers, {len(wanted)} are in spec.serverIDs"
    if now.get("members") != sorted(wanted):
        yield "status.members is not spec.serverIDs"
    told = sorted(str(job.get("jobID")) for job in _jobs(membership))
    known = sorted(str(call["job_id"]) for call in ledger)
    if told != known:
        yield f"job ids in status {told}, in the ledger {known}"


def _strings(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]
