"""`make demo ARGS=--keep` as a person plays with it: each printed command is typed, and all is gone at the end.

Not for: the join that it shows first, which ends with its own check of status and ledger.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness import Program, wait_for

ROOT: Final = Path(__file__).parent.parent.parent
WOULD_WIPE: Final = 2
"""Exit code of `plan`."""


class Demo(Program):
    """Started as a shell starts what runs in the background: SIGINT is ignored there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tmp"
        self.folder.mkdir()
        command = f"trap '' INT; exec {sys.executable} -m demo --keep --servers 3"
        super().__init__(["/bin/bash", "-c", command], folder / "demo.log", {**os.environ, "TMPDIR": str(self.folder)})

    def wait_told(self, what: str) -> str:
        """What was printed, once this is in it."""

        def told() -> str | None:
            self.check()
            return output if what in (output := self.output()) else None

        return wait_for(f"the demo prints {what!r}", told, seconds=120)

    def ended(self, number: signal.Signals) -> int:
        """Its exit code after this signal."""
        self.signal(number)
        return wait_for("the demo ends", lambda: self.exit_code)


class Terminal:
    """The other terminal."""

    def __init__(self, printed: str) -> None:
        self._exports = "\n".join(re.findall(r"^  (export .*)$", printed, re.MULTILINE))

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        script = f"{self._exports}\n{command}"
        return subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)

    def wait_reason(self, name: str, reason: str) -> None:
        ask = f"kubectl -n cce-system get npmem {name} -o jsonpath='{{.status.conditions[0].reason}}'"
        wait_for(f"{name}: {reason}", lambda: True if self.type(ask).stdout == reason else None, every=0.5)


def things(printed: str) -> Mapping[str, tuple[list[str], str, list[str]]]:
    """By title: commands that break, the reason that shows, commands that mend."""
    found = {}
    for title, text in re.findall(r"^Break it, \d of \d: (.*)\n((?:  .*\n)+)", printed, re.MULTILINE):
        breaking, reason, mending = re.split(r"  REASON becomes (.*)\n", text)
        found[title] = (breaking.split("\n"), reason, mending.split("\n"))
    return found


def test_everything_that_is_printed_can_be_typed_and_does_what_it_says(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        printed = demo.wait_told("To end everything")
        shell = Terminal(printed)
        first = re.findall(r"^  (kubectl (?!get).*)$", printed.partition("Break it")[0], re.MULTILINE)
        assert [shell.type(step).returncode for step in first] == [0] * 3
        shell.wait_reason("more", "Succeeded")
        for breaking, told, mending in things(printed).values():
            (name,) = re.findall(r"get npmem (\S+)", "\n".join(breaking))
            for command in breaking:
                typed = shell.type(command)
                assert typed.returncode == 0, (command, typed.stderr)
            reason, page = re.fullmatch(r"(\w+): (\S+\.md)(?:; to mend it:)?", told).groups()  # type: ignore[union-attr]
            assert (ROOT / page).exists()
            shell.wait_reason(name, reason)
            codes = {command: shell.type(command) for command in mending if command}
            expected = {command: WOULD_WIPE if " plan " in command else 0 for command in codes}
            assert {command: typed.returncode for command, typed in codes.items()} == expected
            if reason not in {"Succeeded", "MemberMissing"}:
                shell.wait_reason(name, "Succeeded")
        assert len(things(printed)) == 5
        assert "the operator ended with -9: started again" in demo.output()
        shell.wait_reason("gpu-workers", "NodeVanished")
        assert demo.ended(signal.SIGINT) == 0
        assert list(demo.folder.iterdir()) == []


def test_it_cleans_up_when_it_is_ended_at_its_beginning(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        demo.wait_told("installing")
        assert demo.ended(signal.SIGTERM) == 128 + signal.SIGINT
        assert list(demo.folder.iterdir()) == []
