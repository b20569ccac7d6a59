"""Ties the life of a child process to that of the thread that starts it, also when that one is killed hard.

The kernel sends the signal (Linux, prctl(2) PR_SET_PDEATHSIG): it is asked for by the child itself, between fork and
exec, in a small interpreter that then becomes the program. Not a supervisor: it restarts and reports nothing.
Run as a script; uses the standard library only.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` (an absolute path and arguments) until the calling thread ends."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Become the program named by the second argument; the first is the process id of the parent."""
    parent, command = int(arguments[0]), list(arguments[1:])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the parent ended before its child began")
    os.execv(command[0], command)  # noqa: S606 - the whole point; no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
