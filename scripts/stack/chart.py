"""Draws means with their intervals as a bar chart, in SVG. Knows numbers and names alone."""

from collections.abc import Iterator, Mapping
from html import escape

from stack.judging import Interval

_BAR, _GAP, _LEFT, _WIDTH, _TOP = 18, 8, 230, 560, 56
_RIGHT = 70
"""Room for the number behind the longest bar."""
_INK, _FILL, _GRID = "#333333", "#7aa6c2", "#dddddd"


def svg(title: str, bars: Mapping[str, Interval]) -> str:
    """A chart of values from 0 to 1: a bar for each mean, a line across it for its interval."""
    height = _TOP + len(bars) * (_BAR + _GAP) + _GAP
    width = _LEFT + _WIDTH + _RIGHT
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12" '
        f'fill="{_INK}">'
    )
    parts = [
        opening,
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_GAP}" y="20" font-size="14">{escape(title)}</text>',
        *_grid(height),
    ]
    for place, (name, found) in enumerate(bars.items()):
        parts += _bar(_TOP + place * (_BAR + _GAP), name, found)
    return "\n".join([*parts, "</svg>", ""])


def _grid(height: int) -> Iterator[str]:
    for tenth in range(0, 11, 2):
        x = _x(tenth / 10)
        yield (
            f'<line x1="{x}" y1="{_TOP - _GAP}" x2="{x}" y2="{height - _GAP}" stroke="{_GRID}"/>'
        )
        yield f'<text x="{x}" y="{_TOP - 14}" text-anchor="middle">{tenth / 10}</text>'


def _bar(y: int, name: str, found: Interval) -> Iterator[str]:
    middle = y + _BAR / 2
    low, high = _x(found.low), _x(found.high)
    yield f'<text x="{_LEFT - _GAP}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
    yield (
        f'<rect x="{_LEFT}" y="{y}" width="{_x(found.mean) - _LEFT:.1f}" height="{_BAR}" '
        f'fill="{_FILL}"/>'
    )
    yield (
        f'<path d="M{low} {middle}H{high}M{low} {middle - 4}v8M{high} {middle - 4}v8" '
        f'stroke="{_INK}" fill="none"/>'
    )
    yield f'<text x="{high + 6:.1f}" y="{middle + 4}">{found.mean:.3f}</text>'


def _x(value: float) -> float:
    return round(_LEFT + _WIDTH * value, 1)
