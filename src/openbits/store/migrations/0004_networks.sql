-- Explicit credentials, sealed headers, client certificates and the HTTP options.

ALTER TABLE jobs ADD COLUMN explicit_credentials TEXT NOT NULL DEFAULT '[]';       -- JSON: [[target, scheme, sealed], …]
ALTER TABLE jobs ADD COLUMN sealed_headers TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN headers_are_write_only INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN client_certificate TEXT;                               -- JSON
ALTER TABLE jobs ADD COLUMN asks_about_certificates INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN sealed_userinfo TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN meant_for TEXT NOT NULL DEFAULT '';

-- Headers were readable until now. What is marked so is sealed when the service starts.
UPDATE jobs SET sealed_headers = 'plain:' || json_extract(settings, '$.custom_headers')
WHERE coalesce(json_extract(settings, '$.custom_headers'), '') <> '';
UPDATE jobs SET settings = json_remove(settings, '$.custom_headers');
