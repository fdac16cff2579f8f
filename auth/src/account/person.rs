//! Who somebody is: a person, and the roles that merchants have given to them.

use kernel::{
    clock::Timestamp,
    id::{MerchantId, PersonId},
};
use serde::{Deserialize, Serialize};

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
