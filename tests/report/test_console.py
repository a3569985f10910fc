"""Tables and messages on screens of different widths."""

from __future__ import annotations

import io

from bioforge.report.console import PLAIN, Screen, table, wrap

ROWS = [
    ["recipe", "reason", "targets", "detail"],
    ["bio", "failed", "1,200", "rate_limit: too many requests in this minute"],
]


def test_a_file_gets_whole_lines_without_colours() -> None:
    assert Screen.of(io.StringIO()) == PLAIN
    assert list(table(ROWS, right=(2,), reasons=(1,))) == [
        "recipe  reason  targets  detail",
        "bio     failed    1,200  rate_limit: too many requests in this minute",
    ]
    assert wrap("word " * 100, None) == ["word " * 100]


def test_a_narrow_screen_wraps_the_widest_column_at_words() -> None:
    assert list(table(ROWS, right=(2,), screen=Screen(50))) == [
        "recipe  reason  targets  detail",
        "bio     failed    1,200  rate_limit: too many",
        "                         requests in this minute",
    ]


def test_less_important_columns_are_left_out_before_words_are_broken() -> None:
    assert list(table(ROWS, right=(2,), screen=Screen(30), drop=(3,))) == [
        "recipe  reason  targets",
        "bio     failed    1,200",
    ]


def test_reasons_have_colours_where_colours_are_wanted() -> None:
    assert "\x1b[31mfailed\x1b[0m" in list(table(ROWS, screen=Screen(None, True), reasons=(1,)))[1]
    assert next(Screen(None, True).message("error: no artist")) == "\x1b[31merror:\x1b[0m no artist"
    assert next(Screen(80, False).message("error: no artist")) == "error: no artist"


def test_further_lines_stand_below_the_text_of_a_labelled_line() -> None:
    assert wrap("failed    12: 8 timeout and 4 rate_limit", 30) == [
        "failed    12: 8 timeout and 4",
        "          rate_limit",
    ]
