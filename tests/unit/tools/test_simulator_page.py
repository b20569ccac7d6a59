"""docs/simulator.md: its configuration and its bodies are taken, and it lists the control routes that there are."""

import json
import re
from pathlib import Path
from typing import Final

import httpx

from cce_simulator import Simulator
from cce_simulator.config import ACCESS_KEY, SimulatorConfig, server_id
from cce_simulator.faults import FaultRule

PAGE: Final = (Path(__file__).parent.parent.parent.parent / "docs" / "simulator.md").read_text()


def test_the_configuration_is_one() -> None:
    (text,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    config = SimulatorConfig.from_json(json.loads(text))
    (cluster,) = config.clusters
    assert cluster.node_pools[0].all_servers("sim") == [server_id("sim", index) for index in range(3)]
    assert len(config.bad_servers) == len(config.unknown_servers) == 1


def test_the_key_is_the_default_one() -> None:
    key = SimulatorConfig().access_keys[0]
    assert f"`{ACCESS_KEY}`" in PAGE
    assert f"`{key.secret_key}`" in PAGE


async def test_the_routes_are_all_there_are() -> None:
    listed = re.findall(r"^\| `([A-Z]+ /_sim/\w+)` \|", PAGE, re.MULTILINE)
    async with Simulator(SimulatorConfig()) as simulator, httpx.AsyncClient(trust_env=False) as client:
        answer = (await client.get(f"{simulator.url}/_sim/none")).json()
    assert sorted(listed) == sorted(answer["error"].partition("there are: ")[2].split(", "))


def test_the_rule_is_one() -> None:
    rules = re.findall(r"""-d '(\{.*\})'""", PAGE)
    assert [FaultRule.from_json(json.loads(rule)).times for rule in rules] == [2]
