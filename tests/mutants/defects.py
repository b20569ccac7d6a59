"""The defects (a) to (x) that strangers found in an earlier core, put back one by one, and the test that must notice.

Not for: the rules themselves (`rules`). Where no small edit of today's code brings a defect back, only its test stands.
"""

from typing import Final

from mutants.run import Edit, Mutant

_UNIT: Final = "tests/unit/"

DEFECTS: Final = (
    Mutant(
        "a",
        "asking the job of a batch again after a 404",
        (
            Edit(
                "core/servers/batches.py",
                "    return tuple(b.job_id for b in state.open_batches if b.job_id)\n",
                "    return tuple(b.job_id for b in state.open_batches if b.job_id and b.settling_since is None)\n",
            ),
        ),
        (_UNIT + "core/servers/test_core_jobs.py::test_one_404_for_a_job_is_not_believed_when_it_runs_again",),
    ),
    Mutant(
        "b",
        "the hold of a failed server whose node vanished",
        (Edit("core/planning/eligibility.py", " - named - state.holds.keys()", " - named"),),
        (
            _UNIT + "core/planning/test_core_eligibility.py::"
            "test_a_server_whose_node_vanished_waits_for_the_settle_window_whatever_is_told_of_it",
        ),
    ),
    Mutant(
        "c",
        "the hold of a vanished member under Rejoin",
        (
            Edit(
                "core/servers/members.py",
                "    state = replace(state, members=state.members - back).without_causes(back)\n",
                "    state = replace(state, members=state.members - back).without_causes(back).without_holds(back)\n",
            ),
        ),
        (
            _UNIT + "core/observed/test_core_drift.py::"
            "test_under_rejoin_a_member_is_added_again_a_settle_window_after_the_first_look_without_its_node",
        ),
    ),
    Mutant(
        "d",
        "counting a node once that two pages show",
        (
            Edit(
                "core/observed/observation.py",
                "        if before == (node.server_id, code):\n            return False\n",
                "        if before == (node.server_id, code):\n            return True\n",
            ),
        ),
        (
            _UNIT + "core/observed/test_core_nodes.py::"
            "test_a_node_on_two_pages_is_counted_once_so_that_the_one_left_out_shows",
        ),
    ),
    Mutant(
        "e",
        "the halt in a field of its own",
        (
            Edit(
                "core/state/state.py",
                "            halt=status.halt,\n",
                "            halt=status.halt if status.conditions else None,\n",
            ),
        ),
        (
            _UNIT + "core/decision/test_core_late_records.py::"
            "test_conditions_that_somebody_cleared_change_nothing_but_what_is_read",
        ),
    ),
    Mutant(
        "f",
        "the halt beside a status that cannot be understood",
        (),
        ("tests/cluster/test_kube_writes.py::test_an_unreadable_status_keeps_all_but_its_conditions",),
    ),
    Mutant(
        "g",
        "adding up the failures of small batches",
        (Edit("core/servers/batches.py", "        failed += fresh\n", "        failed = fresh\n"),),
        (_UNIT + "core/decision/test_core_handed_over.py::test_servers_that_fail_one_by_one_pull_the_brake",),
    ),
    Mutant(
        "h",
        "the removal policy that was observed before an edit",
        (
            Edit(
                "core/state/edits.py",
                "RemovalPolicy.RETAIN in {membership.spec.removal_policy, state.removal_policy}\n",
                "membership.spec.removal_policy is RemovalPolicy.RETAIN\n",
            ),
        ),
        (
            _UNIT + "core/planning/test_core_removing.py::"
            "test_who_left_under_retain_is_not_owed_when_remove_is_seen_together_with_it",
        ),
    ),
    Mutant(
        "i",
        "reading what changed before a removal goes out",
        (
            Edit(
                "core/program/calling.py",
                "    if intent.operation is Operation.REMOVE and (yield",
                "    if intent.operation is Operation.ADD and (yield",
            ),
        ),
        (
            _UNIT + "runtime/reconcile/test_runtime_owners.py::"
            "test_nothing_is_removed_that_a_list_names_which_changed_while_its_key_is_worked",
        ),
    ),
    Mutant(
        "j",
        "telling that a count disagrees while a batch is open",
        (
            Edit(
                "core/decision/decide.py",
                "            watch_blocker=gates.implausible() if uncertain else None,\n",
                "            watch_blocker=gates.implausible() if uncertain and not late else None,\n",
            ),
        ),
        (
            _UNIT + "core/decision/test_core_handed_over.py::"
            "test_a_count_that_disagrees_is_told_while_an_open_batch_waits_for_it",
        ),
    ),
    Mutant(
        "k",
        "reading the nodes beside a job that cannot be read",
        (
            Edit(
                "core/servers/batches.py",
                "(report.phase is JobPhase.UNREADABLE or not _acts(report))",
                "not _acts(report)",
            ),
        ),
        (
            _UNIT + "core/servers/test_core_jobs.py::"
            "test_a_job_that_cannot_be_read_keeps_its_active_servers_from_nobody_and_frees_none",
            _UNIT + "runtime/cloud/test_runtime_clouds.py::"
            "test_a_job_that_cannot_be_read_is_on_its_way_and_stops_nothing_else",
        ),
    ),
    Mutant(
        "l",
        "waits that grow for servers in use",
        (
            Edit(
                "core/state/retry.py",
                "    return _growing(settings.poll_interval.total_seconds(), asked, seed, MAX_IN_USE_WAIT)\n",
                "    return _growing(settings.poll_interval.total_seconds(), min(asked, 1), seed, MAX_IN_USE_WAIT)\n",
            ),
        ),
        (
            _UNIT + "core/planning/test_core_narrowing.py::"
            "test_a_server_in_use_is_tried_again_for_ever_with_growing_waits_and_no_attempt",
        ),
    ),
    Mutant(
        "m",
        "the turn of one whose look takes long",
        (),
        (_UNIT + "cce/test_cce_budget.py::test_never_more_than_n_in_any_minute_and_nobody_is_overtaken_twice",),
    ),
    Mutant(
        "n",
        "the progress after which a deletion is let go",
        (
            Edit(
                "core/conditions/finalizer.py",
                "    last = max(moment for moment in moments if moment is not None)\n",
                "    last = deleted\n",
            ),
        ),
        (
            _UNIT
            + "core/decision/test_core_handed_over.py::test_a_deletion_is_not_let_go_while_its_removals_make_progress",
        ),
    ),
    Mutant(
        "o",
        "the room that adds leave for removals",
        (
            Edit(
                "core/planning/gates.py",
                " + findings.BYTES if wanted.operation is Operation.ADD else 0\n",
                " + findings.BYTES if wanted.operation else 0\n",
            ),
        ),
        (
            _UNIT + "core/decision/test_core_handed_over.py::"
            "test_adds_leave_room_for_the_removal_that_would_make_the_object_smaller",
        ),
    ),
    Mutant(
        "p",
        "the place that an overdue job gives up",
        (Edit("core/servers/batches.py", " and not is_overdue(b, spec, now))\n", ")\n"),),
        (_UNIT + "core/servers/test_core_jobs.py::test_an_overdue_job_keeps_no_other_server_from_being_added",),
    ),
    Mutant(
        "q",
        "the pool of a node that shows after a refusal",
        (
            Edit(
                "core/planning/eligibility.py",
                '    return any(node.pool_id in {pool_id, ""} for',
                "    return any(bool(pool_id or node) for",
            ),
        ),
        (_UNIT + "core/planning/test_core_narrowing.py::test_a_node_in_another_pool_says_nothing_of_a_refused_call",),
    ),
    Mutant(
        "r",
        "the members that are gone while it is suspended",
        (
            Edit(
                "core/conditions/verdict.py",
                "    if done and not (facts.followed or facts.reads_fail or facts.vanished):\n",
                "    if done and not (facts.followed or facts.reads_fail):\n",
            ),
        ),
        (_UNIT + "core/conditions/test_core_conditions.py::test_suspended_with_members_gone_is_not_ready",),
    ),
    Mutant(
        "s",
        "the members in the preview that resuming would add again",
        (
            Edit(
                "core/planning/approval.py",
                "    add = frozenset() if membership.metadata.deleting else frozenset(fresh | back)\n",
                "    add = frozenset() if membership.metadata.deleting else frozenset(fresh - back)\n",
            ),
        ),
        (
            _UNIT + "core/decision/test_core_handed_over.py::"
            "test_the_preview_counts_vanished_members_that_resuming_would_add_again",
        ),
    ),
    Mutant(
        "t",
        "the wait as something that one failed read leaves told",
        (
            Edit(
                "core/conditions/verdict.py",
                "status.waits, status.recovery, status.failures, status.plan",
                "status.recovery, status.failures, status.plan",
            ),
        ),
        (_UNIT + "core/conditions/test_core_conditions.py::test_one_failed_read_during_a_wait_leaves_its_cause_told",),
    ),
    Mutant(
        "u",
        "the cause of a removal's wait where nobody looked for it",
        (
            Edit(
                "core/planning/removing.py",
                "    if left and wait is not None:",
                "    if not left and wait is not None:",
            ),
            Edit(
                "core/conditions/verdict.py",
                "        if blocker is None and wait is not None and wait.until == facts.next_call(kind):",
                "        if blocker is None and wait is not None and kind is Operation.ADD:",
            ),
        ),
        (_UNIT + "core/decision/test_core_handed_over.py::test_what_a_removal_waits_for_is_told_as_long_as_it_waits",),
    ),
    Mutant(
        "v",
        "the words for a vanished node with attempts used up",
        (
            Edit(
                "core/servers/members.py",
                "    text = _GONE if retry_at is not None else _GONE_FOR_GOOD\n",
                "    text = _GONE\n",
            ),
        ),
        (
            _UNIT
            + "core/decision/test_core_handed_over.py::test_a_vanished_node_promises_no_retry_with_attempts_used_up",
        ),
    ),
    Mutant(
        "w",
        "suspension before what the cloud says",
        (
            Edit(
                "core/conditions/verdict.py",
                "    _suspended,\n    # Then why nothing is known,\n    _reads_failed,\n",
                "    _reads_failed,\n    _suspended,\n",
            ),
        ),
        (
            _UNIT
            + "core/conditions/test_core_conditions.py::test_a_suspended_object_with_the_cloud_away_is_not_reconciling",
        ),
    ),
    Mutant(
        "x",
        "the reason of a server that somebody else installs",
        (
            Edit(
                "core/servers/members.py",
                "        return _in_time(node, known, spec, seen)\n",
                "        return known\n",
            ),
        ),
        (
            _UNIT
            + "core/conditions/test_core_conditions.py::test_a_server_that_somebody_else_is_installing_is_waited_for",
        ),
    ),
)
