//! The public keys under which clients sign their assertions: JWKs (RFC 7517) that a developer uploads.
//!
//! What is kept is our own reading of a key, written anew: its members that count, and nothing that somebody put beside them. A private key is
//! refused by name, so that whoever pasted one knows what to throw away.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use kernel::{clock::Timestamp, problem::FieldError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Keys of one app: one for each of a few deployments, twice while they are exchanged.
pub const KEYS_MAX: usize = 10;

/// Bytes of an uploaded JWK; one of RSA with 4096 bits has some eight hundred.
const JWK_LENGTH_MAX: usize = 8_192;

/// Characters of a key's name.
const KID_LENGTH_MAX: usize = 200;

/// Bits of an RSA modulus: as NIST SP 800-131A has it, and what costs the one who verifies no more than it must.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// The only public exponent in use.
const RSA_EXPONENT: &str = "AQAB";

/// Bytes of a coordinate on P-256, and of a public key of Ed25519.
const COORDINATE_LENGTH: usize = 32;

/// The first byte of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED_POINT: u8 = 4;

/// The members of a JWK that are nobody's business but its owner's (RFC 7518, sections 6.2.2, 6.3.2 and 6.4.1; RFC 8037, section 2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key, by the members that make it (RFC 7638, section 3.2; RFC 8037, appendix A.3). In the order of their names: what is written is what is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
enum Material {
    #[serde(rename = "EC")]
    P256 { crv: P256, x: String, y: String },
    #[serde(rename = "OKP")]
    Ed25519 { crv: Ed25519, x: String },
    #[serde(rename = "RSA")]
    Rsa { e: String, n: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum P256 {
    #[serde(rename = "P-256")]
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Ed25519 {
    #[serde(rename = "Ed25519")]
    Name,
}

/// How a client may sign (RFC 7518, section 3; RFC 8037, section 3.1). Never with a hash under a shared key, never not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// `EdDSA` on Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

impl KeyAlgorithm {
    /// Every one, by name.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Ps256, Self::Rs256];

    /// The name, as `alg` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    fn verifier(self) -> Algorithm {
        match self {
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
            Self::Ps256 => Algorithm::PS256,
            Self::Rs256 => Algorithm::RS256,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A client's public key, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    /// Its name: the developer's, or the thumbprint (RFC 7638).
    pub kid: String,
    /// The one algorithm that it is for, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<KeyAlgorithm>,
    #[serde(flatten)]
    material: Material,
}

/// A client's key, as its developer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppKey {
    /// Its name.
    pub kid: String,
    /// `EC`, `OKP` or `RSA`.
    pub kty: &'static str,
    /// How it signs: `ES256`, `EdDSA`, or `PS256` and `RS256`.
    pub algorithms: Vec<KeyAlgorithm>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl ClientKey {
    /// Reads an uploaded JWK; every fault is named by its member.
    pub fn parse(json: &str) -> Result<Self, Vec<FieldError>> {
        if json.len() > JWK_LENGTH_MAX {
            return Err(fault("", "too_long", "must have at most 8,192 bytes"));
        }
        let Ok(Value::Object(members)) = serde_json::from_str(json) else {
            return Err(fault(
                "",
                "invalid",
                "must be a JSON object: one JWK (RFC 7517)",
            ));
        };
        if members.contains_key("keys") {
            return Err(fault(
                "/keys",
                "invalid",
                "is a set of keys; add them one by one",
            ));
        }
        let private: Vec<FieldError> = PRIVATE_MEMBERS
            .iter()
            .filter(|&&member| members.contains_key(member))
            .map(|member| {
                FieldError::at(
                    format!("/{member}"),
                    "private_key",
                    "is private: this key has been shown to somebody else now; make a new one, and add its public part alone",
                )
            })
            .collect();
        if !private.is_empty() {
            return Err(private);
        }
        check_purpose(&members)?;
        let material = Material::read(&members)?;
        let alg = material.algorithm_said_by(&members)?;
        let kid = match members.get("kid") {
            None | Some(Value::Null) => material.thumbprint(),
            Some(Value::String(kid)) if is_name(kid) => kid.clone(),
            Some(_) => {
                return Err(fault(
                    "/kid",
                    "invalid",
                    "must be a text of 1 to 200 visible ASCII characters",
                ));
            }
        };
        Ok(Self { kid, alg, material })
    }

    /// The algorithms that it may be used with.
    pub fn algorithms(&self) -> Vec<KeyAlgorithm> {
        self.alg
            .map_or_else(|| self.material.algorithms().to_vec(), |alg| vec![alg])
    }

    /// As its developer sees it.
    pub fn shown(&self, created_at: Timestamp) -> AppKey {
        AppKey {
            kid: self.kid.clone(),
            kty: self.material.kty(),
            algorithms: self.algorithms(),
            created_at,
        }
    }

    /// What verifies a signature that says it was made by `algorithm`; `None` if this key is not for that.
    pub(super) fn verifier(&self, algorithm: Algorithm) -> Option<DecodingKey> {
        self.algorithms()
            .into_iter()
            .any(|allowed| allowed.verifier() == algorithm)
            .then(|| self.material.decoding_key())
            .flatten()
    }
}

impl Material {
    fn read(members: &Map<String, Value>) -> Result<Self, Vec<FieldError>> {
        let text = |member: &str| members.get(member).and_then(Value::as_str);
        match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => {
                let (x, y) = (coordinate(members, "x")?, coordinate(members, "y")?);
                let material = Self::P256 {
                    crv: P256::Name,
                    x: BASE64_URL_SAFE_NO_PAD.encode(&x),
                    y: BASE64_URL_SAFE_NO_PAD.encode(&y),
                };
                let point = [&[UNCOMPRESSED_POINT][..], &x, &y].concat();
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_rejected| {
                    fault("/x", "invalid", "is no point of the curve P-256")
                })?;
                Ok(material)
            }
            (Some("OKP"), Some("Ed25519")) => {
                let x = coordinate(members, "x")?;
                ParsedPublicKey::new(&ED25519, &x)
                    .map_err(|_rejected| fault("/x", "invalid", "is no public key of Ed25519"))?;
                Ok(Self::Ed25519 {
                    crv: Ed25519::Name,
                    x: BASE64_URL_SAFE_NO_PAD.encode(x),
                })
            }
            (Some("RSA"), _) => {
                let n = bytes(members, "n")?;
                check_modulus(&n)?;
                if text("e") != Some(RSA_EXPONENT) {
                    return Err(fault("/e", "invalid", "must be AQAB (65537)"));
                }
                Ok(Self::Rsa {
                    e: RSA_EXPONENT.to_owned(),
                    n: BASE64_URL_SAFE_NO_PAD.encode(n),
                })
            }
            (Some("EC"), _) => Err(fault("/crv", "invalid", "must be P-256")),
            (Some("OKP"), _) => Err(fault("/crv", "invalid", "must be Ed25519")),
            _ => Err(fault("/kty", "invalid", "must be EC, OKP or RSA")),
        }
    }

    const fn kty(&self) -> &'static str {
        match self {
            Self::P256 { .. } => "EC",
            Self::Ed25519 { .. } => "OKP",
            Self::Rsa { .. } => "RSA",
        }
    }

    /// What its type allows.
    const fn algorithms(&self) -> &'static [KeyAlgorithm] {
        match self {
            Self::P256 { .. } => &[KeyAlgorithm::Es256],
            Self::Ed25519 { .. } => &[KeyAlgorithm::EdDsa],
            Self::Rsa { .. } => &[KeyAlgorithm::Ps256, KeyAlgorithm::Rs256],
        }
    }

    /// The member `alg`, which is optional (RFC 7517, section 4.4).
    fn algorithm_said_by(
        &self,
        members: &Map<String, Value>,
    ) -> Result<Option<KeyAlgorithm>, Vec<FieldError>> {
        let Some(said) = members.get("alg").filter(|said| !said.is_null()) else {
            return Ok(None);
        };
        let algorithm = said.as_str().and_then(|name| match name {
            // The name that RFC 9864 gives to EdDSA on this curve.
            "Ed25519" => Some(KeyAlgorithm::EdDsa),
            name => KeyAlgorithm::named(name),
        });
        match algorithm.filter(|algorithm| self.algorithms().contains(algorithm)) {
            None => {
                let names = self.algorithms().iter().map(|algorithm| algorithm.name());
                let names = names.collect::<Vec<_>>().join(" or ");
                Err(fault("/alg", "invalid", &format!("must be {names}")))
            }
            algorithm => Ok(algorithm),
        }
    }

    /// The thumbprint (RFC 7638): the hash of the members that make the key, in order and without blanks. They need no escapes.
    fn thumbprint(&self) -> String {
        let members = match self {
            Self::P256 { x, y, .. } => {
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Ed25519 { x, .. } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
            Self::Rsa { e, n } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
    }

    fn decoding_key(&self) -> Option<DecodingKey> {
        match self {
            Self::P256 { x, y, .. } => DecodingKey::from_ec_components(x, y),
            Self::Ed25519 { x, .. } => DecodingKey::from_ed_components(x),
            Self::Rsa { e, n } => DecodingKey::from_rsa_components(n, e),
        }
        .ok()
    }
}

/// `use` and `key_ops` (RFC 7517, sections 4.2 and 4.3): if they are there, they must be about signatures.
fn check_purpose(members: &Map<String, Value>) -> Result<(), Vec<FieldError>> {
    if members.get("use").is_some_and(|usage| usage != "sig") {
        return Err(fault("/use", "invalid", "must be sig"));
    }
    let is_for_verifying = |operations: &Value| {
        operations
            .as_array()
            .is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
    };
    if members
        .get("key_ops")
        .is_some_and(|operations| !is_for_verifying(operations))
    {
        return Err(fault("/key_ops", "invalid", "must include verify"));
    }
    Ok(())
}

/// A modulus without blanks before it, of an allowed length, and odd.
fn check_modulus(n: &[u8]) -> Result<(), Vec<FieldError>> {
    let bits = n
        .first()
        .and_then(|first| usize::try_from(first.leading_zeros()).ok())
        .map_or(0, |zeros| n.len().saturating_mul(8).saturating_sub(zeros));
    let is_minimal = n.first().is_some_and(|&first| first != 0);
    let is_odd = n.last().is_some_and(|last| last % 2 == 1);
    if !RSA_BITS.contains(&bits) {
        Err(fault("/n", "out_of_range", "must have 2,048 to 4,096 bits"))
    } else if is_minimal && is_odd {
        Ok(())
    } else {
        Err(fault("/n", "invalid", "is no modulus of RSA"))
    }
}

fn coordinate(members: &Map<String, Value>, member: &str) -> Result<Vec<u8>, Vec<FieldError>> {
    let bytes = bytes(members, member)?;
    if bytes.len() == COORDINATE_LENGTH {
        Ok(bytes)
    } else {
        let pointer = format!("/{member}");
        Err(fault(&pointer, "invalid", "must have 32 bytes"))
    }
}

fn bytes(members: &Map<String, Value>, member: &str) -> Result<Vec<u8>, Vec<FieldError>> {
    members
        .get(member)
        .and_then(Value::as_str)
        .and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or_else(|| {
            let pointer = format!("/{member}");
            fault(&pointer, "invalid", "must be in base64url without padding")
        })
}

/// Whether a key may be called that: it stands in headers, logs and pages.
fn is_name(kid: &str) -> bool {
    (1..=KID_LENGTH_MAX).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic())
}

fn fault(pointer: &str, code: &'static str, detail: &str) -> Vec<FieldError> {
    vec![FieldError::at(pointer, code, detail)]
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )]

    use serde_json::json;

    use super::*;

    /// RFC 7638, section 3.1, with its thumbprint.
    const N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    fn p256() -> Value {
        json!({"kty": "EC", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    fn ed25519() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn rsa() -> Value {
        json!({"kty": "RSA", "n": N, "e": "AQAB"})
    }

    fn with(mut key: Value, member: &str, value: Value) -> String {
        key[member] = value;
        key.to_string()
    }

    #[test]
    fn a_key_without_a_name_is_named_by_its_thumbprint() {
        for (key, kid) in [
            (rsa(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            (ed25519(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            (p256(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"),
        ] {
            assert_eq!(ClientKey::parse(&key.to_string()).unwrap().kid, kid);
            let named = ClientKey::parse(&with(key, "kid", json!("2026"))).unwrap();
            assert_eq!(named.kid, "2026");
        }
    }

    #[test]
    fn a_key_is_for_the_algorithms_of_its_type_or_the_one_it_names() {
        use KeyAlgorithm::{EdDsa, Es256, Ps256, Rs256};
        let algorithms = |json: String| ClientKey::parse(&json).unwrap().algorithms();
        assert_eq!(algorithms(p256().to_string()), [Es256]);
        assert_eq!(algorithms(ed25519().to_string()), [EdDsa]);
        assert_eq!(algorithms(rsa().to_string()), [Ps256, Rs256]);
        assert_eq!(algorithms(with(rsa(), "alg", json!("PS256"))), [Ps256]);
        assert_eq!(
            algorithms(with(ed25519(), "alg", json!("Ed25519"))),
            [EdDsa]
        );
        let key = ClientKey::parse(&with(rsa(), "alg", json!("PS256"))).unwrap();
        assert!(key.verifier(Algorithm::PS256).is_some());
        for other in [Algorithm::RS256, Algorithm::ES256, Algorithm::HS256] {
            assert!(key.verifier(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_holds_nothing_else() {
        for key in [p256(), ed25519(), rsa()] {
            let uploaded = with(key, "x5u", json!("https://evil.example"));
            let key = ClientKey::parse(&uploaded).unwrap();
            let kept = serde_json::to_value(&key).unwrap();
            assert!(kept.get("x5u").is_none());
            assert_eq!(serde_json::from_value::<ClientKey>(kept).unwrap(), key);
        }
    }

    #[test]
    fn private_keys_are_refused_by_the_names_of_their_members() {
        let faults = ClientKey::parse(&with(p256(), "d", json!("AAAA"))).unwrap_err();
        assert_eq!(faults[0].pointer.as_deref(), Some("/d"));
        let mut whole = rsa();
        for member in ["d", "p", "q", "dp", "dq", "qi"] {
            whole[member] = json!("AAAA");
        }
        assert_eq!(ClientKey::parse(&whole.to_string()).unwrap_err().len(), 6);
        let shared = r#"{"kty": "oct", "k": "c2VjcmV0"}"#;
        assert_eq!(
            ClientKey::parse(shared).unwrap_err()[0].pointer.as_deref(),
            Some("/k")
        );
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused_at_its_member() {
        let modulus = |bytes: usize, first: u8, last: u8| {
            let mut n = vec![0xff; bytes];
            n[0] = first;
            n[bytes - 1] = last;
            with(rsa(), "n", json!(BASE64_URL_SAFE_NO_PAD.encode(n)))
        };
        let cases = [
            (String::new(), ""),
            ("[]".to_owned(), ""),
            ("\"a\"".to_owned(), ""),
            ("-----BEGIN PUBLIC KEY-----".to_owned(), ""),
            (" ".repeat(9_000), ""),
            (json!({"keys": [p256()]}).to_string(), "/keys"),
            ("{}".to_owned(), "/kty"),
            (with(p256(), "kty", json!("oct")), "/kty"),
            (with(p256(), "kty", json!("ec")), "/kty"),
            (with(p256(), "crv", json!("P-384")), "/crv"),
            (with(p256(), "crv", json!("secp256k1")), "/crv"),
            (with(p256(), "x", json!("AAAA")), "/x"),
            (
                with(p256(), "x", json!(BASE64_URL_SAFE_NO_PAD.encode([1; 32]))),
                "/x",
            ),
            (
                with(
                    p256(),
                    "y",
                    json!("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM="),
                ),
                "/y",
            ),
            (with(p256(), "y", json!(7)), "/y"),
            (with(p256(), "alg", json!("ES384")), "/alg"),
            (with(p256(), "alg", json!("RS256")), "/alg"),
            (with(p256(), "alg", json!("none")), "/alg"),
            (with(rsa(), "alg", json!("HS256")), "/alg"),
            (with(rsa(), "alg", json!(1)), "/alg"),
            (with(p256(), "use", json!("enc")), "/use"),
            (with(p256(), "key_ops", json!(["sign"])), "/key_ops"),
            (with(p256(), "key_ops", json!("verify")), "/key_ops"),
            (with(p256(), "kid", json!("")), "/kid"),
            (with(p256(), "kid", json!("a b")), "/kid"),
            (with(p256(), "kid", json!("a".repeat(201))), "/kid"),
            (with(p256(), "kid", json!(7)), "/kid"),
            (with(ed25519(), "crv", json!("X25519")), "/crv"),
            (with(ed25519(), "x", json!("AAAA")), "/x"),
            (with(rsa(), "e", json!("Aw")), "/e"),
            (modulus(128, 0xff, 0xff), "/n"),
            (modulus(256, 0x7f, 0xff), "/n"),
            (modulus(257, 0, 0xff), "/n"),
            (modulus(256, 0xff, 0xfe), "/n"),
            (modulus(1_024, 0xff, 0xff), "/n"),
        ];
        for (json, pointer) in cases {
            let faults = ClientKey::parse(&json).unwrap_err();
            assert_eq!(faults[0].pointer.as_deref(), Some(pointer), "{json}");
        }
    }
}
