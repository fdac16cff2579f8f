//! What an order's input must be like, as far as the input alone decides.

use kernel::validation::{Faults, Validate};

use super::{Address, Contact, OrderCancelInput, OrderInput, card_number};
use crate::location::country_code;

/// Characters of an order's external id at most.
pub const EXTERNAL_ID_LENGTH_MAX: usize = 255;

/// Lines of an order at most: bounds what one order locks.
pub const LINES_MAX: usize = 250;

/// Pieces on one line at most.
pub const QUANTITY_MAX: i32 = 1_000_000;

/// Characters of a name or of a line of an address at most.
const TEXT_LENGTH_MAX: usize = 200;

/// Characters of an e-mail address at most (RFC 5321, section 4.5.3.1.3).
const EMAIL_LENGTH_MAX: usize = 254;

/// Characters of a telephone number at most: 15 digits (E.164) and what people write between them.
const PHONE_LENGTH_MAX: usize = 40;

/// Characters of a reason at most.
const REASON_LENGTH_MAX: usize = 500;

impl Validate for OrderInput {
    fn validate(&self, faults: &mut Faults) {
        if let Some(external_id) = &self.external_id {
            faults.text("/externalId", external_id, EXTERNAL_ID_LENGTH_MAX);
        }
        if self.lines.is_empty() {
            faults.add("/lines", "required", "must have at least one line");
        }
        faults.at_most("/lines", &self.lines, LINES_MAX);
        for (index, line) in self.lines.iter().enumerate() {
            if !(1..=QUANTITY_MAX).contains(&line.quantity) {
                faults.add(
                    &format!("/lines/{index}/quantity"),
                    "out_of_range",
                    format!("must be from 1 to {QUANTITY_MAX}"),
                );
            }
        }
        if let Some(customer) = &self.customer {
            faults.within("/customer", |faults| customer.validate(faults));
        }
        if let Some(address) = &self.shipping_address {
            faults.within("/shippingAddress", |faults| address.validate(faults));
        }
    }
}

impl Validate for Contact {
    fn validate(&self, faults: &mut Faults) {
        if self.name.is_none() && self.email.is_none() && self.phone.is_none() {
            faults.add(
                "",
                "required",
                "must have at least one of name, email and phone",
            );
        }
        personal_text(faults, "/name", self.name.as_deref(), TEXT_LENGTH_MAX);
        personal_text(faults, "/email", self.email.as_deref(), EMAIL_LENGTH_MAX);
        if self
            .email
            .as_deref()
            .is_some_and(|email| !looks_like_email(email))
        {
            faults.add("/email", "invalid", "must be an e-mail address");
        }
        personal_text(faults, "/phone", self.phone.as_deref(), PHONE_LENGTH_MAX);
    }
}

impl Validate for Address {
    fn validate(&self, faults: &mut Faults) {
        for (step, text) in [
            ("/name", self.name.as_deref()),
            ("/company", self.company.as_deref()),
            ("/line1", Some(self.line1.as_str())),
            ("/line2", self.line2.as_deref()),
            ("/postalCode", self.postal_code.as_deref()),
            ("/city", Some(self.city.as_str())),
            ("/region", self.region.as_deref()),
        ] {
            personal_text(faults, step, text, TEXT_LENGTH_MAX);
        }
        country_code(faults, "/country", &self.country);
    }
}

impl Validate for OrderCancelInput {
    fn validate(&self, faults: &mut Faults) {
        faults.optional_text("/reason", self.reason.as_deref(), REASON_LENGTH_MAX);
        card_number::refuse(faults, "/reason", self.reason.as_deref());
    }
}

/// What is given must not be blank, too long, or a card number.
fn personal_text(faults: &mut Faults, step: &str, text: Option<&str>, length_max: usize) {
    if let Some(text) = text {
        faults.text(step, text, length_max);
        card_number::refuse(faults, step, Some(text));
    }
}

/// One @ with something on both sides and no blanks: whether mail arrives is not for us to find out.
fn looks_like_email(email: &str) -> bool {
    let trimmed = email.trim();
    let mut parts = trimmed.split('@');
    let sides = (parts.next(), parts.next(), parts.next());
    matches!(sides, (Some(local), Some(domain), None) if !local.is_empty() && !domain.is_empty())
        && !trimmed.contains(char::is_whitespace)
}
