-- The queue's tables. An absent field is NULL, which is not the same as an empty one.

-- Waiting to be worked on, or in the hands of the one source. The numbers grow only and are never used again, so a
-- number says where in the order a row stands, and everything up to a number can be removed as one range.
CREATE TABLE events (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id       TEXT    NOT NULL,
    body             BLOB    NOT NULL,
    received_at_ms   INTEGER,
    key_name         TEXT,
    signature        TEXT,
    content_type     TEXT,
    content_encoding TEXT,
    traceparent      TEXT,
    attempt          INTEGER NOT NULL,
    replay           INTEGER NOT NULL,
    replayed_at_ms   INTEGER,
    stored_at_ms     INTEGER NOT NULL,
    delivery_count   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Few rows: those that an end of the process has charged with a return.
CREATE INDEX events_charged ON events (seq) WHERE delivery_count > 0;

-- Put off until their time has come.
CREATE TABLE retries (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    due_at_ms        INTEGER NOT NULL,
    message_id       TEXT    NOT NULL,
    body             BLOB    NOT NULL,
    received_at_ms   INTEGER,
    key_name         TEXT,
    signature        TEXT,
    content_type     TEXT,
    content_encoding TEXT,
    traceparent      TEXT,
    attempt          INTEGER NOT NULL,
    replay           INTEGER NOT NULL,
    replayed_at_ms   INTEGER,
    stored_at_ms     INTEGER NOT NULL
) STRICT;

CREATE INDEX retries_due ON retries (due_at_ms, seq);

-- Dead letters, oldest first. Origin: 'event', 'callback' for a command that no receiver took, or 'command' for one that
-- was brought here from elsewhere.
CREATE TABLE dead (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    origin           TEXT    NOT NULL,
    routing_key      TEXT    NOT NULL,
    reason           TEXT    NOT NULL,
    stage            TEXT,
    detail           TEXT,
    dead_at_ms       INTEGER NOT NULL,
    message_id       TEXT    NOT NULL,
    body             BLOB    NOT NULL,
    received_at_ms   INTEGER,
    key_name         TEXT,
    signature        TEXT,
    content_type     TEXT,
    content_encoding TEXT,
    traceparent      TEXT,
    attempt          INTEGER NOT NULL,
    replay           INTEGER NOT NULL,
    replayed_at_ms   INTEGER,
    delivery_count   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX dead_by_id ON dead (message_id);

-- Rows and bytes of bodies in each table, kept in step with it: counting a million rows takes too long to be asked for
-- every few seconds.
CREATE TABLE totals (
    name  TEXT PRIMARY KEY,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO totals VALUES ('events', 0, 0), ('retries', 0, 0), ('dead', 0, 0);
