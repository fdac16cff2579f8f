-- expand
-- What the kernel keeps: merchants, keys, idempotency, the outbox.

-- Global: the tenants.
create table merchants (
    id uuid not null,
    name text not null,
    created_at timestamptz not null,
    constraint merchants_pkey primary key (id),
    constraint merchants_name_length check (char_length(name) between 1 and 200)
);
grant select, insert on merchants to stoa_api;
grant select on merchants to stoa_worker;

-- The merchant's key, wrapped by the master key. It wraps the keys of data subjects, and seals the merchant's webhook secrets.
create table merchant_keys (
    merchant_id uuid not null,
    wrapped_key bytea not null,
    created_at timestamptz not null,
    constraint merchant_keys_pkey primary key (merchant_id)
);
alter table merchant_keys enable row level security;
alter table merchant_keys force row level security;
create policy merchant_keys_api on merchant_keys to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy merchant_keys_worker on merchant_keys to stoa_worker using (true);
grant select, insert on merchant_keys to stoa_api;
grant select on merchant_keys to stoa_worker;

-- A key per person whose data is kept, wrapped by the merchant's key. Deleting the row erases the person: everything sealed under it, in
-- customers, orders, events and dead letters alike, can no longer be read.
create table data_subject_keys (
    merchant_id uuid not null,
    subject_id uuid not null,
    wrapped_key bytea not null,
    created_at timestamptz not null,
    constraint data_subject_keys_pkey primary key (merchant_id, subject_id)
);
alter table data_subject_keys enable row level security;
alter table data_subject_keys force row level security;
create policy data_subject_keys_api on data_subject_keys to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy data_subject_keys_worker on data_subject_keys to stoa_worker using (true);
grant select, insert, delete on data_subject_keys to stoa_api;
grant select on data_subject_keys to stoa_worker;

-- What a retry is answered with. The outcome is the domain's result without personal data and secrets, and is rendered again for whoever asks.
-- Not partitioned: a sweeper deletes what is older than 72 hours.
create table idempotency_keys (
    merchant_id uuid not null,
    app_id uuid not null,
    operation text not null,
    idempotency_key text not null,
    fingerprint bytea not null,
    refused boolean not null,
    outcome jsonb not null,
    created_at timestamptz not null,
    constraint idempotency_keys_pkey primary key (merchant_id, app_id, operation, idempotency_key),
    constraint idempotency_keys_key_length check (char_length(idempotency_key) between 1 and 255)
);
create index idempotency_keys_created_at on idempotency_keys (created_at);
alter table idempotency_keys enable row level security;
alter table idempotency_keys force row level security;
create policy idempotency_keys_api on idempotency_keys to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy idempotency_keys_worker on idempotency_keys to stoa_worker using (true);
grant select, insert on idempotency_keys to stoa_api;
grant select, delete on idempotency_keys to stoa_worker;

-- Events on their way: written with the change, moved to `events` by the relay. Empty when the relay has caught up.
create table outbox (
    merchant_id uuid not null,
    id uuid not null,
    type text not null,
    resource_type text not null,
    resource_id text not null,
    resource_version bigint not null,
    -- The scope that a receiver needs, and the locations that the event touches (none: every receiver).
    scope text not null,
    locations uuid[] not null,
    -- The resource as the API shows it, without personal data.
    data json not null,
    -- The personal part, sealed under its subject's key.
    subject_id uuid,
    personal bytea,
    request_id uuid,
    occurred_at timestamptz not null,
    constraint outbox_pkey primary key (merchant_id, id),
    constraint outbox_personal_has_subject check ((subject_id is null) = (personal is null))
);
alter table outbox enable row level security;
alter table outbox force row level security;
create policy outbox_api on outbox to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy outbox_worker on outbox to stoa_worker using (true) with check (true);
grant select, insert on outbox to stoa_api;
grant select, insert, delete on outbox to stoa_worker;

-- Global: merchants that have events waiting in the outbox. Hints only: written after the commit by processes without a relay of their own; a sweep
-- over the outbox finds what a crash kept from being hinted at.
create table relay_hints (
    merchant_id uuid not null,
    constraint relay_hints_pkey primary key (merchant_id)
);
grant select, insert on relay_hints to stoa_api;
grant select, insert, delete on relay_hints to stoa_worker;
