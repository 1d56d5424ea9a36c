"""Coloured text that can be read: themes say which hue a warning has, not whether it stands out from the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.color import ColorSystem
from textual.color import BLACK, WHITE, Color

LEAST = 4.5
"""Of a text's luminance to that of what it stands on, or the other way round (WCAG 2.2, 1.4.3)."""
LEAST_OF_256 = 3.5
"""The same where a terminal shows the nearest of 256 colours: text and ground may both be somewhat off."""
GROUNDS = ("background", "surface", "panel")
TEXTS = ("text-primary", "text-secondary", "text-warning", "text-error", "text-success", "text-accent")
STEPS = 20


def readable(variables: Mapping[str, str], *, is_dark: bool) -> dict[str, str]:
    """A theme's variables, with its coloured texts moved towards white or black as far as it takes.

    Colours that are the terminal's own are left to it.
    """
    grounds = [Color.parse(variables[name]) for name in GROUNDS]
    if any(ground.ansi is not None for ground in grounds):
        return dict(variables)
    end = WHITE if is_dark else BLACK

    def moved(text: Color) -> Color:
        ways = (text.blend(end, step / STEPS, alpha=1) for step in range(STEPS + 1))
        return next((way for way in ways if _stands_out(way, grounds)), end)

    return {**variables, **{name: moved(Color.parse(variables[name])).hex for name in TEXTS}}


def contrast(one: Color, other: Color) -> float:
    """1 for the same colour to 21 for black on white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def of_256(color: Color) -> Color:
    """What a terminal of 256 colours shows for it."""
    return Color(*color.rich_color.downgrade(ColorSystem.EIGHT_BIT).get_truecolor())


def _stands_out(text: Color, grounds: Sequence[Color]) -> bool:
    mixed = [(ground.blend(text, text.a, alpha=1), ground) for ground in grounds]
    return all(
        contrast(text, ground) >= LEAST and contrast(of_256(text), of_256(ground)) >= LEAST_OF_256
        for text, ground in mixed
    )


def _luminance(color: Color) -> float:
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (color.r / 255, color.g / 255, color.b / 255)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
