-- name: upsert_machine_setting
INSERT INTO machine_settings (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: delete_machine_setting
DELETE FROM machine_settings WHERE name = ?;

-- name: load_machine_settings
SELECT name, value FROM machine_settings;
