-- Queries of the deployment room: versions of Workers, and what is deployed.

-- name: same_version
-- The version that an equal upload of this Worker made before.
SELECT account_id, worker, version_id, number, created_at, source, bundle, config, config_hash, message
FROM version
WHERE account_id = ? AND worker = ? AND config_hash = ?;

-- name: add_version
-- A new version with the next number of its Worker. The writer is alone, so the maximum is the truth.
INSERT INTO version (account_id, worker, version_id, number, created_at, source, bundle, config, config_hash, message)
SELECT ?1, ?2, ?3,
       (SELECT coalesce(max(number), 0) + 1 FROM version WHERE account_id = ?1 AND worker = ?2),
       ?4, ?5, ?6, ?7, ?8, ?9
RETURNING account_id, worker, version_id, number, created_at, source, bundle, config, config_hash, message;

-- name: version
-- A version by its id alone: ids are UUIDs, unique over all accounts.
SELECT account_id, worker, version_id, number, created_at, source, bundle, config, config_hash, message
FROM version
WHERE version_id = ?;

-- name: versions
-- The versions of a Worker, newest first.
SELECT account_id, worker, version_id, number, created_at, source, bundle, config, config_hash, message
FROM version
WHERE account_id = ? AND worker = ?
ORDER BY number DESC;

-- name: add_deployment
-- A new deployment: from now on the newest one, so it serves.
INSERT INTO deployment (account_id, worker, number, deployment_id, created_at, source, message)
SELECT ?1, ?2, (SELECT coalesce(max(number), 0) + 1 FROM deployment WHERE account_id = ?1 AND worker = ?2),
       ?3, ?4, ?5, ?6
RETURNING number;

-- name: add_deployment_version
-- One of the one or two versions of a deployment. The foreign key refuses a version that this Worker does not have.
INSERT INTO deployment_version (account_id, worker, number, position, version_id, percentage)
VALUES (?, ?, ?, ?, ?, ?);

-- name: deployments
-- The deployments of a Worker, newest first, one row per version.
SELECT account_id, worker, deployment_id, created_at, source, message, version_id, percentage
FROM deployment JOIN deployment_version USING (account_id, worker, number)
WHERE account_id = ? AND worker = ?
ORDER BY number DESC, position;

-- name: current_deployments
-- The newest deployment of every Worker, one row per version.
SELECT account_id, worker, deployment_id, created_at, source, message, version_id, percentage
FROM deployment AS d JOIN deployment_version USING (account_id, worker, number)
WHERE number = (SELECT max(number) FROM deployment WHERE account_id = d.account_id AND worker = d.worker)
ORDER BY account_id, worker, position;

-- name: remove_deployments
-- Takes a Worker out of service. Its versions stay: runs may need them.
DELETE FROM deployment WHERE account_id = ? AND worker = ?;
