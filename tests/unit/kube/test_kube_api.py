"""What a request makes of an answer that is none of Kubernetes. A real API server is asked in `tests/cluster`."""

import asyncio
import json
from pathlib import Path

import pytest

from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import UnansweredError
from nodepool_membership.kube.memberships import Memberships


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"", b"[]", b"null"])
async def test_what_is_no_object_is_no_answer(body: bytes, tmp_path: Path) -> None:
    """A proxy's page with a 200: neither the first list of all memberships nor a look may end by it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as proxy:
        host, port = proxy.sockets[0].getsockname()
        async with KubeApi.connect(environ={"KUBECONFIG": str(kubeconfig(tmp_path, f"http://{host}:{port}"))}) as api:
            memberships = Memberships(api)
            with pytest.raises(UnansweredError, match="200 without a JSON object"):
                await anext(aiter(memberships.all([])))
            with pytest.raises(UnansweredError):
                await memberships.read("ns", "pool")
            with pytest.raises(UnansweredError):
                await memberships.namespace_state("ns")


def kubeconfig(folder: Path, server: str) -> Path:
    made = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    user = {"name": "c", "user": {"token": "a-token"}}
    made.write_text(json.dumps({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}))
    return made
