-- Names of files, and texts that may quote them or come from a server, are BLOBs: not every one of
-- them is valid UTF-8. Structured values that nothing queries are JSON. Enumerations are the
-- numbers of BITS where it has numbers. Times are seconds since the epoch, UTC.

CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY,    -- order of creation
    id              TEXT    NOT NULL UNIQUE,
    type            INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    owner_uid       INTEGER NOT NULL,
    owner_gid       INTEGER NOT NULL,
    owner_groups    TEXT    NOT NULL,       -- JSON
    owner_name      BLOB    NOT NULL,
    owner_kind      TEXT    NOT NULL,
    settings        TEXT    NOT NULL,       -- JSON
    file_count      INTEGER NOT NULL,
    error           TEXT,                   -- JSON
    error_count     INTEGER NOT NULL,
    created_at      REAL    NOT NULL,
    modified_at     REAL    NOT NULL,
    transferred_at  REAL,
    ended_at        REAL,
    was_resumed     INTEGER NOT NULL,
    run             INTEGER NOT NULL,
    active_s        REAL    NOT NULL,
    active_since    REAL,
    retry_at        REAL,
    no_progress_since REAL,
    closing         TEXT,
    result          TEXT    NOT NULL
) STRICT;

CREATE TABLE files (
    job             INTEGER NOT NULL,
    idx             INTEGER NOT NULL,
    remote_name     BLOB    NOT NULL,
    local_name      BLOB    NOT NULL,
    temporary_name  BLOB    NOT NULL,
    ranges          TEXT,                   -- JSON: [[offset, length], …]
    checksum        TEXT,
    bytes_total     INTEGER,
    bytes_transferred INTEGER NOT NULL,
    etag            BLOB,
    last_modified   BLOB,
    remote_size     INTEGER,
    transferred     INTEGER NOT NULL,
    completed       INTEGER NOT NULL,
    validation      INTEGER,
    resumable       INTEGER,
    restarts        INTEGER NOT NULL,
    response_headers BLOB   NOT NULL,
    PRIMARY KEY (job, idx)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT remembers the highest id when all events are gone: none is ever given twice.
CREATE TABLE events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    time            REAL    NOT NULL,
    kind            TEXT    NOT NULL,
    job_id          TEXT    NOT NULL,
    text            BLOB    NOT NULL,
    owner_uid       INTEGER NOT NULL
) STRICT;

CREATE INDEX events_of_job ON events (job_id);

CREATE TABLE effects (
    id              INTEGER PRIMARY KEY,
    job_id          TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    payload         BLOB    NOT NULL
) STRICT;
