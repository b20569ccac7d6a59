"""What memberships share of a cluster, and what keeps it from proving or costing too much, taken out piece by piece.

Not for: the rules themselves, of which each has one mutant (`rules`).
"""

from typing import Final

from mutants.run import Edit, Mutant

SHARING: Final = (
    Mutant(
        "same-version",
        "the resourceVersion by which an object is known to be as it was",
        (
            Edit(
                "core/program/reconcile.py",
                "    return known if known is not None and known.version == version and known.since <= now",
                "    return known if known is not None and known.since <= now",
            ),
        ),
        ("tests/explore/test_explore.py::test_no_short_history_breaks_a_promise",),
    ),
    Mutant(
        "let-go",
        "the new look at servers that another membership let go of",
        (
            Edit(
                "runtime/claims/claims.py",
                "        if ((freed := self.freed(membership)) is not None and listed < freed) or listed > now:",
                "        if listed > now:",
            ),
        ),
        ("tests/unit/runtime/claims/test_runtime_claims_freed.py",),
    ),
    Mutant(
        "begun-after",
        "waiting for the next snapshot where one began too early",
        (
            Edit(
                "cce/snapshots.py",
                "        if last.begun < after or pool_id in shared.again:",
                "        if pool_id in shared.again:",
            ),
        ),
        ("tests/unit/cce/test_cce_snapshots.py",),
    ),
    Mutant(
        "not-looked",
        "the look at an object that was edited while its call waits for a place in the write budget",
        (
            Edit(
                "core/program/reconcile.py",
                "        memory = replace(memory, waiting=None)",
                "        memory = replace(memory)",
            ),
        ),
        ("tests/unit/core/program/test_program_snapshots.py",),
    ),
    Mutant(
        "no-resync",
        "the look at each resync of who waits for a place in the write budget",
        (
            Edit(
                "core/decision/looking.py",
                "        return waiting if lately and self._may_call(state) else None",
                "        return waiting if self._may_call(state) else None",
            ),
        ),
        ("tests/unit/core/program/test_core_waiting.py",),
    ),
    Mutant(
        "reads",
        "the bound of reads in a second",
        (
            Edit(
                "cce/reads.py",
                "            await self._sleep(begins - now)\n",
                "",
            ),
        ),
        ("tests/unit/cce/test_cce_reads.py::test_never_more_than_n_in_any_second",),
    ),
    Mutant(
        "paused",
        "the pause of all readers after one was throttled",
        (Edit("cce/reads.py", "        if left > 0:\n            why", "        if left > 3600:\n            why"),),
        ("tests/unit/cce/test_cce_reads.py",),
    ),
    Mutant(
        "polls",
        "what was said of a job a moment ago",
        (Edit("runtime/cloud/jobs.py", "if not report.is_over:", "if report.is_over:"),),
        (
            "tests/unit/runtime/cloud/test_runtime_clouds.py::test_a_job_is_asked_for_at_most_once_a_poll_interval_until_it_is_over",
        ),
    ),
    Mutant(
        "locks",
        "what another was told of a locked pool",
        (Edit("runtime/cloud/locks.py", "            self._until[pool] = now + self._keep", "            pass"),),
        (
            "tests/unit/runtime/cloud/test_runtime_clouds.py::test_who_shares_a_pool_that_is_locked_spends_no_write_on_it",
        ),
    ),
)
