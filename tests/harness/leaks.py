"""What holds whatever happened: the operator lives, was never surprised, and has told nobody a secret.

Not for: any single state.
"""

import base64
import json
from collections.abc import Iterable

from harness.scene import Scene


def check_unharmed(scene: Scene, secrets: Iterable[str]) -> None:
    """The process is healthy, its log has no traceback; no secret is in log, Events or objects, also not in base64."""
    log = scene.operator.output()
    print("\n".join(line[:1000] for line in log.splitlines() if scene.name in line))
    scene.operator.check()
    assert scene.operator.get("/healthz").status_code == 200
    assert "Traceback" not in log
    told = {
        "log": log,
        "events": json.dumps(scene.cluster.events(scene.namespace)),
        "objects": json.dumps(scene.cluster.memberships()),
    }
    for secret in secrets:
        for form in (secret, base64.b64encode(secret.encode()).decode()):
            for place, text in told.items():
                assert form not in text, f"{secret!r} is in the {place}"
