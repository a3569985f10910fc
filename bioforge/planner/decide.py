"""Decide whether a target is fresh or stale, and for what reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason, RequestState, Upstream


def decide(
    request_hash: str, target: KnownTarget | None, request: KnownRequest | None, changes: str | None
) -> Decision:
    """Return the decision for a target that needs the request with this hash.

    `changes` names the differences from its last build.
    """
    state = None if request is None else RequestState(request.state)
    if request is not None and state is RequestState.IN_BATCH:
        return Decision(Reason.IN_BATCH, request.detail)
    if target is not None and target.forced(request_hash):
        return Decision(Reason.FORCED)
    if request is not None and state is RequestState.ANSWERED:
        return Decision(None, response=request.response)
    if target is not None and target.accepted_hash == request_hash:
        return Decision(None, response=target.accepted_response)
    if request is not None and state is not None:
        info = state.info
        detail = None if info.reason is Reason.FORGOTTEN else request.detail
        return Decision(info.reason, detail, held=request.held)
    if target is None or target.built_response is None:
        return Decision(Reason.NEW)
    return Decision(Reason.CHANGED, changes or "rendering")


def blocked(upstream: Sequence[Upstream], target: KnownTarget | None) -> Decision | None:
    """Return the decision for a target that has to wait for upstream recipes; None if all their answers are available."""
    stale = [need for need in upstream if need.reason is not None or need.response is None]
    if not stale:
        return None
    forced = target is not None and Reason.FORCED in (target.reason, target.reason_before)
    before = Reason.FORCED if forced else None
    for need in stale:
        if need.reason == Reason.SKIPPED:
            return Decision(Reason.SKIPPED, need.detail, reason_before=before)
        if need.stuck:
            error_class = (need.detail or "").partition(":")[0] if need.reason == Reason.FAILED else need.reason
            return Decision(Reason.SKIPPED, f"{need.recipe} ({error_class or need.reason})", reason_before=before)
    return Decision(Reason.UPSTREAM, ", ".join(need.recipe for need in stale), reason_before=before)
