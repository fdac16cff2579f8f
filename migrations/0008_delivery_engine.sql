-- expand
-- The delivery engine: priorities, order by resource, settings of endpoints, keys that rotate, health, replays, app-wide endpoints, sinks.

-- 0: what somebody waits for. 1: bulk, such as an import's, which waits for all others. Written by older binaries: 0.
alter table outbox add column priority smallint not null default 0;
alter table outbox add constraint outbox_priority check (priority in (0, 1));
create index outbox_priority on outbox (merchant_id, priority, id);
-- By which the relay finds the earlier versions of a resource in a long outbox.
create index outbox_resource on outbox (merchant_id, resource_id, resource_version);

-- The trace that an event belongs to (W3C traceparent), so that its attempts show in the trace of the request that caused it.
alter table outbox add column trace_parent text;
alter table events add column trace_parent text;
-- By which a resource's events, and so its deliveries, are found.
create index events_resource on events (merchant_id, resource_id, resource_version);

-- How an endpoint wants what it is sent; the documented settings, without credentials.
alter table endpoints add column settings jsonb not null default '{}';
-- What its receiver gave us to be let in (values of headers, a client's secret, a certificate's key), sealed under the merchant's key.
alter table endpoints add column sealed_credentials bytea;
-- The app's endpoint that this one is the merchant's part of.
alter table endpoints add column app_endpoint_id uuid;
-- When the receiver last answered a verification, for the URL that the endpoint has.
alter table endpoints add column verified_at timestamptz;
-- The stream's last number when the endpoint was disabled: what came after it was not queued.
alter table endpoints add column disabled_at_sequence bigint;
-- Enabling and disabling lock the cursor, so that no relay that saw the endpoint otherwise numbers beside them.
grant update on endpoint_cursors to stoa_api;
-- The version of it that this one was made from or last followed.
alter table endpoints add column app_endpoint_version bigint;
-- The worker makes, changes and deletes what follows from an app's endpoint.
grant insert, delete on endpoints to stoa_worker;
grant delete on endpoint_cursors, dead_letters to stoa_worker;
create unique index endpoints_app_endpoint on endpoints (merchant_id, app_endpoint_id) where app_endpoint_id is not null;

-- Global: an app's endpoint for all of its installs. Each merchant that has granted the app gets an endpoint, a stream and a lane of its own from it.
create table app_endpoints (
    id uuid not null,
    app_id uuid not null,
    url text,
    description text,
    event_types text[],
    settings jsonb not null,
    -- Sealed by the master key, because they belong to no merchant; each merchant's part has a copy under the merchant's key.
    sealed_credentials bytea,
    status text not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint app_endpoints_pkey primary key (id),
    constraint app_endpoints_status check (status in ('enabled', 'disabled'))
);
create index app_endpoints_app on app_endpoints (app_id);
grant select, insert, update, delete on app_endpoints to stoa_api;
grant select on app_endpoints to stoa_worker;

-- Global: their keys, sealed by the master key; the same for all merchants, so that a receiver needs one secret.
create table app_endpoint_keys (
    app_endpoint_id uuid not null,
    id uuid not null,
    scheme text not null,
    sealed bytea not null,
    public_key bytea,
    created_at timestamptz not null,
    ends_at timestamptz,
    constraint app_endpoint_keys_pkey primary key (app_endpoint_id, id),
    constraint app_endpoint_keys_scheme check (scheme in ('v1', 'v1a')),
    constraint app_endpoint_keys_public_key check ((scheme = 'v1a') = (public_key is not null))
);
grant select, insert, update, delete on app_endpoint_keys to stoa_api;
grant select on app_endpoint_keys to stoa_worker;

-- The keys that an endpoint's deliveries are signed with. While a key is being rotated, the old one and the new one sign side by side until the old
-- one's end. `endpoints.sealed_secrets` holds the v1 keys for older binaries.
create table endpoint_keys (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    id uuid not null,
    -- v1: HMAC-SHA256; v1a: Ed25519.
    scheme text not null,
    sealed bytea not null,
    -- v1a: what receivers verify with.
    public_key bytea,
    created_at timestamptz not null,
    ends_at timestamptz,
    constraint endpoint_keys_pkey primary key (merchant_id, endpoint_id, id),
    constraint endpoint_keys_scheme check (scheme in ('v1', 'v1a')),
    constraint endpoint_keys_public_key check ((scheme = 'v1a') = (public_key is not null))
);
alter table endpoint_keys enable row level security;
alter table endpoint_keys force row level security;
create policy endpoint_keys_api on endpoint_keys to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy endpoint_keys_worker on endpoint_keys to stoa_worker using (true) with check (true);
grant select, insert, update, delete on endpoint_keys to stoa_api;
grant select, insert, update, delete on endpoint_keys to stoa_worker;

-- Each version of an endpoint, so that what an old attempt sent can be shown as it was sent. Append-only.
create table endpoint_versions (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    version bigint not null,
    url text,
    settings jsonb not null,
    created_at timestamptz not null,
    constraint endpoint_versions_pkey primary key (merchant_id, endpoint_id, version)
);
alter table endpoint_versions enable row level security;
alter table endpoint_versions force row level security;
create policy endpoint_versions_api on endpoint_versions to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy endpoint_versions_worker on endpoint_versions to stoa_worker using (true) with check (true);
grant select, insert, delete on endpoint_versions to stoa_api;
grant select, insert, delete on endpoint_versions to stoa_worker;

-- How an endpoint fares, as the worker that owns its lane last saw it. Written when that changes, not with each delivery.
create table endpoint_health (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    -- Since when nothing but failures came; null: it accepts.
    failing_since timestamptz,
    -- Failed attempts since then.
    failure_count bigint not null,
    last_error text,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    -- When webhook_endpoint.failing was last announced for this failing.
    warned_at timestamptz,
    constraint endpoint_health_pkey primary key (merchant_id, endpoint_id)
);
alter table endpoint_health enable row level security;
alter table endpoint_health force row level security;
create policy endpoint_health_api on endpoint_health to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy endpoint_health_worker on endpoint_health to stoa_worker using (true) with check (true);
grant select, insert, update, delete on endpoint_health to stoa_api;
grant select, insert, update, delete on endpoint_health to stoa_worker;

-- An endpoint's attempts by the hour: counts, and durations in classes whose bounds are in the code. Rows of more than a month are swept.
create table endpoint_hours (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    hour timestamptz not null,
    succeeded bigint not null,
    failed bigint not null,
    duration_counts bigint[] not null,
    constraint endpoint_hours_pkey primary key (merchant_id, endpoint_id, hour)
);
alter table endpoint_hours enable row level security;
alter table endpoint_hours force row level security;
create policy endpoint_hours_api on endpoint_hours to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy endpoint_hours_worker on endpoint_hours to stoa_worker using (true) with check (true);
grant select, delete on endpoint_hours to stoa_api;
grant select, insert, update, delete on endpoint_hours to stoa_worker;

-- The queue has priorities, and for endpoints that ask for it an order by resource: a hash of the resource, null where there is no order.
alter table deliveries add column priority smallint not null default 0;
alter table deliveries add column resource_key bigint;
-- Bytes of the event's data, so that a reader can bound what it holds in memory before it reads it.
alter table deliveries add column data_bytes integer not null default 0;
-- A pull consumer's lease; it is due again when the lease is over.
alter table deliveries add column lease_id uuid;
alter table deliveries add constraint deliveries_priority check (priority in (0, 1));
create index deliveries_turn on deliveries (merchant_id, endpoint_id, priority, due_at, sequence);
create index deliveries_resource on deliveries (merchant_id, endpoint_id, resource_key, sequence) where resource_key is not null;
-- What a lease still holds.
create index deliveries_lease on deliveries (merchant_id, endpoint_id, lease_id) where lease_id is not null;
drop index deliveries_due;
-- Requests of pull consumers give up on what was leased too often.
grant insert on dead_letters to stoa_api;

-- How often the lane's circuit breaker has opened since its endpoint last accepted something; the next owner begins there. 0: it is closed.
alter table lanes add column breaker_count integer not null default 0;
-- While it is open: until when nothing is sent, whatever is added.
alter table lanes add column rest_until timestamptz;

-- Which version of its endpoint an attempt was made for, and how many bytes it sent.
alter table attempts add column endpoint_version bigint;
alter table attempts add column request_bytes integer;
-- By which an endpoint's attempts are listed, the newest first. Without it, a quiet endpoint's would have to be looked for among all of its merchant's.
create index attempts_endpoint on attempts (merchant_id, endpoint_id, id);
-- By which an endpoint's last errors are found, however much went well since.
create index attempts_failed on attempts (merchant_id, endpoint_id, id) where status is null or status not between 200 and 299;

-- Replays of a part of a stream: worked off in the background, in the order of sequences, at the priority of bulk.
create table replays (
    merchant_id uuid not null,
    id uuid not null,
    endpoint_id uuid not null,
    app_id uuid not null,
    -- Which of the stream's events: by number, time, type, state of delivery, resource.
    selection jsonb not null,
    status text not null,
    -- Gone through up to this sequence, until that one.
    position bigint not null,
    until_sequence bigint not null,
    queued_count bigint not null,
    -- Numbers gone through whose events retention had dropped.
    expired_count bigint not null default 0,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint replays_pkey primary key (merchant_id, id),
    constraint replays_status check (status in ('running', 'completed', 'cancelled'))
);
create index replays_endpoint on replays (merchant_id, endpoint_id, id);
alter table replays enable row level security;
alter table replays force row level security;
create policy replays_api on replays to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy replays_worker on replays to stoa_worker using (true) with check (true);
grant select, insert, update, delete on replays to stoa_api;
grant select, update, delete on replays to stoa_worker;

-- By which replays and timelines find the dead letters of numbers of a stream, and replays mark those that they have queued again.
create index dead_letters_sequence on dead_letters (merchant_id, endpoint_id, sequence);
grant update on dead_letters to stoa_worker;

-- Global: replays that are running, found without looking into tenants.
create table replay_hints (
    replay_id uuid not null,
    merchant_id uuid not null,
    constraint replay_hints_pkey primary key (replay_id)
);
grant select, insert, delete on replay_hints to stoa_api;
grant select, delete, update on replay_hints to stoa_worker;

-- How far each sink (an event stream or an archive of the operator's) has followed each merchant's feed, and which process follows it at the moment.
create table sink_positions (
    merchant_id uuid not null,
    sink text not null,
    position bigint not null,
    owner uuid,
    lease_until timestamptz,
    updated_at timestamptz not null,
    constraint sink_positions_pkey primary key (merchant_id, sink),
    constraint sink_positions_owner_has_lease check ((owner is null) = (lease_until is null))
);
alter table sink_positions enable row level security;
alter table sink_positions force row level security;
create policy sink_positions_api on sink_positions to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy sink_positions_worker on sink_positions to stoa_worker using (true) with check (true);
grant select on sink_positions to stoa_api;
grant select, insert, update on sink_positions to stoa_worker;
