"""Readable coloured text: themes choose the hues of their texts but do not guarantee enough contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.color import ColorSystem
from textual.color import BLACK, WHITE, Color

MIN_CONTRAST = 4.5
"""Between a text and its background (WCAG 2.2, 1.4.3)."""
MIN_CONTRAST_256 = 3.5
"""The same in a terminal with 256 colours, where text and background are both rounded to the nearest one."""
BACKGROUNDS = ("background", "surface", "panel")
TEXTS = (
    "foreground",
    "text-primary",
    "text-secondary",
    "text-warning",
    "text-error",
    "text-success",
    "text-accent",
)
STEPS = 20


def readable(variables: Mapping[str, str], *, is_dark: bool) -> dict[str, str]:
    """A theme's variables, with text colours blended towards white or black until they have enough contrast.

    Themes that use the terminal's own colours are returned unchanged.
    """
    backgrounds = [Color.parse(variables[name]) for name in BACKGROUNDS]
    if any(background.ansi is not None for background in backgrounds):
        return dict(variables)
    extreme = WHITE if is_dark else BLACK

    colours = {name: readable_on(Color.parse(variables[name]), backgrounds, extreme) for name in TEXTS}
    return {**variables, **{name: colour.hex for name, colour in colours.items()}}


def readable_on(text: Color, backgrounds: Sequence[Color], extreme: Color) -> Color:
    """A text's colour, blended towards `extreme` until it has enough contrast to all backgrounds."""
    blends = (text.blend(extreme, step / STEPS, alpha=1) for step in range(STEPS + 1))
    return next((blend for blend in blends if _has_contrast(blend, backgrounds)), extreme)


def contrast(one: Color, other: Color) -> float:
    """Contrast ratio (WCAG 2.2), from 1 for equal colours to 21 for black on white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def of_256(color: Color) -> Color:
    """The colour that a terminal with 256 colours shows instead."""
    return Color(*color.rich_color.downgrade(ColorSystem.EIGHT_BIT).get_truecolor())


def _has_contrast(text: Color, backgrounds: Sequence[Color]) -> bool:
    pairs = [(background.blend(text, text.a, alpha=1), background) for background in backgrounds]
    return all(
        contrast(opaque, background) >= MIN_CONTRAST
        and contrast(of_256(opaque), of_256(background)) >= MIN_CONTRAST_256
        for opaque, background in pairs
    )


def _luminance(color: Color) -> float:
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (color.r / 255, color.g / 255, color.b / 255)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
