//! Passkeys, with an authenticator of the tests' own: a key pair and the CBOR that WebAuthn asks for.

use std::time::Duration;

use auth::{
    Error, Issuer,
    account::{
        Accounts,
        passkey::{PasskeyChallenge, PasskeyId},
        session::Factor,
    },
};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use kernel::audit::{AuditEntry, Log};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{fixture::ISSUER, house::House};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const HAS_CREDENTIAL: u8 = 0x40;

/// Makes an authenticator do something wrong.
type Spoil = fn(&mut Authenticator);

/// One passkey in an authenticator.
struct Authenticator {
    key: EcdsaKeyPair,
    id: Vec<u8>,
    user: Vec<u8>,
    counter: u32,
    flags: u8,
    origin: String,
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn text(value: &Value) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD
        .decode(value.as_str().unwrap())
        .unwrap()
}

/// A byte string in CBOR (RFC 8949, section 3.1), of up to 65,535 bytes.
fn cbor_bytes(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0x59, length[0], length[1]], bytes].concat()
}

impl Authenticator {
    fn new() -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            id: rand::random::<[u8; 16]>().to_vec(),
            user: Vec::new(),
            counter: 0,
            flags: USER_PRESENT | USER_VERIFIED,
            origin: ISSUER.to_owned(),
        }
    }

    fn client_data(&self, kind: &str, challenge: &PasskeyChallenge) -> Vec<u8> {
        let challenge = &challenge.options["publicKey"]["challenge"];
        json!({"type": kind, "challenge": challenge, "origin": self.origin})
            .to_string()
            .into_bytes()
    }

    fn authenticator_data(&self, flags: u8) -> Vec<u8> {
        let relying_party = Sha256::digest(b"stoa.example");
        [&relying_party[..], &[flags], &self.counter.to_be_bytes()].concat()
    }

    /// What the browser's `create` gives.
    fn register(&mut self, challenge: &PasskeyChallenge) -> Value {
        self.user = text(&challenge.options["publicKey"]["user"]["id"]);
        let point = self.key.public_key().as_ref();
        // {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}
        let key = [
            &[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20][..],
            &point[1..33],
            &[0x22, 0x58, 0x20],
            &point[33..],
        ]
        .concat();
        let id_length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let data = [
            &self.authenticator_data(self.flags | HAS_CREDENTIAL)[..],
            &[0; 16],
            &id_length,
            &self.id,
            &key,
        ]
        .concat();
        // {"fmt": "none", "attStmt": {}, "authData": …}
        let object = [
            &[0xa3, 0x63][..],
            b"fmt",
            &[0x64],
            b"none",
            &[0x67],
            b"attStmt",
            &[0xa0, 0x68],
            b"authData",
            &cbor_bytes(&data),
        ]
        .concat();
        json!({
            "id": encode(&self.id),
            "rawId": encode(&self.id),
            "type": "public-key",
            "response": {
                "attestationObject": encode(&object),
                "clientDataJSON": encode(&self.client_data("webauthn.create", challenge)),
            },
            "extensions": {},
        })
    }

    /// What the browser's `get` gives.
    fn assert(&mut self, challenge: &PasskeyChallenge) -> Value {
        self.counter += 1;
        let client_data = self.client_data("webauthn.get", challenge);
        let data = self.authenticator_data(self.flags);
        let signed = [&data[..], &Sha256::digest(&client_data)].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({
            "id": encode(&self.id),
            "rawId": encode(&self.id),
            "type": "public-key",
            "response": {
                "authenticatorData": encode(&data),
                "clientDataJSON": encode(&client_data),
                "signature": encode(signature.as_ref()),
                "userHandle": encode(&self.user),
            },
            "extensions": {},
        })
    }
}

/// Somebody with a passkey.
async fn with_passkey(house: &House, login: &str) -> (auth::account::Session, Authenticator) {
    house.person(login).await;
    let session = house.signed_in(login).await;
    let challenge = house
        .accounts
        .begin_passkey_registration(&session)
        .await
        .unwrap();
    let mut authenticator = Authenticator::new();
    let made = authenticator.register(&challenge);
    house
        .accounts
        .finish_passkey_registration(
            &house.caller(),
            &session,
            &challenge.ceremony,
            " Phone ",
            made,
        )
        .await
        .unwrap();
    (session, authenticator)
}

#[tokio::test]
async fn a_passkey_signs_in_by_itself_without_a_name() {
    let house = House::new().await;
    let (session, mut authenticator) = with_passkey(&house, "anna").await;
    house.with_totp(&session).await;
    let challenge = house.accounts.begin_passkey_sign_in().await.unwrap();
    assert_eq!(
        challenge.options["publicKey"]["allowCredentials"],
        json!([])
    );
    assert_eq!(
        challenge.options["publicKey"]["userVerification"],
        "required"
    );
    let shown = authenticator.assert(&challenge);
    let (caller, ceremony) = (house.caller(), &challenge.ceremony);
    let finished = house
        .accounts
        .finish_passkey_sign_in(&caller, ceremony, shown.clone())
        .await;
    let started = house.session(&finished.unwrap()).await;
    assert_eq!(started.person.id, session.person.id);
    assert_eq!(started.factors, [Factor::Passkey], "both factors at once");
    let again = house
        .accounts
        .finish_passkey_sign_in(&caller, ceremony, shown.clone())
        .await;
    assert!(
        matches!(again, Err(Error::Gone(_))),
        "a ceremony is good once"
    );
    let other = house.accounts.begin_passkey_sign_in().await.unwrap();
    let replayed = house
        .accounts
        .finish_passkey_sign_in(&caller, &other.ceremony, shown)
        .await;
    assert!(
        matches!(replayed, Err(Error::NotAccepted)),
        "another challenge"
    );
    let listed = house.accounts.passkeys(&session).await.unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "Phone"));
    assert_eq!(listed[0].last_used_at, Some(house.installation.clock.now()));
    let told = house.told(Log::Installation, "session.started").await;
    let by_passkey = |entry: &&AuditEntry| entry.details["factors"] == json!(["passkey"]);
    assert_eq!(told.iter().filter(by_passkey).count(), 1);
}

#[tokio::test]
async fn a_passkey_that_does_not_fit_signs_nobody_in_and_burns_its_challenge() {
    let house = House::new().await;
    let (_, mut authenticator) = with_passkey(&house, "anna").await;
    let (bea, _) = with_passkey(&house, "bea").await;
    let cases: [(&str, Spoil); 5] = [
        ("another key", |one| one.key = Authenticator::new().key),
        ("an unknown passkey", |one| one.id = vec![7; 16]),
        ("another site", |one| {
            one.origin = "https://stoa.example.evil".to_owned();
        }),
        ("nobody verified", |one| one.flags = USER_PRESENT),
        ("a counter that goes back", |one| one.counter = 0),
    ];
    let use_once = async |authenticator: &mut Authenticator| {
        let challenge = house.accounts.begin_passkey_sign_in().await.unwrap();
        let shown = authenticator.assert(&challenge);
        let (caller, ceremony) = (house.caller(), &challenge.ceremony);
        let first = house
            .accounts
            .finish_passkey_sign_in(&caller, ceremony, shown.clone())
            .await;
        let second = house
            .accounts
            .finish_passkey_sign_in(&caller, ceremony, shown)
            .await;
        assert!(matches!(second, Err(Error::Gone(_))));
        first
    };
    use_once(&mut authenticator).await.unwrap();
    for (case, spoil) in cases {
        let mut spoilt = Authenticator::new();
        spoilt.key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            authenticator.key.to_pkcs8v1().unwrap().as_ref(),
        )
        .unwrap();
        spoilt.id.clone_from(&authenticator.id);
        spoilt.user.clone_from(&authenticator.user);
        spoilt.counter = authenticator.counter;
        spoil(&mut spoilt);
        let refused = use_once(&mut spoilt).await;
        assert!(
            matches!(refused, Err(Error::NotAccepted)),
            "{case}: {refused:?}"
        );
    }
    // The right passkey in somebody else's name.
    let user = std::mem::replace(
        &mut authenticator.user,
        bea.person.id.uuid().as_bytes().to_vec(),
    );
    assert!(matches!(
        use_once(&mut authenticator).await,
        Err(Error::NotAccepted)
    ));
    authenticator.user = user;
    use_once(&mut authenticator).await.unwrap();
    let challenge = house.accounts.begin_passkey_sign_in().await.unwrap();
    let (caller, ceremony) = (house.caller(), &challenge.ceremony);
    let nonsense = house
        .accounts
        .finish_passkey_sign_in(&caller, ceremony, json!({}))
        .await;
    assert!(matches!(nonsense, Err(Error::NotAccepted)));
    assert_eq!(
        house.told(Log::Installation, "session.refused").await.len(),
        7
    );
}

#[tokio::test]
async fn a_challenge_lasts_five_minutes_and_only_for_what_it_was_given() {
    let house = House::new().await;
    let (session, mut authenticator) = with_passkey(&house, "anna").await;
    let (accounts, caller) = (&house.accounts, house.caller());
    let step_up = accounts.begin_passkey_step_up(&session).await.unwrap();
    let shown = authenticator.assert(&step_up);
    let crossed = accounts
        .finish_passkey_sign_in(&caller, &step_up.ceremony, shown.clone())
        .await;
    assert!(matches!(crossed, Err(Error::Gone(_))));
    house.installation.clock.advance(Duration::from_mins(5));
    let late = accounts
        .finish_passkey_step_up(&caller, &session, &step_up.ceremony, shown)
        .await;
    assert!(matches!(late, Err(Error::Gone(_))));
}

#[tokio::test]
async fn a_passkey_steps_up_its_own_person_alone() {
    let house = House::new().await;
    let (anna, mut authenticator) = with_passkey(&house, "anna").await;
    let (bea, _) = with_passkey(&house, "bea").await;
    house.installation.clock.advance(Duration::from_mins(11));
    let (accounts, caller) = (&house.accounts, house.caller());
    let challenge = accounts.begin_passkey_step_up(&anna).await.unwrap();
    let shown = authenticator.assert(&challenge);
    let ceremony = &challenge.ceremony;
    let new = accounts
        .finish_passkey_step_up(&caller, &anna, ceremony, shown)
        .await
        .unwrap();
    let renewed = house.session(&new).await;
    assert_eq!(
        (renewed.id, renewed.factors.as_slice()),
        (anna.id, &[Factor::Passkey][..])
    );
    renewed
        .require_recent_proof(house.installation.clock.now())
        .unwrap();
    for (begun_by, finished_by) in [(&bea, &bea), (&anna, &bea)] {
        let challenge = accounts.begin_passkey_step_up(begun_by).await.unwrap();
        let shown = authenticator.assert(&challenge);
        let ceremony = &challenge.ceremony;
        let foreign = accounts
            .finish_passkey_step_up(&caller, finished_by, ceremony, shown)
            .await;
        assert!(matches!(foreign, Err(Error::NotAccepted)));
    }
}

#[tokio::test]
async fn passkeys_are_added_renamed_and_removed_by_their_person_after_a_recent_proof() {
    let house = House::new().await;
    let (anna, _) = with_passkey(&house, "anna").await;
    let (bea, _) = with_passkey(&house, "bea").await;
    let (accounts, caller) = (&house.accounts, house.caller());
    let elsewhere = house.new_session("anna").await;
    let challenge = accounts.begin_passkey_registration(&anna).await.unwrap();
    let options = &challenge.options["publicKey"];
    assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
    assert_eq!(options["excludeCredentials"].as_array().unwrap().len(), 1);
    let ceremony = &challenge.ceremony;
    let unnamed = accounts
        .finish_passkey_registration(&caller, &anna, ceremony, " ", json!({}))
        .await;
    assert!(matches!(unnamed, Err(Error::InvalidFields(_))));
    let mut unverified = Authenticator::new();
    unverified.flags = USER_PRESENT;
    let made = unverified.register(&challenge);
    let refused = accounts
        .finish_passkey_registration(&caller, &anna, ceremony, "Key", made)
        .await;
    assert!(matches!(refused, Err(Error::NotAccepted)));

    let id = accounts.passkeys(&anna).await.unwrap()[0].id.clone();
    assert_eq!(id.to_string().parse::<PasskeyId>().unwrap(), id);
    for foreign in [
        accounts.rename_passkey(&bea, &id, "Mine").await,
        accounts.remove_passkey(&caller, &bea, &id).await,
    ] {
        assert!(matches!(
            foreign,
            Err(Error::NotFound {
                noun: "passkey",
                ..
            })
        ));
    }
    accounts.rename_passkey(&anna, &id, "Laptop").await.unwrap();
    assert_eq!(accounts.passkeys(&anna).await.unwrap()[0].name, "Laptop");
    accounts.remove_passkey(&caller, &anna, &id).await.unwrap();
    assert!(accounts.passkeys(&anna).await.unwrap().is_empty());
    assert!(
        house.find(&elsewhere).await.is_none(),
        "the other sessions have ended"
    );
    assert!(matches!(
        accounts.begin_passkey_step_up(&anna).await,
        Err(Error::Forbidden(_))
    ));
    house.installation.clock.advance(Duration::from_mins(11));
    let late = accounts.begin_passkey_registration(&anna).await;
    assert!(matches!(late, Err(Error::StepUpRequired)));
    for (action, times) in [("passkey.added", 2), ("passkey.removed", 1)] {
        assert_eq!(
            house.told(Log::Installation, action).await.len(),
            times,
            "{action}"
        );
    }
}

#[tokio::test]
async fn the_last_way_in_stays() {
    use sqlx::Executor;
    let house = House::new().await;
    let (anna, _) = with_passkey(&house, "anna").await;
    let mut owner = house.installation.database.owner().await.unwrap();
    owner
        .execute("update persons set password_hash = null")
        .await
        .unwrap();
    let id = house.accounts.passkeys(&anna).await.unwrap()[0].id.clone();
    let last = house
        .accounts
        .remove_passkey(&house.caller(), &anna, &id)
        .await;
    assert!(matches!(last, Err(Error::Forbidden(_))));
    assert_eq!(house.accounts.passkeys(&anna).await.unwrap().len(), 1);
}

#[tokio::test]
async fn there_are_none_at_an_address_without_a_name() {
    let house = House::new().await;
    let accounts = Accounts::new(
        house.installation.database.api(),
        house.installation.keyring.clone(),
        house.installation.clock.clone(),
        Issuer::parse("http://127.0.0.1:8080").unwrap(),
    )
    .unwrap();
    assert!(house.accounts.passkeys_available() && !accounts.passkeys_available());
    assert!(matches!(
        accounts.begin_passkey_sign_in().await,
        Err(Error::Forbidden(_))
    ));
}
