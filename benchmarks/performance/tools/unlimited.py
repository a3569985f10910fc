"""A script of money_safety's tools without the rate limits that it was given there: `unlimited.py SCRIPT [ARGUMENT…]`.

People set these to what their account allows. Here the server has no limits, and who reaches one measures it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

MANY = 100_000_000


def main() -> int:
    path = Path(sys.argv.pop(1))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    if hasattr(script, "REQUESTS_PER_MINUTE"):
        script.REQUESTS_PER_MINUTE = float(MANY)
    if hasattr(script, "Biographer"):
        limited = script.Biographer

        def unlimited(*, backend_params: dict[str, Any], **given: Any) -> Any:
            limits = {"max_requests_per_minute": MANY, "max_tokens_per_minute": 100 * MANY}
            return limited(backend_params={**backend_params, **limits}, **given)

        script.Biographer = unlimited
    ended = asyncio.run(script.main()) if inspect.iscoroutinefunction(script.main) else script.main()
    return int(ended)


if __name__ == "__main__":
    sys.exit(main())
