"""What was found and stops nothing, grouped by cause and bounded, as `status.findings` holds it.

Not for: finding it (`judge`, `hazards`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.status import Finding
from nodepool_membership.core.preflight.judge import Found

MAX_GROUPS: Final = 20
MAX_IDS: Final = 20
MAX_TEXT: Final = 300
BYTES: Final = MAX_GROUPS * (MAX_IDS * 40 + 3 * MAX_TEXT + 200)
"""The most that all of them take in the stored object."""


def of_listed(known: Iterable[Finding], listed: Set[str]) -> tuple[Finding, ...]:
    """What is known, without servers that are on the list no more; of the pool all."""
    kept = []
    for finding in known:
        named = tuple(i for i in finding.server_ids if i in listed)
        count = min(finding.count - len(finding.server_ids) + len(named), len(listed))
        if not finding.count:
            kept.append(finding)
        elif named:
            kept.append(replace(finding, count=count, server_ids=named))
    return tuple(kept)


def merged(
    known: Iterable[Finding], looked_at: Set[str], told: Mapping[str, tuple[Found, ...]], pool: Iterable[Found]
) -> tuple[Finding, ...]:
    """What is known, with what a look at some servers and at the pool has shown.

    A finding names at most 20 of its servers and counts them all. What is told of the pool replaces what was.
    """
    groups: defaultdict[Found, list[str]] = defaultdict(list)
    for server_id in sorted(told):
        for found in told[server_id]:
            groups[Found(found.reason, plain_text(found.message, MAX_TEXT))].append(server_id)
    kept: dict[Found, Finding] = {}
    for old in known:
        named = tuple(i for i in old.server_ids if i not in looked_at)
        count = old.count - (len(old.server_ids) - len(named))
        if old.count and count > 0:
            kept[Found(old.reason, old.message)] = replace(old, count=count, server_ids=named)
    for found, ids in groups.items():
        before = kept.get(found) or Finding(found.reason, found.message, 0, ())
        named = tuple(sorted({*before.server_ids, *ids})[:MAX_IDS])
        kept[found] = replace(before, count=before.count + len(ids), server_ids=named)
    ordered = sorted(kept.values(), key=lambda f: (-f.count, f.reason, f.message))
    of_pool = [Finding(f.reason, plain_text(f.message, MAX_TEXT), 0, ()) for f in pool]
    return (*of_pool, *ordered)[:MAX_GROUPS]
