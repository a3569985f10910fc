"""What a run changes in the tables, as statements for sets of rows."""

from __future__ import annotations

from bioforge.core.reasons import IN_BATCH, NEW, REMOVED
from bioforge.store.sets import Insert, Update

START_REQUESTS = Insert(
    "requests",
    "request_hash, endpoint, model, body, state, created_at, batch, attempts",
    "ON CONFLICT (request_hash) DO UPDATE SET state = excluded.state, attempts = attempts + 1, batch = excluded.batch",
)
START_ATTEMPTS = Insert(
    "attempts",
    "id, request_hash, target, run, number, reason, backend, worker, started_at, client_request_id, batch",
)
END_ATTEMPTS = Update(
    "attempts",
    "new_seconds, new_outcome, new_paid, new_class, new_code, new_message, new_status, new_request_id, new_body, attempt",
    "seconds = {new_seconds}, outcome = {new_outcome}, paid = {new_paid}, error_class = {new_class},"
    " error_code = {new_code}, error_message = {new_message}, http_status = {new_status},"
    " request_id = {new_request_id}, body = {new_body}",
    "id = {attempt}",
)
END_REQUESTS = Update(
    "requests",
    "new_state, new_response, new_class, new_code, new_message, digest",
    "state = {new_state}, response = coalesce({new_response}, response), error_class = {new_class},"
    " error_code = {new_code}, error_message = {new_message}, batch = NULL",
    "request_hash = {digest}",
    index="sqlite_autoindex_requests_1",
)
INSERT_RESPONSES = Insert(
    "responses",
    "id, request_hash, attempt, created_at, usable, response_id, model, service_tier, text, parsed, validation,"
    " error_class, error_code, error_message, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_usd, body",
)
BUILD_TARGETS = Update(
    "targets",
    "new_response, digest",
    "built_response = {new_response}, built_definition = definition, built_row = row_hash, held = 0, detail = NULL,"
    " built_upstream = upstream, reason_before = NULL, detail_before = NULL,"
    f" reason = CASE WHEN reason = '{REMOVED}' THEN reason END",
    "request_hash = {digest}",
    index="targets_by_request",
)
FAIL_TARGETS = Update(
    "targets",
    "new_reason, new_detail, new_held, digest",
    "reason = {new_reason}, detail = {new_detail}, held = {new_held}, reason_before = NULL, detail_before = NULL",
    f"request_hash = {{digest}} AND reason IS NOT NULL AND reason <> '{REMOVED}'",
    index="targets_by_request",
)
BATCH_TARGETS = Update(
    "targets",
    "new_batch, digest",
    f"reason_before = reason, detail_before = detail, reason = '{IN_BATCH}', detail = {{new_batch}}",
    f"request_hash = {{digest}} AND reason IS NOT NULL AND reason NOT IN ('{REMOVED}', '{IN_BATCH}')",
    index="targets_by_request",
)
GIVE_BACK_TARGETS = Update(
    "targets",
    "digest",
    f"reason = coalesce(reason_before, '{NEW}'), detail = detail_before, reason_before = NULL, detail_before = NULL",
    f"request_hash = {{digest}} AND reason = '{IN_BATCH}'",
    index="targets_by_request",
)
