"""Draw chapters/tower.svg, the picture of the course: nine storeys, with light where a level can be read.

    python tools/draw_tower.py

Run it when a level is written; a test compares the picture with the levels there are.
"""

from html import escape
from pathlib import Path

from autograder.levels import LEVELS, ROOT, Level

PICTURE = ROOT / "chapters" / "tower.svg"
WIDTH, HEIGHT, STOREY, GROUND = 430, 596, 52, 556
CENTRE, LABELS = 108, 226
WALL, WALL_LIT, ROOF, RIM, GLOW = "#33435f", "#5c3b33", "#1b2740", "#7d8fab", "#ffcf73"


def is_written(level: Level) -> bool:
    """Whether the level's lecture is there."""
    return (ROOT / "chapters" / f"{level.assignment}.py").exists()


def storey(level: Level, lit: bool) -> str:
    """Draw one storey: a wall with windows, the eaves above it, and its name on the right."""
    floor, half = GROUND - STOREY * (level.number - 1), 80 - 5.6 * level.number
    top, eave, ridge = floor - 33, half + 15, half - 7
    wall = (
        f'<rect x="{CENTRE - half:g}" y="{top}" width="{2 * half:g}" height="33" '
        f'fill="{WALL_LIT if lit else WALL}"/>'
    )
    windows = "".join(
        f'<path d="M{CENTRE + side * half * 0.56 - 6:.1f} {floor - 6}v-13a6 6 0 0 1 12 0v13z" '
        f'fill="{GLOW if lit else ROOF}" stroke="{RIM}" stroke-width=".6"/>'
        for side in (-1, 0, 1)
    )
    roof = (
        f'<path d="M{CENTRE - eave:g} {top - 5}Q{CENTRE - half:g} {top - 1} {CENTRE - ridge:g} {top - 19}'
        f"H{CENTRE + ridge:g}Q{CENTRE + half:g} {top - 1} {CENTRE + eave:g} {top - 5}"
        f'L{CENTRE + half:g} {top + 3}H{CENTRE - half:g}z" fill="{ROOF}" stroke="{RIM}" stroke-width=".9"/>'
    )
    ink, state = ("#ffe3ab", "") if lit else ("#c3cede", " · planned")
    names = (
        f'<path d="M{CENTRE + eave + 6:g} {floor - 17}H{LABELS - 8}" stroke="{ink}" stroke-opacity=".45"/>'
        f'<text x="{LABELS}" y="{floor - 20}" fill="{ink}" font-size="16">'
        f'{level.number}<tspan dx="8" lang="zh">{level.chinese}</tspan>'
        f'<tspan font-size="11" fill="#a9b7ca">{state}</tspan></text>'
        f'<text x="{LABELS}" y="{floor - 4}" fill="{ink}" font-size="12.5">{escape(level.title)}</text>'
    )
    return wall + windows + roof + names


def landscape() -> str:
    """Draw the sky, a moon, and three ranges of mountains, the nearest darkest."""
    stars = "".join(
        f'<circle cx="{(n * 97 + 31) % WIDTH}" cy="{(n * 53 + 17) % 330}" r="{0.5 + n % 3 * 0.25}"/>'
        for n in range(70)
        if (n * 97 + 31) % WIDTH < LABELS - 10 or (n * 53 + 17) % 330 < 95
    )
    ranges = (
        (
            "#2b4066",
            "M0 410L34 372 52 386 100 326 132 364 170 338 214 384 268 312 300 352 330 334 384 290 430 344",
        ),
        ("#223556", "M0 486L48 440 76 456 140 400 196 462 236 430 262 444 318 388 372 440 430 402"),
        ("#172640", "M0 560Q80 522 150 547T300 524Q370 502 430 532"),
    )
    return (
        '<defs><linearGradient id="tower-sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" '
        'stop-color="#0d1730"/><stop offset="1" stop-color="#3a5280"/></linearGradient></defs>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="url(#tower-sky)"/>'
        f'<g fill="#dfe8f5" fill-opacity=".55">{stars}</g>'
        '<circle cx="366" cy="52" r="23" fill="#f4ead0"/>'
        + "".join(f'<path d="{outline}V{HEIGHT}H0z" fill="{colour}"/>' for colour, outline in ranges)
    )


def draw() -> str:
    """Return the whole picture as SVG, with words for those who cannot see it."""
    lit = [level for level in LEVELS if is_written(level)]
    words = "A tower of nine storeys among mountains at night. From the ground up: " + "; ".join(
        f"{level.number}, {level.title}{', lit' if level in lit else ''}" for level in LEVELS
    )
    top = GROUND - STOREY * len(LEVELS)
    spire = (
        f'<path d="M{CENTRE} {top - 36}V{top}" stroke="{RIM}" stroke-width="2.5"/>'
        f'<circle cx="{CENTRE}" cy="{top - 10}" r="4" fill="{RIM}"/>'
        f'<circle cx="{CENTRE}" cy="{top - 22}" r="3" fill="{RIM}"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(words)}" style="display:block;width:100%;max-width:34rem;margin:0 auto 1.5rem" '
        f"font-family=\"Georgia, 'Noto Serif CJK SC', 'Songti SC', serif\">{landscape()}"
        + spire
        + "".join(storey(level, level in lit) for level in LEVELS)
        + "</svg>\n"
    )


if __name__ == "__main__":
    Path(PICTURE).write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
