"""Runs the operator with a fault: its first look at a membership keeps the event loop for a minute.

Not for: anything but how that is noticed. A script of its own: `blocked_loop.py run OPTIONS`.
"""

import time
from unittest.mock import patch

from nodepool_membership.cli import main
from nodepool_membership.runtime.reconcile.reconcile import Reconciler
from nodepool_membership.runtime.scheduling.queue import Key


async def block(_reconciler: Reconciler, _key: Key) -> None:
    time.sleep(60)  # noqa: ASYNC251 - the fault


if __name__ == "__main__":
    with patch.object(Reconciler, "reconcile", block):
        main()
