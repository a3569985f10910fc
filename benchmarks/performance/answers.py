"""The answers that nginx gives: as long as a biography, and another text for each."""

from __future__ import annotations

import json
import random
from statistics import fmean
from typing import Any

from performance.bare import MODEL

SLOTS, CHOICES = 8, 64
TEXT = "Artist $request_id. " + " ".join(f"$sentence{slot}" for slot in range(SLOTS))
"""Another text for each answer: a state that packs what repeats finds in them about what it finds in real ones."""
RESPONSE: dict[str, Any] = {
    "id": "resp_$request_id",
    "object": "response",
    "created_at": 1795289726,
    "status": "completed",
    "background": False,
    "completed_at": 1795289727,
    "error": None,
    "incomplete_details": None,
    "instructions": "Write a short biography of this artist, using only what is given.",
    "max_output_tokens": 400,
    "max_tool_calls": None,
    "model": MODEL,
    "output": [
        {
            "id": "msg_$request_id",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": TEXT}],
        }
    ],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": {
        "input_tokens": 26,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 92,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 118,
    },
    "user": None,
    "metadata": {},
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-$request_id",
    "object": "chat.completion",
    "created": 1795289726,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 26,
        "completion_tokens": 92,
        "total_tokens": 118,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_20260501",
}
VOCABULARY = """
painter painting drawing drawings coast harbour river town city museum collection exhibition exhibitions journey letters
sketchbook family teacher pupil studio interior landscape portrait figure figures colour palette light shadow grey brown
blue green early late later first second long short quiet large small public private known unknown lost kept shown sold
bought given made left returned travelled worked lived studied taught married moved began ended grew gave found wrote was
were is are had has and or but in of to from with without between after before during until near by at for the the the a a
an one two three several many few most some no each other another his her their its who which where when while since
"""


def sentences(slot: int) -> list[str]:
    """What may stand at a place of the text; the same on every machine."""
    draw, words = random.Random(slot), VOCABULARY.split()
    return [" ".join(draw.choice(words) for _ in range(draw.randint(7, 12))).capitalize() + "." for _ in range(CHOICES)]


def tables() -> str:
    """The tables by which nginx takes a sentence for each place, by the id that it makes for each request."""
    found = []
    for slot in range(SLOTS):
        *some, last = sentences(slot)
        lines = [f'    {100 / CHOICES:.2f}% "{sentence}";' for sentence in some]
        lines.append(f'    * "{last}";')
        found.append(f'  split_clients "${{request_id}}{slot}" $sentence{slot} {{\n' + "\n".join(lines) + "\n  }")
    return "\n".join(found)


def typical_size() -> int:
    """Bytes of an answer by the Responses API, in the mean."""
    text = sum(fmean(map(len, sentences(slot))) - len(f"$sentence{slot}") for slot in range(SLOTS))
    return round(len(json.dumps(RESPONSE).replace("$request_id", "0" * 32)) + text)
