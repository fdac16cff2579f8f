//! What a merchant takes back is gone within a second: at every process, for requests, GraphQL, running imports, streams and deliveries.

use std::time::Duration;

use kernel::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use tests::{Client, Receiver, Stoa, StoaOptions, new_key, wait_for};

use crate::{
    STOA,
    imports::{Conversation, lines_of, product},
};

/// What holds once a change is committed.
const FELT_WITHIN: Duration = Duration::from_secs(1);

/// What the app may do at first, and what a narrowed grant leaves it.
const WIDE: &str = "orders:read catalog:write webhooks:write";
const NARROW: &str = "catalog:read webhooks:write";

/// Between the beginning of a test and the end of the grant that expires in it: longer than an installation takes to be made.
const EXPIRES_AFTER: Duration = Duration::from_secs(20);

fn now() -> Timestamp {
    Clock::system().now()
}

/// Two processes on one database; a merchant with stock; and an app with an import, an endpoint and a token at work.
struct World {
    /// Ended before the first one, whose database it works on.
    _second: Stoa,
    first: Stoa,
    owner: Client,
    variant: String,
    /// The app at each of the processes.
    apps: [Client; 2],
    /// A running import at each.
    imports: Vec<Conversation>,
    endpoint: String,
    theirs: Receiver,
    owners: Receiver,
}

impl World {
    async fn create(grant: &[&str]) -> Self {
        let options = StoaOptions {
            retry_schedule: Some("0,0".to_owned()),
            ..StoaOptions::default()
        };
        let first = Stoa::start_with(STOA, options).await;
        let second = first.start_beside().await;
        let owner = first.client().await;
        let (_, variant) = first.stocked(&owner, 100).await;
        let app = first
            .client_of(&owner.credentials.merchant, WIDE, grant)
            .await;
        let apps = [app.clone(), app.at(&second.base_url())];
        let mut imports = Vec::new();
        for (place, app) in apps.iter().enumerate() {
            let mut import = Conversation::begin(app, &new_key()).await;
            import
                .send(lines_of([product(&format!("BEFORE-{place}"), 1)]))
                .await;
            assert_eq!(import.next().await.unwrap()["status"], "created");
            imports.push(import);
        }
        let (theirs, owners) = (Receiver::start().await, Receiver::start().await);
        let (endpoint, _) = app.endpoint(Some(theirs.url()), &["order.placed"]).await;
        owner.endpoint(Some(owners.url()), &["order.placed"]).await;
        owner.place(&variant, 1).await;
        for receiver in [&theirs, &owners] {
            receiver
                .wait_until("the first order", |sent| sent.len() == 1)
                .await;
        }
        for app in &apps {
            app.get("/v1/orders").await.expect(200);
            let answer = app
                .graphql("{ orders(first: 1) { nodes { id } } }", json!({}))
                .await;
            assert!(answer.expect(200)["errors"].is_null());
            assert_eq!(app.stream(&endpoint).await.len(), 1);
        }
        Self {
            _second: second,
            first,
            owner,
            variant,
            apps,
            imports,
            endpoint,
            theirs,
            owners,
        }
    }

    /// Asks every way at every process until each is refused. What was asked for a second after `since`, or later, must be.
    async fn expect_refusals(&self, since: Timestamp) {
        let stream = format!("/v1/webhook-endpoints/{}/events?after=0", self.endpoint);
        let refused = self.apps.iter().map(async |app| {
            tokio::join!(
                refusal(since, async || app.get("/v1/orders").await),
                refusal(since, async || app.get(&stream).await),
                refusal(since, async || app
                    .graphql("{ __typename }", json!({}))
                    .await),
            )
        });
        futures_util::future::join_all(refused).await;
    }

    /// What is sent to a running import from now on is not imported.
    async fn expect_interrupted_imports(&mut self) {
        for (place, mut import) in std::mem::take(&mut self.imports).into_iter().enumerate() {
            let external_id = format!("AFTER-{place}");
            // The import may have ended by itself, and not be listening any more.
            import.try_send(lines_of([product(&external_id, 1)])).await;
            let mut last = Value::Null;
            while let Some(line) = import.next().await {
                assert_ne!(line["externalId"], external_id.as_str(), "{line}");
                last = line;
            }
            let summary = &last["summary"];
            assert_eq!(summary["status"], "interrupted", "{last}");
            assert_eq!(summary["interruption"]["reason"], "grant_ended", "{last}");
            let products = self.owner.all("/v1/products").await;
            let has = |id: &str| products.iter().any(|product| product["externalId"] == id);
            assert!(has(&format!("BEFORE-{place}")) && !has(&external_id));
        }
    }

    /// An order of now is told to the owner, and not to the app: neither sent nor numbered.
    async fn expect_silence(&self) {
        self.owner.place(&self.variant, 1).await;
        // One transaction relays an event to all of a merchant's endpoints.
        self.owners
            .wait_until("the next order", |sent| sent.len() == 2)
            .await;
        assert_eq!(self.owner.stream(&self.endpoint).await.len(), 1);
        assert_eq!(self.theirs.deliveries().len(), 1);
    }

    /// Neither process gives a token for `scope`.
    async fn expect_no_token_for(&self, scope: &str) {
        for app in &self.apps {
            let answer = app.request_token(&[("scope", scope)]).await;
            assert_eq!(answer.status, 400, "{}", answer.text);
        }
    }
}

/// Asks until it is refused; fails if something is answered that was asked for too late.
async fn refusal(since: Timestamp, ask: impl AsyncFn() -> tests::Answer) {
    wait_for("a refusal", async || {
        let asked = now();
        let answer = ask().await;
        if answer.status == 401 {
            assert_eq!(answer.slug(), "invalid_token", "{}", answer.text);
            return Some(());
        }
        assert_eq!(answer.status, 200, "{}", answer.text);
        let late = asked.since(since);
        assert!(
            late <= FELT_WITHIN,
            "answered what was asked {late:?} after the change"
        );
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_ends_everywhere_within_a_second() {
    let mut world = World::create(&[]).await;
    world.first.revoke(&world.apps[0]);
    world.expect_refusals(now()).await;
    world.expect_interrupted_imports().await;
    world.expect_silence().await;
    world.expect_no_token_for("catalog:read").await;
    let merchant = world.owner.credentials.merchant.clone();
    let revoked = world
        .first
        .command(&["grant", "list", "--merchant", &merchant, "--json"]);
    let of_app = |row: &&Value| row["grant"]["id"] == world.apps[0].credentials.grant.as_str();
    let row = revoked.as_array().unwrap().iter().find(of_app).unwrap();
    assert!(row["grant"]["revokedAt"].is_string(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_grant_is_felt_everywhere_within_a_second() {
    let mut world = World::create(&[]).await;
    world.first.regrant(&world.apps[0], NARROW, &[]);
    // Tokens from before are refused as a whole: they say more than is granted.
    world.expect_refusals(now()).await;
    world.expect_interrupted_imports().await;
    world.expect_silence().await;
    world.expect_no_token_for("orders:read").await;
    // What is left is given again for the asking, by the process that did not hear of the change itself too.
    for app in &world.apps {
        app.refresh().await;
        app.get("/v1/products").await.expect(200);
        assert_eq!(app.get("/v1/orders").await.slug(), "insufficient_scope");
        // What was numbered before keeps its number, and nothing else.
        let stream = app.stream(&world.endpoint).await;
        assert_eq!(stream.len(), 1);
        assert_eq!(stream[0]["type"], "event.withheld", "{}", stream[0]);
        assert!(stream[0].get("data").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ends_by_itself_ends_everywhere_within_a_second() {
    let end = now().plus(EXPIRES_AFTER);
    let mut world = World::create(&["--expires-at", &end.to_string()]).await;
    assert!(now() < end, "the end has come before the app was at work");
    world.expect_refusals(end).await;
    assert!(end.since(now()) < FELT_WITHIN, "refused before its end");
    // Tokens count in whole seconds, and end up to one before their grant; what needs no token goes on until then.
    wait_for("the end", async || (now() >= end).then_some(())).await;
    world.expect_interrupted_imports().await;
    world.expect_silence().await;
    world.expect_no_token_for("catalog:read").await;
}
