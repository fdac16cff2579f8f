-- expand
-- The authorization server: apps, grants and signing keys. All global: a token names its grant before a merchant is known.

create table apps (
    id uuid not null,
    name text not null,
    -- SHA-256 of the client secret, which is 256 random bits: there is nothing to guess, so nothing to slow down.
    secret_sha256 bytea not null,
    created_at timestamptz not null,
    constraint apps_pkey primary key (id),
    constraint apps_name_length check (char_length(name) between 1 and 200),
    constraint apps_secret_sha256_length check (octet_length(secret_sha256) = 32)
);
grant select, insert, update on apps to stoa_api;
grant select on apps to stoa_worker;

create table grants (
    id uuid not null,
    merchant_id uuid not null,
    app_id uuid not null,
    scopes text[] not null,
    -- The locations that the grant is limited to; null: all.
    locations uuid[],
    personal_data boolean not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    -- Raised by every change that takes something away; a token of an older epoch is refused.
    epoch bigint not null,
    -- Raised by every change; orders the grant's events.
    version bigint not null,
    created_at timestamptz not null,
    changed_at timestamptz not null,
    constraint grants_pkey primary key (id),
    constraint grants_merchant_fkey foreign key (merchant_id) references merchants (id),
    constraint grants_app_fkey foreign key (app_id) references apps (id),
    constraint grants_scopes_not_empty check (cardinality(scopes) > 0),
    constraint grants_locations_not_empty check (locations is null or cardinality(locations) > 0)
);
-- One living grant per merchant and app; consent given again changes it.
create unique index grants_living_key on grants (merchant_id, app_id) where revoked_at is null;
create index grants_changed_at on grants (changed_at);
grant select, insert, update on grants to stoa_api;
grant select on grants to stoa_worker;

create table signing_keys (
    -- The JWK thumbprint (RFC 7638).
    kid text not null,
    public_jwk jsonb not null,
    -- The private key (PKCS #8), sealed under the master key.
    sealed_private_key bytea not null,
    created_at timestamptz not null,
    retired_at timestamptz,
    constraint signing_keys_pkey primary key (kid)
);
grant select, insert, update on signing_keys to stoa_api;
grant select on signing_keys to stoa_worker;
