//! Who somebody is: a person, and the roles that merchants have given to them.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db,
    id::{MerchantId, PersonId},
    page::{Page, PageRequest},
    problem::FieldError,
    validation::Faults,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use super::{Accounts, Session, session};
use crate::{Error, client::secret::Secret, merchant::NAME_LENGTH_MAX};

pub(super) mod store;

/// Characters of a login, as the table has it.
const LOGIN_LENGTH_MAX: usize = 200;

/// Somebody who signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and none excludes another"
)]
pub struct Person {
    /// The person.
    pub id: PersonId,
    /// What they sign in with, folded.
    pub login: String,
    /// What they are called.
    pub name: String,
    /// Whether they run this installation.
    pub is_operator: bool,
    /// Whether they may make apps.
    pub is_developer: bool,
    /// Whether they have a password.
    pub has_password: bool,
    /// Whether time-based codes are asked of them.
    pub has_totp: bool,
    /// Raised by every change.
    pub version: i64,
    /// Since when they are known.
    pub created_at: Timestamp,
}

/// What somebody who is new says of themselves.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// What they will sign in with: 1 to 200 characters, any user name. It is folded: trimmed, and in lower case.
    pub login: String,
    /// What they are called: 1 to 200 characters.
    pub name: String,
    /// Their password: 10 to 200 characters, hard to guess.
    pub password: Secret,
}

/// Somebody, as operators see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPerson {
    /// Who it is.
    pub person: Person,
    /// At how many merchants they are staff.
    pub merchants: i64,
    /// Since when they can't sign in; `None`: they can.
    pub disabled_at: Option<Timestamp>,
}

/// Where a page of the people ends: they are listed by their logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonKey(pub(super) String);

/// What somebody is to a merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The merchant.
    pub merchant: MerchantId,
    /// What the merchant is called.
    pub merchant_name: String,
    /// What the person may do there.
    pub role: Role,
}

/// What somebody may do at a merchant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Role {
    /// Sees what is installed, and decides nothing.
    Viewer,
    /// Gives, changes and ends grants.
    Manager,
    /// That, and decides who else is staff, and reads the audit log.
    Owner,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Manager, Self::Owner];

    /// The name, as the table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Manager => "manager",
            Self::Owner => "owner",
        }
    }

    /// Whether grants are theirs to give, change and end.
    pub const fn decides_grants(self) -> bool {
        matches!(self, Self::Manager | Self::Owner)
    }

    /// Whether staff is theirs to invite, change and remove, and the audit log theirs to read.
    pub const fn manages_staff(self) -> bool {
        matches!(self, Self::Owner)
    }
}

/// Who asks for something that operators may: one of them, or the command line.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// Somebody, by their session.
    Person(&'a Session),
    /// The command line, whose user holds the database and the master key.
    CommandLine,
}

impl By<'_> {
    /// Who it is; `None`: the command line.
    pub(super) fn person(self) -> Option<PersonId> {
        match self {
            Self::Person(session) => Some(session.person.id),
            Self::CommandLine => None,
        }
    }

    /// Nothing for an operator and for the command line, or else [`Error::Forbidden`].
    pub(super) fn require_operator(self) -> Result<(), Error> {
        match self {
            Self::Person(session) if !session.person.is_operator => {
                Err(Error::Forbidden("Only operators may do this."))
            }
            Self::Person(_) | Self::CommandLine => Ok(()),
        }
    }

    /// Nothing for the command line and for who has proved a short while ago who they are, or else [`Error::StepUpRequired`].
    pub(super) fn require_recent_proof(self, now: Timestamp) -> Result<(), Error> {
        match self {
            Self::Person(session) => session.require_recent_proof(now),
            Self::CommandLine => Ok(()),
        }
    }

    /// `entry` as an act of whoever it is.
    pub(super) fn sign(self, entry: NewEntry) -> NewEntry {
        match self.person() {
            Some(person) => entry.by_person(person),
            None => entry,
        }
    }
}

/// A login as it is kept and looked for: trimmed, in lower case. What can't be one becomes the empty text, which is nobody's.
pub(super) fn fold(login: &str) -> String {
    let folded = login.trim().to_lowercase();
    let is_possible =
        folded.chars().count() <= LOGIN_LENGTH_MAX && !folded.chars().any(char::is_control);
    if is_possible { folded } else { String::new() }
}

/// The login of a new person, or what is wrong with it.
fn check_login(login: &str, faults: &mut Faults) -> String {
    let folded = login.trim().to_lowercase();
    faults.text("/login", &folded, LOGIN_LENGTH_MAX);
    if folded.chars().any(char::is_control) {
        faults.add(
            "/login",
            "invalid",
            "must be one line without control characters",
        );
    }
    folded
}

/// A name without the blanks around it, or what is wrong with it.
fn check_name(name: &str, faults: &mut Faults) -> String {
    let name = name.trim().to_owned();
    faults.text("/name", &name, NAME_LENGTH_MAX);
    name
}

/// What a violated constraint says of a new person.
pub(super) fn explain(error: db::Error) -> Error {
    if error.violated_constraint().as_deref() == Some("persons_login_key") {
        Error::InvalidFields(vec![FieldError::at(
            "/login",
            "taken",
            "is taken by somebody else",
        )])
    } else {
        error.into()
    }
}

/// A new person whose fields are sound and whose password is hashed.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) login: String,
    pub(super) name: String,
    pub(super) password_hash: Option<String>,
}

/// Makes a person, and tells so.
pub(super) async fn create(
    tx: &mut PgConnection,
    id: PersonId,
    checked: Checked,
    caller: &Caller,
    now: Timestamp,
) -> Result<Person, Error> {
    let has_password = checked.password_hash.is_some();
    let person = Person {
        id,
        login: checked.login,
        name: checked.name,
        is_operator: false,
        is_developer: false,
        has_password,
        has_totp: false,
        version: 1,
        created_at: now,
    };
    store::insert(tx, &person, checked.password_hash.as_deref())
        .await
        .map_err(explain)?;
    let entry = NewEntry::succeeded("person.created").to("person", id);
    audit::record(tx, Log::Installation, caller, now, &entry).await?;
    Ok(person)
}

/// Nothing if the person can still sign in: whoever takes away the last way in has locked themselves out. Locks the person, so that of two who take away one
/// each the second sees what the first has done.
pub(super) async fn require_way_in(tx: &mut PgConnection, person: PersonId) -> Result<(), Error> {
    store::lock(tx, person).await?;
    if store::count_ways_in(tx, person).await? > 0 {
        Ok(())
    } else {
        Err(Error::Forbidden(
            "This is the only way to sign in that is left; set a password or add a passkey first.",
        ))
    }
}

impl Accounts {
    /// Checks every field, and then hashes the password: not within a transaction.
    pub(super) async fn check_new(&self, new: &NewPerson) -> Result<Checked, Error> {
        let mut faults = Faults::default();
        let login = check_login(&new.login, &mut faults);
        let name = check_name(&new.name, &mut faults);
        let weakness = self.hasher.fault(&new.password, &[&login, &name]).await?;
        if let Some(weakness) = weakness {
            faults.add("/password", "too_weak", weakness);
        }
        faults.into_result().map_err(Error::InvalidFields)?;
        Ok(Checked {
            login,
            name,
            password_hash: Some(self.hasher.hash(&new.password).await?),
        })
    }

    /// Makes a person, for the command line. What is wrong is a field error at `/login` (which may be taken), `/name` or `/password`.
    pub async fn create_person(
        &self,
        caller: &Caller,
        new: NewPerson,
        is_operator: bool,
        is_developer: bool,
    ) -> Result<Person, Error> {
        let checked = self.check_new(&new).await?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let person = create(&mut tx, PersonId::new(now), checked, caller, now).await?;
        let flags = (is_operator, is_developer);
        if flags != (false, false) {
            store::add_flags(&mut tx, person.id, is_operator, is_developer).await?;
        }
        tx.commit().await.map_err(db::Error::from)?;
        Ok(Person {
            is_operator,
            is_developer,
            version: if flags == (false, false) { 1 } else { 2 },
            ..person
        })
    }

    /// Renames the person: 1 to 200 characters, or else a field error at `/name`.
    pub async fn set_name(
        &self,
        caller: &Caller,
        session: &Session,
        name: &str,
    ) -> Result<(), Error> {
        let mut faults = Faults::default();
        let name = check_name(name, &mut faults);
        faults.into_result().map_err(Error::InvalidFields)?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        store::set_name(&mut tx, session.person.id, &name).await?;
        let entry = NewEntry::succeeded("person.renamed")
            .by_person(session.person.id)
            .to("person", session.person.id);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(())
    }

    /// Sets the person's password, the first or another, and ends their other sessions. Needs a recent proof, which is how the old one is shown. A weak one is
    /// a field error at `/password`.
    pub async fn change_password(
        &self,
        caller: &Caller,
        session: &Session,
        password: &Secret,
    ) -> Result<(), Error> {
        session.require_recent_proof(self.clock.now())?;
        let person = &session.person;
        let hash = self
            .hash_sound(password, &person.login, &person.name)
            .await?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        store::set_password(&mut tx, person.id, &hash).await?;
        session::end_others(&mut tx, person.id, Some(session.id), caller, now).await?;
        let entry = NewEntry::succeeded("password.changed")
            .by_person(person.id)
            .to("person", person.id);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(())
    }

    /// Lets somebody who has lost all of it in again, for the command line: a new password, no time-based codes, no sessions. Passkeys stay.
    pub async fn reset_person(
        &self,
        caller: &Caller,
        login: &str,
        password: &Secret,
    ) -> Result<PersonId, Error> {
        let folded = fold(login);
        let unknown = || Error::NotFound {
            noun: "person",
            id: login.to_owned(),
        };
        let mut tx = self.database.begin().await?;
        let found = store::select_by_login(&mut tx, &folded).await?;
        drop(tx);
        let person = found.ok_or_else(unknown)?;
        let hash = self
            .hash_sound(password, &person.login, &person.name)
            .await?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        store::set_password(&mut tx, person.id, &hash).await?;
        store::set_totp(&mut tx, person.id, None, None).await?;
        super::recovery_code::store::delete(&mut tx, person.id).await?;
        session::end_others(&mut tx, person.id, None, caller, now).await?;
        let entry = NewEntry::succeeded("password.changed")
            .to("person", person.id)
            .with(json!({ "reset": true }));
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(person.id)
    }

    async fn hash_sound(
        &self,
        password: &Secret,
        login: &str,
        name: &str,
    ) -> Result<String, Error> {
        if let Some(weakness) = self.hasher.fault(password, &[login, name]).await? {
            let fault = FieldError::at("/password", "too_weak", weakness);
            return Err(Error::InvalidFields(vec![fault]));
        }
        self.hasher.hash(password).await
    }

    /// Disables a person: their sessions end, and nothing lets them in. For operators, who can't disable themselves; needs a recent proof.
    pub async fn disable_person(
        &self,
        caller: &Caller,
        by: By<'_>,
        person: PersonId,
    ) -> Result<(), Error> {
        if by.person() == Some(person) {
            return Err(Error::Forbidden("Nobody may disable themselves."));
        }
        self.set_disabled(caller, by, person, true).await
    }

    /// Enables a person again. For operators; needs a recent proof.
    pub async fn enable_person(
        &self,
        caller: &Caller,
        by: By<'_>,
        person: PersonId,
    ) -> Result<(), Error> {
        self.set_disabled(caller, by, person, false).await
    }

    async fn set_disabled(
        &self,
        caller: &Caller,
        by: By<'_>,
        person: PersonId,
        disabled: bool,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        by.require_operator()?;
        by.require_recent_proof(now)?;
        let mut tx = self.database.begin().await?;
        if !store::set_disabled(&mut tx, person, disabled.then_some(now)).await? {
            return Err(Error::NotFound {
                noun: "person",
                id: person.to_string(),
            });
        }
        let action = if disabled {
            session::end_others(&mut tx, person, None, caller, now).await?;
            "person.disabled"
        } else {
            "person.enabled"
        };
        let entry = by.sign(NewEntry::succeeded(action)).to("person", person);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(())
    }

    /// Everybody, by their logins; for operators.
    pub async fn persons(
        &self,
        by: By<'_>,
        page: &PageRequest<PersonKey>,
    ) -> Result<Page<ListedPerson>, Error> {
        by.require_operator()?;
        let after = page.after.as_ref().map(|PersonKey(login)| login.as_str());
        let mut tx = self.database.begin().await?;
        let rows = store::list(&mut tx, after, page.fetch_count()).await?;
        Ok(Page::from_rows(rows, page, |last| {
            PersonKey(last.person.login.clone())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_folded_and_what_can_be_none_is_nobodys() {
        assert_eq!(
            fold("  Anna.Brandner@Shop.Example "),
            "anna.brandner@shop.example"
        );
        assert_eq!(fold("ÄNNE"), "änne");
        for impossible in ["", "   ", "a\0b", "a\nb", &"x".repeat(201)] {
            assert_eq!(fold(impossible), "");
        }
    }
}
