"""Which endpoint is called, and which a membership may name.

Not for: reading options or the CRD's own rules.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.cce.endpoints import (
    REGIONS,
    AllowList,
    EndpointNotAllowedError,
    UnknownRegionError,
    region_endpoint,
    resolve_endpoint,
)

PUBLIC = AllowList.parse(())
BEIJING = "https://cce.cn-north-4.myhuaweicloud.com"


def test_endpoints_of_regions() -> None:
    assert resolve_endpoint("cn-north-4", None, PUBLIC) == BEIJING
    assert resolve_endpoint("eu-west-101", None, PUBLIC) == "https://cce.eu-west-101.myhuaweicloud.eu"
    assert resolve_endpoint("eu-west-0", None, PUBLIC) == "https://cce.eu-west-0.myhuaweicloud.com"


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_every_regions_endpoint_is_on_the_list(region: str) -> None:
    endpoint = region_endpoint(region)
    assert resolve_endpoint(None, endpoint, PUBLIC) == endpoint


@pytest.mark.parametrize(
    "region", ["cn-north-5", "CN-NORTH-4", "", None, "x.evil.example/", "cn-north-4.evil.example/#"]
)
def test_an_unknown_region_is_not_made_into_a_host(region: str | None) -> None:
    with pytest.raises(UnknownRegionError, match=r"spec\.nodePool\.region .* --allow-endpoint"):
        resolve_endpoint(region, None, PUBLIC)


def test_the_endpoint_wins_over_the_region() -> None:
    assert resolve_endpoint("nowhere", BEIJING, PUBLIC) == BEIJING
    with pytest.raises(EndpointNotAllowedError):
        resolve_endpoint("cn-north-4", "https://cce.example.com", PUBLIC)


@pytest.mark.parametrize(
    "endpoint",
    [BEIJING, f"{BEIJING}/", f"{BEIJING}:443", f"{BEIJING}:443/", f"{BEIJING}:", BEIJING.upper()],
)
def test_spellings_of_one_origin(endpoint: str) -> None:
    assert resolve_endpoint(None, endpoint, PUBLIC) == BEIJING


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://cce.cn-north-4.myhuaweicloud.com",
        "http://cce.cn-north-4.myhuaweicloud.com:443",
        f"{BEIJING}:8443",
        f"{BEIJING}:0",
        f"{BEIJING}.",
        f"{BEIJING}.evil.example",
        "https://evil.example/cce.cn-north-4.myhuaweicloud.com",
        "https://cce.cn-north-4.myhuaweicloud.com@evil.example",
        "https://evil.example\\@cce.cn-north-4.myhuaweicloud.com",
        "https://user@cce.cn-north-4.myhuaweicloud.com",
        "https://@cce.cn-north-4.myhuaweicloud.com",
        "https://user:pw@cce.cn-north-4.myhuaweicloud.com",
        "https://evil.example#cce.cn-north-4.myhuaweicloud.com",
        "https://evil.example?cce.cn-north-4.myhuaweicloud.com",
        f"{BEIJING}/api",
        f"{BEIJING}?x=1",
        f"{BEIJING}#x",
        f"{BEIJING}:99999",
        f"{BEIJING}:x",
        "https://\uff43ce.cn-north-4.myhuaweicloud.com",
        "https://iam.cn-north-4.myhuaweicloud.com",
        "//cce.cn-north-4.myhuaweicloud.com",
        "cce.cn-north-4.myhuaweicloud.com",
        "ftp://cce.cn-north-4.myhuaweicloud.com",
        "file:///etc/passwd",
        "https://[::1",
        "https://",
        "",
    ],
)
def test_what_is_not_allowed(endpoint: str) -> None:
    with pytest.raises(EndpointNotAllowedError, match=r"write it like|write scheme and host only|--allow-endpoint="):
        resolve_endpoint(None, endpoint, PUBLIC)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "https://cce.example.com", "http://[::1]:81"])
def test_the_remedy_names_the_option_that_would_allow_it(endpoint: str) -> None:
    with pytest.raises(EndpointNotAllowedError) as caught:
        resolve_endpoint(None, endpoint, PUBLIC)
    option = str(caught.value).partition("--allow-endpoint=")[2].partition(",")[0]
    assert resolve_endpoint(None, endpoint, AllowList.parse([option])) == endpoint
    assert ("plain http must be allowed explicitly" in str(caught.value)) == endpoint.startswith("http:")


def test_what_is_added_is_allowed_exactly() -> None:
    allow = AllowList.parse(["http://127.0.0.1:8080/", "https://CCE.eu-de.example.com"])
    assert resolve_endpoint(None, "http://127.0.0.1:8080", allow) == "http://127.0.0.1:8080"
    assert resolve_endpoint(None, "https://cce.eu-de.example.com:443", allow) == "https://cce.eu-de.example.com"
    assert resolve_endpoint("cn-north-4", None, allow) == BEIJING
    for other in (
        "http://127.0.0.1:8081",
        "https://127.0.0.1:8080",
        "http://cce.eu-de.example.com",
        "http://127.0.0.1",
    ):
        with pytest.raises(EndpointNotAllowedError):
            resolve_endpoint(None, other, allow)


@pytest.mark.parametrize("wrong", ["cce.example.com", "https://h/path", "https://u@h", "https://h:port", "https://"])
def test_an_option_that_is_no_endpoint_is_refused(wrong: str) -> None:
    with pytest.raises(EndpointNotAllowedError) as caught:
        AllowList.parse([wrong])
    assert repr(wrong) in str(caught.value)


@given(st.text(max_size=40) | st.text("htps:/@.#?\\[]%cei0129 \t\n", max_size=40).map(lambda rest: f"{BEIJING}{rest}"))
def test_whatever_is_written_only_a_listed_origin_comes_out(endpoint: str) -> None:
    try:
        resolved = resolve_endpoint(None, endpoint, PUBLIC)
    except EndpointNotAllowedError:
        return
    assert resolved in {region_endpoint(region) for region in REGIONS}
