"""The tables, as append-only migrations. A released migration is never edited; a new column is a new migration."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

APPLICATION_ID = 0x62696F66
"""`biof` in SQLite's header, which tells a bioforge state from other SQLite files."""

_FOUNDATION = """
-- Ids are never used twice (AUTOINCREMENT): records of what was forgotten go on pointing at it and at nothing else.
-- Counters and small facts of the state itself.
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

-- One row for each source of the input as it was last read, so that an untouched file is not read again.
CREATE TABLE inputs (
  source TEXT PRIMARY KEY, signature TEXT, etag TEXT, last_modified TEXT, cached_as TEXT, read_at REAL
) WITHOUT ROWID;

-- The rows of the last reading that were kept out.
CREATE TABLE bad_rows (source TEXT NOT NULL, line INTEGER NOT NULL, message TEXT NOT NULL);

-- The input as it is now. `columns` is a JSON object of all further columns; `generation` the reading that last
-- changed the row; `removed_at` is set while the artist is not in the input.
CREATE TABLE artists (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  artist_id TEXT NOT NULL UNIQUE,
  artist_name TEXT NOT NULL,
  artist_data TEXT NOT NULL DEFAULT '',
  columns TEXT,
  row_hash TEXT NOT NULL,
  generation INTEGER NOT NULL,
  source TEXT,
  line INTEGER,
  removed_at REAL
);
CREATE INDEX artists_by_generation ON artists (generation);

-- What rows said before they changed, for `why`. An unchanged artist has no row here.
CREATE TABLE artist_history (
  artist INTEGER NOT NULL REFERENCES artists (id), row_hash TEXT NOT NULL,
  artist_name TEXT, artist_data TEXT, columns TEXT, replaced_at REAL,
  PRIMARY KEY (artist, row_hash)
) WITHOUT ROWID;

-- Every definition a recipe ever had, for `why`.
CREATE TABLE definitions (
  id INTEGER PRIMARY KEY, recipe TEXT NOT NULL, variant TEXT NOT NULL DEFAULT '',
  definition_hash TEXT NOT NULL, definition TEXT NOT NULL, first_seen REAL,
  UNIQUE (recipe, variant, definition_hash)
);

-- How far each recipe's targets are planned: by which definition, up to which generation of artists.
CREATE TABLE planned (
  recipe TEXT NOT NULL, variant TEXT NOT NULL DEFAULT '',
  definition INTEGER NOT NULL REFERENCES definitions (id), generation INTEGER NOT NULL,
  PRIMARY KEY (recipe, variant)
) WITHOUT ROWID;

-- One recipe for one artist. `reason` is NULL when it is fresh. `request_hash` is what it wants now, `built_*` what
-- its answer was built from. `held`: paid for and not usable, asked again only when forced.
CREATE TABLE targets (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  artist INTEGER NOT NULL REFERENCES artists (id),
  recipe TEXT NOT NULL,
  variant TEXT NOT NULL DEFAULT '',
  request_hash TEXT,
  definition INTEGER NOT NULL REFERENCES definitions (id),
  row_hash TEXT NOT NULL,
  reason TEXT,
  detail TEXT,
  held INTEGER NOT NULL DEFAULT 0,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  built_response INTEGER,
  built_definition INTEGER,
  built_row TEXT,
  accepted_hash TEXT,
  accepted_response INTEGER
);
CREATE UNIQUE INDEX targets_by_artist ON targets (artist, recipe, variant);
CREATE INDEX targets_by_request ON targets (request_hash);
CREATE INDEX targets_open ON targets (id) WHERE reason IS NOT NULL;
CREATE INDEX targets_stale ON targets (recipe, reason) WHERE reason IS NOT NULL;

-- The exact bodies that were sent, and what became of each: started, waiting, answered, unusable, failed,
-- interrupted, maybe paid, forgotten.
CREATE TABLE requests (
  request_hash TEXT PRIMARY KEY,
  endpoint TEXT NOT NULL,
  model TEXT,
  body TEXT NOT NULL,
  state TEXT NOT NULL,
  response INTEGER,
  error_class TEXT,
  error_code TEXT,
  error_message TEXT,
  attempts INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL
);
CREATE INDEX requests_open ON requests (state) WHERE state IN ('started', 'waiting');

-- Every try. A row is written before anything is sent (`started`, paid `maybe`) and completed afterwards.
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  request_hash TEXT NOT NULL,
  target INTEGER,
  run INTEGER,
  number INTEGER NOT NULL,
  reason TEXT,
  backend TEXT,
  worker TEXT,
  started_at REAL NOT NULL,
  seconds REAL,
  outcome TEXT NOT NULL DEFAULT 'started',
  paid TEXT NOT NULL DEFAULT 'maybe',
  error_class TEXT,
  error_code TEXT,
  error_message TEXT,
  http_status INTEGER,
  request_id TEXT,
  client_request_id TEXT,
  body BLOB
);
CREATE INDEX attempts_by_request ON attempts (request_hash);
CREATE INDEX attempts_by_run ON attempts (run, outcome);

-- Every answer that was received, as it was received. Never deleted by itself.
CREATE TABLE responses (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  request_hash TEXT NOT NULL,
  attempt INTEGER,
  created_at REAL NOT NULL,
  usable INTEGER NOT NULL,
  response_id TEXT,
  model TEXT,
  service_tier TEXT,
  text TEXT,
  parsed TEXT,
  error_class TEXT,
  error_code TEXT,
  error_message TEXT,
  input_tokens INTEGER,
  cached_tokens INTEGER,
  output_tokens INTEGER,
  reasoning_tokens INTEGER,
  cost_usd REAL,
  body BLOB NOT NULL
);
CREATE INDEX responses_by_request ON responses (request_hash);
CREATE INDEX responses_by_attempt ON responses (attempt);

CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  command TEXT NOT NULL,
  state TEXT NOT NULL,
  started_at REAL NOT NULL,
  ended_at REAL,
  exit_code INTEGER,
  stopped_by TEXT,
  backend TEXT,
  selection TEXT,
  always_make INTEGER NOT NULL DEFAULT 0,
  max_cost_usd REAL,
  succeeded INTEGER,
  failed INTEGER,
  cost_usd REAL,
  pid INTEGER,
  host TEXT,
  version TEXT
);

-- The targets of a run that was given a plan, or a limit: exactly these, whatever else has become stale.
CREATE TABLE run_targets (run INTEGER NOT NULL, target INTEGER NOT NULL, PRIMARY KEY (run, target)) WITHOUT ROWID;

-- Answers declared current by hand, and answers dropped on purpose: who decided what, when, and what it had cost.
CREATE TABLE accepted (
  target INTEGER NOT NULL, request_hash TEXT, response INTEGER, reason TEXT, detail TEXT, accepted_at REAL, run INTEGER
);
CREATE TABLE forgotten (
  response INTEGER PRIMARY KEY, request_hash TEXT, attempt INTEGER, cost_usd REAL, forgotten_at REAL, run INTEGER
);
CREATE INDEX forgotten_by_attempt ON forgotten (attempt);

-- The outputs as they were last written, so that an unchanged one is not written again.
CREATE TABLE outputs (
  path TEXT PRIMARY KEY, options TEXT, results_version INTEGER, signature TEXT, files TEXT
) WITHOUT ROWID;

-- Artist, recipe, newest answer: for people and for Datasette.
CREATE VIEW results AS
SELECT a.artist_id, a.artist_name, a.artist_data, t.recipe, t.variant,
       CASE WHEN t.reason IS NULL THEN 'fresh' ELSE t.reason END AS state,
       r.text, r.parsed, r.model, r.response_id, r.input_tokens, r.output_tokens, r.cost_usd,
       datetime(r.created_at, 'unixepoch') AS created,
       CASE WHEN t.reason = 'failed' THEN t.detail END AS error,
       t.request_hash, a.removed_at IS NOT NULL AS removed
FROM targets t JOIN artists a ON a.id = t.artist LEFT JOIN responses r ON r.id = t.built_response;

INSERT INTO facts VALUES ('generation', 0), ('results_version', 0);
"""


_BATCHES = """
-- Batch API jobs, known from before they are created. `key` is ours and stands in the job's metadata; `batch_id`,
-- `file_id`, `status`, `completed` and `failed` are the provider's. `usage` is what it billed, `collected_usage` the sum
-- over the answers; `counts` says what became of each member. Both JSON.
CREATE TABLE batches (
  key TEXT PRIMARY KEY,
  run INTEGER,
  backend TEXT,
  provider TEXT,
  endpoint TEXT NOT NULL,
  model TEXT NOT NULL,
  state TEXT NOT NULL,
  requests INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  estimated_usd REAL,
  prepared_at REAL NOT NULL,
  file_id TEXT,
  batch_id TEXT,
  status TEXT,
  output_file_id TEXT,
  error_file_id TEXT,
  completed INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  submitted_at REAL,
  expires_at REAL,
  ended_at REAL,
  collected_at REAL,
  usage TEXT,
  problems TEXT,
  counts TEXT,
  collected_usage TEXT
) WITHOUT ROWID;
CREATE INDEX batches_open ON batches (state) WHERE state NOT IN ('collected', 'released');

-- Lines of result files that belonged to no open member: kept as they came, since they may have been paid for.
CREATE TABLE stray_lines (
  batch TEXT NOT NULL, kind TEXT NOT NULL, custom_id TEXT, line BLOB NOT NULL, seen_at REAL, digest TEXT NOT NULL,
  UNIQUE (batch, kind, digest)
);

-- How many tokens a provider lets wait in batches, as its refusals have told.
CREATE TABLE enqueued_tokens (
  provider TEXT NOT NULL, model TEXT NOT NULL, tokens INTEGER NOT NULL, learned_at REAL,
  PRIMARY KEY (provider, model)
) WITHOUT ROWID;

-- A batch's members are its attempts, in the order of their ids; their `client_request_id` is the `custom_id`.
ALTER TABLE attempts ADD COLUMN batch TEXT;
CREATE INDEX attempts_in_batch ON attempts (batch) WHERE batch IS NOT NULL;
CREATE INDEX attempts_by_custom_id ON attempts (client_request_id, batch) WHERE batch IS NOT NULL;

-- The open batch a request is in, while its state is `in batch`; and what its targets were stale for before that.
ALTER TABLE requests ADD COLUMN batch TEXT;
ALTER TABLE targets ADD COLUMN reason_before TEXT;
ALTER TABLE targets ADD COLUMN detail_before TEXT;

-- Answers that were bought elsewhere and adopted by `import`.
ALTER TABLE responses ADD COLUMN imported INTEGER NOT NULL DEFAULT 0;
"""


_RICHER = """
-- What answers were checked by (the hash of a schema with its validators); NULL: by nothing.
ALTER TABLE responses ADD COLUMN validation TEXT;

-- Which answers of needed recipes a target is wanted from, and was built from: a JSON object of response ids by recipe.
ALTER TABLE targets ADD COLUMN upstream TEXT;
ALTER TABLE targets ADD COLUMN built_upstream TEXT;

-- The request that a target asks first, whatever stands in for it by now.
ALTER TABLE targets ADD COLUMN own_hash TEXT;

-- Requests that stand in for another one after it has failed. `root` is the target's own request, `kind` is repair or
-- fallback, `body` what is sent.
CREATE TABLE follow_ups (
  request_hash TEXT PRIMARY KEY, root TEXT NOT NULL, kind TEXT NOT NULL, model TEXT, body TEXT NOT NULL,
  input_tokens INTEGER NOT NULL DEFAULT 0, planned_at REAL
) WITHOUT ROWID;

-- The recipes that others need, and the targets of theirs that have changed since those others were last planned.
CREATE TABLE needed (recipe TEXT NOT NULL, variant TEXT NOT NULL, PRIMARY KEY (recipe, variant)) WITHOUT ROWID;
CREATE TABLE upstream_changes (
  recipe TEXT NOT NULL, variant TEXT NOT NULL, artist INTEGER NOT NULL, PRIMARY KEY (recipe, variant, artist)
) WITHOUT ROWID;

DROP VIEW results;
-- Artist, recipe, newest answer: for people and for Datasette. `answered_by` is repair or fallback where the first request
-- had failed.
CREATE VIEW results AS
SELECT a.artist_id, a.artist_name, a.artist_data, t.recipe, t.variant,
       CASE WHEN t.reason IS NULL THEN 'fresh' ELSE t.reason END AS state,
       r.text, r.parsed, r.model, r.response_id, r.input_tokens, r.output_tokens, r.cost_usd,
       datetime(r.created_at, 'unixepoch') AS created,
       CASE WHEN t.reason = 'failed' THEN t.detail END AS error,
       t.request_hash, a.removed_at IS NOT NULL AS removed,
       CASE WHEN t.own_hash <> r.request_hash THEN f.kind END AS answered_by
FROM targets t JOIN artists a ON a.id = t.artist LEFT JOIN responses r ON r.id = t.built_response
LEFT JOIN follow_ups f ON f.request_hash = r.request_hash;
"""

_PACKED = """
-- Bodies that other bodies are packed with; `id` is the Adler-32 by which zlib's streams name them. Never changed.
CREATE TABLE dictionaries (id INTEGER PRIMARY KEY, kind TEXT, recipe TEXT, made_at INTEGER, data BLOB NOT NULL);
"""

_COSTS = """
-- What answers cost is added up without reading them: they stand in rows with their bodies.
DROP INDEX responses_by_attempt;
CREATE INDEX responses_by_attempt ON responses (attempt, cost_usd, imported);
"""

_NOTE_CHANGES = """
CREATE TRIGGER note_upstream_changes AFTER UPDATE OF reason, built_response ON targets
WHEN (NEW.reason IS NOT OLD.reason OR NEW.built_response IS NOT OLD.built_response)
  AND EXISTS (SELECT 1 FROM needed WHERE recipe = NEW.recipe AND variant = NEW.variant)
BEGIN
  INSERT INTO upstream_changes SELECT NEW.recipe, NEW.variant, NEW.artist WHERE NOT EXISTS (
    SELECT 1 FROM upstream_changes WHERE recipe = NEW.recipe AND variant = NEW.variant AND artist = NEW.artist);
END
"""
"""Triggers that note every change of a target that others need, in the same transaction.

`OR IGNORE` inside a trigger is overridden by the conflict clause of the statement that fires it.
"""


def migrations() -> Migrations:
    from sqlite_utils import Migrations

    known = Migrations("bioforge")

    for name, statements in (
        ("0001_foundation", [*_statements(_FOUNDATION), f"PRAGMA application_id = {APPLICATION_ID}"]),
        ("0002_batches", _statements(_BATCHES)),
        ("0003_richer_recipes", [*_statements(_RICHER), _NOTE_CHANGES]),
        ("0004_packed_bodies", _statements(_PACKED)),
        ("0005_costs", _statements(_COSTS)),
    ):

        @known(name=name)
        def execute(db: Database, statements: list[str] = statements) -> None:
            for statement in statements:
                db.execute(statement)

    return known


def _statements(script: str) -> list[str]:
    """Yield one statement at a time: `executescript` would commit the migration's transaction."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [statement for statement in (part.strip() for part in "\n".join(lines).split(";")) if statement]
