"""A service account's token for an exchange, and what its owner has to do when there is none.

Not for: what becomes of the token (`cce.sources`), or the request itself (`kube.service_accounts`).
"""

import re
from typing import Final, Protocol

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.federation import TokenOf
from nodepool_membership.kube.errors import GoneError, KubeError, KubeForbiddenError, RejectedError

_ACCOUNT: Final = re.compile(r'User "system:serviceaccount:([^:"]+:[^:"]+)"')
"""The operator's own, as the API server calls it when it says no."""


class MakesTokens(Protocol):
    """What makes tokens of service accounts."""

    async def token(self, namespace: str, name: str, audience: str) -> str:
        """A new token. Raises KubeError."""


def token_of_account(accounts: MakesTokens, namespace: str, name: str, audience: str) -> TokenOf:
    """Gives a new token at each call, and an IdentityError with the remedy where there is none."""

    async def token() -> str:
        try:
            return await accounts.token(namespace, name, audience)
        except GoneError:
            raise IdentityError(
                f"service account {name!r} does not exist in namespace {namespace!r}: create it, or correct"
                " spec.identityRef.serviceAccountName"
            ) from None
        except KubeForbiddenError as error:
            raise IdentityError(_how_to_grant(namespace, name, str(error))) from None
        except RejectedError as error:
            raise IdentityError(
                f"the API server makes no token of service account {name!r} for the audience {audience!r}: {error};"
                " correct spec.identityRef"
            ) from None
        except KubeError as error:
            raise IdentityError(
                f"the API server makes no token of service account {name!r}: {error}; it is asked again",
                reason=Reason.CLOUD_UNREACHABLE,
            ) from None

    return token


def _how_to_grant(namespace: str, name: str, said: str) -> str:
    """What the owner of a namespace has to apply, ready to be typed."""
    found = _ACCOUNT.search(said)
    operator = found[1] if found is not None else "OPERATOR-NAMESPACE:OPERATOR-SERVICE-ACCOUNT"
    role = f"npmem-token-{name}"
    create = f"kubectl -n {namespace} create"
    return (
        f"the operator may not make tokens of service account {name!r}; let it: {create} role {role}"
        f" --verb=create --resource=serviceaccounts/token --resource-name={name} && {create} rolebinding {role}"
        f" --role={role} --serviceaccount={operator} (or deploy/samples/identity); the API server says: {said}"
    )
