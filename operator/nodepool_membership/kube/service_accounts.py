"""Tokens of service accounts, made by the API server for somebody outside the cluster (TokenRequest).

Not for: what becomes of a token (`cce.sources`). None is kept here, and the operator's own role has no right to any:
the owner of a namespace grants it (deploy/samples/identity).
"""

import json
from typing import Final

from nodepool_membership import redaction
from nodepool_membership.api.membership import Json
from nodepool_membership.kube.api import KubeApi, path
from nodepool_membership.kube.errors import RejectedError

TOKEN_SECONDS: Final = 600
"""The shortest that the API server gives; an exchange takes seconds."""


class ServiceAccounts:
    """Those on one API server."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def token(self, namespace: str, name: str, audience: str) -> str:
        """A new token, good for ten minutes and for this audience only.

        Raises:
            GoneError: there is no such service account.
            KubeForbiddenError: the operator may not make tokens of it.
            RejectedError, UnansweredError: none was made.
        """
        where = path("/api/v1/namespaces", namespace, "serviceaccounts", name, "token")
        spec: Json = {"audiences": [audience], "expirationSeconds": TOKEN_SECONDS}
        body: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._api.request("token", "POST", where, body=body)
        try:
            token = json.loads(answer)["status"]["token"]
        except (ValueError, TypeError, KeyError):
            token = None
        if not isinstance(token, str) or not token:
            raise RejectedError("the API server's answer holds no token")
        redaction.register_token(token)
        return token
