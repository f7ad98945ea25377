from autograder.levels import LEVELS
from tools.draw_tower import GLOW, PICTURE, draw, is_written


def test_the_tower_in_the_book_is_the_one_the_levels_draw():
    assert PICTURE.read_text(encoding="utf-8") == draw(), "run python tools/draw_tower.py"


def test_light_is_in_the_windows_of_the_levels_that_can_be_read():
    assert draw().count(f'fill="{GLOW}"') == 3 * sum(map(is_written, LEVELS))
