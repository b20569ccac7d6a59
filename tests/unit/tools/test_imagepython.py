"""The Python of the image that tests run on, too: its version is the Dockerfile's, and a release of Debian has it."""

from pathlib import Path

import pytest

from controlplane.errors import UnavailableError
from imagepython import debian
from imagepython.environment import ROOT, image_version


def test_the_version_of_the_image_can_be_had() -> None:
    assert image_version((ROOT / "Dockerfile").read_text()) in debian.RELEASES


def test_a_dockerfile_that_names_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="ARG PYTHON_IMAGE"):
        image_version("FROM scratch\n")


def test_a_version_that_no_release_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"Python 2\.7: add it to imagepython\.debian\.RELEASES"):
        debian.get("2.7", tmp_path, tmp_path, print)
