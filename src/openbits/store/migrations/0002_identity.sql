-- Who an owner was, in whose name a job works, and the proxy settings of accounts.

ALTER TABLE jobs ADD COLUMN owner_elevated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN helper_flags INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN implicit_credentials TEXT NOT NULL DEFAULT '[]';  -- JSON: [[target, scheme], …]

CREATE TABLE proxy_settings (
    account         TEXT    PRIMARY KEY,    -- LOCALSYSTEM, NETWORKSERVICE, LOCALSERVICE or a decimal uid
    settings        TEXT    NOT NULL        -- JSON
) STRICT;
