"""Runs the operator as in a pod, with its service account's token and CA in a directory of the caller's choice.

Not for: production; there the directory is fixed, and the token is read again every minute instead of every second.
A script of its own: `in_cluster.py DIRECTORY run OPTIONS`.
"""

import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest.mock import patch

from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from nodepool_membership.cli import main
from nodepool_membership.kube import api

_original = api._in_cluster


def load(token: str, ca: str, refresh: bool, environ: Mapping[str, str]) -> InClusterConfigLoader:
    loader = _original(token, ca, refresh, environ)
    assert isinstance(loader, InClusterConfigLoader)
    loader._token_refresh_period = timedelta(seconds=1)
    return loader


if __name__ == "__main__":
    directory = Path(sys.argv.pop(1))
    connect = partial(api.KubeApi.connect, service_account=directory)
    with patch.object(api, "_in_cluster", load), patch.object(api.KubeApi, "connect", connect):
        main()
