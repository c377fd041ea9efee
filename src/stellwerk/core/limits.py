"""Every number that bounds something, in one place, with its reason. Names carry their unit.

Where the number is Cloudflare's, the comment says so ("CF"); it was read in their public documentation in 2026.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- requests ---------------------------------------------------------------------------------------------------------
URL_BYTES_MAX: Final = 16 * KIB  # CF: 16 KB
REQUEST_HEAD_BYTES_MAX: Final = 128 * KIB  # CF: 128 KB for all request headers together
REQUEST_HEADERS_MAX: Final = 200  # no honest client is near it; keeps a head's cost bounded
REQUEST_BODY_BYTES_MAX: Final = 100 * MIB  # CF: 100 MB on the smallest plans, answered with 413
RESPONSE_HEAD_BYTES_MAX: Final = 128 * KIB  # CF: 128 KB
HEAD_TIMEOUT_MS: Final = 10_000  # from the first byte of a head to its last; a slow client holds only itself
KEEPALIVE_TIMEOUT_MS: Final = 60_000  # longer than browsers and load balancers pause between two requests
BODY_STALL_TIMEOUT_MS: Final = 30_000  # no byte of a body for this long ends the connection
WAIT_UNTIL_MS: Final = 30_000  # CF: shared by all waitUntil calls of one invocation
CHAINED_INVOCATIONS_MAX: Final = 16  # CF: error 1019 past it
CONNECTIONS_MAX: Final = 10_000  # per node; past it new connections are answered 503 and closed
TURN_REQUESTS_MAX: Final = 8  # begun in one turn of the node's loop while a run is at work: 64 took 2 ms
PIPELINE_MAX: Final = 64  # requests that one connection may have waiting; then it is not read any further
INGRESS_WRITE_BUFFER_BYTES: Final = 256 * KIB  # of answers that a slow client has not read; then the writer is paused
CHUNK_OVERHEAD_BYTES_MAX: Final = 4 * KIB  # chunk extensions and trailers of one body; no honest client is near it
BODY_PROGRESS_BYTES: Final = KIB  # a body that brings less than this per BODY_STALL_TIMEOUT_MS counts as stalled
INGRESS_LINGER_MS: Final = 2_000  # after a refusal: read and discard, so that the answer is not lost in a reset
INGRESS_SWEEP_MS: Final = 1_000  # how often deadlines of connections are looked at; they are this coarse

# -- channel ----------------------------------------------------------------------------------------------------------
FRAME_BYTES_MAX: Final = 36 * MIB  # an RPC message (32 MiB) and its envelope
BODY_CHUNK_BYTES: Final = 64 * KIB  # measured: larger chunks gain nothing, smaller ones cost
INLINE_BODY_BYTES_MAX: Final = 64 * KIB  # a body that fits rides in the frame of its head
STREAM_CREDIT_BYTES: Final = 256 * KIB  # what a sender may have under way per stream
RPC_VALUE_BYTES_MAX: Final = 32 * MIB  # CF: 32 MiB per RPC message
RPC_STUBS_PER_ISOLATE_MAX: Final = 10_000  # that one holds, and that it has given away: ten for each invocation in it
VALUE_DEPTH_MAX: Final = 200  # nesting of a value; deeper is refused instead of exhausting the stack

# -- processes --------------------------------------------------------------------------------------------------------
COLLECT_THRESHOLDS: Final = (10_000, 50, 100)  # of the cycle collector; CPython's 700 took a fifth of a durable step

# -- isolates ---------------------------------------------------------------------------------------------------------
ISOLATE_START_TIMEOUT_MS: Final = 30_000  # imports of large packages on a cold disk; CF allows 1 s of CPU
ISOLATE_BLOCKED_MS_MAX: Final = 660_000  # no sign of life while it has work: ten minutes of an attempt, and a grace
WALL_GRACE_MS: Final = 1_000  # what a cancelled request has to end in, before its isolate is killed
ISOLATE_IDLE_MS: Final = 60_000  # starting one costs 3 ms, keeping it some MiB: a minute is long enough
ISOLATES_PER_VERSION_MAX: Final = 4  # more than cores only helps code that blocks; stellwerk.toml may say more
ISOLATES_MAX: Final = 500  # about 2.5 to 8 MiB each
ISOLATE_DRAIN_MS: Final = 30_000  # a replaced isolate may finish what it has for so long
INVOCATIONS_PER_ISOLATE_MAX: Final = 1_000  # past it an invocation waits for another isolate
STUB_CALL_LOAD_MAX: Final = 2_000  # a stub's call cannot go to another isolate: it finds room where an invocation waits
ISOLATE_LOAD_SCALE_UP: Final = 100  # when each isolate of a version has this much, another one is started
ISOLATE_WAITERS_MAX: Final = 10_000  # invocations of one version that wait for an isolate
ISOLATE_OPEN_FILES_MAX: Final = 1024  # RLIMIT_NOFILE of an isolate
ISOLATE_STOP_GRACE_MS: Final = 3_000  # at the end of the node: from "finish" to SIGKILL
ISOLATE_EXIT_GRACE_MS: Final = 1_000  # from the end of its channel to the end of the process, or the other way round
ISOLATE_SWEEP_MS: Final = 1_000  # how often idle isolates are looked for
ISOLATE_OUTPUT_READ_BYTES: Final = 64 * KIB  # of raw output, per isolate and loop turn: a flood slows only itself
ZYGOTE_START_TIMEOUT_MS: Final = 20_000  # its imports take 0.1 s; this is for a cold disk
CRASHES_BACKOFF_MS: Final = (0, 100, 500, 2_000, 10_000)  # pause before the n-th start in a row that failed
LOG_TEXT_BYTES_MAX: Final = 16 * KIB  # one record; longer text is cut and says so
LOG_RECORDS_BUFFERED_MAX: Final = 10_000  # then the oldest is dropped and the drop is counted
TURN_MESSAGES_MAX: Final = 8  # answers of one isolate handled in one turn of the node's loop, likewise
MESSAGES_WAITING_MAX: Final = 1_024  # of one isolate that wait for their turn; then its channel is not read

NODE_DRAIN_MS: Final = 5_000  # what a stopping node gives requests that are under way

# -- workflows --------------------------------------------------------------------------------------------------------
STEPS_PER_INSTANCE: Final = 10_000  # CF default of limits.steps
STEPS_PER_INSTANCE_MAX: Final = 25_000  # CF: the most that limits.steps may say
STEP_OUTPUT_BYTES_MAX: Final = MIB  # CF: 1 MiB
EVENT_PAYLOAD_BYTES_MAX: Final = MIB  # CF: 1 MiB, params as well
EVENTS_BUFFERED_MAX: Final = 10_000  # events of one instance that nobody waited for yet
BATCH_CREATE_MAX: Final = 100  # CF
SLEEP_MS_MAX: Final = 365 * 24 * 3_600_000  # CF: sleep and wait at most 365 days
STEP_RETRIES: Final = 5  # CF default of retries.limit
STEP_RETRY_DELAY_MS: Final = 1_000  # CF's local engine
DELAY_FUNCTION_TIMEOUT_MS: Final = 5_000  # CF: a delay function has 5 s
INTERRUPTIONS_MAX: Final = 10  # per step; from then on an interrupted attempt counts as a failed one
RUN_INTERRUPTIONS_MAX: Final = 10  # isolates that a run lost and recorded nothing between; then it ends errored
NODE_INTERRUPTIONS_MAX: Final = 100  # the same for ends of the node, which mostly are not the run's doing
SETTLE_CALLBACKS_MAX: Final = 1_000_000  # callbacks of workflow code between two deliveries; past it it spins
SOLO_ISOLATES_MAX: Final = 8  # isolates at once that each hold one suspect alone
RUNS_LIVE_MAX: Final = 10_000  # runs held in memory; further ones stay queued
RUNS_QUEUED_MAX: Final = 2_000_000  # CF
PARK_AFTER_MS: Final = 1_000  # a run that waits longer than this leaves memory
RUNNING_SHOWN_AFTER_MS: Final = 1_000  # a run that has results for so long is listed as running, no longer as queued
INLINE_VALUE_BYTES_MAX: Final = 64 * KIB  # larger values go to content-addressed blobs
RUN_PART_BYTES: Final = 4 * MIB  # a journal goes to an isolate in parts of this size; one frame cannot hold them all

# -- store ------------------------------------------------------------------------------------------------------------
GROUP_ROWS_MAX: Final = 2_000  # rows in one commit
WRITES_WAITING_MAX: Final = 200_000  # decisions waiting for a commit; then new work is refused with capacity.exceeded
READS_WAITING_MAX: Final = 20_000  # reads waiting for the reader; then new ones are refused with capacity.exceeded
BALLAST_BYTES: Final = 16 * MIB  # kept in reserve on the disk of the state folder, to be freed when it is full

# -- deployment -------------------------------------------------------------------------------------------------------
BUNDLE_BYTES_MAX: Final = 64 * MIB  # CF: 64 MB before compression
BUNDLE_FILES_MAX: Final = 20_000  # CF: static assets of one Worker on the smallest plan
BUNDLE_PATH_BYTES_MAX: Final = 512  # leaves room for the state folder's own path below PATH_MAX (4,096)
BUNDLE_FSYNCS_MAX: Final = 256  # files synced one by one; a larger folder is synced by one sync(2) instead
BUNDLE_GRACE_MS: Final = 900_000  # unneeded files live on this long: an upload or a drain may still be under way
VERSIONS_KEPT: Final = 10  # newest versions of a serving Worker whose files stay, so that a rollback finds them
COLLECT_INTERVAL_MS: Final = 3_600_000  # between two searches for files that no version needs
REQUIREMENTS_MAX: Final = 500  # lines; more is not written by hand and not resolved in reasonable time
REQUIREMENTS_BYTES_MAX: Final = 256 * KIB  # of pyproject.toml and of requirements.txt, before they are parsed
INSTALL_TIMEOUT_MS: Final = 300_000  # of one installation; below BUNDLE_GRACE_MS
INSTALLS_PARALLEL_MAX: Final = 2  # uv uses all cores and sockets by itself
INSTALL_ERROR_CHARS_MAX: Final = 2_000  # of uv's own words that are passed on
WORKSPACE_WORKERS_MAX: Final = 500  # Workers below one workspace
WORKSPACE_FOLDERS_MAX: Final = 20_000  # folders searched for Workers; more means the wrong folder was given
WATCH_DEBOUNCE_MS: Final = 100  # an editor writes several files at once; one redeploy for all of them
CONFIG_BYTES_MAX: Final = MIB  # one configuration file; an honest one has a few KiB
CONFIG_DEPTH_MAX: Final = 64  # nesting of lists and objects in one; keeps the readers' recursion bounded
ROUTES_MAX: Final = 1_000  # CF: per zone; here per Worker
CPU_MS_MAX: Final = 300_000  # CF: the most that limits.cpu_ms may say
SUBREQUESTS_MAX: Final = 10_000_000  # CF: the most that limits.subrequests may say
VARS_MAX: Final = 128  # CF: vars and secrets of one Worker
VAR_BYTES_MAX: Final = 5 * KIB  # CF: 5 KB each

# -- control plane ----------------------------------------------------------------------------------------------------
CONTROL_WAIT_MS_MAX: Final = 60_000  # how long one call of the control plane may wait for a run to end
CONTROL_CONNECTIONS_MAX: Final = 200  # operators, scripts and one Prometheus; more is somebody's mistake
CONTROL_BODY_BYTES_MAX: Final = 128 * MIB  # an upload at its limit, with its multipart wrapping
CONTROL_JSON_BYTES_MAX: Final = 8 * MIB  # a batch of instances with their params; CF: 1 MiB for all of them together
UPLOAD_FIELD_BYTES_MAX: Final = 4 * MIB  # the ``metadata`` of an upload: 128 vars of 5 KB, and room
PAGE_SIZE: Final = 50  # items of a list when the caller names no ``per_page``
PAGE_SIZE_MAX: Final = 1_000  # rows that one answer of the control plane may hold
PAGE_DEPTH_MAX: Final = 100_000  # items that a page number may skip; past it the cursor is the way
CONTROL_STOP_MS: Final = 3_000  # calls in flight may end; then their connections are closed
LOG_FLUSH_MS: Final = 2_000  # at the end the log gets so long to write what it holds
LOG_FIELD_DEPTH_MAX: Final = 6  # nesting of a log record's fields; deeper is cut

# -- outgoing HTTP (fetch) --------------------------------------------------------------------------------------------
FETCH_CONNECT_TIMEOUT_MS: Final = 10_000  # name, TCP and TLS together
FETCH_STALL_TIMEOUT_MS: Final = 100_000  # no byte either way; CF waits 100 s for an origin's first byte
FETCH_IDLE_CONNECTION_MS: Final = 4_000  # just below the 5 s after which uvicorn and Node.js close an idle connection
FETCH_CONNECTIONS_PER_ORIGIN_MAX: Final = 64  # per isolate; further requests to that origin wait for a free one
FETCH_REDIRECTS_MAX: Final = 20  # the Fetch standard's number
