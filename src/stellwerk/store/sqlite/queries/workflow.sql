-- Queries of the workflow room: instances, their journals, blobs, run manifests.

-- name: append_entry
-- One journal entry. The hot statement: bound as a plain tuple, no index besides the key.
INSERT INTO journal (account_id, run, seq, at, entry) VALUES (?, ?, ?, ?, ?);

-- name: find_run
-- The number under which an incarnation's journal is kept, and of its next entry, for the writer, which remembers both.
SELECT run, (SELECT coalesce(max(seq) + 1, 0) FROM journal AS j
             WHERE j.account_id = instance.account_id AND j.run = instance.run)
FROM instance WHERE account_id = ? AND workflow = ? AND instance_id = ? AND incarnation = ?;

-- name: last_run
-- The highest number that a run has. One probe at the end of the table.
SELECT max(run) FROM instance;

-- name: add_manifest
-- The set of versions of a run, kept once. The id is a hash of the versions, so an equal one is already right.
INSERT INTO run_manifest (account_id, manifest_id, versions) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: create_instance
-- A new incarnation. A taken key changes nothing, which the caller sees in the number of changes: a duplicate create
-- is everyday business and must not cost its neighbours their group.
INSERT INTO instance (run, account_id, workflow, instance_id, incarnation, status, worker, version_id, class_name,
                      manifest_id, created_at, modified_at, started_at, ended_at, wake_at,
                      owner, epoch, lease_expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account_id, workflow, instance_id, incarnation) DO NOTHING;

-- name: supersede_incarnation
-- The life before a new incarnation steps back from the listings. A CHECK refuses it while that life has not ended.
UPDATE instance SET superseded = 1
WHERE account_id = ? AND workflow = ? AND instance_id = ? AND incarnation = ?;

-- name: update_instance
-- The index row after a decision. A row that has ended is not found: a terminal status never moves.
UPDATE instance
SET status = ?1, modified_at = ?2, started_at = coalesce(?3, started_at), ended_at = ?4, wake_at = ?5
WHERE run = ?6 AND ended_at IS NULL;

-- name: add_blob
-- A value by content; an equal one gains a reference instead of a second copy.
INSERT INTO blob (account_id, sha256, size, refs, data) VALUES (?1, ?2, length(?3), 1, ?3)
ON CONFLICT (account_id, sha256) DO UPDATE SET refs = refs + 1;

-- name: newest_instance
-- The newest incarnation of an instance. The unique key ends in the incarnation, so this reads one row from its end.
SELECT account_id, workflow, instance_id, incarnation, status, worker, version_id, class_name,
       created_at, modified_at, started_at, ended_at, wake_at, owner, epoch, lease_expires_at,
       (SELECT versions FROM run_manifest AS m
        WHERE m.account_id = instance.account_id AND m.manifest_id = instance.manifest_id)
FROM instance
WHERE account_id = ? AND workflow = ? AND instance_id = ?
ORDER BY incarnation DESC
LIMIT 1;

-- name: journal
-- All entries of one incarnation, in order. One range of the key.
SELECT entry FROM journal
WHERE account_id = ?1
  AND run = (SELECT run FROM instance WHERE account_id = ?1 AND workflow = ?2 AND instance_id = ?3 AND incarnation = ?4)
ORDER BY seq;

-- name: instances_of_status
-- A page of a workflow's instances of one status, newest first, after (created_at, instance_id): ten errored among a
-- million complete ones are found at once.
SELECT account_id, workflow, instance_id, incarnation, status, worker, version_id, class_name,
       created_at, modified_at, started_at, ended_at, wake_at, owner, epoch, lease_expires_at,
       (SELECT versions FROM run_manifest AS m
        WHERE m.account_id = instance.account_id AND m.manifest_id = instance.manifest_id)
FROM instance INDEXED BY instance_by_status
WHERE account_id = ? AND workflow = ? AND status = ? AND superseded = 0 AND (created_at, instance_id) < (?, ?)
ORDER BY created_at DESC, instance_id DESC
LIMIT ?;

-- name: unfinished
-- What a starting node takes up, of one status, page by page: where the last row of a page stands in the index is where
-- the next one begins. INDEXED BY: a change that loses the index must fail here.
SELECT account_id, workflow, instance_id, incarnation, status, worker, version_id, class_name,
       created_at, modified_at, started_at, ended_at, wake_at, owner, epoch, lease_expires_at,
       (SELECT versions FROM run_manifest AS m
        WHERE m.account_id = instance.account_id AND m.manifest_id = instance.manifest_id),
       manifest_id, run
FROM instance INDEXED BY instance_live
WHERE status = ? AND ended_at IS NULL AND (account_id, manifest_id, run) > (?, ?, ?)
ORDER BY account_id, manifest_id, run
LIMIT ?;

-- name: due
-- Waiting runs whose time has come, the earliest first.
SELECT account_id, workflow, instance_id, incarnation, status, worker, version_id, class_name,
       created_at, modified_at, started_at, ended_at, wake_at, owner, epoch, lease_expires_at,
       (SELECT versions FROM run_manifest AS m
        WHERE m.account_id = instance.account_id AND m.manifest_id = instance.manifest_id)
FROM instance INDEXED BY instance_due
WHERE status = 'waiting' AND wake_at IS NOT NULL AND wake_at <= ?
ORDER BY wake_at
LIMIT ?;

-- name: next_wake_at
-- When the next timer fires: the first key of the index.
SELECT wake_at FROM instance INDEXED BY instance_due
WHERE status = 'waiting' AND wake_at IS NOT NULL
ORDER BY wake_at
LIMIT 1;

-- name: status_counts
-- Instances per workflow and status, from the index alone.
SELECT workflow, status, count(*) FROM instance INDEXED BY instance_by_status
WHERE account_id = ? AND superseded = 0
GROUP BY workflow, status;

-- name: unfinished_on
-- Runs that stay on a version: counted in the index of what has not ended, per distinct manifest that names it.
SELECT coalesce(sum((SELECT count(*) FROM instance INDEXED BY instance_live
                     WHERE instance.account_id = m.account_id AND instance.manifest_id = m.manifest_id
                       AND instance.status IN ('queued', 'running', 'waiting', 'paused', 'waitingForPause', 'unknown')
                       AND instance.ended_at IS NULL)), 0)
FROM run_manifest AS m
WHERE EXISTS (SELECT 1 FROM json_each(m.versions) AS v WHERE v.value = ?);

-- name: live_versions
-- Versions that runs still need: a few probes per distinct manifest, however many runs there are.
SELECT DISTINCT v.value
FROM run_manifest AS m, json_each(m.versions) AS v
WHERE EXISTS (SELECT 1 FROM instance INDEXED BY instance_live
              WHERE instance.account_id = m.account_id AND instance.manifest_id = m.manifest_id
                AND instance.status IN ('queued', 'running', 'waiting', 'paused', 'waitingForPause', 'unknown')
                AND instance.ended_at IS NULL);

-- name: blobs
-- Values by content hash; the hashes come as a JSON array, so that one statement serves any number.
SELECT sha256, data FROM blob WHERE account_id = ? AND sha256 IN (SELECT value FROM json_each(?));
