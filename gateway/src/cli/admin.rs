//! `stoa merchant`, `stoa app`, `stoa grant`, `stoa person`, `stoa signing-key`, `stoa audit`: what whoever runs an installation does without pages.
//! They work beside a running server, and what they do is in the audit log like what anybody does: without a person and an address.

use auth::{
    client::app::{AppInput, NewApp},
    grant::GrantInput,
};
use clap::Args;
use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db::{self, Database, Transaction},
    id::{AppId, MerchantId, RequestId},
    page::{self, LIMIT_MAX, Page, PageRequest},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{CommandResult, Failure, say};
use crate::{
    composition::{Foundation, OpenError},
    config::Storage,
};

mod app;
mod audit_log;
mod grant;
mod merchant;
mod person;
mod signing_key;

pub(super) use app::App;
pub(super) use audit_log::Audit;
pub(super) use grant::Grant;
pub(super) use merchant::Merchant;
pub(super) use person::Person;
pub(super) use signing_key::SigningKey;

/// Connections that a command needs.
const CONNECTIONS_MAX: u32 = 2;

/// Where the data is, and how to print.
#[derive(Debug, Args)]
pub(super) struct Output {
    #[command(flatten)]
    storage: Storage,
    /// Prints JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Output {
    /// The data, beside a running server or by itself.
    async fn open(&self) -> Result<Foundation, OpenError> {
        Foundation::open_beside(&self.storage).await
    }

    /// Prints an object: a line a field.
    fn print(&self, fields: &impl Serialize) -> CommandResult {
        let fields = serde_json::to_value(fields)?;
        if self.json {
            say(serde_json::to_string(&fields)?);
        } else {
            for (name, value) in fields.as_object().into_iter().flatten() {
                say(format_args!("{name}: {}", text_of(value)));
            }
        }
        Ok(())
    }

    /// Prints a list: as JSON all that is known of each, in one array; for people some columns of it.
    fn print_list<T: Serialize>(&self, rows: &[T], columns: &[&str]) -> CommandResult {
        if self.json {
            say(serde_json::to_string(rows)?);
            return Ok(());
        }
        let mut table = vec![columns.iter().map(|name| name_of(name)).collect::<Vec<_>>()];
        for row in rows {
            let row = serde_json::to_value(row)?;
            let cells = columns
                .iter()
                .map(|pointer| row.pointer(pointer).map_or_else(String::new, text_of));
            table.push(cells.collect());
        }
        for line in aligned(&table) {
            say(line);
        }
        Ok(())
    }
}

/// What a column is called: the last word of its pointer.
fn name_of(pointer: &str) -> String {
    let name = pointer.rsplit('/').next().unwrap_or_default();
    name.to_owned()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(elements) if elements.iter().all(Value::is_string) => {
            let words: Vec<_> = elements.iter().filter_map(Value::as_str).collect();
            words.join(" ")
        }
        other => other.to_string(),
    }
}

/// The lines of a table, each column as wide as its widest cell.
fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let width_of = |column: usize| {
        let cells = table.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    table
        .iter()
        .map(|row| {
            let cells = row.iter().enumerate();
            let padded = cells.map(|(column, cell)| format!("{cell:<0$}", width_of(column)));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// What a command works with.
struct Desk<'f> {
    foundation: &'f Foundation,
    database: Database,
    caller: Caller,
    now: Timestamp,
}

impl<'f> Desk<'f> {
    fn at(foundation: &'f Foundation) -> Self {
        let now = foundation.clock().now();
        Self {
            foundation,
            database: foundation.api_database(CONNECTIONS_MAX),
            caller: Caller::local(RequestId::new(now)),
            now,
        }
    }

    /// Records what was done in `log`, and commits it together.
    async fn commit(
        &self,
        mut tx: Transaction,
        log: Log,
        entry: &NewEntry,
    ) -> Result<(), db::Error> {
        audit::record(&mut tx, log, &self.caller, self.now, entry).await?;
        Ok(tx.commit().await?)
    }
}

/// Everything that a list has, page after page.
async fn all<T, Key: DeserializeOwned>(
    mut page: impl AsyncFnMut(&PageRequest<Key>) -> Result<Page<T>, auth::Error>,
) -> Result<Vec<T>, Failure> {
    let mut request = PageRequest {
        limit: LIMIT_MAX,
        after: None,
    };
    let mut rows = Vec::new();
    loop {
        let Page { data, next_cursor } = page(&request).await?;
        rows.extend(data);
        let Some(cursor) = next_cursor else {
            return Ok(rows);
        };
        request.after = Some(page::decode(&cursor)?);
    }
}

/// What the demo does too.
impl Foundation {
    /// Makes a merchant.
    pub(crate) async fn create_merchant(
        &self,
        name: &str,
    ) -> Result<auth::merchant::Merchant, auth::Error> {
        Desk::at(self).create_merchant(name).await
    }

    /// Makes an app.
    pub(crate) async fn create_app(&self, name: &str) -> Result<NewApp, auth::Error> {
        Desk::at(self).create_app(AppInput::named(name)).await
    }

    /// Grants, or changes what was granted.
    pub(crate) async fn grant(
        &self,
        merchant: MerchantId,
        app: AppId,
        input: GrantInput,
    ) -> Result<auth::grant::Grant, auth::Error> {
        Desk::at(self).grant(merchant, app, input).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let table = [["id", "name"], ["mer_1", "Käse & Co"], ["m", ""]];
        let table = table.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&table), ["id     name", "mer_1  Käse & Co", "m"]);
    }

    #[test]
    fn a_value_is_shown_as_people_write_it() {
        assert_eq!(text_of(&json!("a")), "a");
        assert_eq!(text_of(&json!(null)), "-");
        assert_eq!(text_of(&json!(["a", "b"])), "a b");
        assert_eq!(text_of(&json!({"a": 1})), r#"{"a":1}"#);
        assert_eq!(name_of("/app/name"), "name");
    }
}
