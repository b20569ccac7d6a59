"""The table of known codes and texts: what each is about, its reason, its remedy.

Not for: which answers are refusals (`test_cce_errors`), or what follows from one (`test_core_records`).
"""

import re

import pytest

from nodepool_membership.api.reasons import EXPLAINED, HOLDS_NODE, FailureReason, Reason
from nodepool_membership.core.observed.catalogue import CODES, About, explain, job_failure, refusal
from unit.core_builders import servers

(A,) = servers(1)

PUBLISHED = """
CCE.01400001 CCE.02400001 CCE.03400001 CCE.01400002 CCE.01400007 CCE.01400008 CCE.01400009 CCE.01400010 CCE.01400011
CCE.01400012 CCE.01400013 CCE.01400014 CCE.01400016 CCE.01400018 CCE.01400019 CCE.01400020 CCE.01400021 CCE.01400022
CCE.01400023 CCE.01400024 CCE.01400025 CCE.01400034 CCE.01400074 CCE.01400075 CCE.01401001 CCE.01403001 CCE.01403002
CCE.01403003 CCE.01403006 CCE.01403008 CCE.01403009 CCE.01404001 CCE.01409001 CCE.01409002 CCE.01429002 CCE.01429003
CCE.01429004 CCE.02429001 CCE.01500001 CCE.02500001 CCE.03500001 CCE_CM.0002 CCE_CM.0003 CCE_CM.0004 CCE_CM.0021
CCE_CM.0101 CCE_CM.0201 CCE_CM.0402 CCE_CM.0410 E.CFE.4000201 APIGW.0101 APIGW.0103 APIGW.0201 APIGW.0301 APIGW.0302
APIGW.0303 APIGW.0304 APIGW.0305 APIGW.0306 APIGW.0307 APIGW.0308 APIGW.0310 APIGW.0601 APIGW.0610 APIGW.0613
APIGW.0801 APIGW.0802
"""
"""Section 9.2."""


def test_every_code_that_the_cloud_publishes_is_in_the_table() -> None:
    assert sorted(CODES) == sorted(PUBLISHED.split())


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (429, "APIGW.0308", Reason.THROTTLED),
        (429, "CCE.02429001", Reason.THROTTLED),
        (429, "CCE.01429099", Reason.THROTTLED),
        (429, "CCE.01429002", Reason.LOCKED),
        (429, "CCE.01429003", Reason.LOCKED),
        (400, "CCE.01400023", Reason.LOCKED),
        (403, "CCE.01403003", Reason.POOL_NOT_READY),
        (403, "CCE.01403006", Reason.POOL_NOT_READY),
        (403, "CCE.01403009", Reason.CLUSTER_NOT_READY),
        (400, "CCE.01400024", Reason.CLUSTER_NOT_READY),
        (500, "CCE.01500001", Reason.CLOUD_UNREACHABLE),
        (502, "APIGW.0610", Reason.CLOUD_UNREACHABLE),
    ],
)
def test_what_is_about_the_moment_is_waited_for(status: int, code: str, reason: Reason) -> None:
    entry = refusal(status, code)
    assert (entry.about, entry.condition) == (About.TRANSIENT, reason)
    assert re.search("the operator (waits|looks again)", entry.remedy)


@pytest.mark.parametrize(
    "text",
    [
        f"the server is already in a cluster: {A}",
        f"Server {A} has already been added to cluster x",
        f"the server is being added: {A}",
        f"{A} is managed by another cluster",
        f"server {A} has the tag CCE-Dynamic-Provisioning-Node",
    ],
)
@pytest.mark.parametrize("code", ["CCE.01400001", "CCE_CM.0004", "CCE.01400099"])
def test_a_server_that_is_in_use_is_known_by_the_text(code: str, text: str) -> None:
    entry = refusal(400, code, text)
    assert (entry.about, entry.condition, entry.failure) == (
        About.SERVER,
        Reason.SERVER_IN_USE,
        FailureReason.SERVER_IN_USE,
    )


@pytest.mark.parametrize(
    "text", ["the data disk has already been partitioned", "flavor not supported by the cluster", "invalid", ""]
)
def test_other_texts_of_an_invalid_request_are_blamed(text: str) -> None:
    assert refusal(400, "CCE.01400001", text).failure is FailureReason.REFUSED


def test_a_text_does_not_change_what_a_telling_code_is_about() -> None:
    assert refusal(400, "CCE.01400008", "the server is being added").about is About.QUOTA


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("cluster is ScalingUp", About.TRANSIENT),
        ("The cluster status is Upgrading, the operation is not permitted", About.TRANSIENT),
        ("cluster is not available", About.TRANSIENT),
        ("nodepool is Deleting", About.TRANSIENT),
        ("Policy doesn't allow cce:node:add to be performed.", About.ACCOUNT),
        ("the credentials are not for project x", About.ACCOUNT),
    ],
)
def test_a_state_conflict_that_comes_as_a_plain_403_is_of_the_moment(text: str, about: About) -> None:
    assert refusal(403, "CCE.01403001", text).about is about


@pytest.mark.parametrize(
    ("text", "about", "reason", "remedy"),
    [
        ("Ecs.0314: key not found", About.POOL, FailureReason.TEMPLATE_INVALID, "key pair"),
        ("The keypair does not exist", About.POOL, FailureReason.TEMPLATE_INVALID, "key pair"),
        ("Ecs.0912: securityGroup sg-1 not found", About.POOL, FailureReason.TEMPLATE_INVALID, "security group"),
        ("volume is encrypted, KMS key is disabled", About.POOL, FailureReason.TEMPLATE_INVALID, "KMS key"),
        ("pull image failed: i/o timeout", About.POOL, FailureReason.DOWNLOAD_FAILED, "DNS"),
        ("curl: Could not resolve host: obs.cn-north-4", About.POOL, FailureReason.DOWNLOAD_FAILED, "DNS"),
        ("download package failed", About.POOL, FailureReason.DOWNLOAD_FAILED, "DNS"),
        ("Ecs.0031: Insufficient quota of cores", About.QUOTA, FailureReason.RESOURCES_SHORT, "quota"),
        ("security group rule quota exceeded", About.QUOTA, FailureReason.RESOURCES_SHORT, "quota"),
        ("the flavor is sold out", About.QUOTA, FailureReason.RESOURCES_SHORT, "sold out"),
        ("no available data disk", About.SERVER, FailureReason.DISK_PARTITIONED, "unpartitioned"),
        ("exit status 1", About.SERVER, FailureReason.INSTALL_FAILED, "CCE console"),
    ],
)
def test_known_texts_of_jobs_have_a_reason_and_a_remedy(
    text: str, about: About, reason: FailureReason, remedy: str
) -> None:
    entry = job_failure(text)
    assert (entry.about, entry.failure) == (about, reason)
    assert remedy in entry.remedy
    assert explain(text) == (reason, f"{text}; {entry.remedy}")


def test_a_server_whose_failure_a_job_explains_has_a_node() -> None:
    """Else it would be sent again as soon as a listing misses the node (rules P1, P8)."""
    assert EXPLAINED < HOLDS_NODE


@pytest.mark.parametrize(
    ("status", "code", "about", "reason"),
    [
        (400, "CCE.01400001", About.SERVER, FailureReason.REFUSED),
        (400, "CCE.01400007", About.QUOTA, FailureReason.QUOTA_EXCEEDED),
        (400, "CCE.01400014", About.QUOTA, FailureReason.QUOTA_EXCEEDED),
        (400, "CCE.01400018", About.POOL, FailureReason.POOL_NOT_READY),
        (403, "CCE.01403001", About.ACCOUNT, FailureReason.FORBIDDEN),
        (429, "CCE.01429004", About.ACCOUNT, FailureReason.INSUFFICIENT_BALANCE),
        (404, "CCE.01404001", About.POOL, FailureReason.NOT_FOUND),
        (401, "APIGW.0301", About.ACCOUNT, FailureReason.UNAUTHENTICATED),
        (403, "APIGW.0302", About.ACCOUNT, FailureReason.FORBIDDEN),
        (404, "APIGW.0101", About.POOL, FailureReason.NOT_FOUND),
        (400, "CCE.09999999", About.SERVER, FailureReason.REFUSED),
        (400, "", About.SERVER, FailureReason.REFUSED),
    ],
)
def test_a_refusal_is_looked_up_by_code_then_by_status(
    status: int, code: str, about: About, reason: FailureReason
) -> None:
    entry = refusal(status, code)
    assert (entry.about, entry.reason) == (about, reason)


@pytest.mark.parametrize("code", [f"CCE.014000{n}" for n in ("02", "08", "16", "18", "21", "22", "25")])
def test_what_may_be_about_one_server_or_about_all_is_asked(code: str) -> None:
    """Case 5 of the field: one odd flavor kept 199 out."""
    assert refusal(400, code).may_be_one


@pytest.mark.parametrize(("status", "code"), [(404, "CCE.01404001"), (404, "CCE_CM.0003"), (403, "CCE.01403099")])
def test_a_code_that_does_not_say_what_is_missing_or_forbidden_is_asked(status: int, code: str) -> None:
    assert refusal(status, code).may_be_one


@pytest.mark.parametrize("code", ["CCE.01403001", "CCE.01429004", "CCE.01400007", "CCE.01400014", "APIGW.0301"])
def test_what_is_certainly_about_all_is_not_asked(code: str) -> None:
    assert not refusal(400, code).may_be_one


@pytest.mark.parametrize(
    ("status", "code", "text", "reason", "blames"),
    [
        (400, "CCE_CM.0004", "Need authorize CCE to operate user resources", FailureReason.FORBIDDEN, False),
        (400, "CCE.01400001", "You need to authorise CCE first", FailureReason.FORBIDDEN, False),
        (403, "CCE.01403001", "agency cce_admin_trust does not exist", FailureReason.FORBIDDEN, False),
        (400, "CCE.01400099", "请先授权CCE操作用户资源", FailureReason.FORBIDDEN, False),
        (400, "CCE_CM.0004", "The account is in arrears", FailureReason.INSUFFICIENT_BALANCE, True),
        (403, "CCE.01403001", "账户余额不足", FailureReason.INSUFFICIENT_BALANCE, True),
        (400, "CCE.01400001", "your account has been frozen", FailureReason.FORBIDDEN, True),
        (400, "CCE.01400001", "real-name authentication required", FailureReason.FORBIDDEN, True),
        (400, "CCE.01400001", "security group quota exceeded", FailureReason.QUOTA_EXCEEDED, True),
        (400, "CCE_CM.0004", "配额不足", FailureReason.QUOTA_EXCEEDED, True),
    ],
)
def test_an_invalid_request_may_be_about_the_account(
    status: int, code: str, text: str, reason: FailureReason, *, blames: bool
) -> None:
    """Case 15 of the field: nine calls, and both servers blamed."""
    entry = refusal(status, code, text)
    assert (entry.about is About.SERVER, entry.reason, entry.blames) == (False, reason, blames)
    assert entry.may_be_one == (reason is FailureReason.QUOTA_EXCEEDED)


@pytest.mark.parametrize("text", ["the server is not authorized for login", "the agent of the server is missing"])
def test_other_words_about_rights_say_nothing_of_the_account(text: str) -> None:
    assert refusal(400, "CCE.01400001", text).about is About.SERVER


def test_a_known_code_outranks_the_http_status() -> None:
    assert refusal(404, "CCE.01400007").about is About.QUOTA


def test_only_refusals_about_servers_are_blamed_on_servers() -> None:
    blamed = {code for code, entry in CODES.items() if entry.about is About.SERVER}
    invalid = {"CCE.01400001", "CCE.02400001", "CCE.03400001", "E.CFE.4000201"}
    assert blamed == invalid | {f"CCE_CM.{n}" for n in ("0004", "0101", "0201", "0402")}
    assert all(len(entry.remedy) > 20 for entry in CODES.values())


@pytest.mark.parametrize(
    "text", ["Disk is PARTITIONed", "selector can not match any evs volume: x", "node: no available data disk"]
)
def test_known_job_texts_get_a_name_and_a_remedy(text: str) -> None:
    reason, message = explain(text)
    assert reason is FailureReason.DISK_PARTITIONED
    assert message.startswith(f"{text}; detach or wipe")


def test_other_job_texts_are_kept_plain_and_short() -> None:
    reason, message = explain(f"install of {A} failed\n" + "x" * 5_000)
    assert reason is FailureReason.INSTALL_FAILED
    assert message.startswith("install of <id> failed xxx")
    assert message.endswith("; look at the node in the CCE console, remove it there")
    assert len(message) < 1024
