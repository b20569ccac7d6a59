"""Every alert fires and stays silent; rules and dashboard name only metrics, labels, values and pages that exist."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from monitoring.promtool import promtool
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Condition, Status
from nodepool_membership.runtime.ops.metrics import CLOUD_OUTCOMES, Metrics

ROOT: Final = Path(__file__).parent.parent.parent
COMPONENT: Final = ROOT / "deploy" / "components" / "monitoring"
TESTS: Final = Path(__file__).parent / "rules.test.yaml"
SITE: Final = "https://docs.nodepools.dev/"
DASHBOARD: Final = json.loads((COMPONENT / "dashboard.json").read_text())
FOREIGN_LABELS: Final = {"pod", "namespace", "le"}
"""What Prometheus and its operator put on every series, and what a histogram has."""
QUIET: Final = {Reason.PENDING, Reason.PROGRESSING, Reason.SUCCEEDED, Reason.SUSPENDED, Reason.DELETING}
WITHOUT_PAGE: Final = QUIET | {Reason.PROGRESSING_WITH_RETRY}

_SELECTOR: Final = re.compile(r"(nodepool_membership_\w+)(?:\s*\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def _rules() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((COMPONENT / "prometheus-rule.yaml").read_text())["spec"]
    return spec


def _alerts() -> list[dict[str, Any]]:
    return [rule for group in _rules()["groups"] for rule in group["rules"]]


def _expressions() -> dict[str, str]:
    """Each alert's and each panel's query by where it stands; Grafana's own variables are filled in."""
    found = {f"prometheus-rule.yaml: {rule['alert']}": rule["expr"] for rule in _alerts()}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m")
            found[f"dashboard.json: {panel['title']} {target['refId']}"] = re.sub(r"\$\w+", ".*", text)
    return found


def _series() -> dict[str, dict[str, set[str]]]:
    """The values of each label of each series that the code makes."""
    metrics = Metrics()
    metrics.watch_leadership(lambda: True)
    metrics.watch_queue(lambda: 0.0, lambda: 0.0, lambda: 0.0)
    for reason in (*Reason, *FailureReason):
        conditions = tuple(Condition(kind, "True", reason) for kind in ("Ready", "Reconciling", "Stalled"))
        metrics.show("ns", reason.value, Status(conditions=conditions))
    series: dict[str, dict[str, set[str]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = series.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return series


def test_promtool_sees_each_alert_fire_and_stay_silent(tmp_path: Path) -> None:
    rules = _rules()
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["annotations"] = {"runbook_url": rule["annotations"]["runbook_url"]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules, width=1000))
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    command = [str(promtool()), "test", "rules", TESTS.name]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_alert_has_a_test_of_both_kinds() -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in _alerts()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_promtool_understands_every_query_and_every_text(tmp_path: Path) -> None:
    panels = [{"record": "dashboard", "expr": e} for where, e in _expressions().items() if where.startswith("dash")]
    both = {"groups": [*_rules()["groups"], {"name": "dashboard", "rules": panels}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(both, width=1000))
    # Without lint: several panels under one name are no duplicates here.
    command = [str(promtool()), "check", "rules", "--lint=none", "rules.yaml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def _unknown(expression: str, series: Mapping[str, Mapping[str, set[str]]]) -> Iterator[str]:
    for name, matchers in _SELECTOR.findall(expression):
        if name not in series:
            yield name
            continue
        for label, how, value in _MATCHER.findall(matchers):
            if label not in series[name]:
                yield f"{name}{{{label}}}"
            elif value != ".*":
                wanted = value.split("|") if "~" in how else [value]
                yield from (f"{name}{{{label}={v!r}}}" for v in wanted if v not in series[name][label])


@pytest.mark.parametrize("where", _expressions())
def test_metrics_labels_and_values_that_are_named_exist(where: str) -> None:
    assert list(_unknown(_expressions()[where], _series())) == []


@pytest.mark.parametrize("where", _expressions())
def test_labels_that_are_grouped_by_exist(where: str) -> None:
    expression, series = _expressions()[where], _series()
    known = {label for name, _ in _SELECTOR.findall(expression) for label in series.get(name, ())} | FOREIGN_LABELS
    grouped = [g for part in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for g in part.replace(" ", "").split(",")]
    assert [label for label in grouped if label not in known] == []


def _pages(url: str) -> Iterator[tuple[Path, str]]:
    """The pages and anchors that a link can lead to, for every value that its label can have."""
    assert url.startswith(SITE)
    path, _, anchor = url.removeprefix(SITE).partition("#")
    label = re.search(r"\{\{ \$labels\.(\w+) \}\}", path)
    if label is None:
        values = [""]
    elif label[1] == "reason":
        values = [reason.value for reason in (*Reason, *FailureReason) if reason not in WITHOUT_PAGE]
    else:
        values = ["Unauthenticated", "Forbidden"]
        assert set(values) <= set(CLOUD_OUTCOMES)
    for value in values:
        name = path if label is None else path.replace(label[0], value)
        yield ROOT / "docs" / f"{name.rstrip('/')}.md", anchor


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: str(alert["alert"]))
def test_each_alert_says_what_to_do_and_links_its_page(alert: dict[str, Any]) -> None:
    texts = alert["annotations"]
    assert set(texts) == {"summary", "description", "runbook_url"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    for page, anchor in _pages(texts["runbook_url"]):
        assert page.is_file(), f"{alert['alert']} links {page}"
        headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{alert['alert']} links #{anchor}, which {page.name} has not"


def test_whoever_only_works_or_waits_is_not_hindered() -> None:
    """The reasons under which nothing is wrong are those that the alert leaves out."""
    (expression,) = (rule["expr"] for rule in _alerts() if rule["alert"] == "NodePoolMembershipHindered")
    (left_out,) = re.findall(r'reason!~"([^"]*)"', expression)
    assert set(left_out.split("|")) == {reason.value for reason in QUIET}


def test_a_fail_over_resets_no_alert_about_memberships() -> None:
    """Every gauge of a membership is read over some minutes and without its pod: a new leader starts with none."""
    for rule in _rules()["groups"][-1]["rules"]:
        for name, _ in _SELECTOR.findall(rule["expr"]):
            assert name.removeprefix("nodepool_membership_") in {"ready", "condition", "servers"}
        inside = re.findall(r"max by \(([^)]*)\) \(\s*last_over_time\(", rule["expr"])
        assert len(inside) == len(_SELECTOR.findall(rule["expr"]))
        assert all(set(labels.split(", ")) <= {"namespace", "name", "reason"} for labels in inside)


def test_the_monitor_selects_the_pods_and_keeps_the_memberships_labels() -> None:
    monitor = yaml.safe_load((COMPONENT / "pod-monitor.yaml").read_text())["spec"]
    deployment = yaml.safe_load((ROOT / "deploy" / "base" / "deployment.yaml").read_text())["spec"]
    assert monitor["selector"] == deployment["selector"]
    ports = {port["name"] for c in deployment["template"]["spec"]["containers"] for port in c["ports"]}
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    assert endpoint["honorLabels"] is True
