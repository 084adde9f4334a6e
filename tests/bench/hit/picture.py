"""The picture of the ratios: one bar for each comparison, to the right if the gateway is faster."""

import math
from html import escape

import msgspec

_LABEL, _SCALE, _ROW, _TOP = 400, 300, 26, 34
_LEAST, _GREATEST = 0.25, 16.0


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's rate as a multiple of another's, and the minimum to reach."""

    name: str
    ratio: float
    aim: float | None


def picture(bars: list[Bar]) -> str:
    """Return an SVG on a logarithmic scale."""
    height = _TOP + _ROW * len(bars) + 8
    marks = "".join(_mark(value, height) for value in (0.25, 0.5, 1, 2, 4, 8, 16))
    rows = "".join(_row(bar, _TOP + _ROW * index) for index, bar in enumerate(bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LABEL + _SCALE + 60} {height}" '
        'font-family="sans-serif" font-size="12" role="img">'
        "<title>Requests a second, as multiples of the other server's</title>"
        f'<rect width="100%" height="100%" fill="#fff"/>{marks}{rows}</svg>\n'
    )


def _x(ratio: float) -> float:
    share = math.log(min(max(ratio, _LEAST), _GREATEST) / _LEAST) / math.log(_GREATEST / _LEAST)
    return round(_LABEL + _SCALE * share, 1)


def _mark(value: float, height: int) -> str:
    colour = "#444" if value == 1 else "#ddd"
    return (
        f'<line x1="{_x(value)}" x2="{_x(value)}" y1="{_TOP - 8}" y2="{height - 8}" stroke="{colour}"/>'
        f'<text x="{_x(value)}" y="{_TOP - 14}" text-anchor="middle" fill="#444">{value:g}</text>'
    )


def _row(bar: Bar, y: int) -> str:
    left, right = sorted((_x(1), _x(bar.ratio)))
    colour = "#2a7d4f" if bar.ratio >= (bar.aim or 1) else "#b8860b"
    aim = "" if bar.aim is None else f'<circle cx="{_x(bar.aim)}" cy="{y + 9}" r="3.5" fill="#fff" stroke="#444"/>'
    return (
        f'<text x="{_LABEL - 10}" y="{y + 13}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect x="{left}" y="{y + 2}" width="{round(right - left, 1)}" height="14" fill="{colour}"/>{aim}'
        f'<text x="{_LABEL + _SCALE + 12}" y="{y + 13}">{bar.ratio:.2f}</text>'
    )
