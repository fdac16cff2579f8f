#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests look behind the scenes")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use kernel::{
    actor::{Access, AccessSource},
    clock::Clock,
    db::{self, Database},
    event::Announcer,
    id::{AppId, GrantId, MerchantId, RequestId},
    test_database::{TestDatabase, keyring},
};
use serde_json::{Value, json};
use sqlx::Row;
use tokio::sync::mpsc;

use super::{
    LineStatus::{Created, Failed, Unchanged, Updated},
    *,
};

mod interruptions;

struct World {
    database: TestDatabase,
    api: Database,
    grants: Arc<Grants>,
    importer: Importer,
    actor: Actor,
}

/// What the one grant allows.
struct Grants(Mutex<Option<Access>>);

impl Default for Grants {
    fn default() -> Self {
        Self(Mutex::new(Some(Access::full())))
    }
}

impl AccessSource for Grants {
    fn access(
        &self,
        _: MerchantId,
        _: GrantId,
    ) -> BoxFuture<'_, Result<Option<Access>, db::Error>> {
        let access = self.0.lock().unwrap().clone();
        Box::pin(async move { Ok(access) })
    }
}

fn importer(database: Database, grants: &Arc<Grants>) -> Importer {
    let grants: Arc<dyn AccessSource> = Arc::<Grants>::clone(grants);
    Importer::new(database, grants, Clock::manual(now()), Announcer::default())
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_800_000_000_000)
}

fn actor_of(merchant: MerchantId) -> Actor {
    Actor {
        merchant,
        app: AppId::new(now()),
        grant: GrantId::new(now()),
        access: Access::full(),
        request: RequestId::new(now()),
    }
}

impl World {
    async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let api = database.api();
        let merchant = database.merchant(&keyring().unwrap(), now()).await.unwrap();
        let grants = Arc::new(Grants::default());
        let importer = importer(api.clone(), &grants);
        Self {
            database,
            api,
            grants,
            importer,
            actor: actor_of(merchant),
        }
    }

    async fn begin(&self, key: &str) -> Result<Session, Error> {
        self.importer
            .begin(
                &self.actor,
                &key.parse().unwrap(),
                &CatalogImportParameters::default(),
            )
            .await
    }

    async fn get(&self, id: CatalogImportId) -> CatalogImport {
        let mut tx = self.api.enter(self.actor.merchant).await.unwrap();
        get(&mut tx, &self.actor, id).await.unwrap()
    }

    async fn count(&self, what: &str) -> i64 {
        let mut tx = self.api.enter(self.actor.merchant).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("select count(*) from {what}"));
        sqlx::query(sql).fetch_one(&mut *tx).await.unwrap().get(0)
    }
}

fn line(external_id: impl std::fmt::Display, title: &str) -> String {
    let price = json!({"amount": "1.00", "currency": "EUR"});
    format!(
        "{}\n",
        json!({"externalId": external_id.to_string(), "title": title, "variants": [{"price": price}]})
    )
}

/// A body in pieces of some bytes.
fn body(text: &str) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(1_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces)
}

/// A body that a test feeds.
fn fed() -> (
    mpsc::UnboundedSender<Result<Bytes, &'static str>>,
    impl Stream<Item = Result<Bytes, &'static str>> + Send,
) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    (sender, pieces)
}

async fn read(results: impl Stream<Item = Bytes>) -> (Vec<LineResult>, Summary) {
    let text: Vec<Bytes> = results.collect().await;
    let text = String::from_utf8(text.concat()).unwrap();
    let (lines, last) = text
        .strip_suffix('\n')
        .unwrap()
        .rsplit_once('\n')
        .unwrap_or(("", text.trim_end()));
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (
        lines,
        serde_json::from_str::<SummaryLine>(last).unwrap().summary,
    )
}

fn numbers(results: &[LineResult]) -> Vec<i64> {
    results.iter().map(|result| result.line).collect()
}

#[tokio::test]
async fn every_line_has_its_result_and_a_broken_one_harms_no_other() {
    let world = World::new().await;
    let huge = format!(
        "{{\"externalId\": \"{}\"}}\n",
        "x".repeat(2 * LINE_BYTES_MAX)
    );
    let text = [
        "\u{feff}",
        &line("A", "first"),
        "{\"externalId\": \n",
        "\r\n",
        r#"{"externalId": "B", "title": "", "colour": "red", "variants": []}"#,
        "\n",
        &huge,
        "[1, 2]\n",
        r#"{"externalId": "D", "title": "twice", "title": "twice", "variants": [{"price": {"amount": "1", "currency": "EUR"}}]}"#,
        "\n\u{0}\n",
        &line("A", "second"),
        &line("A", "second"),
        line("C", "last").trim_end(),
    ]
    .concat();
    let session = world.begin("one").await.unwrap();
    let results = session.results(0);
    let import = session.run(body(&text)).await.unwrap();
    let (lines, summary) = read(results).await;

    let shown: Vec<_> = lines
        .iter()
        .map(|result| {
            let errors: Vec<_> = result
                .errors
                .iter()
                .map(|error| format!("{} {}", error.pointer.as_deref().unwrap(), error.code))
                .collect();
            (
                result.line,
                result.status,
                result.external_id.as_deref().unwrap_or("-"),
                errors.join(", "),
            )
        })
        .collect();
    let expected = [
        (1, Created, "A", ""),
        (2, Failed, "-", " malformed_json"),
        (
            4,
            Failed,
            "B",
            "/colour unknown_field, /title required, /variants required",
        ),
        (5, Failed, "-", " line_too_long"),
        (6, Failed, "-", ""),
        (7, Failed, "D", " invalid"),
        (8, Failed, "-", " malformed_json"),
        (9, Updated, "A", ""),
        (10, Unchanged, "A", ""),
        (11, Created, "C", ""),
    ];
    for (shown, expected) in shown.iter().zip(&expected) {
        assert_eq!(
            (shown.0, shown.1, shown.2),
            (expected.0, expected.1, expected.2)
        );
        if !expected.3.is_empty() || expected.1 != Failed {
            assert_eq!(shown.3, expected.3, "line {}", shown.0);
        }
        assert_eq!(
            shown.1 == Failed,
            !shown.3.is_empty(),
            "who fails is told why: line {}",
            shown.0
        );
    }
    assert_eq!(shown.len(), expected.len());
    assert_eq!(
        (
            import.lines_done,
            import.created_count,
            import.updated_count
        ),
        (11, 2, 1)
    );
    assert_eq!((import.unchanged_count, import.failed_count), (1, 6));
    assert_eq!(summary, import.summary(SummaryStatus::Completed, None));
    assert_eq!(world.get(import.id).await, import);

    let mut tx = world.database.worker().begin().await.unwrap();
    let event = sqlx::query("select resource_id, resource_version, scope, data from outbox where type = 'catalog.import_completed'")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_eq!(event.get::<String, _>(0), import.id.to_string());
    assert_eq!(
        (event.get::<i64, _>(1), event.get::<String, _>(2)),
        (import.version.number(), "catalog:read".to_owned())
    );
    assert_eq!(
        event.get::<Value, _>(3),
        serde_json::to_value(&import).unwrap()
    );
}

/// Some batches of lines: new ones, known ones, blank ones, broken ones.
fn long_text(lines: usize) -> String {
    (1..=lines)
        .map(|number| match number % 10 {
            7 => "\n".to_owned(),
            8 => "broken\n".to_owned(),
            9 => line(number - 9, "again"),
            _ => line(number, "title"),
        })
        .collect()
}

#[tokio::test]
async fn a_client_may_wait_for_each_result_before_it_sends_more() {
    let world = World::new().await;
    let session = world.begin("key").await.unwrap();
    let mut results = Box::pin(session.results(0));
    let (feed, pieces) = fed();
    let work = tokio::spawn(session.run(pieces));
    for number in 1..=5 {
        feed.send(Ok(line(number, "title").into())).unwrap();
        let piece = results.next().await.unwrap();
        let result: LineResult = serde_json::from_slice(&piece).unwrap();
        assert_eq!((result.line, result.status), (number, LineStatus::Created));
    }
    drop(feed);
    let (lines, summary) = read(results).await;
    assert_eq!(
        (lines.len(), summary.status, summary.created_count),
        (0, SummaryStatus::Completed, 5)
    );
    work.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_stalls_nothing_and_misses_nothing() {
    let world = World::new().await;
    let session = world.begin("key").await.unwrap();
    let early = session.results(0);
    // Nobody reads meanwhile.
    let import = session.run(body(&long_text(3_000))).await.unwrap();
    let (lines, summary) = read(early).await;
    assert_eq!(lines.len(), 2_700);
    let later = world
        .importer
        .results(&world.actor, import.id, 0)
        .await
        .unwrap();
    assert_eq!(read(later).await, (lines.clone(), summary.clone()));
    let rest = world
        .importer
        .results(&world.actor, import.id, 1_234)
        .await
        .unwrap();
    let expected: Vec<_> = lines
        .iter()
        .filter(|line| line.line > 1_234)
        .cloned()
        .collect();
    assert_eq!(read(rest).await, (expected, summary.clone()));
    let none = world
        .importer
        .results(&world.actor, import.id, 3_000)
        .await
        .unwrap();
    assert_eq!(read(none).await, (vec![], summary));
}

#[tokio::test]
async fn a_key_stands_for_one_import_whatever_its_body() {
    let world = World::new().await;
    let session = world.begin("key").await.unwrap();
    let interrupted = session
        .run(stream::iter([Ok(line("A", "1").into()), Err("gone")]))
        .await;
    assert!(interrupted.is_err());
    let labelled = CatalogImportParameters {
        label: Some("nightly".into()),
    };
    let key: Key = "key".parse().unwrap();
    let reused = world.importer.begin(&world.actor, &key, &labelled).await;
    assert!(matches!(
        reused,
        Err(Error::Idempotency(idempotency::Error::KeyReused))
    ));

    let running = world
        .importer
        .results(
            &world.actor,
            world.begin("key").await.unwrap().import().id,
            0,
        )
        .await
        .unwrap();
    assert_eq!(read(running).await.1.status, SummaryStatus::Running);

    let short = world
        .begin("key")
        .await
        .unwrap()
        .run(body(""))
        .await
        .unwrap_err();
    assert_eq!(short.reason, InterruptionReason::BodyTooShort);
    let import = world
        .begin("key")
        .await
        .unwrap()
        .run(body(&[line("A", "1"), line("B", "1")].concat()))
        .await
        .unwrap();
    assert_eq!(import.created_count, 2);

    let again = world.begin("key").await.unwrap();
    assert!(again.is_continued());
    let results = again.results(0);
    let unread = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
        panic!("the body of a completed import is not read")
    });
    assert_eq!(again.run(unread).await.unwrap(), import);
    assert_eq!(numbers(&read(results).await.0), [1, 2]);
    assert!(matches!(
        world.importer.begin(&world.actor, &key, &labelled).await,
        Err(Error::Idempotency(idempotency::Error::KeyReused))
    ));

    // Another app's key is another import, and an empty body is an import of nothing.
    let other = Actor {
        app: AppId::new(now()),
        ..world.actor.clone()
    };
    let session = world.importer.begin(&other, &key, &labelled).await.unwrap();
    assert!(!session.is_continued());
    let empty = session.run(body("\n\n")).await.unwrap();
    assert_eq!(
        (empty.lines_done, empty.status),
        (2, CatalogImportStatus::Completed)
    );
    let mut tx = world.api.enter(world.actor.merchant).await.unwrap();
    let page = list(
        &mut tx,
        &world.actor,
        &PageRequest {
            limit: 1,
            after: None,
        },
    )
    .await
    .unwrap();
    assert!(page.data.len() == 1 && page.next_cursor.is_some());
}

#[tokio::test]
async fn a_line_that_the_database_refuses_for_a_reason_unknown_fails_alone() {
    let world = World::new().await;
    let mut owner = world.database.owner().await.unwrap();
    sqlx::query("alter table products add constraint products_poison check (title <> 'poison')")
        .execute(&mut owner)
        .await
        .unwrap();
    let text: String = (1..=100)
        .map(|number| {
            line(
                number,
                if [1, 37, 38, 100].contains(&number) {
                    "poison"
                } else {
                    "fine"
                },
            )
        })
        .collect();
    let session = world.begin("key").await.unwrap();
    let results = session.results(0);
    let import = session.run(body(&text)).await.unwrap();
    assert_eq!((import.created_count, import.failed_count), (96, 4));
    let (lines, _) = read(results).await;
    assert_eq!(numbers(&lines), (1..=100).collect::<Vec<_>>());
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line.status == LineStatus::Failed)
        .collect();
    assert_eq!(
        failed.iter().map(|line| line.line).collect::<Vec<_>>(),
        [1, 37, 38, 100]
    );
    assert!(
        failed
            .iter()
            .all(|line| line.errors[0].code == "internal_error")
    );
}

#[tokio::test]
async fn two_imports_of_the_same_products_at_once_both_complete() {
    let world = World::new().await;
    let up: String = (0..1_500).map(|number| line(number, "up")).collect();
    let down: String = (0..1_500)
        .rev()
        .map(|number| line(number, "down"))
        .collect();
    let first = world.begin("first").await.unwrap();
    let second = world.begin("second").await.unwrap();
    let (first, second) = tokio::join!(
        tokio::spawn(first.run(body(&up))),
        tokio::spawn(second.run(body(&down)))
    );
    let (first, second) = (first.unwrap().unwrap(), second.unwrap().unwrap());
    assert_eq!(first.created_count + second.created_count, 1_500);
    assert_eq!(first.updated_count + second.updated_count, 1_500);
    assert_eq!((first.failed_count, second.failed_count), (0, 0));
    assert_eq!(world.count("products where version <> 2").await, 0);
}

#[tokio::test]
async fn another_merchants_import_is_not_there() {
    let world = World::new().await;
    let import = world
        .begin("key")
        .await
        .unwrap()
        .run(body(&line("A", "1")))
        .await
        .unwrap();
    let stranger = actor_of(
        world
            .database
            .merchant(&keyring().unwrap(), now())
            .await
            .unwrap(),
    );
    let mut tx = world.api.enter(stranger.merchant).await.unwrap();
    assert!(matches!(
        get(&mut tx, &stranger, import.id).await,
        Err(Error::NotFound { .. })
    ));
    let page = list(
        &mut tx,
        &stranger,
        &PageRequest {
            limit: 10,
            after: None,
        },
    )
    .await
    .unwrap();
    assert!(page.data.is_empty());
    assert!(matches!(
        world
            .importer
            .results(&stranger, import.id, 0)
            .await
            .map(drop),
        Err(Error::NotFound { .. })
    ));

    let blind = Actor {
        access: Access {
            scopes: [Scope::OrdersRead].into_iter().collect(),
            ..Access::full()
        },
        ..world.actor.clone()
    };
    assert!(matches!(
        world.importer.results(&blind, import.id, 0).await.map(drop),
        Err(Error::MissingScope(_))
    ));
    let key = "new".parse().unwrap();
    let refused = world
        .importer
        .begin(&blind, &key, &CatalogImportParameters::default())
        .await;
    assert!(matches!(refused, Err(Error::MissingScope(_))));
}
