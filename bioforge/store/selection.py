"""The targets that a command selects, as data that is stored with a run, and as SQL."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from bioforge.core.errors import UsageError, nearest
from bioforge.core.reasons import STALE_REASONS


@dataclass(frozen=True, slots=True)
class Selection:
    """A selection; empty tuples mean everything.

    `ids` are artist ids or globs. `limit` is the highest number of targets.

    `variants` are pairs of recipe and variant. `run`: only the targets listed for that run. `plan`: a plan file
    that is to become such a list.
    """

    recipes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    limit: int | None = None
    run: int | None = None
    plan: str | None = None
    variants: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(
        cls,
        recipes: tuple[str, ...],
        select: tuple[str, ...],
        limit: int | None = None,
        variants: tuple[tuple[str, str], ...] = (),
    ) -> Self:
        """Parse `--select` values: an artist id, a glob, or `reason:WORD`. Raises `UsageError`."""
        ids, reasons = [], []
        for item in select:
            if item.startswith("reason:"):
                reason = item.removeprefix("reason:").replace("-", " ")
                if reason not in STALE_REASONS:
                    raise UsageError(
                        f"--select {item}: no such reason",
                        nearest(reason.replace(" ", "-"), [known.replace(" ", "-") for known in STALE_REASONS])
                        or "reasons are: " + ", ".join(known.replace(" ", "-") for known in STALE_REASONS),
                    )
                reasons.append(reason)
            elif item:
                ids.append(item)
        return cls(recipes, tuple(ids), tuple(reasons), limit, variants=variants)

    @property
    def everything(self) -> bool:
        narrowed = self.ids or self.reasons or self.variants
        return not narrowed and self.limit is None and self.run is None and self.plan is None

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        data: dict[str, Any] = json.loads(text or "{}")
        for name in ("recipes", "ids", "reasons"):
            data[name] = tuple(data.get(name, ()))
        data["variants"] = tuple((recipe, variant) for recipe, variant in data.get("variants", ()))
        return cls(**data)

    def without_reasons(self) -> Selection:
        return replace(self, reasons=())

    def where(self, target: str = "t", artist: str = "a") -> tuple[str, list[object]]:
        """Return a condition over the aliases of `targets` and `artists`, and its parameters."""
        parts, values = ["1"], list[object]()
        if self.recipes:
            parts.append(f"{target}.recipe IN ({', '.join('?' * len(self.recipes))})")
            values += self.recipes
        if self.variants:
            pairs = "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
            parts.append(f"({target}.recipe, {target}.variant) IN ({pairs})")
            values.append(json.dumps(self.variants))
        if self.ids:
            exact = [item for item in self.ids if not _is_glob(item)]
            either = []
            if exact:
                either.append(f"{artist}.artist_id IN (SELECT value FROM json_each(?))")
                values.append(json.dumps(exact))
            for glob in (item for item in self.ids if _is_glob(item)):
                either.append(f"({artist}.artist_id GLOB ? OR {artist}.artist_id = ?)")
                values += [glob, glob]
            parts.append(f"({' OR '.join(either)})")
        if self.reasons:
            parts.append(f"{target}.reason IN ({', '.join('?' * len(self.reasons))})")
            values += self.reasons
        if self.run is not None:
            parts.append(f"EXISTS (SELECT 1 FROM run_targets WHERE run = ? AND target = {target}.id)")
            values.append(self.run)
        return " AND ".join(parts), values


def _is_glob(item: str) -> bool:
    return any(character in item for character in "*?[")
