//! Names that lead elsewhere a moment later, and the operator's proxy.

use std::collections::HashMap;

use super::*;

/// A resolver that gives each name's answers one after the other, the last of them for good.
fn answers(of_names: &[(&str, &[&str])]) -> (Lookup, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let mut left: HashMap<String, Vec<Vec<SocketAddr>>> = HashMap::new();
    for (name, answers) in of_names {
        let answers = answers.iter().map(|answer| {
            answer
                .split(' ')
                .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
                .collect()
        });
        left.insert((*name).to_owned(), answers.collect());
    }
    let left = Arc::new(std::sync::Mutex::new(left));
    let lookup: Lookup = Arc::new(move |name| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut left = left.lock().unwrap();
        let found = match left.get_mut(&name) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers.first().cloned().unwrap_or_default(),
            None => Vec::new(),
        };
        Box::pin(async move { Ok(found) })
    });
    (lookup, asked)
}

/// A public address that is nobody's yet: who dials it gets nowhere before the deadline, and a refused address fails at once.
const PUBLIC: &str = "2e00::1";

#[tokio::test]
async fn a_name_that_turns_to_loopback_is_refused_when_it_is_dialled() {
    let (url, visits) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = Url::parse(&url).unwrap().port().unwrap();
    let (lookup, asked) = answers(&[("hooks.example", &[PUBLIC, "127.0.0.1", "::ffff:127.0.0.1"])]);
    let client = looking_up(config(OUTSIDE, SHORT), lookup);
    let rebound = request(&format!("http://hooks.example:{port}/hook"));
    // Dialled where it was checked; there is nobody, or no way there.
    let first = kind(&client.post(rebound.clone()).await);
    assert!(
        matches!(first, FailureKind::Timeout | FailureKind::Connect),
        "{first:?}"
    );
    for _ in 0..2 {
        let outcome = client.post(rebound.clone()).await;
        assert_eq!(kind(&outcome), FailureKind::RefusedAddress);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_answer_of_the_resolver_is_both_checked_and_dialled() {
    // The allowed address is loopback here, so that a connection can come about; the refused one is link-local. Asked a second time for the dial, the
    // resolver would lead astray.
    let (url, visits) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = Url::parse(&url).unwrap().port().unwrap();
    let (lookup, asked) = answers(&[(
        "hooks.example",
        &["169.254.169.254 127.0.0.1", "169.254.169.254"],
    )]);
    let client = looking_up(config(INSIDE, LONG), lookup);
    let request = request(&format!("http://hooks.example:{port}/hook"));
    let answer = client.post(request).await.result.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(visits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_that_leads_to_any_refused_address_is_refused() {
    let addresses = address::tests::refused_addresses();
    let policy = AddressPolicy {
        allow_http: true,
        ..AddressPolicy::default()
    };
    let proxied = Config {
        // Nobody listens there, and nobody is asked.
        proxy: Some("http://127.0.0.1:9".parse().unwrap()),
        ..config(policy, LONG)
    };
    // The roots are read once for all these clients.
    let tls = Tls::of_system().unwrap();
    for config in [config(policy, LONG), proxied] {
        for address in &addresses {
            let found = SocketAddr::new(*address, 0);
            let lookup: Lookup = Arc::new(move |_| Box::pin(async move { Ok(vec![found]) }));
            let client = Client::with_parts(config.clone(), lookup, tls.clone()).unwrap();
            let outcome = client.post(request("http://hooks.example/")).await;
            assert_eq!(kind(&outcome), FailureKind::RefusedAddress, "{address}");
        }
    }
}

/// A receiver that keeps its connections and answers each request with the `Host` it was sent to.
async fn naming() -> (u16, Arc<AtomicUsize>) {
    let (url, connections) = receiver(|mut stream, mut seen| async move {
        loop {
            let host = seen
                .lines()
                .find_map(|line| line.strip_prefix("host: "))
                .unwrap()
                .to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{host}",
                host.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            seen.clear();
            let mut buffer = [0_u8; 1_024];
            while !seen.ends_with("{\"a\":1}") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        seen.push_str(std::str::from_utf8(buffer.get(..read).unwrap()).unwrap());
                    }
                }
            }
        }
    })
    .await;
    (Url::parse(&url).unwrap().port().unwrap(), connections)
}

#[tokio::test]
async fn a_kept_connection_is_of_one_name_alone() {
    let (port, connections) = naming().await;
    let (lookup, _) = answers(&[
        ("one.example", &["127.0.0.1"]),
        ("two.example", &["127.0.0.1"]),
    ]);
    let client = looking_up(config(INSIDE, LONG), lookup);
    for (name, connections_so_far) in [
        ("one.example", 1),
        ("one.example", 1),
        ("two.example", 2),
        ("one.example", 2),
    ] {
        let request = request(&format!("http://{name}:{port}/hook"));
        let answer = client.post(request).await.result.unwrap();
        assert_eq!(answer.excerpt, format!("{name}:{port}"));
        assert_eq!(connections.load(Ordering::SeqCst), connections_so_far);
    }
}

/// What a proxy was asked for, line by line.
type Asked = tokio::sync::mpsc::UnboundedReceiver<String>;

/// A proxy that takes CONNECT, and leads to `target` whatever it was asked for.
async fn proxy(target: SocketAddr) -> (EgressProxy, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://stoa:hunter2@{}", listener.local_addr().unwrap());
    let (heard, hearing) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heard = heard.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut byte = [0_u8; 1];
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_exact(&mut byte).await.is_err() {
                        return;
                    }
                    request.extend_from_slice(&byte);
                }
                heard.send(String::from_utf8(request).unwrap()).unwrap();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let Ok(mut onward) = TcpStream::connect(target).await else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    (url.parse().unwrap(), hearing)
}

#[tokio::test]
async fn by_a_proxy_https_goes_through_a_tunnel_and_stays_sealed() {
    let authority = authentication::Authority::new();
    let url = authentication::tls_receiver(
        authority.server_config(&["http/1.1"], false),
        authentication::answer_once,
    )
    .await;
    let port = Url::parse(&url).unwrap().port().unwrap();
    let (proxy, mut asked) = proxy(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let (lookup, _) = answers(&[("localhost.example", &[PUBLIC])]);
    let config = Config {
        proxy: Some(proxy),
        ..config(OUTSIDE, LONG)
    };
    let client = Client::with_parts(config, lookup, authority.tls()).unwrap();
    let request = request(&format!("https://localhost.example:{port}/hook"));
    let answer = client.post(request).await.result.unwrap();
    assert_eq!(answer.status, 200);
    let asked = asked.recv().await.unwrap();
    let first = asked.lines().next().unwrap();
    assert_eq!(first, format!("CONNECT localhost.example:{port} HTTP/1.1"));
    assert!(!asked.contains("webhook-signature"), "{asked}");
    assert!(asked.to_lowercase().contains("proxy-authorization: basic"));
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_what_is_refused() {
    let (proxy, mut asked) = proxy(SocketAddr::from(([127, 0, 0, 1], 9))).await;
    let (lookup, _) = answers(&[
        ("inside.example", &["10.0.0.1"]),
        // The proxy may choose either.
        ("mixed.example", &["2e00::1 127.0.0.1"]),
        ("turning.example", &[PUBLIC, "::1"]),
    ]);
    let config = Config {
        proxy: Some(proxy),
        ..config(OUTSIDE, LONG)
    };
    let client = looking_up(config, lookup);
    let failure = async |host: &str| {
        let request = request(&format!("https://{host}/hook"));
        kind(&client.post(request).await)
    };
    for host in [
        "inside.example",
        "mixed.example",
        "127.1",
        "[::ffff:10.0.0.1]",
    ] {
        assert_eq!(failure(host).await, FailureKind::RefusedAddress, "{host}");
    }
    assert_eq!(failure("unknown.example").await, FailureKind::Dns);
    assert!(asked.try_recv().is_err());
    // Asked while the name is public, and not asked again when it has turned.
    let _ = failure("turning.example").await;
    assert!(asked.try_recv().is_ok());
    assert_eq!(
        failure("turning.example").await,
        FailureKind::RefusedAddress
    );
    assert!(asked.try_recv().is_err());
}
