"""The client of ECS, BMS, EVS and VPC over a scripted transport: what is asked, what of an answer is believed.

Not for: behaviour like the cloud's; test_simulator_servers.
"""

import gc
import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic

import httpx
import pytest

from nodepool_membership.cce.credentials import AccessKey, Credentials
from nodepool_membership.cce.errors import ForbiddenError, ThrottledError, UnavailableError
from nodepool_membership.cce.reads import ReadBudget
from nodepool_membership.cce.servers import IDS_PER_CALL, ServerEndpoints, ServersClient, ServersRead
from nodepool_membership.core.preflight.facts import Disk, Flavor, Server
from scripted_cloud import HTML, KEY, NOW, PROJECT, Wire

PLACES = ServerEndpoints(
    "https://ecs.example.com", "https://bms.example.com", "https://evs.example.com", "https://vpc.example.com"
)
MARK = "MARKED-user-data"
ABSENT = {"error": {"code": "Ecs.0114", "message": "Instance could not be found."}}


def ids(count: int, first: int = 0) -> list[str]:
    return [f"{number:08x}-0000-0000-0000-000000000000" for number in range(first, first + count)]


def document(server_id: str, **fields: object) -> dict[str, object]:
    return {
        "id": server_id.upper(),
        "status": "ACTIVE",
        "OS-EXT-STS:task_state": None,
        "tenant_id": PROJECT,
        "metadata": {"charging_mode": "0", "vpc_id": "V", "EcmResStatus": "", "os_type": "Linux"},
        "addresses": {
            "V": [
                {"version": 4, "addr": "1.2.3.4", "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS:port_id": "p1"},
                {"version": 4, "addr": "9.9.9.9", "OS-EXT-IPS:type": "floating", "OS-EXT-IPS:port_id": "p1"},
                {"version": 6, "addr": "fe80::1", "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS:port_id": "p1"},
            ]
        },
        "network_interfaces": [{"port_id": "p1", "subnet_id": "S1"}],
        "flavor": {"id": "c3.large.2", "vcpus": "2", "ram": "4096"},
        "OS-EXT-AZ:availability_zone": "az1",
        "os-extended-volumes:volumes_attached": [
            {"id": "ROOT", "bootIndex": "0"},
            {"id": "DATA", "bootIndex": "1"},
            {"id": "MORE", "bootIndex": None},
        ],
        "tags": ["owner=team=a", "flag", "__type_baremetal=x"],
        "enterprise_project_id": "0",
        "capacity_reservation_id": None,
        "capacity_reservation_specification": None,
        "os:scheduler_hints": {"group": ["G"]},
        "OS-EXT-SRV-ATTR:user_data": MARK,
        **fields,
    }


def unknown(server_id: str) -> dict[str, object]:
    return {**dict.fromkeys(document(server_id), None), "id": server_id, "fault": {"message": "could not be found"}}


def answered(*documents: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json={"count": len(documents), "servers": list(documents)})


Handler = Callable[[httpx.Request], httpx.Response]


def ecs(respond: Handler, bms: Handler | None = None) -> Wire:
    """ECS answers by `respond`; BMS knows nothing unless told."""

    def route(request: httpx.Request) -> httpx.Response:
        if request.url.host.startswith("bms"):
            absent = answered() if request.url.path.endswith("detail") else httpx.Response(404, json=ABSENT)
            return absent if bms is None else bms(request)
        return respond(request)

    return Wire(route)


def asked(request: httpx.Request) -> list[str]:
    return request.url.params["server_id"].split(",")


def client(
    wire: Wire, credentials: Credentials = KEY, places: ServerEndpoints = PLACES, now: datetime = NOW
) -> ServersClient:
    http = httpx.AsyncClient(transport=wire)
    budget = ReadBudget(1_000, clock=monotonic)
    return ServersClient(
        http, places, PROJECT, credentials, now=lambda: now, timeout_seconds=60, reads=lambda _: budget
    )


async def read(wire: Wire, wanted: Sequence[str], places: ServerEndpoints = PLACES) -> ServersRead:
    result = await client(wire, places=places).servers(wanted)
    assert result.found.keys() | result.unread.keys() <= set(wanted)
    return result


async def test_a_document_becomes_the_fields_that_rules_read() -> None:
    server = (await read(ecs(lambda r: answered(*map(document, asked(r)))), ids(1))).found[ids(1)[0]]
    assert server.server_id == ids(1)[0]
    assert (server.vpc_id, server.subnets, server.ports, server.has_ipv6) == ("v", frozenset({"s1"}), 1, True)
    assert (server.vcpus, server.memory_mib, server.groups) == (2, 4096, frozenset({"g"}))
    assert [disk.volume_id for disk in server.disks or ()] == ["data", "more"]
    assert server.system_disk == Disk("root")
    assert server.tags == {"owner": "team=a", "flag": "", "__type_baremetal": "x"}
    assert server.bare_metal


async def told(**fields: object) -> Server:
    """What is read of a server with such fields."""
    return (await read(ecs(lambda r: answered(*(document(i, **fields) for i in asked(r)))), ids(1))).found[ids(1)[0]]


@pytest.mark.parametrize(
    ("ports", "number"),
    [
        (f"[{ids(1)[0]}]", 1),
        (f"[{ids(1)[0]}, {ids(2)[1].upper()}]", 2),
        (json.dumps(ids(3)), 3),
        (f"{ids(2)[0]},{ids(2)[1]}", 2),
        (ids(2), 2),
        ("[]", 0),
        ("two", 0),
        ({"a": ids(1)[0]}, 0),
        (7, 0),
        (None, 0),
    ],
)
async def test_bare_metal_lists_its_interfaces_as_text(ports: object, number: int) -> None:
    server = await told(addresses={}, network_interfaces=[], metadata={"baremetalPortIDList": ports})
    assert server.ports == number


async def test_an_interface_that_is_listed_twice_is_one() -> None:
    port = ids(1)[0]
    addresses = {"V": [{"version": "4", "OS-EXT-IPS:port_id": port}]}
    metadata = {"baremetalPortIDList": f"[{port}]"}
    assert (await told(addresses=addresses, network_interfaces=[], metadata=metadata)).ports == 1


@pytest.mark.parametrize(
    ("fields", "reservation"),
    [
        ({"capacity_reservation_id": "R"}, "r"),
        ({"capacity_reservation_specification": {"id": "R", "preference": "targeted"}}, "r"),
        ({"capacity_reservation_specification": {"id": "R", "preference": "none"}}, ""),
        ({"capacity_reservation_specification": "odd"}, ""),
    ],
)
async def test_a_server_is_in_the_reservation_that_it_targets(fields: dict[str, object], reservation: str) -> None:
    assert (await told(**fields)).reservation == reservation


@pytest.mark.parametrize("odd", [None, [], {}, "x", 7, True])
async def test_a_field_that_is_odd_was_not_told(odd: object) -> None:
    fields = dict.fromkeys(document("x").keys() - {"id", "status"}, odd)
    server = (await read(ecs(lambda r: answered(*(document(i, **fields) for i in asked(r)))), ids(1))).found[ids(1)[0]]
    assert (server.vpc_id, server.subnets, server.ports, server.disks) == ("", frozenset(), 0, None)


@pytest.mark.parametrize(("tags", "told"), [([], True), (["a=b"], True), (None, False), ("a=b", False), ({}, False)])
async def test_that_a_server_has_no_tags_is_told_by_an_empty_list_alone(tags: object, told: bool) -> None:
    wire = ecs(lambda r: answered(document(asked(r)[0], tags=tags)))
    (server,) = (await client(wire).servers(ids(1))).found.values()
    assert (server.tells_tags, server.is_in_no_cluster) == (told, told)


async def test_a_document_without_the_field_tells_no_tags() -> None:
    def without(request: httpx.Request) -> httpx.Response:
        return answered({name: value for name, value in document(asked(request)[0]).items() if name != "tags"})

    (server,) = (await client(ecs(without)).servers(ids(1))).found.values()
    assert not server.tells_tags


async def test_many_ids_are_read_fifty_a_call_and_the_comma_is_escaped() -> None:
    wire = ecs(lambda r: answered(*map(document, asked(r))))
    assert (await read(wire, ids(120))).found.keys() == set(ids(120))
    assert sorted(len(asked(request)) for request in wire.seen) == [20, IDS_PER_CALL, IDS_PER_CALL]
    assert all(request.url.params["limit"] == str(len(asked(request))) for request in wire.seen)
    assert all(b"%2C" in request.url.raw_path and b"," not in request.url.raw_path for request in wire.seen)


async def test_an_entry_with_nulls_says_that_there_is_no_such_server() -> None:
    wire = ecs(lambda r: answered(*(unknown(i) if i == ids(1)[0] else document(i) for i in asked(r))))
    result = await read(wire, ids(3))
    assert (set(result.found), result.unread) == (set(ids(2, 1)), {})
    assert len(wire.seen) == 2  # the second asks BMS


async def test_a_list_that_is_cut_is_asked_for_the_rest() -> None:
    wire = ecs(lambda r: answered(*map(document, asked(r)[:25])))
    assert (await read(wire, ids(50))).found.keys() == set(ids(50))
    assert len(wire.seen) == 2


async def test_where_the_ids_are_ignored_each_server_is_read_by_itself() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("detail"):
            return answered(*map(document, ids(25, 900)))
        server_id = request.url.path.rpartition("/")[2]
        if server_id == ids(1)[0]:
            return httpx.Response(404, json=ABSENT)
        return httpx.Response(200, json={"server": document(server_id)})

    wire = ecs(respond)
    result = await read(wire, ids(4))
    assert (set(result.found), result.unread) == (set(ids(3, 1)), {})


async def test_absence_in_an_answer_about_other_servers_is_not_believed() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("detail"):
            return answered(unknown(ids(1)[0]), document(ids(1, 900)[0]))
        return httpx.Response(200, json={"server": document(request.url.path.rpartition("/")[2])})

    assert set((await read(ecs(respond), ids(1))).found) == set(ids(1))


async def test_a_server_that_ecs_does_not_know_may_be_bare_metal() -> None:
    def bms(_: httpx.Request) -> httpx.Response:
        return answered(document(ids(1, 900)[0]), document(ids(1)[0], tags=[]))

    wire = ecs(lambda r: answered(*map(unknown, asked(r))), bms)
    result = await read(wire, ids(60))
    assert result.unread == {}
    assert [(i, server.bare_metal) for i, server in result.found.items()] == [(ids(1)[0], True)]
    assert len(wire.seen) == 3  # two lists of ECS, one of BMS


async def test_one_server_that_ecs_does_not_know_is_asked_for_by_its_id() -> None:
    def bms(request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/v1/{PROJECT}/baremetalservers/{ids(1)[0]}"
        return httpx.Response(200, json={"server": document(ids(1)[0])})

    assert (await read(ecs(lambda r: answered(*map(unknown, asked(r))), bms), ids(1))).found[ids(1)[0]].bare_metal


async def test_where_bare_metal_cannot_be_read_unknown_ids_are_unread_and_not_absent() -> None:
    wire = ecs(lambda r: answered(*map(unknown, asked(r))), lambda _: httpx.Response(403, json=ABSENT))
    result = await read(wire, ids(2))
    assert (result.found, {i: type(e) for i, e in result.unread.items()}) == ({}, dict.fromkeys(ids(2), ForbiddenError))
    assert (await read(wire, ids(2), ServerEndpoints(PLACES.ecs))).unread == {}


BAD = [
    (httpx.Response(403, json={"error": {"code": "Pdp.0001", "message": "no"}}), ForbiddenError),
    (httpx.Response(429, json={"error": {"code": "Common.1503", "message": "no"}}), ThrottledError),
    (httpx.Response(500, json={"error": {"code": "Ecs.0000", "message": "no"}}), UnavailableError),
    (httpx.Response(502, text=HTML), UnavailableError),
    (httpx.Response(200, text=HTML), UnavailableError),
    (httpx.Response(200, text='{"count": 1, "servers": [{"id": "aaa'), UnavailableError),
    (httpx.Response(200, json={"error": {"code": "Ecs.0000", "message": "no"}}), UnavailableError),
    (httpx.Response(404, json={"error_code": "APIGW.0101", "error_msg": "no such API"}), ForbiddenError.__mro__[1]),
]


@pytest.mark.parametrize(("answer", "kind"), BAD)
async def test_an_answer_that_is_no_list_leaves_every_server_unread(answer: httpx.Response, kind: type) -> None:
    body = answer.content
    wire = ecs(lambda _: httpx.Response(answer.status_code, content=body, headers=answer.headers))
    result = await read(wire, ids(120))
    assert (result.found, set(result.unread)) == ({}, set(ids(120)))
    assert all(isinstance(error, kind) for error in result.unread.values())
    # Once one is throttled, the others are not asked.
    assert len(wire.seen) == (1 if kind is ThrottledError else 3)


async def test_one_bad_answer_costs_the_servers_that_it_is_about() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500) if ids(1)[0] in asked(request) else answered(*map(document, asked(request)))

    result = await read(ecs(respond), ids(100))
    assert (set(result.unread), set(result.found)) == (set(ids(50)), set(ids(50, 50)))


async def test_disks_are_read_sixty_a_call() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        names = json.loads(request.url.params["ids"].replace("'", '"'))
        assert len(names) <= 60
        return httpx.Response(200, json={"volumes": [{"id": n, "size": 40, "volume_type": "SAS"} for n in names[1:]]})

    wire = Wire(respond)
    disks = await client(wire).volumes(ids(61))
    assert (len(disks), {(d.gib, d.kind) for d in disks.values()}, len(wire.seen)) == (59, {(40, "SAS")}, 2)


@pytest.mark.parametrize("ipv6", [True, False, None])
async def test_a_subnet_has_three_ids_and_ipv6_or_not(ipv6: object) -> None:
    subnet = {"id": "A", "neutron_network_id": "B", "neutron_subnet_id": "C", "cidr": "10.0.0.0/24"}
    document = {"subnet": {**subnet, "ipv6_enable": ipv6}}
    found = await client(Wire(lambda _: httpx.Response(200, json=document))).subnet("a")
    assert found == dict.fromkeys("abc", bool(ipv6))


async def test_what_has_no_address_cannot_be_read() -> None:
    with pytest.raises(UnavailableError, match="no address is known for listVolumes: name it in the file of"):
        await client(Wire(lambda _: httpx.Response(200)), places=ServerEndpoints(PLACES.ecs)).volumes(ids(1))


async def test_the_signature_of_a_list_by_ids_is_the_official_sdks() -> None:
    """A vector made with the official SDK's signer."""
    wire = Wire(lambda _: answered())
    key = AccessKey("AKEXAMPLE", "SKEXAMPLE")
    places = ServerEndpoints("https://ecs.cn-north-4.myhuaweicloud.com")
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first, second = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "11111111-2222-3333-4444-555555555555"
    await client(wire, key, places, at)._listed([first, second])
    assert wire.seen[0].url.query == f"server_id={first}%2C{second}&limit=2".encode()
    assert wire.seen[0].headers["Authorization"] == (
        "SDK-HMAC-SHA256 Access=AKEXAMPLE, SignedHeaders=content-type;host;x-project-id;x-sdk-date,"
        " Signature=44c55779a326f25569204d0cad9da8b99ed92426cb19ca61da18a40cda3cb8b8"
    )


async def test_user_data_never_leaves_the_parser(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    marked = {"OS-EXT-SRV-ATTR:user_data": MARK, "metadata": {"vpc_id": "V", "admin_pass": MARK}}
    whole = json.dumps({"servers": [document(i, **marked) for i in ids(3)]})
    cut = whole[:-10]
    served = [whole.encode(), cut.encode()]
    del whole, marked

    async def look(body: bytes) -> ServersRead:
        return await read(ecs(lambda _: httpx.Response(200, content=body)), ids(3))

    results = [await look(body) for body in served]
    assert [len(result.found) for result in results] == [3, 0]
    told = [str(error) + repr(error) for error in results[1].unread.values()]
    del served, cut
    gc.collect()
    assert MARK not in repr(results)
    assert MARK not in "".join(told) + caplog.text
    assert holding(MARK) == []


def holding(mark: str) -> list[str]:
    """What holds a text or bytes with the mark, but for frames of the test itself and constants of code."""
    found: list[str] = []
    for holder in gc.get_objects():
        held = [o for o in gc.get_referents(holder) if isinstance(o, str | bytes | bytearray) and o is not MARK]
        if any((mark in o) if isinstance(o, str) else (mark.encode() in o) for o in held):
            found.append(f"{type(holder).__name__} {holder!r:.200}")
    return found


def flavors(first: int, count: int) -> httpx.Response:
    numbers = {"quota:vif_max_num": "8", "quota:sub_network_interface_max_num": None, "odd": 1}
    listed = [{"id": f"f{number:05}", "os_extra_specs": numbers} for number in range(first, first + count)]
    return httpx.Response(200, json={"flavors": listed})


@pytest.mark.parametrize(("there", "pages"), [(0, 1), (999, 1), (1000, 2), (2500, 3)])
async def test_flavors_are_read_to_the_last_page(there: int, pages: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["limit"] == "1000"
        marker = request.url.params.get("marker")
        first = 0 if marker is None else int(marker[1:]) + 1
        return flavors(first, min(1000, there - first))

    wire = Wire(answer)
    found = await client(wire).flavors()
    assert (len(found), set(found.values()) <= {Flavor(8)}, len(wire.seen)) == (there, True, pages)
    assert {request.url.path for request in wire.seen} == {f"/v1/{PROJECT}/cloudservers/flavors"}


async def test_a_list_of_flavors_without_pages_or_without_an_end_is_read_no_further() -> None:
    unpaged = Wire(lambda _: flavors(0, 1500))
    assert (len(await client(unpaged).flavors()), len(unpaged.seen)) == (1500, 2)
    endless = Wire(lambda _: flavors(1000 * len(endless.seen), 1000))
    with pytest.raises(UnavailableError, match="more than 5 pages"):
        await client(endless).flavors()
    odd = Wire(lambda _: httpx.Response(200, json={"flavors": [{"id": "a", "os_extra_specs": []}, {"id": None}]}))
    assert await client(odd).flavors() == {"a": Flavor(), "": Flavor()}
