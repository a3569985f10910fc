"""Options that cannot be meant are refused with a sentence that says what to write."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from bioforge.config.tables import SimulatorTable as Table
from bioforge.simulator import FAULTS, Outage, SimulatorOptions

NAMES = ", ".join(FAULTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"faults": {"rate_limt": 0.1}},
            f"unknown fault 'rate_limt', did you mean 'rate_limit'? (faults: {NAMES})",
        ),
        ({"faults": {"xyz": 0.1}}, f"unknown fault 'xyz' (faults: {NAMES})"),
        ({"faults": {"hang": 1.5}}, "fault 'hang': probability must be from 0 to 1, not 1.5"),
        ({"faults": {"hang": -0.1}}, "fault 'hang': probability must be from 0 to 1, not -0.1"),
        ({"faults": {"hang": float("nan")}}, "fault 'hang': probability must be from 0 to 1, not nan"),
        ({"faults": {"hang": "5%"}}, "fault 'hang': probability must be a number from 0 to 1, not '5%'"),
        (
            {"faults": {"hang": 0.6, "refusal": 0.6}},
            "fault probabilities add up to 1.2, which is more than 1",
        ),
        (
            {"script": {"Kobro": ["refused"]}},
            f"unknown fault 'refused', did you mean 'refusal'? (faults: {NAMES}, ok)",
        ),
        (
            {"script": {"Kobro": "hang"}},
            "script for 'Kobro': a list of faults is needed, not the text 'hang'",
        ),
        ({"latency": -1}, "latency must be at least 0, not -1"),
        ({"latency": float("nan")}, "latency must be at least 0, not nan"),
        ({"requests_per_minute": 0}, "requests_per_minute must be at least 1, not 0"),
        ({"tokens_per_minute": 0}, "tokens_per_minute must be at least 1, not 0"),
        ({"quota_after": -1}, "quota_after must be at least 0, not -1"),
        ({"several_parts": 2}, "several_parts must be True, False or from 0 to 1, not 2"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        SimulatorOptions(**options)


def test_probabilities_may_add_up_to_one():
    assert SimulatorOptions(faults=dict.fromkeys(FAULTS, 1 / len(FAULTS))).faults


def test_an_outage_has_a_length():
    with pytest.raises(ValueError, match="number_of_requests must be at least 1, not 0"):
        Outage(3, 0)


def test_a_project_can_set_every_option_that_is_plain_data():
    names = {field.name for field in fields(SimulatorOptions)}
    assert set(Table.model_fields) == names - {"script", "outage"}


def test_paths_of_a_project_are_below_its_root(tmp_path):
    table = Table(ledger="ledger.jsonl", data="sim", batch_script=["stuck"])
    given = table.given(tmp_path)
    assert (given["ledger"], given["data"]) == (str(tmp_path / "ledger.jsonl"), str(tmp_path / "sim"))
    assert SimulatorOptions(**given).batch_script == ["stuck"]
