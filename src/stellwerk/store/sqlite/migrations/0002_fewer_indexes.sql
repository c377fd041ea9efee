-- Each index costs a page per create and per end of a run, a fortieth of the time of a run of one step. Three go, one comes.

-- What is of any status is merged from what is of each (instance_by_status).
DROP INDEX instance_by_age;

-- What has not ended. A starting node takes up what is queued or running and never looks at what sleeps: a million of
-- those cost a restart nothing. And which manifests are still needed: a probe per manifest and status.
DROP INDEX instance_unfinished;
DROP INDEX instance_live_manifest;
CREATE INDEX instance_live ON instance (status, account_id, manifest_id, run) WHERE ended_at IS NULL;
