"""Amounts of money in JSON on stdout."""

from __future__ import annotations

import json

from bioforge.cli.format import json_text


def test_amounts_are_plain_decimals() -> None:
    value = {
        "cost_usd": 4.0799999999999996e-05,
        "groups": [{"cost_usd": 12.0, "maybe_cost_usd": None}],
        "seconds": 1e-05,
    }
    text = json_text(value, indent=None)
    assert text == ('{"cost_usd": 0.0000408, "groups": [{"cost_usd": 12.0, "maybe_cost_usd": null}], "seconds": 1e-05}')
    assert json.loads(text)["cost_usd"] == 0.0000408
