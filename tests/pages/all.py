"""Which files are generated, and by what."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from controlplane import tried
from gitops.fixtures import files
from pages import api, metrics

ROOT: Final = Path(__file__).parent.parent.parent
FILES: Final[dict[Path, Callable[[], str]]] = {
    ROOT / "docs" / "metrics.md": metrics.page,
    ROOT / "docs" / "api.md": api.page,
    ROOT / "docs" / "kubernetes.md": tried.page,
    ROOT / "crds" / "schema" / api.schema_name(): api.schema,
    **{path: partial(str, text) for path, text in files().items()},
}
