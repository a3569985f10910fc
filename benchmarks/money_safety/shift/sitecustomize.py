"""A clock that jumps, for any Python program: in its PYTHONPATH, with MONEY_SAFETY_CLOCK="seconds from start:jump".

Only the wall clock jumps, as when somebody sets it: `time.time`, `time.time_ns`; and what asks the C library directly
(`datetime.now`) stays where it was.
"""

import os
import time

_now, _now_ns = time.time, time.time_ns
_after, _, _jump = os.environ.get("MONEY_SAFETY_CLOCK", "0:0").partition(":")
_from, _by = _now() + float(_after), float(_jump)


def _shifted() -> float:
    now = _now()
    return now + _by if now >= _from else now


def _shifted_ns() -> int:
    now = _now_ns()
    return now + int(_by * 1e9) if now >= _from * 1e9 else now


time.time, time.time_ns = _shifted, _shifted_ns
