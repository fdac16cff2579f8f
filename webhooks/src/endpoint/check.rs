//! The rules of an endpoint's settings: what can be said of an input by itself, and what only of the whole that it makes.
//!
//! Called by inputs as they are read, and by operations with what is to be saved. Every fault is named, and none quotes a secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use kernel::{
    problem::FieldError,
    validation::{Faults, escape},
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    input::{CredentialsChange, SettingsChange},
    settings::{
        Authentication, Credentials, DeliverySettings, PayloadSettings, Settings, SignatureScheme,
        SignatureSettings,
    },
};
use crate::{
    client::{HEADER_VALUE_BYTES_MAX, HEADERS_MAX},
    filter::{Filter, TypePattern},
    render::{RenderError, Renderer},
    sign,
};

/// Types or patterns that one endpoint may name.
const EVENT_TYPES_MAX: usize = 100;

/// Characters of a filter: some screens of it.
const FILTER_LENGTH_MAX: usize = 4_000;

/// Characters of a transformation.
const TRANSFORMATION_LENGTH_MAX: usize = 16_000;

/// Events that one request may carry. One is what a request carries without batches.
const BATCH_EVENTS: RangeInclusive<u32> = 2..=1_000;

/// Requests a second that may be asked for; above the upper bound a limit limits nothing.
const RATE_PER_SECOND: RangeInclusive<u32> = 1..=10_000;

/// Requests in flight that may be asked for: what one worker gives one endpoint at most.
const CONCURRENCY: RangeInclusive<u32> = 1..=256;

/// Waits of a retry schedule.
const RETRY_WAITS_MAX: usize = 30;

/// Seconds of one wait: a second to seven days.
const RETRY_WAIT_SECONDS: RangeInclusive<u32> = 1..=7 * 24 * 60 * 60;

/// Characters of a client's id and of a scope.
const CLIENT_ID_LENGTH_MAX: usize = 500;

/// Characters of a client's secret.
const CLIENT_SECRET_LENGTH_MAX: usize = 4_096;

/// Characters of PEM: a long chain.
const PEM_LENGTH_MAX: usize = 65_536;

/// Types of events, or patterns of them.
pub(crate) fn event_types(faults: &mut Faults, kinds: Option<&[String]>) {
    let Some(kinds) = kinds else { return };
    faults.at_most("/eventTypes", kinds, EVENT_TYPES_MAX);
    if kinds.is_empty() {
        faults.add(
            "/eventTypes",
            "required",
            "must name at least one type, or be null for all",
        );
    }
    for (place, kind) in kinds.iter().enumerate() {
        if TypePattern::parse(kind).is_err() {
            faults.add(
                &format!("/eventTypes/{place}"),
                "invalid",
                "must be a type of event, such as order.placed, or a pattern, such as order.* or *",
            );
        }
    }
}

/// What can be said of settings that are given.
pub(crate) fn settings(faults: &mut Faults, given: &SettingsChange) {
    if let Some(Some(text)) = &given.filter {
        filter(faults, text);
    }
    if let Some(given) = &given.payload {
        faults.within("/payload", |faults| payload(faults, given));
    }
    if let Some(given) = &given.delivery {
        faults.within("/delivery", |faults| delivery(faults, given));
    }
    if let Some(given) = &given.signature {
        faults.within("/signature", |faults| signature(faults, given));
    }
    if let Some(Some(Authentication::OauthClientCredentials {
        client_id, scope, ..
    })) = &given.authentication
    {
        faults.within("/authentication", |faults| {
            faults.text("/clientId", client_id, CLIENT_ID_LENGTH_MAX);
            if let Some(scope) = scope {
                faults.text("/scope", scope, CLIENT_ID_LENGTH_MAX);
            }
        });
    }
}

/// A condition must be one that can be taken; the fault says where it breaks.
fn filter(faults: &mut Faults, text: &str) {
    if !is_at_most(text, FILTER_LENGTH_MAX) {
        faults.optional_text("/filter", Some(text), FILTER_LENGTH_MAX);
    } else if let Err(error) = Filter::compile(None, Some(text)) {
        faults.add("/filter", "invalid", error.to_string());
    }
}

fn is_at_most(text: &str, max: usize) -> bool {
    text.chars().nth(max).is_none()
}

fn payload(faults: &mut Faults, payload: &PayloadSettings) {
    let transformation = payload.transformation.as_deref();
    // What is longer is not compiled.
    let fits = is_at_most(
        transformation.unwrap_or_default(),
        TRANSFORMATION_LENGTH_MAX,
    );
    if !fits {
        let step = "/transformation";
        faults.optional_text(step, transformation, TRANSFORMATION_LENGTH_MAX);
    }
    let compiled = fits.then(|| Renderer::compile(payload)).transpose();
    match compiled {
        Ok(_) => {}
        Err(error @ RenderError::ApiVersion { .. }) => {
            faults.add("/apiVersion", "unknown", error.to_string());
        }
        Err(error @ RenderError::Transformation { .. }) => {
            faults.add("/transformation", "invalid", error.to_string());
        }
    }
    within(
        faults,
        "/batchEventsMax",
        payload.batch_events_max,
        &BATCH_EVENTS,
    );
}

fn delivery(faults: &mut Faults, delivery: &DeliverySettings) {
    within(
        faults,
        "/rateLimitPerSecond",
        delivery.rate_limit_per_second,
        &RATE_PER_SECOND,
    );
    within(
        faults,
        "/concurrencyMax",
        delivery.concurrency_max,
        &CONCURRENCY,
    );
    let waits = delivery.retry_waits_seconds.as_deref().unwrap_or_default();
    faults.at_most("/retryWaitsSeconds", waits, RETRY_WAITS_MAX);
    for (place, wait) in waits.iter().enumerate() {
        within(
            faults,
            &format!("/retryWaitsSeconds/{place}"),
            Some(*wait),
            &RETRY_WAIT_SECONDS,
        );
    }
}

fn within(faults: &mut Faults, step: &str, number: Option<u32>, range: &RangeInclusive<u32>) {
    if number.is_some_and(|number| !range.contains(&number)) {
        let (least, most) = (range.start(), range.end());
        faults.add(step, "out_of_range", format!("must be {least} to {most}"));
    }
}

fn signature(faults: &mut Faults, signature: &SignatureSettings) {
    schemes(faults, &signature.schemes);
    let names = [
        ("/idHeader", &signature.id_header),
        ("/timestampHeader", &signature.timestamp_header),
        ("/signatureHeader", &signature.signature_header),
    ];
    let mut seen = BTreeSet::new();
    for (step, name) in names {
        header_name(faults, step, name);
        if name.eq_ignore_ascii_case("authorization") {
            faults.add(step, "reserved", "is not a place for this");
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            faults.add(step, "duplicate", "must differ from the other two");
        }
    }
}

/// Schemes of signatures: one or both, each once.
pub(crate) fn schemes(faults: &mut Faults, schemes: &[SignatureScheme]) {
    if schemes.is_empty() {
        faults.add("/schemes", "required", "must name at least one scheme");
    }
    let mut seen = BTreeSet::new();
    for (place, scheme) in schemes.iter().enumerate() {
        if !seen.insert(scheme) {
            faults.add(
                &format!("/schemes/{place}"),
                "duplicate",
                "is there already",
            );
        }
    }
}

fn header_name(faults: &mut Faults, step: &str, name: &str) {
    if let Err(error) = sign::header_name(name) {
        faults.add(step, error.code(), error.to_string());
    }
}

/// Headers that are given.
pub(crate) fn headers(faults: &mut Faults, headers: Option<&BTreeMap<String, String>>) {
    let Some(headers) = headers else { return };
    if headers.len() > HEADERS_MAX {
        faults.add(
            "/headers",
            "too_many",
            format!("must be at most {HEADERS_MAX}"),
        );
    }
    let mut seen = BTreeSet::new();
    for (name, value) in headers {
        let step = format!("/headers/{}", escape(name));
        header_name(faults, &step, name);
        if !seen.insert(name.to_ascii_lowercase()) {
            faults.add(&step, "duplicate", "is there already: names have no case");
        }
        if value.len() > HEADER_VALUE_BYTES_MAX {
            faults.add(
                &step,
                "too_long",
                format!("must have at most {HEADER_VALUE_BYTES_MAX} bytes"),
            );
        }
        // Visible ASCII, with blanks between (RFC 9110, section 5.5).
        let is_value = value.trim().len() == value.len()
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'));
        if !is_value {
            faults.add(
                &step,
                "invalid",
                "must be printable ASCII that neither begins nor ends with a blank",
            );
        }
    }
}

/// Credentials that are given.
pub(crate) fn credentials(faults: &mut Faults, given: &CredentialsChange) {
    let members = [
        (
            "/clientSecret",
            &given.client_secret,
            CLIENT_SECRET_LENGTH_MAX,
        ),
        ("/certificatePem", &given.certificate_pem, PEM_LENGTH_MAX),
        ("/privateKeyPem", &given.private_key_pem, PEM_LENGTH_MAX),
    ];
    for (step, text, max) in members {
        if let Some(Some(text)) = text {
            faults.text(step, text, max);
        }
    }
}

/// The rules of the whole that is to be saved: that its parts fit each other. Call after [`settings`], [`headers`] and [`credentials`].
pub(crate) fn whole(settings: &Settings, credentials: &Credentials) -> Result<(), Vec<FieldError>> {
    let mut faults = Faults::default();
    let signature = &settings.signature;
    let signs = [
        &signature.id_header,
        &signature.timestamp_header,
        &signature.signature_header,
    ];
    for name in credentials.headers.keys() {
        let step = format!("/headers/{}", escape(name));
        // Names of headers are the same in any case (RFC 9110, section 5.1).
        if signs.iter().any(|sign| sign.eq_ignore_ascii_case(name)) {
            faults.add(&step, "reserved", "is a header of the signature");
        }
        if name.eq_ignore_ascii_case("authorization")
            && matches!(
                settings.authentication,
                Some(Authentication::OauthClientCredentials { .. })
            )
        {
            faults.add(
                &step,
                "reserved",
                "carries the access token of settings.authentication",
            );
        }
    }
    faults.within("/credentials", |faults| {
        fitting(faults, settings.authentication.as_ref(), credentials);
    });
    faults.into_result()
}

/// The credentials must be what the authentication needs, and nothing else: a secret without a use is only there to be lost.
fn fitting(
    faults: &mut Faults,
    authentication: Option<&Authentication>,
    credentials: &Credentials,
) {
    let (wants_secret, wants_certificate) = match authentication {
        None => (false, false),
        Some(Authentication::OauthClientCredentials { .. }) => (true, false),
        Some(Authentication::MutualTls) => (false, true),
    };
    let members = [
        ("/clientSecret", &credentials.client_secret, wants_secret),
        (
            "/certificatePem",
            &credentials.certificate_pem,
            wants_certificate,
        ),
        (
            "/privateKeyPem",
            &credentials.private_key_pem,
            wants_certificate,
        ),
    ];
    for (step, member, wanted) in members {
        match (member, wanted) {
            (None, true) => {
                faults.add(
                    step,
                    "required",
                    "must be given for settings.authentication",
                );
            }
            (Some(_), false) => {
                faults.add(step, "unused", "is not what settings.authentication needs");
            }
            _ => {}
        }
    }
    if let (true, Some(certificate), Some(key)) = (
        wants_certificate,
        &credentials.certificate_pem,
        &credentials.private_key_pem,
    ) {
        certificate_and_key(faults, certificate, key);
    }
}

/// The chain and the key must be readable, and belong together.
fn certificate_and_key(faults: &mut Faults, certificate: &str, key: &str) {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok();
    if chain.is_none() {
        faults.add("/certificatePem", "invalid", "must be certificates in PEM");
    }
    if key.is_none() {
        faults.add(
            "/privateKeyPem",
            "invalid",
            "must be a private key in PEM, without a password",
        );
    }
    if let (Some(chain), Some(key)) = (chain, key)
        && CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).is_err()
    {
        faults.add(
            "/privateKeyPem",
            "invalid",
            "must be the key of the first certificate, of a kind that TLS knows",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_owners_unless_it_is_the_messages() {
        let given: BTreeMap<String, String> = [
            ("X-Tenant", "4711"),
            ("x-tenant", "4711"),
            ("Host", "a"),
            ("Transfer-Encoding", "chunked"),
            ("a b", "a"),
            ("x-line", "a\r\nb: c"),
            ("x-blank", " a"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut faults = Faults::default();
        headers(&mut faults, Some(&given));
        let mut found: Vec<_> = faults
            .into_result()
            .err()
            .into_iter()
            .flatten()
            .map(|fault| (fault.pointer.unwrap_or_default(), fault.code.into_owned()))
            .collect();
        found.sort();
        let expected = [
            ("/headers/Host", "reserved"),
            ("/headers/Transfer-Encoding", "reserved"),
            ("/headers/a b", "invalid"),
            ("/headers/x-blank", "invalid"),
            ("/headers/x-line", "invalid"),
            ("/headers/x-tenant", "duplicate"),
        ]
        .map(|(pointer, code)| (pointer.to_owned(), code.to_owned()));
        assert_eq!(found, expected);
    }
}
