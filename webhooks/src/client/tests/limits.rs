//! Receivers that answer more than they should: bounded in time and in memory.

use super::*;

/// Runs to an answer or a failure, within a time that only a client without bounds exceeds.
async fn outcome_of(url: &str, client: &Client) -> Outcome {
    client.post(request(url)).await
}

#[tokio::test]
async fn endless_headers_are_given_up_on() {
    for line in [
        format!("x-{}: {}\r\n", "n".repeat(40), "v".repeat(4_000)),
        "a: b\r\n".to_owned(),
        "x".repeat(8_192),
    ] {
        let (sent, mut sending) = tokio::sync::mpsc::unbounded_channel();
        let (url, _) = receiver(move |mut stream, _| {
            let (line, sent) = (line.clone(), sent.clone());
            async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                let mut bytes = 0_usize;
                while stream.write_all(line.as_bytes()).await.is_ok() {
                    bytes += line.len();
                }
                sent.send(bytes).unwrap();
            }
        })
        .await;
        let outcome = outcome_of(&url, &patient(INSIDE)).await;
        assert_eq!(kind(&outcome), FailureKind::Protocol);
        // Most of this is in the buffers of two sockets.
        let bytes = sending.recv().await.unwrap();
        assert!(bytes < 16 * 1_024 * 1_024, "{bytes} bytes were taken");
    }
}

#[tokio::test]
async fn a_flood_of_informational_answers_costs_no_more_than_the_deadline() {
    for answer in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n",
    ] {
        let (url, _) = receiver(move |mut stream, _| async move {
            while stream.write_all(answer.as_bytes()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let outcome = outcome_of(&url, &client(INSIDE)).await;
        assert_eq!(kind(&outcome), FailureKind::Timeout);
    }
}

#[tokio::test]
async fn an_informational_answer_may_come_before_the_answer() {
    let (url, _) =
        answering("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn a_switch_of_protocols_is_an_answer_and_nothing_more() {
    let (url, _) = answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\0\0",
    )
    .await;
    let outcome = client(INSIDE).post(request(&url)).await;
    assert!(
        outcome.result.is_err() || outcome.result.is_ok_and(|answer| answer.status == 101),
        "taken for a delivery"
    );
}

#[tokio::test]
async fn a_hundred_megabytes_are_not_read() {
    let (sent, mut sending) = tokio::sync::mpsc::unbounded_channel();
    let (url, _) = receiver(move |mut stream, _| {
        let sent = sent.clone();
        async move {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
                .await;
            let chunk = vec![b'x'; 64 * 1_024];
            let mut bytes = 0_usize;
            while bytes < 104_857_600 && stream.write_all(&chunk).await.is_ok() {
                bytes += chunk.len();
            }
            sent.send(bytes).unwrap();
        }
    })
    .await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!(answer.status, 200);
    let bytes = sending.recv().await.unwrap();
    assert!(bytes < 32 * 1_024 * 1_024, "{bytes} bytes were taken");
}

#[tokio::test]
async fn a_compressed_answer_stays_as_it_is() {
    // A gzip member that says it is one and holds zeros by the thousand: whoever unpacks it has more than was sent.
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let (url, _) = receiver(move |mut stream, request| {
        heard.send(request).unwrap();
        async move {
            let body = [
                0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90, 0xfe,
            ];
            let start = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(start.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    })
    .await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert!(answer.excerpt.starts_with('\u{1f}'), "{:?}", answer.excerpt);
    assert!(answer.excerpt.len() < 100);
    // Nor is it asked for.
    let heard = hearing.recv().await.unwrap().to_ascii_lowercase();
    assert!(!heard.contains("accept-encoding"), "{heard}");
}

#[tokio::test]
async fn a_receiver_that_never_reads_costs_no_more_than_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let mut request = request(&url);
    // More than sockets buffer.
    request.body = Bytes::from(vec![b'x'; 32 * 1_024 * 1_024]);
    let outcome = client(INSIDE).post(request).await;
    assert_eq!(kind(&outcome), FailureKind::Timeout);
}

#[tokio::test]
async fn a_redirect_of_each_kind_is_an_answer_that_is_no_delivery() {
    for status in [301, 302, 303, 307, 308] {
        let (target, visits) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let (url, _) = receiver(move |mut stream, _| {
            let answer = format!(
                "HTTP/1.1 {status} Moved\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
            );
            async move {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let outcome = patient(INSIDE).post(request(&url)).await;
        let answer = outcome.result.as_ref().unwrap();
        assert_eq!(answer.status, status);
        let now = Clock::system().now();
        let decision = crate::retry::decide(
            &crate::retry::Schedule::default(),
            1,
            &outcome,
            now,
            crate::retry::Jitter(0),
        );
        assert!(matches!(decision, crate::retry::Decision::RetryAt(_)));
        assert_eq!(visits.load(Ordering::SeqCst), 0);
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn what_a_receiver_pushes_by_http2_is_not_taken() {
    let authority = authentication::Authority::new();
    let url = authentication::tls_receiver(
        authority.server_config(&["h2"], false),
        |mut stream| async move {
            let mut seen = vec![0_u8; 4_096];
            let mut read = 0;
            // The preface and the request's headers.
            while read < 100 {
                match stream.read(seen.get_mut(read..).unwrap()).await {
                    Ok(0) | Err(_) => return,
                    Ok(more) => read += more,
                }
            }
            // SETTINGS, then a PUSH_PROMISE of stream 2 with the header block `:method: GET`.
            let _ = stream.write_all(&frame(4, 0, 0, &[])).await;
            let _ = stream.write_all(&frame(5, 4, 1, &[0, 0, 0, 2, 0x82])).await;
            let _ = stream.read(&mut seen).await;
            std::future::pending::<()>().await;
        },
    )
    .await;
    let client = authority.client(config(INSIDE, LONG));
    let outcome = client.post(request(&url)).await;
    assert_eq!(kind(&outcome), FailureKind::Protocol);
}
