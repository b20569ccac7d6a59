"""Which rule each mutant takes out, with the tests that must notice.

Not for: applying and running them (`run`). An edit is as small as will do: the rule is gone, the program still works.
"""

from typing import Final

from mutants.run import Edit, Mutant

_MACHINE: Final = ("tests/property/test_core_machine.py", "tests/property/test_core_scenarios.py")
# What is written down first: what it shows, a search of the machine may take long to find.
_WRITTEN: Final = ("tests/property/test_core_scenarios.py", "tests/unit/core", "tests/property/test_core_machine.py")

MUTANTS: Final = (
    Mutant(
        "P1",
        "asking the node list before a server is named",
        (
            Edit("core/planning/eligibility.py", "    absent = free - table.present(free)\n", "    absent = free\n"),
            Edit("core/planning/eligibility.py", " - named - state.holds.keys()", " - named"),
        ),
        _MACHINE,
    ),
    Mutant(
        "P2",
        "the wait after a lost status",
        (
            Edit(
                "core/state/edits.py",
                "    return membership.status.last_batch is None and FINALIZER in membership.metadata.finalizers",
                "    return False and FINALIZER in membership.metadata.finalizers",
            ),
        ),
        _MACHINE,
    ),
    Mutant(
        "P3",
        "the resourceVersion that guards an intent",
        (Edit("kube/patch.py", "    return [guard(resource_version), *edits]", "    return [*edits]"),),
        ("tests/unit/kube/test_kube_patch.py",),
    ),
    Mutant(
        "P4",
        "the check that the worst outcome still fits",
        (Edit("core/planning/eligibility.py", "    return worst + spare <= MAX_OBJECT_BYTES", "    return worst > 0"),),
        ("tests/unit/core/planning/test_core_eligibility.py",),
    ),
    Mutant(
        "P5",
        "the limit of 60 s between intent and call",
        (
            Edit(
                "core/decision/record.py",
                "    if abs(now - signed_at) > SEND_WITHIN:",
                "    if abs(now - signed_at) > 90 * SEND_WITHIN:",
            ),
        ),
        _MACHINE,
    ),
    Mutant(
        "P6",
        "the difference between a refusal and an answer that says nothing",
        (
            Edit(
                "cce/errors.py",
                "_REFUSING: Final = frozenset({400, 401, 403, 404, 413, 414, 429})",
                "_REFUSING: Final = frozenset({400, 401, 403, 404, 409, 413, 414, 429, 500})",
            ),
        ),
        _MACHINE,
    ),
    Mutant(
        "P7",
        "the end of a wait by an edit",
        (
            Edit(
                "core/state/edits.py",
                "    if edited or reconcile_requested(membership) is not None:",
                "    if reconcile_requested(membership) is not None:",
            ),
        ),
        ("tests/unit/core/state/test_core_requests.py",),
    ),
    Mutant(
        "P8",
        "the settle window",
        (
            Edit(
                "core/servers/batches.py",
                "        return min(self.now, self.table.begun) >= since + self.settings.settle_window",
                "        return min(self.now, self.table.begun) >= since",
            ),
        ),
        _MACHINE,
    ),
    Mutant(
        "P9",
        "the record of an answer after a status was lost meanwhile",
        (
            Edit(
                "core/decision/record.py",
                "replace(state.with_batch(running), last_job_id=job_id)",
                "replace(state, last_job_id=job_id)",
            ),
        ),
        ("tests/unit/core/decision/test_core_records.py",),
    ),
    Mutant(
        "P10",
        "the pool of a node in the verdict on its server",
        (
            Edit(
                "core/servers/batches.py",
                "    if node.pool_id != spec.node_pool.node_pool_id:",
                "    if node.pool_id == '':",
            ),
        ),
        ("tests/unit/core/servers/test_core_batches.py",),
    ),
    Mutant(
        "P11",
        "that a node that shows proves acceptance",
        (
            Edit(
                "core/servers/batches.py",
                "        if not verdict.accepted:",
                "        if True or not verdict.accepted:",
            ),
        ),
        _WRITTEN,
    ),
    Mutant(
        "P12",
        "the count of attempts",
        (
            Edit(
                "core/planning/eligibility.py",
                "        elif cause.attempts >= spec.max_attempts or",
                "        elif cause.attempts < 0 or",
            ),
        ),
        _WRITTEN,
    ),
    Mutant(
        "P13",
        "the pool's own count beside an incomplete listing",
        (
            Edit(
                "core/observed/observation.py",
                "        return any(min(counts) <= number <= max(counts) for number in (shown, shown + offset))",
                "        return shown >= 0",
            ),
        ),
        _MACHINE,
    ),
    Mutant(
        "P14",
        "the credentials in the key of the shared snapshots",
        (
            Edit(
                "runtime/cloud/clouds.py",
                "snapshot_key=SnapshotKey(endpoint, pool.project_id, pool.cluster_id, source.fingerprint)",
                'snapshot_key=SnapshotKey(endpoint, pool.project_id, pool.cluster_id, "")',
            ),
        ),
        ("tests/unit/runtime/cloud/test_runtime_clouds.py",),
    ),
    Mutant(
        "P15",
        "the look for servers of a refused batch before its parts are sent",
        (
            Edit(
                "core/planning/eligibility.py",
                '    return any(node.pool_id in {pool_id, ""} for node in table.nodes(ids).values())',
                "    return any(node.pool_id in {pool_id} for node in table.nodes(frozenset()).values())",
            ),
        ),
        _MACHINE,
    ),
    Mutant(
        "P16",
        "the reservation of what another membership has",
        (
            Edit(
                "runtime/claims/claims.py",
                "            if rival is not None and (rival.better or",
                "            if rival is not None and (",
            ),
        ),
        ("tests/unit/runtime/claims/test_runtime_claims.py", "tests/property/test_claims.py"),
    ),
    Mutant(
        "P17",
        "the report of a job that is not ours",
        (Edit("core/observed/provenance.py", "    strange = made - known\n", "    strange = made - made\n"),),
        ("tests/unit/core/observed/test_core_provenance.py",),
    ),
    Mutant(
        "P18",
        "the wait before a removal",
        (
            Edit(
                "core/planning/removing.py",
                "    return since + settings.removal_delay",
                "    return since",
            ),
        ),
        _WRITTEN,
    ),
    Mutant(
        "P19",
        "the pool of a node in what is removed",
        (
            Edit(
                "core/planning/removing.py",
                "        if node.pool_id == pool_id\n        and not _is_unready(node)\n",
                "        if not _is_unready(node)\n",
            ),
        ),
        ("tests/unit/core/planning/test_core_removing.py",),
    ),
    Mutant(
        "P20",
        "the end of adding with a deletion",
        (
            Edit(
                "core/planning/adding.py",
                "    if membership.metadata.deleting or seen.listing is None",
                "    if seen.listing is None",
            ),
        ),
        (*_WRITTEN, "tests/unit/core/state/test_core_requests.py"),
    ),
    Mutant(
        "P21",
        "the comparison of the clocks",
        (
            Edit(
                "core/observed/observation.py",
                "abs(self.clock_offset_seconds) > MAX_SKEW.total_seconds()",
                "self.clock_offset_seconds > 1e9",
            ),
        ),
        ("tests/unit/core/observed/test_core_clock.py",),
    ),
    Mutant(
        "P22",
        "the look at the lease before a call",
        (Edit("runtime/reconcile/send.py", "        if not self._may_call():\n", "        if self._closing:\n"),),
        ("tests/unit/runtime/reconcile/test_runtime_send.py",),
    ),
    Mutant(
        "P23",
        "the limit of writes in a minute",
        (
            Edit(
                "cce/budget.py",
                "        leaving = len(self._held) + len(self._ended) + ahead + 1 - self._per_minute",
                "        leaving = len(self._held) + ahead + 1 - self._per_minute",
            ),
        ),
        ("tests/unit/cce/test_cce_budget.py",),
    ),
    Mutant(
        "P24",
        "the stop at a status that cannot be understood",
        (
            Edit(
                "api/membership.py",
                "    rest = _WITHOUT_STATUS.validate_json(raw)\n",
                "    rest = _WITHOUT_STATUS.validate_json(raw)\n    return Membership(rest.metadata, rest.spec)\n",
            ),
        ),
        ("tests/unit/api/test_api_membership.py",),
    ),
    Mutant(
        "P25",
        "the place of a failed server in the counts",
        (
            Edit(
                "core/state/state.py",
                "    rest = len(desired) - len(joined) - len(joining) - len(failed)",
                "    rest = len(desired) - len(joined) - len(joining)",
            ),
        ),
        _WRITTEN,
    ),
    Mutant(
        "P26",
        "the brake",
        (Edit("core/servers/batches.py", "    for batch in adds:\n", "    for batch in adds[:0]:\n"),),
        ("tests/unit/core/planning/test_core_brake.py",),
    ),
    Mutant(
        "P27",
        "the verdict over a server that was read",
        (
            Edit(
                "core/planning/adding.py",
                "    if fit := chosen.ids & vetted.passed:",
                "    if fit := chosen.ids & vetted.asked:",
            ),
        ),
        _WRITTEN,
    ),
    Mutant(
        "P28",
        "the wait for the canary",
        (
            Edit(
                "core/servers/rollout.py",
                "state.proven_template == template:\n        return spec.batch_size\n",
                "state.last_batch >= 0:\n        return spec.batch_size\n",
            ),
        ),
        ("tests/unit/core/servers/test_core_rollout.py",),
    ),
    Mutant(
        "P29",
        "the cover of an approval",
        (
            Edit(
                "core/decision/decide.py",
                "server_ids=own.spec.server_ids & standing.covered",
                "server_ids=own.spec.server_ids",
            ),
        ),
        ("tests/unit/core/planning/test_core_approval.py",),
    ),
)

FINER: Final = (
    Mutant(
        "joined-early",
        "the end of a word for whoever joined before all memberships were read",
        (
            Edit(
                "core/decision/decide.py",
                "        if listing is None:\n            return approval.Standing(before)\n",
                "        if listing is None or seen.rivals is None:\n            return approval.Standing(before)\n",
            ),
        ),
        ("tests/unit/core/planning/test_core_approval.py",),
    ),
    Mutant(
        "released",
        "a release while the removal is under way",
        (Edit("core/servers/removals.py", "    if batch.released:\n        return state\n", ""),),
        (
            "tests/unit/core/servers/test_core_removals.py::test_who_was_released_while_its_removal_was_under_way_is_not_removed_again",
        ),
    ),
    Mutant(
        "suspension",
        "the difference between an edit and a suspension",
        (
            Edit(
                "core/state/edits.py",
                "        answered = edited and status.observed_spec != spec_digest(membership.spec)\n",
                "        answered = edited\n",
            ),
        ),
        ("tests/unit/core/planning/test_core_brake.py",),
    ),
)
"""Parts of a rule that are easily lost while the rest of it holds."""
