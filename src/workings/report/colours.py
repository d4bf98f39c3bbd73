"""A value between 0 and 1 → a colour, on scales whose steps look equally large.

Both scales run through their anchors at constant speed in OKLab (Ottosson 2020), a space built so that equal distances
look equal. Lightness alone already orders the sequential scale, so it survives colour blindness and a grey printer.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from itertools import accumulate, pairwise
from math import dist
from typing import Literal

Scale = Literal["sequential", "diverging"]
Triple = tuple[float, float, float]

_ANCHORS: dict[Scale, tuple[str, ...]] = {
    "sequential": ("#fcfbe6", "#cfe8bd", "#7cc8b8", "#3a97b8", "#2b64a3", "#1f2f6e"),
    "diverging": ("#70310a", "#c26a1f", "#efb980", "#f8f6f1", "#9cc3e2", "#3f83b8", "#163f74"),
}
# Okabe & Ito's colours that hold up on white, in an order that keeps neighbours apart; dashes repeat the distinction.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#8e4a9e", "#a87400", "#333333")
CONTROLS = ("#2f363e", "#8a939d", "#5c6773", "#a87f5a")  # greys, and one that is nearly: told apart by their dashes too
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)))


def colour(fraction: float, scale: Scale = "sequential") -> str:
    """The colour at `fraction` of the way along the scale (clamped to its ends), as `#rrggbb`."""
    where = min(1.0, max(0.0, fraction)) * 255
    return palette(scale)[round(where)]


@cache
def palette(scale: Scale, n: int = 256) -> tuple[str, ...]:
    """`n` colours at equal OKLab distances along the scale."""
    anchors = [oklab(hex_colour) for hex_colour in _ANCHORS[scale]]
    reached = [0.0, *accumulate(dist(a, b) for a, b in pairwise(anchors))]
    return tuple(_along(anchors, reached, reached[-1] * step / (n - 1)) for step in range(n))


def ink_on(background: str) -> str:
    """Black or white, whichever stands out more; never less than 4.5 : 1 (WCAG 2.2, 1.4.3)."""
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), _linear(background), strict=True))
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _along(anchors: list[Triple], reached: list[float], distance: float) -> str:
    index = min(bisect_right(reached, distance), len(anchors) - 1)
    start, end = anchors[index - 1], anchors[index]
    part = (distance - reached[index - 1]) / (reached[index] - reached[index - 1])
    a, b, c = (low + part * (high - low) for low, high in zip(start, end, strict=True))
    return _hex((a, b, c))


def _linear(hex_colour: str) -> Triple:
    red, green, blue = (int(hex_colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return _decoded(red), _decoded(green), _decoded(blue)


def _decoded(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def oklab(hex_colour: str) -> Triple:
    """`#rrggbb` as (lightness from 0 to 1, green-red, blue-yellow)."""
    r, g, b = _linear(hex_colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _hex(lab: Triple) -> str:
    lightness, a, b = lab
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _encoded(min(1.0, max(0.0, part)))):02x}" for part in linear)


def _encoded(part: float) -> float:
    return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055
