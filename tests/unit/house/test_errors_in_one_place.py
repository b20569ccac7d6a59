"""Each room's errors stand in one module: the outcomes that metrics name must not depend on what else is loaded.

Not for: what an error means (`test_cce_errors`, `test_kube_errors`).
"""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import nodepool_membership
from nodepool_membership.cce.errors import CloudError
from nodepool_membership.kube.errors import KubeError
from nodepool_membership.runtime.ops.metrics import CLOUD_OUTCOMES, KUBE_OUTCOMES


def below(base: type[CloudError | KubeError]) -> Iterator[type[CloudError | KubeError]]:
    for error in base.__subclasses__():
        yield error
        yield from below(error)


@pytest.mark.parametrize(("base", "outcomes"), [(CloudError, CLOUD_OUTCOMES), (KubeError, KUBE_OUTCOMES)])
def test_every_error_stands_beside_its_base_and_is_an_outcome(
    base: type[CloudError | KubeError], outcomes: tuple[str, ...]
) -> None:
    for module in pkgutil.walk_packages(nodepool_membership.__path__, "nodepool_membership."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = [error for error in below(base) if error.__module__.startswith("nodepool_membership.")]
    assert {error.__module__ for error in ours} == {base.__module__}
    assert {error.outcome() for error in ours} <= set(outcomes)
