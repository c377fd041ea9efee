-- The first schema: who holds the file, instances and their journals, blobs, versions and deployments.
--
-- account_id comes first in every key of user data. What can be claimed has owner, epoch and lease_expires_at, so that
-- several nodes can share the same schema later. Invariants stand here a second time as CHECK and UNIQUE: the rules in
-- core/ keep them, this proves it.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: the node that writes. The epoch rises with every opening; each group of writes checks it in its own
-- transaction, so a node that lost the file cannot acknowledge anything.
CREATE TABLE holder (
    id               INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    owner            TEXT    NOT NULL,
    epoch            INTEGER NOT NULL CHECK (epoch >= 1),
    lease_expires_at INTEGER,
    held_since       INTEGER NOT NULL
) STRICT;

-- One row of random bytes, rewritten at each start: it grows the write-ahead log to its working size before the first
-- commit, because overwriting a block is a third cheaper than appending one.
CREATE TABLE wal_filler (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    filler BLOB    NOT NULL
) STRICT;

-- Run manifests, each distinct set of versions once. A node has few of them and many runs, so "which versions are
-- still needed" is one index probe per manifest instead of decoding every journal. The id is a hash of the versions.
CREATE TABLE run_manifest (
    account_id  TEXT NOT NULL,
    manifest_id TEXT NOT NULL CHECK (length(manifest_id) = 32),
    versions    TEXT NOT NULL CHECK (json_type(versions) = 'array'),
    PRIMARY KEY (account_id, manifest_id)
) STRICT, WITHOUT ROWID;

-- One row per incarnation. run numbers them in the order of their creation (epoch of the holder, then a counter, so it
-- is unique without asking): it keeps what is written at the same time in the same pages, in this table, in its indexes
-- and in the journal. With random instance ids as the journal's key each commit dirtied a page per run: a third of the
-- speed, measured.
CREATE TABLE instance (
    run              INTEGER NOT NULL PRIMARY KEY CHECK (run >= 1),
    account_id       TEXT    NOT NULL,
    workflow         TEXT    NOT NULL,
    instance_id      TEXT    NOT NULL,
    incarnation      INTEGER NOT NULL CHECK (incarnation >= 1),
    status           TEXT    NOT NULL CHECK (status IN
        ('queued', 'running', 'waiting', 'paused', 'waitingForPause', 'complete', 'errored', 'terminated', 'unknown')),
    worker           TEXT    NOT NULL,
    version_id       TEXT    NOT NULL,
    class_name       TEXT    NOT NULL,
    manifest_id      TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    modified_at      INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER,
    wake_at          INTEGER,
    superseded       INTEGER NOT NULL DEFAULT 0 CHECK (superseded IN (0, 1)),  -- a later incarnation exists
    owner            TEXT    NOT NULL DEFAULT '',
    epoch            INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    lease_expires_at INTEGER,
    UNIQUE (account_id, workflow, instance_id, incarnation),
    FOREIGN KEY (account_id, manifest_id) REFERENCES run_manifest,
    CHECK ((status IN ('complete', 'errored', 'terminated')) = (ended_at IS NOT NULL)),
    CHECK (superseded = 0 OR ended_at IS NOT NULL),  -- at most one incarnation lives
    CHECK (owner = '' OR epoch >= 1),
    CHECK (owner <> '' OR lease_expires_at IS NULL)
) STRICT;

-- Listing, newest first; one row per instance.
CREATE INDEX instance_by_age ON instance (account_id, workflow, created_at, instance_id) WHERE superseded = 0;

-- Listing by status, and counting without touching a row.
CREATE INDEX instance_by_status ON instance (account_id, workflow, status, created_at, instance_id)
    WHERE superseded = 0;

-- What a starting node takes up, the oldest first. Sleeping runs are not in it: a million of them cost a restart nothing.
CREATE INDEX instance_unfinished ON instance (run)
    WHERE status IN ('queued', 'running', 'waitingForPause');

-- What a timer must take up, the earliest first.
CREATE INDEX instance_due ON instance (wake_at) WHERE wake_at IS NOT NULL AND status = 'waiting';

-- Which manifests are still needed by a run that has not ended.
CREATE INDEX instance_live_manifest ON instance (account_id, manifest_id) WHERE ended_at IS NULL;

-- The journal. No index besides its key: an entry costs one insert at the end of its run's range. That an entry's run
-- exists is checked by the writer, which has to look the run's number up; a foreign key would look a second time.
CREATE TABLE journal (
    account_id TEXT    NOT NULL,
    run        INTEGER NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq >= 0),
    at         INTEGER NOT NULL,
    entry      BLOB    NOT NULL,
    PRIMARY KEY (account_id, run, seq)
) STRICT, WITHOUT ROWID;

-- Values too large for a journal entry, by content. A rowid table: rows are large and read alone.
CREATE TABLE blob (
    account_id TEXT    NOT NULL,
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    size       INTEGER NOT NULL CHECK (size = length(data)),
    refs       INTEGER NOT NULL CHECK (refs >= 0),
    data       BLOB    NOT NULL,
    PRIMARY KEY (account_id, sha256)
) STRICT;

CREATE TABLE version (
    account_id  TEXT    NOT NULL,
    worker      TEXT    NOT NULL,
    version_id  TEXT    NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),
    created_at  INTEGER NOT NULL,
    source      TEXT    NOT NULL,
    bundle      TEXT    NOT NULL,
    config      BLOB    NOT NULL,
    config_hash TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    PRIMARY KEY (account_id, worker, version_id),
    UNIQUE (account_id, worker, number),
    UNIQUE (account_id, worker, config_hash),
    UNIQUE (version_id)
) STRICT, WITHOUT ROWID;

-- number: the order of deployments of a Worker; times may stand still or jump, the order may not.
CREATE TABLE deployment (
    account_id    TEXT    NOT NULL,
    worker        TEXT    NOT NULL,
    number        INTEGER NOT NULL CHECK (number >= 1),
    deployment_id TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    source        TEXT    NOT NULL,
    message       TEXT    NOT NULL,
    PRIMARY KEY (account_id, worker, number),
    UNIQUE (deployment_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployment_version (
    account_id TEXT    NOT NULL,
    worker     TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    position   INTEGER NOT NULL CHECK (position IN (0, 1)),
    version_id TEXT    NOT NULL,
    percentage REAL    NOT NULL CHECK (percentage BETWEEN 0 AND 100),
    PRIMARY KEY (account_id, worker, number, position),
    UNIQUE (account_id, worker, number, version_id),
    FOREIGN KEY (account_id, worker, number) REFERENCES deployment ON DELETE CASCADE,
    FOREIGN KEY (account_id, worker, version_id) REFERENCES version
) STRICT, WITHOUT ROWID;
