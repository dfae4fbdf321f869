-- The ledger's tables. A `place` or `account` is half a hash of an id, see records.rs; packed columns belong to rows.rs.

-- What is remembered of each device, its history included.
CREATE TABLE devices (
    place INTEGER PRIMARY KEY,
    account INTEGER,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX devices_of_account ON devices (account) WHERE account IS NOT NULL;

-- A registered operation, and the command it owes: the outbox is the rows that are due some time.
CREATE TABLE operations (
    place INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    owed BLOB,
    since INTEGER,
    first_due INTEGER,
    due INTEGER,
    PRIMARY KEY (place, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox ON operations (due, since) WHERE due IS NOT NULL;

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- A slot is a generation times 256, plus a partition: old generations lie together at the beginning.
CREATE TABLE marks (
    slot INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    PRIMARY KEY (slot, mark)
) STRICT, WITHOUT ROWID;

-- Devices by status, in the order of the model's statuses.
CREATE TABLE counts (
    status INTEGER PRIMARY KEY,
    devices INTEGER NOT NULL
) STRICT;
INSERT INTO counts VALUES (0, 0), (1, 0), (2, 0), (3, 0);

-- When the ledger was last proved writable.
CREATE TABLE ledger_proof (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
