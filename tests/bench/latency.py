"""From a change of spec.serverIDs to the status that answers it, as a watch on the API server sees it.

Not for: judging the times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic

from harness import Cluster, Object
from harness.cluster import status


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from before the patch is sent, and from when its answer was there, to the new status."""

    sent: tuple[float, ...]
    answered: tuple[float, ...]

    @property
    def p50(self) -> float:
        return median(self.sent)

    @property
    def longest(self) -> float:
        return max(self.sent)

    @property
    def p50_from_answer(self) -> float:
        return median(self.answered)


def of_changes(cluster: Cluster, namespace: str, names: Sequence[str]) -> Latency:
    """Take one id off the list of each, one after another."""
    changes = [_change(cluster, namespace, name) for name in names]
    return Latency(tuple(sent for sent, _ in changes), tuple(answered for _, answered in changes))


def _change(cluster: Cluster, namespace: str, name: str) -> tuple[float, float]:
    with cluster.watch(namespace, name) as states:
        _, membership = next(states)
        ids = _field(membership, "spec", "serverIDs")
        assert isinstance(ids, list)
        fewer = ids[:-1]
        patch = {"spec": {"serverIDs": fewer}}
        sent = monotonic()
        changed = cluster.patch(namespace, name, patch, metadata_only=True)
        answered = monotonic()
        generation = _field(changed, "metadata", "generation")
        seen = next(
            moment
            for moment, state in states
            if status(state).get("observedGeneration") == generation and status(state).get("desired") == len(fewer)
        )
    return (seen - sent) * 1000, (seen - answered) * 1000


def _field(document: Object, first: str, second: str) -> object:
    part = document[first]
    assert isinstance(part, dict)
    return part[second]
