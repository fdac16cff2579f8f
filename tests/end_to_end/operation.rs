//! The operator's promises: it stops cleanly, survives kills, and says clearly what it refuses.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tests::{Answer, Stoa, StoaOptions, new_key, order_of, wait_for};

use tokio::task::JoinSet;

use crate::STOA;

fn is_alive(pid: u32) -> bool {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_ok()
}

/// Whether an answer says, as it should, that the service can't answer now. Any other failure fails the test.
fn is_refusal(answer: &Answer) -> bool {
    if answer.status.is_success() {
        return false;
    }
    let in_progress = answer.slug() == "idempotency_key_in_progress";
    assert!(
        in_progress || (answer.status == 503 && answer.slug() == "unavailable"),
        "{}",
        answer.text
    );
    assert!(
        answer.headers.contains_key("retry-after"),
        "{:?}",
        answer.headers
    );
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    true
}

/// One whose log of failures, which are meant here, bothers nobody.
async fn silent_stoa() -> Stoa {
    Stoa::start_with(
        STOA,
        StoaOptions {
            log: Some("off".to_owned()),
            ..StoaOptions::default()
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_server_and_postgresql_cleanly_and_what_was_there_stays() {
    let mut stoa = Stoa::start(STOA).await;
    let client = stoa.client().await;
    let location = client.location("main").await;
    let postgres = stoa.postgres_pid().unwrap();

    stoa.signal(Signal::SIGTERM);
    assert_eq!(stoa.wait().await, Some(0));
    assert!(!is_alive(postgres), "PostgreSQL is still there");
    assert_eq!(
        stoa.postgres_pid(),
        None,
        "PostgreSQL left its pid file, as after a crash"
    );

    stoa.restart().await;
    assert_eq!(
        client
            .get(&format!("/v1/locations/{location}"))
            .await
            .expect(200)["externalId"],
        "main"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_ends_with_a_killed_server_and_the_next_start_works() {
    let mut stoa = silent_stoa().await;
    let client = stoa.client().await;
    let location = client.location("main").await;
    let postgres = stoa.postgres_pid().unwrap();

    stoa.kill();
    wait_for("PostgreSQL to end with its parent", async || {
        (!is_alive(postgres)).then_some(())
    })
    .await;

    stoa.restart().await;
    assert_ne!(stoa.postgres_pid(), Some(postgres));
    assert_eq!(
        client
            .get(&format!("/v1/locations/{location}"))
            .await
            .expect(200)["externalId"],
        "main"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_every_request_is_answered_503_and_then_served_again() {
    let stoa = silent_stoa().await;
    let client = stoa.client().await;
    let (_, variant) = stoa.stocked(&client, 10).await;
    let postgres = stoa.postgres_pid().unwrap();

    stoa.kill_postgres();
    // Asked all the time, without waiting for what was asked before: a request that came too early to be refused may be served late.
    let (order, key) = (order_of(&variant, 1), new_key());
    let mut asked = JoinSet::new();
    let mut refused = 0;
    let placed = wait_for(
        "requests to be refused, and the order to be placed after all",
        async || {
            let prober = client.clone();
            let (order, key) = (order.clone(), key.clone());
            asked.spawn(async move {
                vec![
                    prober.get("/v1/orders").await,
                    prober
                        .graphql("{ orders(first: 1) { nodes { id } } }", json!({}))
                        .await,
                    prober.get("/readyz").await,
                    prober.post_with_key("/v1/orders", &order, &key).await,
                ]
            });
            let mut placed = None;
            while let Some(answers) = asked.try_join_next() {
                let answers = answers.unwrap();
                refused += answers.iter().filter(|answer| is_refusal(answer)).count();
                placed = answers.into_iter().find(|answer| answer.status == 201);
            }
            placed.filter(|_| refused > 0)
        },
    )
    .await;
    // Nothing hangs: every request is answered, and none fails in another way.
    while let Some(answers) = asked.join_next().await {
        for answer in answers.unwrap() {
            assert!(
                is_refusal(&answer) || answer.status.is_success(),
                "{}",
                answer.text
            );
        }
    }
    assert_ne!(stoa.postgres_pid(), Some(postgres));
    client.get("/readyz").await.expect(200);
    assert_eq!(client.all("/v1/orders").await, [placed.json]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_one_data_directory_is_refused_with_a_sentence() {
    let stoa = Stoa::shared(STOA).await;
    let refused = stoa.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(!refused.status.success());
    assert!(refused.status.code().is_some(), "ended by a signal");
    let complaint = String::from_utf8_lossy(&refused.stderr);
    let process = format!("process {}", stoa.pid());
    for part in [
        "is in use by another Stoa",
        process.as_str(),
        "STOA_DATA_DIR",
    ] {
        assert!(complaint.contains(part), "{part:?} in {complaint}");
    }
    // The first one has not noticed.
    stoa.client().await.get("/v1/orders").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_changes_nothing() {
    let mut stoa = Stoa::start(STOA).await;
    let client = stoa.client().await;
    let location = client.location("main").await;
    stoa.signal(Signal::SIGTERM);
    assert_eq!(stoa.wait().await, Some(0));
    for _ in 0..2 {
        let migrated = stoa.run(&["migrate"]);
        assert!(
            migrated.status.success(),
            "{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        assert_eq!(
            String::from_utf8_lossy(&migrated.stdout),
            "the schema is up to date\n"
        );
    }
    stoa.restart().await;
    client
        .get(&format!("/v1/locations/{location}"))
        .await
        .expect(200);

    // Beside a running server too, where it is told which database.
    let database = stoa.database_url();
    let migrated = stoa.run(&["migrate", "--database-url", &database]);
    assert!(
        migrated.status.success(),
        "{}",
        String::from_utf8_lossy(&migrated.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_how_it_is_and_serves_nothing_else() {
    let stoa = Stoa::shared(STOA).await;
    let options = StoaOptions {
        database_url: Some(stoa.database_url()),
        data_dir: Some(stoa.data_dir().to_path_buf()),
        role: Some("worker".to_owned()),
        ..StoaOptions::default()
    };
    // Starting it waits for its /readyz.
    let worker = Stoa::start_with(STOA, options).await;
    let client = stoa.client().await.at(&worker.base_url());
    client.get("/healthz").await.expect(200);
    assert_eq!(client.get("/v1/orders").await.status, 404);
}

#[test]
fn a_command_makes_no_database_where_there_is_no_server() {
    let nowhere = std::env::temp_dir().join(format!("stoa-nowhere-{}", new_key()));
    let refused = std::process::Command::new(STOA)
        .args(["merchant", "create", "--name", "A", "--data-dir"])
        .arg(&nowhere)
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(
        complaint.contains("there is no Stoa in") && complaint.contains("--data-dir"),
        "{complaint}"
    );
    assert!(!nowhere.exists());
}
