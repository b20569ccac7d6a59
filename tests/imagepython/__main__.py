"""The command line: `python -m imagepython` prints a Python of the image's version that has the tests' locked packages.

Not for running the tests (`make image-python`), nor for finding the packages (`environment`).
"""

import subprocess
import sys

from controlplane.errors import ControlPlaneError
from imagepython.environment import ROOT, python_with


def main() -> int:
    """Print the path of that Python; returns the exit code: 1 where it cannot be had."""
    try:
        print(python_with(ROOT / "requirements/dev.txt"))
    except (ControlPlaneError, ValueError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
