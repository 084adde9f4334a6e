"""The upstream's regions: their hosts, and which SDKAppIDs belong to which.

Hosts come from the vendor's pages, the ranges from its web SDK. No backup host is known for Mumbai, Tokyo and Riyadh,
and no range for Riyadh.
"""

import msgspec

CHINA = "china"


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A region. `leading` are the SDKAppIDs' leading digits, above the last seven: 2 of 29999999, 172 of 1720000000."""

    name: str
    host: str
    backup: str | None = None
    leading: tuple[int, ...] = ()


REGIONS = (
    Region(name=CHINA, host="console.tim.qq.com", backup="adminapi.my-imcloud.com"),
    Region(name="singapore", host="adminapisgp.im.qcloud.com", backup="adminapisgp.my-imcloud.com", leading=(2, 172)),
    Region(name="seoul", host="adminapikr.im.qcloud.com", backup="adminapikr.my-imcloud.com", leading=(3, 173)),
    Region(name="frankfurt", host="adminapiger.im.qcloud.com", backup="adminapiger.my-imcloud.com", leading=(4, 174)),
    Region(
        name="silicon-valley", host="adminapiusa.im.qcloud.com", backup="adminapiusa.my-imcloud.com", leading=(7, 177)
    ),
    Region(name="jakarta", host="adminapiidn.im.qcloud.com", backup="adminapiidn.my-imcloud.com", leading=(8, 178)),
    Region(name="mumbai", host="adminapiind.im.qcloud.com", leading=(5, 175)),
    Region(name="tokyo", host="adminapijpn.im.qcloud.com", leading=(6, 176)),
    Region(name="riyadh", host="adminapiksa.im.qcloud.com"),
)

REGION_NAMES = tuple(region.name for region in REGIONS)


def region_of(sdkappid: int) -> str:
    """Return the region of an SDKAppID's range; China if no other claims it."""
    leading = sdkappid // 10_000_000
    return next((region.name for region in REGIONS if leading in region.leading), CHINA)


def hosts(region: str, *, backup: bool) -> tuple[str, ...]:
    """Return the region's host, then its backup if there is one and `backup` is set. Raise ValueError if unknown."""
    found = next((candidate for candidate in REGIONS if candidate.name == region), None)
    if found is None:
        raise ValueError(f"no such region; known regions: {', '.join(REGION_NAMES)}")
    return (found.host, found.backup) if backup and found.backup else (found.host,)


def contradiction(region: str, sdkappid: int) -> str | None:
    """Return the region that the SDKAppID's range belongs to if that contradicts the configured one, or None.

    The configuration wins, with a warning. A region whose range is unknown (Riyadh) is contradicted only by a range
    that another region claims.
    """
    expected = region_of(sdkappid)
    if region == expected:
        return None
    known = next((candidate for candidate in REGIONS if candidate.name == region), None)
    if known is not None and not known.leading and expected == CHINA:
        return None
    return expected
