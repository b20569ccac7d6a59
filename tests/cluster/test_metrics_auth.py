"""With the component `metrics-auth` only the bearer of a token that may get /metrics reads them. On a real API server.

Not for: how often the API server is asked (`tests/unit/kube/test_kube_reviews.py`).
"""

from pathlib import Path

import httpx

from controlplane import ControlPlane
from harness import SimulatorProcess, wait_for
from harness.kustomize import TEAM, render, write

READER = "nodepool-membership-operator-metrics-reader"


def test_metrics_are_for_those_who_may_read_them(
    own_plane: ControlPlane, cloud: SimulatorProcess, sources: Path, tmp_path: Path
) -> None:
    folder = write(sources / "top", {"resources": ["../deploy"], "components": ["../deploy/components/metrics-auth"]})
    rendered = render(own_plane, folder)
    rendered.apply(own_plane)
    own_plane.kubectl("create", "serviceaccount", "prometheus", f"--namespace={TEAM}")
    token = own_plane.service_account_token(TEAM, "prometheus")
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        operator.wait_ready()
        url = f"http://127.0.0.1:{operator.port}/metrics"

        def told(authorization: str | None) -> int:
            headers = {} if authorization is None else {"Authorization": authorization}
            return httpx.get(url, headers=headers, trust_env=False, timeout=30).status_code

        assert [told(None), told("Basic dTpw"), told("Bearer nonsense"), told(f"Bearer {token}")] == [
            401,
            401,
            401,
            403,
        ]
        assert operator.get("/healthz").status_code == operator.get("/readyz").status_code == 200
        bound = ("create", "clusterrolebinding", "prometheus", f"--clusterrole={READER}")
        own_plane.kubectl(*bound, f"--serviceaccount={TEAM}:prometheus")
        # A refusal is kept for a minute: another token of the same account is another one.
        another = own_plane.service_account_token(TEAM, "prometheus", seconds=7200)
        wait_for("it may", lambda: True if told(f"Bearer {another}") == 200 else None, seconds=90, every=1)
        metrics = httpx.get(url, headers={"Authorization": f"Bearer {another}"}, trust_env=False, timeout=30).text
        assert "nodepool_membership_leader" in metrics
        assert token not in operator.output()
