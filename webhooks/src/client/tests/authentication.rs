//! How requests are let in: headers of the receiver's own, client certificates, access tokens.

use std::collections::BTreeMap;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

/// An authority that certifies the servers and clients of these tests.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    pub(super) fn tls(&self) -> Tls {
        Tls::trusting(self.roots())
    }

    pub(super) fn client(&self, config: Config) -> Client {
        Client::with_parts(config, system_lookup(), self.tls()).unwrap()
    }

    /// A certificate for this name, and its key, both PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server at loopback that speaks these protocols, and asks its clients for a certificate of this authority if it is told to.
    pub(super) fn server_config(&self, protocols: &[&str], asks: bool) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost.example".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let roots = Arc::new(self.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        config
    }
}

/// A receiver behind TLS; who is not let in never reaches `behave`.
pub(super) async fn tls_receiver<F, Fut>(config: ServerConfig, behave: F) -> String
where
    F: Fn(TlsStream<TcpStream>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let behave = Arc::new(behave);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behave) = (acceptor.clone(), Arc::clone(&behave));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    behave(stream).await;
                }
            });
        }
    });
    url
}

/// Reads one request and answers it with 200 and the first certificate's size, if there was one.
pub(super) async fn answer_once(mut stream: TlsStream<TcpStream>) {
    let mut seen = Vec::new();
    let mut buffer = [0_u8; 1_024];
    while !seen.ends_with(b"{\"a\":1}") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => seen.extend_from_slice(buffer.get(..read).unwrap()),
        }
    }
    let (_, session) = stream.get_ref();
    let shown = session
        .peer_certificates()
        .map_or(0, <[_]>::len)
        .to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{shown}");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn mutual_tls() -> Settings {
    Settings {
        authentication: Some(Authentication::MutualTls),
        ..Settings::default()
    }
}

fn certificate((certificate, key): (String, String)) -> Credentials {
    Credentials {
        certificate_pem: Some(certificate),
        private_key_pem: Some(key),
        ..Credentials::default()
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_certificate_is_shown_the_endpoints_own() {
    let authority = Authority::new();
    let url = tls_receiver(authority.server_config(&["http/1.1"], true), answer_once).await;
    let client = authority.client(config(INSIDE, LONG));
    let known = certificate(authority.issue("stoa.example"));
    let known = destination(&url, &mutual_tls(), &known);
    for _ in 0..2 {
        let answer = client.post(request_to(Arc::clone(&known))).await;
        assert_eq!(answer.result.unwrap().excerpt, "1");
    }
    // Neither without one nor with a stranger's; and the connections of the one who has it serve nobody else.
    assert!(client.post(request(&url)).await.result.is_err());
    let stranger = certificate(Authority::new().issue("stoa.example"));
    let stranger = destination(&url, &mutual_tls(), &stranger);
    assert!(client.post(request_to(stranger)).await.result.is_err());
    // As when the same endpoint is given another certificate.
    let changed = certificate(Authority::new().issue("stoa.example"));
    let changed = Destination {
        endpoint: known.endpoint,
        ..Arc::into_inner(destination(&url, &mutual_tls(), &changed)).unwrap()
    };
    let outcome = client.post(request_to(Arc::new(changed))).await;
    assert!(outcome.result.is_err());
}

#[tokio::test]
async fn a_receiver_whose_own_certificate_is_not_trusted_gets_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let url = tls_receiver(theirs.server_config(&["http/1.1"], false), answer_once).await;
    let client = ours.client(config(INSIDE, LONG));
    assert_eq!(kind(&client.post(request(&url)).await), FailureKind::Tls);
    let known = certificate(theirs.issue("stoa.example"));
    let known = destination(&url, &mutual_tls(), &known);
    assert_eq!(
        kind(&client.post(request_to(known)).await),
        FailureKind::Tls
    );
}

#[test]
fn a_certificate_without_its_key_is_refused_when_it_is_saved() {
    let authority = Authority::new();
    let (one, one_key) = authority.issue("one.example");
    let (_, other_key) = authority.issue("two.example");
    let long = "-".repeat(CERTIFICATE_PEM_BYTES_MAX + 1);
    for (pair, error) in [
        ((one.clone(), one_key.clone()), None),
        ((one.clone(), other_key), Some(InvalidIdentity::Mismatch)),
        (
            (one_key.clone(), one_key.clone()),
            Some(InvalidIdentity::Certificate),
        ),
        ((long.clone(), one_key), Some(InvalidIdentity::Certificate)),
        (
            (one.clone(), one.clone()),
            Some(InvalidIdentity::PrivateKey),
        ),
        ((one, long), Some(InvalidIdentity::PrivateKey)),
    ] {
        let made = Destination::new(
            endpoint(),
            "https://example.com/",
            &mutual_tls(),
            &certificate(pair),
        );
        let expected = error.map(InvalidDestination::Identity);
        assert_eq!(made.err(), expected);
    }
    let none = Destination::new(
        endpoint(),
        "https://example.com/",
        &mutual_tls(),
        &Credentials::default(),
    );
    let failure = none.unwrap_err().failure();
    assert_eq!(failure.kind, FailureKind::Authentication);
}

fn with_headers(pairs: &[(&str, &str)]) -> (Settings, Credentials) {
    let settings = Settings {
        header_names: pairs.iter().map(|(name, _)| (*name).to_owned()).collect(),
        ..Settings::default()
    };
    let headers: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_lowercase(), (*value).to_owned()))
        .collect();
    let credentials = Credentials {
        headers,
        ..Credentials::default()
    };
    (settings, credentials)
}

#[tokio::test]
async fn a_receivers_own_headers_and_names_come_along() {
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let (url, _) = receiver(move |mut stream, request| {
        heard.send(request).unwrap();
        async move {
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let (mut settings, credentials) =
        with_headers(&[("X-Api-Key", "s3cret"), ("Authorization", "Basic eDp5")]);
    settings.signature = SignatureSettings {
        schemes: vec![SignatureScheme::V1],
        id_header: "svix-id".to_owned(),
        timestamp_header: "svix-timestamp".to_owned(),
        signature_header: "svix-signature".to_owned(),
    };
    let mut request = request_to(destination(&url, &settings, &credentials));
    request.content_encoding = Some("gzip");
    let answer = patient(INSIDE).post(request.clone()).await.result.unwrap();
    assert_eq!(answer.status, 204);
    let heard = hearing.recv().await.unwrap().to_ascii_lowercase();
    for line in [
        "svix-id: evt_1",
        "svix-timestamp: 1700000000",
        "svix-signature: v1,abc",
        "x-api-key: s3cret",
        "authorization: basic edp5",
        "content-encoding: gzip",
    ] {
        assert!(heard.contains(line), "{line} is missing in {heard}");
    }
    assert!(!heard.contains("webhook-id"), "{heard}");
    assert!(!format!("{request:?}").contains("s3cret"));
}

#[test]
fn headers_that_would_break_a_request_are_refused() {
    let made = |pairs: &[(&str, &str)]| {
        let (settings, credentials) = with_headers(pairs);
        Destination::new(endpoint(), "https://example.com/", &settings, &credentials).err()
    };
    assert_eq!(made(&[("x-a", "1"), ("x-b", "ä")]), None);
    for (name, value) in [
        ("host", "elsewhere.example"),
        ("content-length", "0"),
        ("webhook-id", "evt_2"),
        ("", "1"),
    ] {
        let error = made(&[(name, value)]);
        assert!(
            matches!(error, Some(InvalidDestination::HeaderName { .. })),
            "{name}: {error:?}"
        );
    }
    for value in ["a\r\nhost: elsewhere", "\0", &"v".repeat(4_097)] {
        let error = made(&[("x-a", value)]);
        assert!(matches!(error, Some(InvalidDestination::HeaderValue(_))));
    }
    let repeated = made(&[("x-a", "1"), ("X-A", "2")]);
    assert!(matches!(
        repeated,
        Some(InvalidDestination::HeaderName { .. })
    ));
    let names: Vec<String> = (0..=HEADERS_MAX).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(made(&many), Some(InvalidDestination::TooManyHeaders));
}

/// An authorization server at loopback that answers as told, each time with the next answer, the last of them for good.
async fn authorization_server(answers: Vec<(u16, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = String::new();
            let mut buffer = [0_u8; 1_024];
            while !seen.contains("grant_type=client_credentials") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => {
                        seen.push_str(&String::from_utf8_lossy(buffer.get(..read).unwrap()));
                    }
                }
            }
            // The client of these tests, by Basic.
            assert!(seen.contains("c3RvYTpodW50ZXIy"), "{seen}");
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answers.get(turn).or(answers.last()).unwrap();
            let answer = format!(
                "HTTP/1.1 {status} So\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

fn given(token: &str, seconds: u64) -> (u16, String) {
    let body =
        format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds}}}"#);
    (200, body)
}

fn by_oauth(url: &str, token_url: &str) -> Arc<Destination> {
    let settings = Settings {
        authentication: Some(Authentication::OauthClientCredentials {
            token_url: token_url.to_owned(),
            client_id: "stoa".to_owned(),
            scope: Some("hooks:write".to_owned()),
        }),
        ..Settings::default()
    };
    let credentials = Credentials {
        client_secret: Some("hunter2".to_owned()),
        ..Credentials::default()
    };
    destination(url, &settings, &credentials)
}

/// A receiver that lets in whoever shows this token, and counts whom it does not.
async fn expecting(token: &'static str) -> (String, Arc<AtomicUsize>) {
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    let (url, _) = receiver(move |mut stream, request| {
        let is_known = request.contains(&format!("authorization: Bearer {token}\r\n"));
        if !is_known {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        async move {
            let status = if is_known { 200 } else { 401 };
            let answer =
                format!("HTTP/1.1 {status} So\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    (url, refused)
}

#[tokio::test]
async fn a_token_is_got_once_for_all_deliveries_that_wait_for_it() {
    let (token_url, asked) = authorization_server(vec![given("one", 3_600)]).await;
    let (url, refused) = expecting("one").await;
    let client = patient(INSIDE);
    let destination = by_oauth(&url, &token_url);
    let posts = (0..20).map(|_| client.post(request_to(Arc::clone(&destination))));
    for outcome in futures_util::future::join_all(posts).await {
        assert_eq!(outcome.result.unwrap().status, 200);
    }
    // Another version of the endpoint with the same client has the same token.
    let again = Destination {
        endpoint: destination.endpoint,
        ..Arc::into_inner(by_oauth(&url, &token_url)).unwrap()
    };
    let outcome = client.post(request_to(Arc::new(again))).await;
    assert_eq!(outcome.result.unwrap().status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(refused.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_near_its_end_is_replaced_before_it_is_refused() {
    let (token_url, asked) = authorization_server(vec![given("one", 0)]).await;
    let (url, refused) = expecting("one").await;
    let client = patient(INSIDE);
    let destination = by_oauth(&url, &token_url);
    for _ in 0..3 {
        let outcome = client.post(request_to(Arc::clone(&destination))).await;
        assert_eq!(outcome.result.unwrap().status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!(refused.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_revoked_token_is_replaced_within_the_attempt_and_only_once() {
    let answers = vec![given("revoked", 3_600), given("fresh", 3_600)];
    let (token_url, asked) = authorization_server(answers).await;
    let (url, refused) = expecting("fresh").await;
    let client = patient(INSIDE);
    let destination = by_oauth(&url, &token_url);
    let post = async || client.post(request_to(Arc::clone(&destination))).await;
    // A token that is new and refused is simply refused.
    assert_eq!(post().await.result.unwrap().status, 401);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(post().await.result.unwrap().status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(refused.load(Ordering::SeqCst), 2);

    // Who refuses everything is asked twice an attempt, and no more.
    let (url, refused) = expecting("another").await;
    let destination = by_oauth(&url, &token_url);
    client.post(request_to(Arc::clone(&destination))).await;
    let before = refused.load(Ordering::SeqCst);
    let outcome = client.post(request_to(destination)).await;
    assert_eq!(outcome.result.unwrap().status, 401);
    assert_eq!(refused.load(Ordering::SeqCst), before + 2);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let long = format!(
        r#"{{"access_token":"a","token_type":"bearer","scope":"{}"}}"#,
        "x".repeat(100_000)
    );
    for (status, body) in [
        (401, r#"{"error":"invalid_client"}"#),
        (400, "<html>"),
        (500, "{}"),
        (302, "{}"),
        (200, "{}"),
        (200, r#"{"access_token":"a\nb","token_type":"bearer"}"#),
        (200, r#"{"access_token":"a","token_type":"mac"}"#),
        (200, &long),
    ] {
        let (token_url, asked) = authorization_server(vec![(status, body.to_owned())]).await;
        let (url, refused) = expecting("any").await;
        let client = patient(INSIDE);
        let destination = by_oauth(&url, &token_url);
        for _ in 0..3 {
            let outcome = client.post(request_to(Arc::clone(&destination))).await;
            assert_eq!(
                kind(&outcome),
                FailureKind::Authentication,
                "{status} {body:.60}"
            );
        }
        // A burst of deliveries is one request to a server that is in trouble.
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(refused.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_token_endpoint_that_hangs_costs_no_more_than_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", listener.local_addr().unwrap());
    let (url, _) = expecting("any").await;
    let client = client(INSIDE);
    let destination = by_oauth(&url, &token_url);
    let posts = (0..5).map(|_| client.post(request_to(Arc::clone(&destination))));
    for outcome in futures_util::future::join_all(posts).await {
        assert_eq!(kind(&outcome), FailureKind::Authentication);
        assert!(outcome.duration <= SHORT * 3);
    }
}

#[tokio::test]
async fn a_token_endpoint_is_under_the_same_guard() {
    let (token_url, asked) = authorization_server(vec![given("one", 60)]).await;
    let destination = by_oauth("http://[2e00::1]/hook", &token_url);
    let outcome = client(OUTSIDE).post(request_to(destination)).await;
    assert_eq!(kind(&outcome), FailureKind::Authentication);
    let failure = outcome.result.unwrap_err();
    assert!(failure.detail.contains("refused_address"), "{failure:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
