//! What Stoa needs in a fresh cluster before its migrations: a login role and a database that it owns.

use std::path::Path;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use super::directory::PORT;
use super::error::Error;
use super::server::SUPERUSER;

/// The login role and the database, which is its own.
const NAME: &str = "stoa";

/// PostgreSQL has just said that it is ready: whatever doesn't answer by now never will.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The role may make the roles that requests and workers run as; it inherits from none of them, so that what a
/// transaction may see is decided by the role that it enters. It is set each time, to mend what was changed.
const ROLE: &str = "
    do $$ begin
      if not exists (select from pg_catalog.pg_roles where rolname = 'stoa') then
        create role stoa;
      end if;
    end $$;
    alter role stoa with login noinherit createrole nosuperuser nocreatedb noreplication nobypassrls;
";

/// Whether the database is there. `create database` has no `if not exists`.
const DATABASE_EXISTS: &str = "select 1 from pg_catalog.pg_database where datname = 'stoa'";

/// A statement of its own, because it can't run in a transaction.
const DATABASE: &str = "create database stoa owner stoa";

/// In the database: since the role inherits nothing, being the database's owner does not let it make anything in this schema.
const SCHEMA: &str = "alter schema public owner to stoa";

/// How the server's own connections are made.
pub(super) fn connect_options(socket_directory: &Path) -> PgConnectOptions {
    options(socket_directory, NAME, NAME)
}

fn options(socket_directory: &Path, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_directory)
        .port(PORT)
        .username(user)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// Makes role and database, whichever is missing.
pub(super) async fn run(socket_directory: &Path) -> Result<(), Error> {
    let prepared = tokio::time::timeout(TIMEOUT, prepare(socket_directory)).await;
    prepared
        .unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
        .map_err(Error::Bootstrap)
}

async fn prepare(socket_directory: &Path) -> Result<(), sqlx::Error> {
    let mut connection =
        PgConnection::connect_with(&options(socket_directory, SUPERUSER, SUPERUSER)).await?;
    sqlx::raw_sql(ROLE).execute(&mut connection).await?;
    if sqlx::raw_sql(DATABASE_EXISTS)
        .fetch_all(&mut connection)
        .await?
        .is_empty()
    {
        sqlx::raw_sql(DATABASE).execute(&mut connection).await?;
    }
    connection.close().await?;

    let mut connection =
        PgConnection::connect_with(&options(socket_directory, SUPERUSER, NAME)).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    connection.close().await
}
