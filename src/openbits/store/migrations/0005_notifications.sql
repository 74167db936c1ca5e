-- Notifications, pieces of files, the event log's numbers, and settings of the machine.

ALTER TABLE jobs ADD COLUMN notify_command TEXT;                        -- JSON: {program, arguments}
ALTER TABLE jobs ADD COLUMN owed_notice TEXT;                           -- transferred, error
ALTER TABLE jobs ADD COLUMN owed_webhook TEXT;
ALTER TABLE files ADD COLUMN demand TEXT;                               -- JSON: {wanted, filled, position}
ALTER TABLE files ADD COLUMN was_announced INTEGER NOT NULL DEFAULT 0;

-- What ended before there were notifications has nobody to be told.
ALTER TABLE events ADD COLUMN event_id INTEGER NOT NULL DEFAULT 0;      -- section 13; 0: ours, without a number
ALTER TABLE events ADD COLUMN fields TEXT NOT NULL DEFAULT '{}';        -- JSON

CREATE TABLE machine_settings (
    name            TEXT    PRIMARY KEY,
    value           TEXT    NOT NULL        -- JSON
) STRICT, WITHOUT ROWID;
