-- Upload jobs: what the server replies, and what is known of the session there.

ALTER TABLE jobs ADD COLUMN reply TEXT;                               -- JSON
ALTER TABLE jobs ADD COLUMN upload_memory BLOB NOT NULL DEFAULT x'';
ALTER TABLE jobs ADD COLUMN cancel_until REAL;
