"""Regions, their hosts and ranges, and the apps made of them."""

import pytest

from service.settings import AppSettings
from service.upstream.apps import UpstreamApp, upstream_app_of
from service.upstream.regions import REGION_NAMES, contradiction, hosts, region_of

RANGES = [
    ("singapore", 20_000_000, 1_720_000_000),
    ("seoul", 30_000_000, 1_730_000_000),
    ("frankfurt", 40_000_000, 1_740_000_000),
    ("mumbai", 50_000_000, 1_750_000_000),
    ("tokyo", 60_000_000, 1_760_000_000),
    ("silicon-valley", 70_000_000, 1_770_000_000),
    ("jakarta", 80_000_000, 1_780_000_000),
]


@pytest.mark.parametrize(("region", "short", "long"), RANGES)
def test_sdkappids_belong_to_their_region(region: str, short: int, long: int) -> None:
    """Both ranges of a region, from the first to the last SDKAppID, belong to it."""
    for first in (short, long):
        assert [region_of(first), region_of(first + 9_999_999)] == [region, region]


@pytest.mark.parametrize(
    "sdkappid",
    [1, 19_999_999, 90_000_000, 200_000_000, 1_400_000_000, 1_600_000_001, 1_719_999_999, 1_790_000_000, 4_294_967_295],
)
def test_everything_else_is_china(sdkappid: int) -> None:
    """An SDKAppID outside the ranges belongs to China."""
    assert region_of(sdkappid) == "china"


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("china", ("console.tim.qq.com", "adminapi.my-imcloud.com")),
        ("singapore", ("adminapisgp.im.qcloud.com", "adminapisgp.my-imcloud.com")),
        ("seoul", ("adminapikr.im.qcloud.com", "adminapikr.my-imcloud.com")),
        ("frankfurt", ("adminapiger.im.qcloud.com", "adminapiger.my-imcloud.com")),
        ("silicon-valley", ("adminapiusa.im.qcloud.com", "adminapiusa.my-imcloud.com")),
        ("jakarta", ("adminapiidn.im.qcloud.com", "adminapiidn.my-imcloud.com")),
        ("mumbai", ("adminapiind.im.qcloud.com",)),
        ("tokyo", ("adminapijpn.im.qcloud.com",)),
        ("riyadh", ("adminapiksa.im.qcloud.com",)),
    ],
)
def test_each_region_has_its_hosts(region: str, expected: tuple[str, ...]) -> None:
    """Each region has the hosts of the vendor's pages; without backups just the first."""
    assert region in REGION_NAMES
    assert hosts(region, backup=True) == expected
    assert hosts(region, backup=False) == expected[:1]


def test_an_unknown_region_is_rejected() -> None:
    """An unknown region is rejected with the names of the known ones."""
    with pytest.raises(ValueError, match="china, singapore"):
        hosts("atlantis", backup=True)


@pytest.mark.parametrize(
    ("region", "sdkappid", "expected"),
    [
        ("china", 1_400_000_000, None),
        ("singapore", 20_000_001, None),
        ("china", 20_000_001, "singapore"),
        ("singapore", 1_400_000_000, "china"),
        ("riyadh", 1_400_000_000, None),
        ("riyadh", 1_730_000_000, "seoul"),
    ],
)
def test_a_region_contradicted_by_the_sdkappid_is_found(region: str, sdkappid: int, expected: str | None) -> None:
    """A configured region is contradicted by a range that belongs to another, and by nothing else."""
    assert contradiction(region, sdkappid) == expected


@pytest.mark.parametrize(
    ("settings", "backup_hosts", "expected"),
    [
        (
            AppSettings(sdkappid=20_000_001, admin="a"),
            True,
            ("https://adminapisgp.im.qcloud.com", "https://adminapisgp.my-imcloud.com"),
        ),
        (AppSettings(sdkappid=20_000_001, admin="a"), False, ("https://adminapisgp.im.qcloud.com",)),
        (AppSettings(sdkappid=20_000_001, admin="a", region="seoul"), False, ("https://adminapikr.im.qcloud.com",)),
        (
            AppSettings(sdkappid=20_000_001, admin="a", region="seoul", base_url="http://127.0.0.1:9000/up/"),
            True,
            ("http://127.0.0.1:9000/up",),
        ),
    ],
)
def test_a_base_url_comes_before_a_region(settings: AppSettings, backup_hosts: bool, expected: tuple[str, ...]) -> None:
    """A base URL comes before a region, a region before the range; only regions have backups."""
    app = upstream_app_of("shop", settings, backup_hosts=backup_hosts)
    assert app == UpstreamApp(name="shop", sdkappid=20_000_001, admin="a", hosts=expected)


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://host",
        "host:80",
        "https://",
        "https://host:99999",
        "https://host:port",
        "https://u:p@host",
        "https://host?a=b",
        "https://host#a",
        "https://ho st",
        "https://höst",
        "https://[::1",
    ],
)
def test_an_invalid_base_url_is_rejected(base_url: str) -> None:
    """An invalid base URL is rejected when the settings are read, not at the first call."""
    with pytest.raises(ValueError, match=r".+"):
        upstream_app_of("shop", AppSettings(sdkappid=1, admin="a", base_url=base_url), backup_hosts=True)


@pytest.mark.parametrize(
    ("base_url", "speaks_tls"),
    [(None, True), ("https://up.example", True), ("HTTPS://up.example", True), ("http://up.example", False)],
)
def test_only_https_needs_the_cas(base_url: str | None, *, speaks_tls: bool) -> None:
    """The CAs are read for an app whose base URL is https://, however it is written, and for regions."""
    settings = AppSettings(sdkappid=20_000_001, admin="a", base_url=base_url)
    assert upstream_app_of("shop", settings, backup_hosts=True).speaks_tls is speaks_tls
