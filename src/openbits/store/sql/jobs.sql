-- name: upsert_job
INSERT INTO jobs (
    seq, id, type, state, owner_uid, owner_gid, owner_groups, owner_name, owner_kind, owner_elevated, settings, file_count,
    error, error_count, created_at, modified_at, transferred_at, ended_at, was_resumed, run,
    active_s, active_since, retry_at, no_progress_since, closing, result,
    helper_flags, implicit_credentials, reply, upload_memory, cancel_until,
    explicit_credentials, sealed_headers, headers_are_write_only, client_certificate, asks_about_certificates,
    notify_command, owed_notice, owed_webhook
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (seq) DO UPDATE SET
    state = excluded.state,
    owner_uid = excluded.owner_uid,
    owner_gid = excluded.owner_gid,
    owner_groups = excluded.owner_groups,
    owner_name = excluded.owner_name,
    owner_kind = excluded.owner_kind,
    owner_elevated = excluded.owner_elevated,
    settings = excluded.settings,
    file_count = excluded.file_count,
    error = excluded.error,
    error_count = excluded.error_count,
    created_at = excluded.created_at,
    modified_at = excluded.modified_at,
    transferred_at = excluded.transferred_at,
    ended_at = excluded.ended_at,
    was_resumed = excluded.was_resumed,
    run = excluded.run,
    active_s = excluded.active_s,
    active_since = excluded.active_since,
    retry_at = excluded.retry_at,
    no_progress_since = excluded.no_progress_since,
    closing = excluded.closing,
    result = excluded.result,
    helper_flags = excluded.helper_flags,
    implicit_credentials = excluded.implicit_credentials,
    reply = excluded.reply,
    upload_memory = excluded.upload_memory,
    cancel_until = excluded.cancel_until,
    explicit_credentials = excluded.explicit_credentials,
    sealed_headers = excluded.sealed_headers,
    headers_are_write_only = excluded.headers_are_write_only,
    client_certificate = excluded.client_certificate,
    asks_about_certificates = excluded.asks_about_certificates,
    notify_command = excluded.notify_command,
    owed_notice = excluded.owed_notice,
    owed_webhook = excluded.owed_webhook;

-- name: load_jobs
SELECT
    seq, id, type, state, owner_uid, owner_gid, owner_groups, owner_name, owner_kind, owner_elevated, settings, file_count,
    error, error_count, created_at, modified_at, transferred_at, ended_at, was_resumed, run,
    active_s, active_since, retry_at, no_progress_since, closing, result,
    helper_flags, implicit_credentials, reply, upload_memory, cancel_until,
    explicit_credentials, sealed_headers, headers_are_write_only, client_certificate, asks_about_certificates,
    notify_command, owed_notice, owed_webhook
FROM jobs ORDER BY seq;

-- name: load_places
SELECT id, seq, file_count FROM jobs;

-- name: delete_job
DELETE FROM jobs WHERE seq = ?;

-- name: insert_file
INSERT INTO files (
    job, idx, remote_name, local_name, temporary_name, ranges, checksum, bytes_total, bytes_transferred,
    etag, last_modified, remote_size, transferred, completed, validation, resumable, restarts, response_headers,
    sealed_userinfo, meant_for, demand, was_announced
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: update_file
-- The local name, the ranges and the checksum of a file never change.
UPDATE files SET
    remote_name = ?,
    temporary_name = ?,
    bytes_total = ?,
    bytes_transferred = ?,
    etag = ?,
    last_modified = ?,
    remote_size = ?,
    transferred = ?,
    completed = ?,
    validation = ?,
    resumable = ?,
    restarts = ?,
    response_headers = ?,
    sealed_userinfo = ?,
    meant_for = ?,
    demand = ?,
    was_announced = ?
WHERE job = ? AND idx = ?;

-- name: load_files
SELECT
    job, idx, remote_name, local_name, temporary_name, ranges, checksum, bytes_total, bytes_transferred,
    etag, last_modified, remote_size, transferred, completed, validation, resumable, restarts, response_headers,
    sealed_userinfo, meant_for, demand, was_announced
FROM files ORDER BY job, idx;

-- name: delete_files
DELETE FROM files WHERE job = ?;
