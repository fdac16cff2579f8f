-- expand
-- The authorization server: people, what apps ask for and prove, codes and refresh tokens, and the audit log.
--
-- All but the audit log is global: a session, a code and a token are known before a merchant is. Of whatever somebody shows (passwords, secrets,
-- codes, tokens, links) there are hashes only; what must be read again (second factors, ceremonies) is sealed under the master key.

-- People: merchants' staff, operators, apps' developers.
create table persons (
    id uuid not null,
    -- What the person signs in with, folded (trimmed, lower case); need not be an e-mail address.
    login text collate "C" not null,
    name text not null,
    -- argon2id, as a PHC string; null: signs in by passkey or upstream alone.
    password_hash text,
    is_operator boolean not null,
    is_developer boolean not null,
    -- The secret of the time-based codes (RFC 6238), sealed; null: no such second factor.
    sealed_totp_secret bytea,
    -- The last time step whose code was taken: a code is good once.
    totp_step_used bigint,
    disabled_at timestamptz,
    version bigint not null,
    created_at timestamptz not null,
    constraint persons_pkey primary key (id),
    constraint persons_login_key unique (login),
    constraint persons_login_length check (char_length(login) between 1 and 200),
    constraint persons_name_length check (char_length(name) between 1 and 200)
);
grant select, insert, update on persons to stoa_api;

create table memberships (
    merchant_id uuid not null,
    person_id uuid not null,
    role text not null,
    created_at timestamptz not null,
    constraint memberships_pkey primary key (merchant_id, person_id),
    constraint memberships_merchant_fkey foreign key (merchant_id) references merchants (id),
    constraint memberships_person_fkey foreign key (person_id) references persons (id),
    constraint memberships_role check (role in ('owner', 'manager', 'viewer'))
);
create index memberships_person on memberships (person_id);
grant select, insert, update, delete on memberships to stoa_api;

-- Invitations: a link that the inviter hands over. For a role at a merchant, or for operators or developers.
create table invitations (
    id uuid not null,
    token_sha256 bytea not null,
    merchant_id uuid,
    role text,
    is_operator boolean not null,
    is_developer boolean not null,
    -- Whom it is meant for, in the inviter's words.
    label text,
    -- Null: by the command line.
    invited_by uuid,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    accepted_at timestamptz,
    accepted_by uuid,
    withdrawn_at timestamptz,
    constraint invitations_pkey primary key (id),
    constraint invitations_token_key unique (token_sha256),
    constraint invitations_merchant_fkey foreign key (merchant_id) references merchants (id),
    constraint invitations_role check (role is null or role in ('owner', 'manager', 'viewer')),
    constraint invitations_role_has_merchant check ((merchant_id is null) = (role is null)),
    constraint invitations_accepted check ((accepted_at is null) = (accepted_by is null))
);
create index invitations_merchant on invitations (merchant_id) where merchant_id is not null;
create index invitations_expires_at on invitations (expires_at);
grant select, insert, update, delete on invitations to stoa_api;

-- Codes for who has lost the second factor: random, each good once.
create table recovery_codes (
    person_id uuid not null,
    code_sha256 bytea not null,
    created_at timestamptz not null,
    used_at timestamptz,
    constraint recovery_codes_pkey primary key (person_id, code_sha256),
    constraint recovery_codes_person_fkey foreign key (person_id) references persons (id)
);
grant select, insert, update, delete on recovery_codes to stoa_api;

create table passkeys (
    credential_id bytea not null,
    person_id uuid not null,
    name text not null,
    -- The public key and its counter, as the WebAuthn library keeps them.
    passkey jsonb not null,
    created_at timestamptz not null,
    last_used_at timestamptz,
    constraint passkeys_pkey primary key (credential_id),
    constraint passkeys_person_fkey foreign key (person_id) references persons (id),
    constraint passkeys_name_length check (char_length(name) between 1 and 200)
);
create index passkeys_person on passkeys (person_id);
grant select, insert, update, delete on passkeys to stoa_api;

-- Who somebody is at the upstream OpenID provider.
create table person_identities (
    issuer text not null,
    subject text not null,
    person_id uuid not null,
    created_at timestamptz not null,
    constraint person_identities_pkey primary key (issuer, subject),
    constraint person_identities_person_fkey foreign key (person_id) references persons (id)
);
create index person_identities_person on person_identities (person_id);
grant select, insert, delete on person_identities to stoa_api;

create table sessions (
    id uuid not null,
    token_sha256 bytea not null,
    person_id uuid not null,
    created_at timestamptz not null,
    -- Coarse: written once a minute at most.
    last_seen_at timestamptz not null,
    expires_at timestamptz not null,
    -- When the person last proved who they are, and how: password, totp, recovery_code, passkey, upstream.
    authenticated_at timestamptz not null,
    factors text[] not null,
    address text,
    user_agent text,
    ended_at timestamptz,
    constraint sessions_pkey primary key (id),
    constraint sessions_token_key unique (token_sha256),
    constraint sessions_person_fkey foreign key (person_id) references persons (id)
);
create index sessions_person on sessions (person_id);
create index sessions_expires_at on sessions (expires_at);
grant select, insert, update, delete on sessions to stoa_api;

-- Proofs in several steps that have begun: a password without its second factor yet, a passkey's challenge, a way to the upstream provider.
-- Taken out by whoever completes them: each is good once.
create table ceremonies (
    token_sha256 bytea not null,
    kind text not null,
    person_id uuid,
    sealed_state bytea not null,
    expires_at timestamptz not null,
    constraint ceremonies_pkey primary key (token_sha256)
);
create index ceremonies_expires_at on ceremonies (expires_at);
grant select, insert, update, delete on ceremonies to stoa_api;

-- Wrong guesses at what people choose and type, by account and by address. The subject is a hash, so that no list of accounts is kept here.
create table throttles (
    subject_sha256 bytea not null,
    failures integer not null,
    last_failure_at timestamptz not null,
    blocked_until timestamptz not null,
    constraint throttles_pkey primary key (subject_sha256),
    constraint throttles_failures_not_negative check (failures >= 0)
);
create index throttles_last_failure_at on throttles (last_failure_at);
grant select, insert, update, delete on throttles to stoa_api;

-- Apps: what they are, where they may be answered, and what they may ask for.
alter table apps
    -- Superseded by app_secrets, and still written for binaries that read it here; null: a client without a secret.
    alter column secret_sha256 drop not null,
    add column kind text not null default 'confidential',
    add column redirect_uris text[] not null default '{}',
    -- What it may ask for at most; null: whatever a merchant may give.
    add column scopes text[],
    -- What it can't do without: not for a merchant to untick.
    add column required_scopes text[] not null default '{}',
    add column homepage_url text,
    add column version bigint not null default 1,
    add column changed_at timestamptz,
    add constraint apps_kind check (kind in ('confidential', 'public'));

create table app_developers (
    app_id uuid not null,
    person_id uuid not null,
    created_at timestamptz not null,
    constraint app_developers_pkey primary key (app_id, person_id),
    constraint app_developers_app_fkey foreign key (app_id) references apps (id),
    constraint app_developers_person_fkey foreign key (person_id) references persons (id)
);
create index app_developers_person on app_developers (person_id);
grant select, insert, delete on app_developers to stoa_api;

-- Secrets of confidential clients: several at a time while one takes another's place.
create table app_secrets (
    app_id uuid not null,
    id uuid not null,
    -- SHA-256 of 256 random bits: nothing to guess, nothing to slow down.
    secret_sha256 bytea not null,
    -- Its last characters, to tell it from another.
    hint text not null,
    created_at timestamptz not null,
    -- Null: until it is taken back.
    expires_at timestamptz,
    constraint app_secrets_pkey primary key (app_id, id),
    constraint app_secrets_app_fkey foreign key (app_id) references apps (id),
    constraint app_secrets_sha256_length check (octet_length(secret_sha256) = 32)
);
grant select, insert, update, delete on app_secrets to stoa_api;
insert into app_secrets (app_id, id, secret_sha256, hint, created_at)
select id, id, secret_sha256, '', created_at
from apps;

-- Public keys under which clients sign their assertions (RFC 7523).
create table app_keys (
    app_id uuid not null,
    kid text not null,
    jwk jsonb not null,
    created_at timestamptz not null,
    constraint app_keys_pkey primary key (app_id, kid),
    constraint app_keys_app_fkey foreign key (app_id) references apps (id),
    constraint app_keys_kid_length check (char_length(kid) between 1 and 200)
);
grant select, insert, delete on app_keys to stoa_api;

-- Assertions that were taken, until they would have expired: each is good once (RFC 7523, section 3, jti).
create table client_assertions (
    app_id uuid not null,
    jti_sha256 bytea not null,
    expires_at timestamptz not null,
    constraint client_assertions_pkey primary key (app_id, jti_sha256)
);
create index client_assertions_expires_at on client_assertions (expires_at);
grant select, insert, update, delete on client_assertions to stoa_api;

-- What the token endpoint refused an app lately, for its developer.
create table token_errors (
    app_id uuid not null,
    id uuid not null,
    occurred_at timestamptz not null,
    grant_type text,
    error text not null,
    description text not null,
    address text,
    request_id uuid,
    constraint token_errors_pkey primary key (app_id, id)
);
create index token_errors_occurred_at on token_errors (occurred_at);
grant select, insert, delete on token_errors to stoa_api;

-- Authorization requests that wait for a merchant's word (RFC 6749, section 4.1.1).
create table authorization_requests (
    handle_sha256 bytea not null,
    app_id uuid not null,
    redirect_uri text not null,
    scopes text[] not null,
    state text,
    code_challenge text not null,
    -- The merchant that the app asks for; null: whoever consents chooses.
    merchant_id uuid,
    -- For how long the app asks at most; null: as long as the merchant likes.
    grant_expires_in_s bigint,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    -- Decided once: consented to or refused.
    decided_at timestamptz,
    constraint authorization_requests_pkey primary key (handle_sha256),
    constraint authorization_requests_app_fkey foreign key (app_id) references apps (id)
);
create index authorization_requests_expires_at on authorization_requests (expires_at);
grant select, insert, update, delete on authorization_requests to stoa_api;
grant select (handle_sha256, expires_at), delete on authorization_requests to stoa_worker;

-- Refresh tokens live in families: all that came from one code. A family ends as a whole.
create table refresh_families (
    id uuid not null,
    app_id uuid not null,
    merchant_id uuid not null,
    grant_id uuid not null,
    person_id uuid,
    -- What the app asked for and was given; what a token has is this within what the grant has now.
    scopes text[] not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    end_reason text,
    constraint refresh_families_pkey primary key (id),
    constraint refresh_families_app_fkey foreign key (app_id) references apps (id),
    constraint refresh_families_grant_fkey foreign key (grant_id) references grants (id),
    constraint refresh_families_ended check ((ended_at is null) = (end_reason is null)),
    constraint refresh_families_end_reason check (end_reason is null
        or end_reason in ('code_reused', 'token_reused', 'revoked', 'superseded'))
);
create index refresh_families_grant on refresh_families (grant_id);
grant select, insert, update, delete on refresh_families to stoa_api;
grant select (id), delete on refresh_families to stoa_worker;

create table refresh_tokens (
    token_sha256 bytea not null,
    family_id uuid not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    -- When it was exchanged for its successor, which is kept sealed under a key derived from this token, for a client whose answer was lost.
    rotated_at timestamptz,
    sealed_successor bytea,
    successor_sha256 bytea,
    constraint refresh_tokens_pkey primary key (token_sha256),
    constraint refresh_tokens_family_fkey foreign key (family_id) references refresh_families (id),
    constraint refresh_tokens_rotated check ((rotated_at is null) = (successor_sha256 is null))
);
create index refresh_tokens_family on refresh_tokens (family_id);
create index refresh_tokens_expires_at on refresh_tokens (expires_at);
grant select, insert, update, delete on refresh_tokens to stoa_api;
grant select (token_sha256, family_id, expires_at), delete on refresh_tokens to stoa_worker;

create table authorization_codes (
    code_sha256 bytea not null,
    app_id uuid not null,
    merchant_id uuid not null,
    grant_id uuid not null,
    person_id uuid not null,
    redirect_uri text not null,
    code_challenge text not null,
    scopes text[] not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    wrong_verifiers integer not null,
    redeemed_at timestamptz,
    -- The family that came from it, which ends when the code is used again.
    family_id uuid,
    constraint authorization_codes_pkey primary key (code_sha256),
    constraint authorization_codes_app_fkey foreign key (app_id) references apps (id),
    constraint authorization_codes_redeemed check (family_id is null or redeemed_at is not null)
);
create index authorization_codes_expires_at on authorization_codes (expires_at);
grant select, insert, update, delete on authorization_codes to stoa_api;
grant select (code_sha256, expires_at), delete on authorization_codes to stoa_worker;

-- Grants: when their end was announced, and when they were last used, to the hour.
alter table grants
    -- The end that `grant.expiring` was announced for.
    add column expiring_announced_for timestamptz,
    -- Who consented last; null: the command line.
    add column consented_by uuid;
create index grants_expires_at on grants (expires_at) where expires_at is not null and revoked_at is null;
create index grants_app on grants (app_id);
create index grants_merchant on grants (merchant_id);
grant update (expiring_announced_for) on grants to stoa_worker;

create table grant_uses (
    grant_id uuid not null,
    last_used_at timestamptz not null,
    constraint grant_uses_pkey primary key (grant_id),
    constraint grant_uses_grant_fkey foreign key (grant_id) references grants (id)
);
grant select, insert, update on grant_uses to stoa_api;

-- Signing keys are published before they sign. Null: from their creation on.
alter table signing_keys
    add column signs_from timestamptz;

-- The audit log: every security-relevant act, append-only. A merchant's acts lie under the merchant; what belongs to none (sign-ins, apps, keys) lies
-- under the nil id, which a transaction sees that has entered no merchant.
create table audit_entries (
    merchant_id uuid not null,
    id uuid not null,
    occurred_at timestamptz not null,
    action text not null,
    outcome text not null,
    -- Who: a person, an app, or neither (the command line, the system itself).
    person_id uuid,
    app_id uuid,
    -- What it was done to.
    target_type text,
    target_id text,
    details jsonb not null,
    -- From where.
    address text,
    user_agent text,
    request_id uuid,
    constraint audit_entries_pkey primary key (merchant_id, id),
    constraint audit_entries_outcome check (outcome in ('succeeded', 'refused'))
) partition by range (id);
create table audit_entries_default partition of audit_entries default;
alter table audit_entries_default enable row level security, force row level security;
create index audit_entries_person on audit_entries (merchant_id, person_id, id) where person_id is not null;
create index audit_entries_app on audit_entries (merchant_id, app_id, id) where app_id is not null;
alter table audit_entries enable row level security;
alter table audit_entries force row level security;
create policy audit_entries_api on audit_entries to stoa_api
    using (merchant_id = stoa_merchant())
    with check (merchant_id = stoa_merchant());
create policy audit_entries_installation on audit_entries to stoa_api
    using (stoa_merchant() is null and merchant_id = '00000000-0000-0000-0000-000000000000')
    with check (stoa_merchant() is null and merchant_id = '00000000-0000-0000-0000-000000000000');
create policy audit_entries_worker on audit_entries to stoa_worker with check (true);
grant select, insert on audit_entries to stoa_api;
grant insert on audit_entries to stoa_worker;

-- The command line's own client (RFC 8252): public, answered on any loopback port.
insert into apps (id, name, secret_sha256, created_at, kind, redirect_uris)
values ('00000000-0000-7000-8000-0000000000c1', 'Stoa command line', null, '2026-11-01T00:00:00Z', 'public',
    '{http://127.0.0.1/callback,http://[::1]/callback}');
