"""docs/migration.md, acted out: servers that Terraform added become members without a call."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID, ClusterConfig, NodePoolConfig, SimulatorConfig
from harness import Scene
from harness.cluster import condition, status
from harness.scene import server_ids

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "migration.md"
SERVERS: Final = server_ids(20)


def _terraform_state(servers: list[str]) -> dict[str, object]:
    """What `terraform show -json` prints: resources at the root and in a module, and one that is no concern of ours."""

    def added(ids: list[str]) -> dict[str, object]:
        values = {"cluster_id": CLUSTER_ID, "nodepool_id": NODE_POOL_ID, "node_list": [{"server_id": i} for i in ids]}
        return {"type": "huaweicloud_cce_node_pool_nodes_add", "name": "workers", "mode": "managed", "values": values}

    attached = {"type": "huaweicloud_cce_node_attach", "name": "old", "mode": "managed"}
    attached["values"] = {"cluster_id": CLUSTER_ID, "server_id": servers[-1]}  # type: ignore[assignment]
    vpc = {"type": "huaweicloud_vpc", "name": "vpc", "mode": "managed", "values": {"cidr": "10.0.0.0/8"}}
    root = {
        "resources": [added(servers[:10]), vpc],
        "child_modules": [{"resources": [added(servers[10:-1]), attached]}],
    }
    return {"format_version": "1.0", "values": {"root_module": root}}


def test_servers_that_terraform_added_are_adopted_without_a_call(stage: Callable[..., Scene], tmp_path: Path) -> None:
    # Terraform's part: it has made its calls, and has a state that names the servers.
    pool = NodePoolConfig(id=NODE_POOL_ID, servers=tuple(SERVERS))
    cloud = SimulatorConfig(clusters=(ClusterConfig(id=CLUSTER_ID, node_pools=(pool,)),), writes_per_minute=0)
    scene = stage(cloud)
    (tmp_path / "state.json").write_text(json.dumps(_terraform_state(SERVERS)))

    # Step 2, as the page has it.
    (script,) = re.findall(r"^    ```python\n(.*?)^    ```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(line.removeprefix("    ") for line in script.splitlines())
    printed = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=True)
    listed = [line.strip().removeprefix("- ") for line in printed.stdout.splitlines()]
    assert listed == SERVERS

    # Steps 3 and 4.
    scene.create(listed, suspend=True)
    told = "would add 0, adopt 20"
    scene.until("the preview", lambda m: told in str(condition(m).get("message")))
    assert told in PAGE.read_text()

    # Step 6; of step 5 nothing reaches the cloud.
    scene.edit(suspend=False)
    ready = scene.until_ready()
    assert status(ready)["joined"] == len(SERVERS)
    assert scene.adds() == []
