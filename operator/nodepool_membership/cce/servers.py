"""Reads of servers before they are wiped: ECS by id, 50 a call, BMS for what ECS does not know, disks from EVS.

Not for: judging what is read (`core.preflight`). Each question for many ids is as few calls as the API allows.
Documents are parsed and let go (`server_wire`). Raises only `CloudError`s.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import httpx

from nodepool_membership.cce import server_wire as wire
from nodepool_membership.cce.calls import (
    LIST_VALUES,
    ApiAnswer,
    Caller,
    Observe,
    nobody,
    path_of,
    read,
    read_page,
)
from nodepool_membership.cce.credentials import Source
from nodepool_membership.cce.errors import CloudError, UnavailableError
from nodepool_membership.cce.lockout import Lockout
from nodepool_membership.cce.reads import ReadBudget
from nodepool_membership.core.preflight.facts import Disk, Flavor, Server

IDS_PER_CALL: Final = 50
"""ECS advises at most 100: the ids travel in the URL."""
VOLUMES_PER_CALL: Final = 60
"""The most that EVS takes."""
BMS_PAGE: Final = 1000
MAX_BMS_PAGES: Final = 10
FLAVOR_PAGE: Final = 1000
"""What ECS gives without a limit, too; a region has some hundreds."""
MAX_FLAVOR_PAGES: Final = 5
_AT_ONCE: Final = 4
"""Calls under way for one question."""


@dataclass(frozen=True, slots=True)
class ServerEndpoints:
    """Where the services are: scheme, host and port; empty where that is not known."""

    ecs: str
    bms: str = ""
    evs: str = ""
    vpc: str = ""


@dataclass(frozen=True, slots=True)
class ServersRead:
    """What a question for servers brought. An id that is in neither map is not known to the cloud."""

    found: Mapping[str, Server] = field(default_factory=dict)
    unread: Mapping[str, CloudError] = field(default_factory=dict)


class ServersClient:
    """One project and credential. Cheap to make: the connections are shared."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        http: httpx.AsyncClient,
        places: ServerEndpoints,
        project_id: str,
        source: Source,
        *,
        now: Callable[[], datetime],
        timeout_seconds: float,
        lockout: Callable[[str], Lockout] | None = None,
        reads: Callable[[str], ReadBudget] | None = None,
        observe: Observe = nobody,
    ) -> None:
        """`lockout` and `reads` give those of a place."""

        def caller(place: str, *version: str) -> Caller | None:
            if not place:
                return None
            return Caller(
                http,
                place + path_of(*version, project_id),
                project_id,
                source,
                now=now,
                timeout_seconds=timeout_seconds,
                lockout=None if lockout is None else lockout(place),
                reads=None if reads is None else reads(place),
                observe=observe,
            )

        self._ecs = caller(places.ecs, "v1")
        self._bms = caller(places.bms, "v1")
        self._evs = caller(places.evs, "v2")
        self._vpc = caller(places.vpc, "v1")
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def servers(self, ids: Iterable[str]) -> ServersRead:
        """Read servers, whatever kind each is. Never raises for the cloud's sake: what failed is `unread`."""
        wanted = sorted({server_id.lower() for server_id in ids})
        chunks = [wanted[at : at + IDS_PER_CALL] for at in range(0, len(wanted), IDS_PER_CALL)]
        found: dict[str, Server] = {}
        unread: dict[str, CloudError] = {}
        for part in await asyncio.gather(*(self._chunk(chunk) for chunk in chunks)):
            found.update(part.found)
            unread.update(part.unread)
        unknown = [server_id for server_id in wanted if server_id not in found and server_id not in unread]
        if unknown and self._bms is not None:
            try:
                found.update(await self._bare_metal(self._bms, unknown))
            except CloudError as error:
                # ECS does not know them, but they may be bare metal.
                unread.update(dict.fromkeys(unknown, _bare(error)))
        return ServersRead(found, unread)

    async def _chunk(self, ids: Sequence[str]) -> ServersRead:
        """At most 50 ids of ECS, each held against what is answered."""
        found: dict[str, Server] = {}
        unknown: set[str] = set()
        left = list(ids)
        try:
            while left:
                documents = {document.id.lower(): document for document in await self._listed(left)}
                trusted = documents.keys() <= set(ids)
                known = {i: documents[i].server() for i in left if i in documents and documents[i].is_known}
                found.update(known)
                # An entry that has nothing but its id says that there is no such server, in an answer to our question.
                absent = {i for i in left if trusted and i in documents and i not in known}
                unknown |= absent
                before, left = len(left), [i for i in left if i not in known and i not in absent]
                if not trusted or len(left) == before:
                    # The deployment ignores the ids, or leaves some out.
                    break
            for server_id in left:
                one = await self._one(self._ecs, "showServer", server_id, "cloudservers")
                if one is not None:
                    found[server_id] = one.server()
        except CloudError as error:
            bare = _bare(error)
            return ServersRead(found, {i: bare for i in ids if i not in found and i not in unknown})
        return ServersRead(found)

    async def _listed(self, ids: Sequence[str]) -> list[wire.ServerDocument]:
        # Without a limit a list has 25 entries; whether that goes for lists by id, no page says.
        query = {"server_id": ",".join(ids), "limit": str(len(ids))}
        path = path_of("cloudservers", "detail")
        answer = await self._get(self._ecs, "listServers", path, query)
        return read(wire.SERVERS, answer, max_values=LIST_VALUES).documents

    async def _one(
        self, caller: Caller | None, route: str, server_id: str, collection: str
    ) -> wire.ServerDocument | None:
        try:
            answer = await self._get(caller, route, path_of(collection, server_id))
        except CloudError as error:
            if not _says_absent(error):
                raise
            return None
        document = read(wire.SERVER, answer).server
        if document.id.lower() != server_id:
            raise UnavailableError("an answer about another server than the one that was asked for")
        return document if document.is_known else None

    async def _bare_metal(self, caller: Caller, ids: Sequence[str]) -> dict[str, Server]:
        """Those of the ids that BMS knows. It has no filter by id: several are looked for in the whole list."""
        if len(ids) == 1:
            one = await self._one(caller, "showBaremetalServer", ids[0], "baremetalservers")
            return {} if one is None else {ids[0]: one.server(bare_metal=True)}
        wanted, found = set(ids), dict[str, Server]()
        for page in range(1, MAX_BMS_PAGES + 1):
            query = {"limit": str(BMS_PAGE), "offset": str(page)}
            answer = await self._get(caller, "listBaremetalServers", path_of("baremetalservers", "detail"), query)
            documents = (await read_page(wire.SERVERS, answer)).documents
            for document in documents:
                if document.is_known and document.id.lower() in wanted:
                    found[document.id.lower()] = document.server(bare_metal=True)
            if len(documents) < BMS_PAGE or len(found) == len(wanted):
                return found
        raise UnavailableError(f"the list of bare metal servers has more than {MAX_BMS_PAGES} pages")

    async def volumes(self, ids: Iterable[str]) -> Mapping[str, Disk]:
        """Sizes and types of disks; those that EVS does not know are left out. Raises CloudError."""
        wanted = sorted({volume_id.lower() for volume_id in ids})
        disks: dict[str, Disk] = {}
        for at in range(0, len(wanted), VOLUMES_PER_CALL):
            names = ",".join(f"'{volume_id}'" for volume_id in wanted[at : at + VOLUMES_PER_CALL])
            query = {"ids": f"[{names}]", "limit": str(VOLUMES_PER_CALL)}
            answer = await self._get(self._evs, "listVolumes", path_of("cloudvolumes", "detail"), query)
            disks.update(read(wire.VOLUMES, answer, max_values=LIST_VALUES).disks())
        return disks

    async def flavors(self) -> Mapping[str, Flavor]:
        """All flavors of the region. Raises CloudError."""
        found: dict[str, Flavor] = {}
        query = {"limit": str(FLAVOR_PAGE)}
        for _ in range(MAX_FLAVOR_PAGES):
            answer = await self._get(self._ecs, "listFlavors", path_of("cloudservers", "flavors"), query)
            page = (await read_page(wire.FLAVORS, answer)).by_id()
            before = len(found)
            found.update(page)
            # One that is not full is the last; so is one that brings nothing new, from a deployment without paging.
            if len(page) < FLAVOR_PAGE or len(found) == before:
                return found
            query = {"limit": str(FLAVOR_PAGE), "marker": next(reversed(page))}
        raise UnavailableError(f"the list of flavors has more than {MAX_FLAVOR_PAGES} pages")

    async def subnet(self, subnet_id: str) -> Mapping[str, bool]:
        """All ids of a subnet, as the APIs name it by different ones, and whether it has IPv6. Raises CloudError."""
        answer = await self._get(self._vpc, "showSubnet", path_of("subnets", subnet_id))
        return read(wire.SUBNET, answer).subnet.ids

    async def _get(
        self, caller: Caller | None, route: str, path: str, query: dict[str, str] | None = None
    ) -> ApiAnswer:
        if caller is None:
            raise UnavailableError(f"no address is known for {route}: name it in the file of --endpoints")
        async with self._slots:
            return await caller.call(route, "GET", path, query=query)


def _bare(error: CloudError) -> CloudError:
    """The error without the frames and the parser's complaint behind it, which hold the answer: user data and all."""
    error.__context__ = None
    return error.with_traceback(None)


def _says_absent(error: CloudError) -> bool:
    """Whether the service does not know the thing; the gateway's 404 says that it does not know the address."""
    return error.status == _NOT_FOUND and error.code is not None and not error.code.startswith("APIGW.")


_NOT_FOUND: Final = 404
