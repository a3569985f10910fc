"""Export records for tests of writers, with difficult texts and values."""

from __future__ import annotations

from collections.abc import Sequence

from bioforge.core.interfaces import Record

HALF_A_CHARACTER = "half of a pair: \ud83c, and on"


def record(number: int, text: str | None = "A life.", **further: object) -> dict[str, object]:
    """Return an export record: keys are absent where empty, except `error`, which is None then.

    Without a text it is a failure.
    """
    found: dict[str, object] = {
        "artist_id": f"a{number}",
        "artist_name": f"Artist {number}",
        "artist_data": f"painter {number}",
        "recipe": "bio",
        "request": {"hash": f"v1:{number:064x}", "endpoint": "/v1/responses", "model": "gpt-6-luna"},
    }
    if text is None:
        found["error"] = {"class": "rate_limit", "code": None, "message": "too many requests"}
    else:
        found |= {
            "response_text": text,
            "response_id": f"resp_{number}",
            "created": "2026-05-01T12:00:00+00:00",
            "model": "gpt-6-luna-2026-05-01",
            "usage": {"input_tokens": 10, "output_tokens": 20},
            "cost_usd": 0.0001,
            "error": None,
        }
    return {**found, **further}


RECORDS: Sequence[Record] = (
    record(1),
    record(2, 'Łempicka, "Tamara";\nline two\n\n- a list | a table\n#tag', artist_name="Łempicka, Tamara"),
    record(3, None),
    record(4, "日本 🎨 <b>&amp;</b> 'quoted'", artist_name="日本 太郎", artist_id="0"),
    record(5, '{"born": 1965, "works": ["a", "b"]}', parsed={"born": 1965, "works": ["a", "b"]}, model=None),
    record(6, "=1+1", artist_id="x/../y", cost_usd=None, usage={"input_tokens": 1}),
)
"""Records of the stories: difficult texts, a failure, parsed output, unusual ids."""
