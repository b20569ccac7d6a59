"""The file of `--endpoints`, and what follows without it. Not for: what is called (`test_cce_endpoints`)."""

from pathlib import Path
from typing import Final

import pytest

from nodepool_membership.cce.endpoints import REGIONS, origin_of, region_endpoint
from nodepool_membership.cce.services import PUBLIC_ONLY, EndpointsFileError, Services, read_endpoints_file

SAMPLE: Final = Path(__file__).parent.parent.parent.parent / "deploy" / "endpoints.yaml"


def test_the_public_clouds_addresses_are_derived() -> None:
    assert PUBLIC_ONLY.of("https://cce.cn-north-4.myhuaweicloud.com/") == Services(
        cce="https://cce.cn-north-4.myhuaweicloud.com",
        region="cn-north-4",
        iam="https://iam.cn-north-4.myhuaweicloud.com",
        sts="https://sts.cn-north-4.myhuaweicloud.com",
        ecs="https://ecs.cn-north-4.myhuaweicloud.com",
        bms="https://bms.cn-north-4.myhuaweicloud.com",
        evs="https://evs.cn-north-4.myhuaweicloud.com",
        vpc="https://vpc.cn-north-4.myhuaweicloud.com",
    )


def test_the_european_regions_servers_are_below_another_domain() -> None:
    found = PUBLIC_ONLY.of("https://cce.eu-west-101.myhuaweicloud.eu")
    assert (found.iam, found.sts) == ("https://iam.eu-west-101.myhuaweicloud.eu", None)
    assert found.ecs == "https://ecs.eu-west-101.myhuaweicloud.com"


def test_of_a_foreign_endpoint_nothing_is_guessed() -> None:
    assert PUBLIC_ONLY.of("https://CCE.example.com:443") == Services("https://cce.example.com")


def test_the_sample_reads_and_counts_as_allowed() -> None:
    book = read_endpoints_file(SAMPLE)
    otc = book.of("https://cce.eu-de.otc.t-systems.com")
    assert (otc.region, otc.iam, otc.sts) == ("eu-de", "https://iam.eu-de.otc.t-systems.com", None)
    assert otc.cce in book.cce_endpoints()
    assert origin_of("https://iam.eu-de.otc.t-systems.com") in book.identity_origins()


def test_only_addresses_of_iam_and_sts_may_be_named_for_an_identity() -> None:
    origins = PUBLIC_ONLY.identity_origins()
    assert origin_of("https://sts.tr-west-1.myhuaweicloud.com") in origins
    assert all(origin_of(region_endpoint(region)) not in origins for region in REGIONS)


def test_a_public_entry_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text('[{cce: "https://cce.cn-north-4.myhuaweicloud.com", sts: "https://sts.internal:8443/"}]')
    found = read_endpoints_file(file).of("https://cce.cn-north-4.myhuaweicloud.com")
    assert (found.sts, found.iam) == ("https://sts.internal:8443", "https://iam.cn-north-4.myhuaweicloud.com")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not YAML: write a YAML list"),
        ("cce: https://a", "is not a list"),
        ("[https://a]", "entry 1 is not a mapping"),
        ("[{iam: https://a}]", "entry 1 has no cce"),
        ("[{cce: https://a, cec: https://b}]", "entry 1: 'cec' is not known; there are cce"),
        ("[{cce: https://a, iam: 7}]", "entry 1: iam is not text"),
        ("[{cce: https://a, sts: b/c}]", "entry 1: sts 'b/c' cannot be an endpoint"),
        ("[{cce: 'https://u:p@a'}]", "cannot be an endpoint"),
        ("[{cce: https://a}, {cce: 'https://A:443/'}]", "entry 2: cce 'https://a' is there twice"),
    ],
)
def test_a_bad_file_is_refused_with_entry_field_and_remedy(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(text)
    with pytest.raises(EndpointsFileError) as caught:
        read_endpoints_file(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(EndpointsFileError, match=r"no\.yaml' cannot be read: No such file"):
        read_endpoints_file(tmp_path / "no.yaml")
