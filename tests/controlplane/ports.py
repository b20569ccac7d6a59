"""Ports for servers that are started, or started again, after their port was chosen.

Not for: a server that can be told port 0 and asked for the one it got.
"""

import errno
import secrets
import socket
from typing import Final

# Below the ports that Linux gives to whoever asks for any (32768 and up): nobody else is handed one between its choice
# and the start of the server, or while the server is down.
_PORTS: Final = range(10_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    free: set[int] = set()
    while len(free) < count:
        # At random: tests that run side by side would all find the same ones free.
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                free.add(port)
    return list(free)
