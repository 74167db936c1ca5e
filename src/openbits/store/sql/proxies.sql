-- name: upsert_proxies
INSERT INTO proxy_settings (account, settings) VALUES (?, ?)
ON CONFLICT (account) DO UPDATE SET settings = excluded.settings;

-- name: delete_proxies
DELETE FROM proxy_settings WHERE account = ?;

-- name: load_proxies
SELECT account, settings FROM proxy_settings;
