"""`python -m gitops FOLDER`: keep what the cluster tests recorded in FOLDER as the states that unit tests use."""

import json
import sys
from pathlib import Path

from gitops.fixtures import STATES
from gitops.judges import Object
from gitops.recorder import key


def main(folder: Path) -> None:
    found: dict[str, Object] = {}
    for path in sorted(folder.glob("*.json")):
        for state in json.loads(path.read_text()):
            found.setdefault(key(state), state)
    lines = ",\n".join(json.dumps(found[name], sort_keys=True) for name in sorted(found))
    STATES.write_text(f"[\n{lines}\n]\n")
    print(f"{len(found)} states in {STATES}")


main(Path(sys.argv[1]))
