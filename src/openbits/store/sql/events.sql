-- name: insert_event
INSERT INTO events (id, time, kind, job_id, text, owner_uid, event_id, fields) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: last_event_id
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events';

-- name: events_after
SELECT id, time, kind, job_id, text, owner_uid, event_id, fields FROM events
WHERE id > :after AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
ORDER BY id LIMIT :limit;

-- name: events_of_job_after
SELECT id, time, kind, job_id, text, owner_uid, event_id, fields FROM events
WHERE job_id = :job_id AND id > :after AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
ORDER BY id LIMIT :limit;

-- name: chosen_events
SELECT id, time, kind, job_id, text, owner_uid, event_id, fields FROM events
WHERE id > :after
    AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
    AND (:event_ids IS NULL OR event_id IN (SELECT value FROM json_each(:event_ids)))
    AND (event_id <> 0 OR :kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
    AND (:since IS NULL OR time >= :since)
    AND (:until IS NULL OR time < :until)
ORDER BY id LIMIT :limit;

-- name: chosen_events_of_job
SELECT id, time, kind, job_id, text, owner_uid, event_id, fields FROM events
WHERE job_id = :job_id AND id > :after
    AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
    AND (:event_ids IS NULL OR event_id IN (SELECT value FROM json_each(:event_ids)))
    AND (event_id <> 0 OR :kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
    AND (:since IS NULL OR time >= :since)
    AND (:until IS NULL OR time < :until)
ORDER BY id LIMIT :limit;

-- name: newest_chosen_events
SELECT id, time, kind, job_id, text, owner_uid, event_id, fields FROM events
WHERE id > :after
    AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
    AND (:event_ids IS NULL OR event_id IN (SELECT value FROM json_each(:event_ids)))
    AND (event_id <> 0 OR :kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
    AND (:since IS NULL OR time >= :since)
    AND (:until IS NULL OR time < :until)
ORDER BY id DESC LIMIT :limit;

-- name: newest_chosen_events_of_job
SELECT id, time, kind, job_id, text, owner_uid, event_id, fields FROM events
WHERE job_id = :job_id AND id > :after
    AND (:owner_uid IS NULL OR owner_uid = :owner_uid)
    AND (:event_ids IS NULL OR event_id IN (SELECT value FROM json_each(:event_ids)))
    AND (event_id <> 0 OR :kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
    AND (:since IS NULL OR time >= :since)
    AND (:until IS NULL OR time < :until)
ORDER BY id DESC LIMIT :limit;

-- name: event_id_bounds
SELECT coalesce(min(id), 1), coalesce(max(id), 0) + 1 FROM events;

-- name: event_time_from
SELECT id, time FROM events WHERE id >= ? ORDER BY id LIMIT 1;

-- name: prune_events_by_age
-- Ids grow with time: the walk from the oldest ends at the first event that is young enough.
DELETE FROM events WHERE id < coalesce(
    (SELECT id FROM events WHERE time >= :older_than ORDER BY id LIMIT 1),
    (SELECT max(id) + 1 FROM events)
);

-- name: prune_events_by_number
DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET :keep);

-- name: insert_effect
INSERT INTO effects (id, job_id, kind, payload) VALUES (?, ?, ?, ?);

-- name: delete_effect
DELETE FROM effects WHERE id = ?;

-- name: load_effects
SELECT id, job_id, kind, payload FROM effects ORDER BY id;
