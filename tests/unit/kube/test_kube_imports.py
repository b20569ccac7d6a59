"""What the process holds of the `kubernetes` package: its asynchronous client, and not the other one."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("before", ["", "import kubernetes"], ids=["first", "after the whole package"])
def test_the_operator_runs_with_and_without_the_synchronous_client(before: str) -> None:
    program = f"""
import sys
{before}
import nodepool_membership.runtime.process.assembly
import nodepool_membership.runtime.process.process
from kubernetes import config
import kubernetes.client
assert callable(config.load_kube_config) and callable(kubernetes.client.CoreV1Api)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_synchronous_client_is_not_imported() -> None:
    program = """
import sys
import nodepool_membership.cli
from nodepool_membership.runtime.process import process
from nodepool_membership.runtime.process.assembly import make_reconciler
assert "kopf" in sys.modules
print(sorted({"requests", "oauthlib", "websocket", "kubernetes.watch"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
