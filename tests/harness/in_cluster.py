"""Runs the operator as in a pod, with its service account's token and CA in a directory of the caller's choice.

Not for: production; there the directory is fixed. A script of its own: `in_cluster.py DIRECTORY run OPTIONS`.
"""

import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

from nodepool_membership.cli import main
from nodepool_membership.kube.api import KubeApi

if __name__ == "__main__":
    directory = Path(sys.argv.pop(1))
    with patch.object(KubeApi, "connect", partial(KubeApi.connect, service_account=directory)):
        main()
