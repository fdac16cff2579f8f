-- expand
-- Events, streams and deliveries.

-- Where a merchant's feed stands: its last number. The row's lock lets one relay transaction at a time through per merchant.
create table feeds (
    merchant_id uuid not null,
    last_number bigint not null,
    constraint feeds_pkey primary key (merchant_id)
);
alter table feeds enable row level security;
alter table feeds force row level security;
create policy feeds_api on feeds to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy feeds_worker on feeds to stoa_worker using (true) with check (true);
grant select on feeds to stoa_api;
grant select, insert, update on feeds to stoa_worker;

-- The history of events, append-only; retention drops partitions.
create table events (
    merchant_id uuid not null,
    id uuid not null,
    feed_number bigint not null,
    type text not null,
    resource_type text not null,
    resource_id text not null,
    resource_version bigint not null,
    scope text not null,
    locations uuid[] not null,
    data json not null,
    subject_id uuid,
    personal bytea,
    request_id uuid,
    occurred_at timestamptz not null,
    constraint events_pkey primary key (merchant_id, id)
) partition by range (id);
create table events_default partition of events default;
alter table events_default enable row level security, force row level security;
create index events_feed on events (merchant_id, feed_number);
alter table events enable row level security;
alter table events force row level security;
create policy events_api on events to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy events_worker on events to stoa_worker using (true) with check (true);
grant select on events to stoa_api;
grant select, insert on events to stoa_worker;

-- Endpoints: who is told of what, where. Owned by a grant, or by the merchant itself (grant_id null).
create table endpoints (
    merchant_id uuid not null,
    id uuid not null,
    app_id uuid not null,
    grant_id uuid,
    -- Null: a pull consumer.
    url text,
    description text,
    -- Null: all types.
    event_types text[],
    status text not null,
    disabled_reason text,
    -- The signing secrets, sealed under the merchant's key; the first is the newest.
    sealed_secrets bytea[] not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint endpoints_pkey primary key (merchant_id, id),
    constraint endpoints_status check (status in ('enabled', 'disabled')),
    constraint endpoints_disabled_reason check (disabled_reason is null or status = 'disabled'),
    constraint endpoints_secrets_not_empty check (cardinality(sealed_secrets) between 1 and 8)
);
alter table endpoints enable row level security;
alter table endpoints force row level security;
create policy endpoints_api on endpoints to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy endpoints_worker on endpoints to stoa_worker using (true) with check (true);
grant select, insert, update, delete on endpoints to stoa_api;
grant select, update on endpoints to stoa_worker;

-- Where an endpoint's stream stands: its last sequence. Apart from the endpoint, so that the relay never waits for a change of the endpoint.
create table endpoint_cursors (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    last_sequence bigint not null,
    constraint endpoint_cursors_pkey primary key (merchant_id, endpoint_id)
);
alter table endpoint_cursors enable row level security;
alter table endpoint_cursors force row level security;
create policy endpoint_cursors_api on endpoint_cursors to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy endpoint_cursors_worker on endpoint_cursors to stoa_worker using (true) with check (true);
grant select, insert, delete on endpoint_cursors to stoa_api;
grant select, insert, update on endpoint_cursors to stoa_worker;

-- An endpoint's own stream: 1, 2, 3 … of exactly what it is sent. Append-only, partitioned by the event's id as events are. The primary key lets an
-- event into a stream once.
create table streams (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    event_id uuid not null,
    sequence bigint not null,
    constraint streams_pkey primary key (merchant_id, endpoint_id, event_id)
) partition by range (event_id);
create table streams_default partition of streams default;
alter table streams_default enable row level security, force row level security;
create index streams_sequence on streams (merchant_id, endpoint_id, sequence);
alter table streams enable row level security;
alter table streams force row level security;
create policy streams_api on streams to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy streams_worker on streams to stoa_worker using (true) with check (true);
grant select on streams to stoa_api;
grant select, insert on streams to stoa_worker;

-- What is still to be delivered, and nothing else: this is the queue.
create table deliveries (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    sequence bigint not null,
    event_id uuid not null,
    attempt_count integer not null,
    due_at timestamptz not null,
    created_at timestamptz not null,
    constraint deliveries_pkey primary key (merchant_id, endpoint_id, sequence)
);
create index deliveries_due on deliveries (merchant_id, endpoint_id, due_at, sequence);
alter table deliveries enable row level security;
alter table deliveries force row level security;
create policy deliveries_api on deliveries to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy deliveries_worker on deliveries to stoa_worker using (true) with check (true);
grant select, insert, update, delete on deliveries to stoa_api;
grant select, insert, update, delete on deliveries to stoa_worker;

-- Global: an endpoint as a lane of work, with one owner at a time.
create table lanes (
    endpoint_id uuid not null,
    merchant_id uuid not null,
    -- When the next delivery is due; null: nothing is.
    due_at timestamptz,
    -- Raised by whoever adds a delivery; an owner lets go of a lane only if it has not been raised since the owner looked.
    signal bigint not null,
    owner uuid,
    lease_until timestamptz,
    -- Raised by every change of owner; what an owner with an older fence reports changes nothing.
    fence bigint not null,
    constraint lanes_pkey primary key (endpoint_id),
    constraint lanes_owner_has_lease check ((owner is null) = (lease_until is null))
);
create index lanes_due on lanes (due_at) where due_at is not null;
grant select, insert, update, delete on lanes to stoa_api;
grant select, insert, update, delete on lanes to stoa_worker;

-- Every attempt, append-only; retention drops partitions.
create table attempts (
    merchant_id uuid not null,
    id uuid not null,
    endpoint_id uuid not null,
    event_id uuid not null,
    sequence bigint not null,
    number integer not null,
    started_at timestamptz not null,
    duration_ms integer not null,
    -- The answer's status, or why there is none.
    status integer,
    error text,
    answer_excerpt text,
    constraint attempts_pkey primary key (merchant_id, id),
    constraint attempts_outcome check (status is not null or error is not null)
) partition by range (id);
create table attempts_default partition of attempts default;
alter table attempts_default enable row level security, force row level security;
create index attempts_delivery on attempts (merchant_id, endpoint_id, event_id);
alter table attempts enable row level security;
alter table attempts force row level security;
create policy attempts_api on attempts to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy attempts_worker on attempts to stoa_worker using (true) with check (true);
grant select on attempts to stoa_api;
grant select, insert on attempts to stoa_worker;

-- Deliveries that were given up on, with the event and its attempts copied, so that retention takes nothing from them.
create table dead_letters (
    merchant_id uuid not null,
    id uuid not null,
    endpoint_id uuid not null,
    sequence bigint not null,
    event_id uuid not null,
    reason text not null,
    event jsonb not null,
    subject_id uuid,
    personal bytea,
    attempts jsonb not null,
    created_at timestamptz not null,
    replayed_at timestamptz,
    constraint dead_letters_pkey primary key (merchant_id, id)
);
create index dead_letters_endpoint on dead_letters (merchant_id, endpoint_id, id);
alter table dead_letters enable row level security;
alter table dead_letters force row level security;
create policy dead_letters_api on dead_letters to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy dead_letters_worker on dead_letters to stoa_worker using (true) with check (true);
grant select, update, delete on dead_letters to stoa_api;
grant select, insert on dead_letters to stoa_worker;
