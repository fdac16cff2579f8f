//! The audit log: appended to and read, never changed; a merchant's by that merchant, the installation's by no merchant.

use std::time::Duration;

use kernel::{
    audit::{self, AuditEntry, AuditKey, Filter, Log, NewEntry, Outcome},
    caller::Caller,
    db::{Database, Error, Transaction},
    id::{AppId, AuditEntryId, MerchantId, PersonId, RequestId},
    page::{self, PageRequest},
    scope::Scope,
};
use serde_json::json;
use sqlx::Executor;

use crate::World;

const ALL: PageRequest<AuditKey> = PageRequest {
    limit: 250,
    after: None,
};

impl World {
    fn caller(&self) -> Caller {
        Caller::new(
            RequestId::new(self.now),
            Some("192.0.2.7".parse().unwrap()),
            Some("browser"),
        )
    }

    /// A transaction that stands in `log`.
    async fn stand_in(&self, database: &Database, log: Log) -> Transaction {
        match log {
            Log::Installation => database.begin().await.unwrap(),
            Log::Merchant(merchant) => database.enter(merchant).await.unwrap(),
        }
    }

    async fn note(&self, log: Log, entry: &NewEntry) {
        let mut tx = self.stand_in(&self.database.api(), log).await;
        audit::record(&mut tx, log, &self.caller(), self.now, entry)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn read(&self, log: Log, filter: &Filter) -> Vec<AuditEntry> {
        let mut tx = self.stand_in(&self.database.api(), log).await;
        audit::list(&mut tx, log, filter, &ALL).await.unwrap().data
    }
}

fn actions(entries: &[AuditEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.action.as_str()).collect()
}

fn state_of(error: &sqlx::Error) -> String {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_else(|| panic!("{error:?}")).into_owned()
}

#[tokio::test]
async fn an_entry_says_who_did_what_from_where() {
    let world = World::create().await;
    let (person, app) = (PersonId::new(world.now), AppId::new(world.now));
    let entry = NewEntry::refused("grant.changed")
        .by_person(person)
        .by_app(app)
        .to("grant", "grn_1")
        .with(json!({"scopes": ["orders:read"]}));
    world.note(Log::Merchant(world.a), &entry).await;
    let [read] = &world.read(Log::Merchant(world.a), &Filter::default()).await[..] else {
        panic!("one entry");
    };
    let caller = world.caller();
    assert_eq!(read.action, "grant.changed");
    assert_eq!(read.outcome, Outcome::Refused);
    assert_eq!((read.person_id, read.app_id), (Some(person), Some(app)));
    assert_eq!(read.target_type.as_deref(), Some("grant"));
    assert_eq!(read.target_id.as_deref(), Some("grn_1"));
    assert_eq!(read.details, json!({"scopes": ["orders:read"]}));
    assert_eq!(read.address.as_deref(), Some("192.0.2.7"));
    assert_eq!(read.user_agent, caller.user_agent);
    assert!(read.request_id.is_some());
    assert_eq!(read.occurred_at, world.now);
}

#[tokio::test]
async fn an_act_that_is_rolled_back_is_not_in_the_log() {
    let world = World::create().await;
    let log = Log::Merchant(world.a);
    let mut tx = world.database.api().enter(world.a).await.unwrap();
    let entry = NewEntry::succeeded("grant.revoked");
    audit::record(&mut tx, log, &world.caller(), world.now, &entry)
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(world.read(log, &Filter::default()).await, []);
}

#[tokio::test]
async fn nobody_changes_or_deletes_an_entry() {
    let world = World::create().await;
    let logs = [Log::Merchant(world.a), Log::Installation];
    for log in logs {
        world
            .note(log, &NewEntry::succeeded("session.started"))
            .await;
    }
    for database in [world.database.api(), world.database.worker()] {
        for log in logs {
            for statement in [
                "update audit_entries set action = 'nothing.happened'",
                "delete from audit_entries",
                "truncate audit_entries",
                "update audit_entries_default set action = 'nothing.happened'",
                "delete from audit_entries_default",
                "drop table audit_entries",
                "alter table audit_entries disable row level security",
            ] {
                let mut tx = world.stand_in(&database, log).await;
                let error = tx.execute(statement).await.unwrap_err();
                assert_eq!(
                    state_of(&error),
                    "42501",
                    "{statement} as {:?}",
                    database.role()
                );
            }
        }
    }
    for log in logs {
        assert_eq!(
            actions(&world.read(log, &Filter::default()).await),
            ["session.started"]
        );
    }
}

#[tokio::test]
async fn a_transaction_sees_and_writes_the_log_that_it_stands_in_and_no_other() {
    let world = World::create().await;
    let logs = [
        Log::Merchant(world.a),
        Log::Merchant(world.b),
        Log::Installation,
    ];
    let names = ["app.created", "grant.revoked", "session.started"];
    for (log, action) in logs.into_iter().zip(names) {
        world.note(log, &NewEntry::succeeded(action)).await;
    }
    let api = world.database.api();
    for (standing, action) in logs.into_iter().zip(names) {
        assert_eq!(
            actions(&world.read(standing, &Filter::default()).await),
            [action]
        );
        // A statement that forgets whom it asks for sees no more than one that does not.
        let mut tx = world.stand_in(&api, standing).await;
        let seen = tx.fetch_all("select from audit_entries").await.unwrap();
        assert_eq!(seen.len(), 1, "{standing:?}");
        let seen = tx.fetch_all("select from audit_entries_default").await;
        assert!(seen.map_or(true, |seen| seen.is_empty()), "{standing:?}");
        for other in logs.into_iter().filter(|log| *log != standing) {
            let mut tx = world.stand_in(&api, standing).await;
            let read = audit::list(&mut tx, other, &Filter::default(), &ALL).await;
            assert_eq!(read.unwrap().data, [], "{other:?} from {standing:?}");
            let entry = NewEntry::succeeded("grant.consented");
            let written = audit::record(&mut tx, other, &world.caller(), world.now, &entry).await;
            let Err(Error::Sqlx(error)) = written else {
                panic!("{other:?} from {standing:?}: {written:?}");
            };
            assert_eq!(state_of(&error), "42501", "{other:?} from {standing:?}");
        }
    }
}

#[tokio::test]
async fn a_worker_appends_and_reads_nothing() {
    let world = World::create().await;
    let worker = world.database.worker();
    let mut tx = worker.begin().await.unwrap();
    let entry = NewEntry::succeeded("grant.changed");
    audit::record(
        &mut tx,
        Log::Merchant(world.a),
        &world.caller(),
        world.now,
        &entry,
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        actions(&world.read(Log::Merchant(world.a), &Filter::default()).await),
        ["grant.changed"]
    );
    let mut tx = worker.begin().await.unwrap();
    let error = tx
        .fetch_all("select id from audit_entries")
        .await
        .unwrap_err();
    assert_eq!(state_of(&error), "42501");
}

#[tokio::test]
async fn pages_run_from_the_newest_to_the_oldest_and_filters_hold_on_each() {
    let world = World::create().await;
    let log = Log::Merchant(world.a);
    let (ada, bob) = (PersonId::new(world.now), PersonId::new(world.now));
    let app = AppId::new(world.now);
    let mut tx = world.database.api().enter(world.a).await.unwrap();
    for turn in 0..10_u64 {
        let now = world.now.plus(Duration::from_millis(turn * 10));
        let entry = NewEntry::succeeded("grant.changed")
            .by_person(if turn % 2 == 0 { ada } else { bob })
            .with(json!({ "turn": turn }));
        let entry = if turn < 5 { entry.by_app(app) } else { entry };
        audit::record(&mut tx, log, &world.caller(), now, &entry)
            .await
            .unwrap();
    }
    let mut turns = async |filter: &Filter, limit: u32| {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let request = PageRequest { limit, after };
            let page = audit::list(&mut tx, log, filter, &request).await.unwrap();
            found.extend(
                page.data
                    .iter()
                    .map(|entry| entry.details["turn"].as_u64().unwrap()),
            );
            match page.next_cursor {
                Some(cursor) => after = Some(page::decode(&cursor).unwrap()),
                None => return found,
            }
        }
    };
    let none = Filter::default();
    assert_eq!(turns(&none, 3).await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(turns(&none, 10).await.len(), 10);
    let of_ada = Filter {
        person: Some(ada),
        app: None,
    };
    assert_eq!(turns(&of_ada, 2).await, [8, 6, 4, 2, 0]);
    let of_both = Filter {
        person: Some(bob),
        app: Some(app),
    };
    assert_eq!(turns(&of_both, 1).await, [3, 1]);
    let of_nobody = Filter {
        person: Some(PersonId::new(world.now)),
        app: None,
    };
    assert!(turns(&of_nobody, 5).await.is_empty());
}

#[tokio::test]
async fn an_app_reads_the_log_only_if_it_acts_for_the_merchant_as_a_whole() {
    let world = World::create().await;
    world
        .note(
            Log::Merchant(world.a),
            &NewEntry::succeeded("grant.revoked"),
        )
        .await;
    for (merchant, expected) in [(world.a, 1), (world.b, 0)] {
        let mut actor = world.actor(merchant);
        let mut tx = world.database.api().enter(merchant).await.unwrap();
        let page = audit::list_for(&mut tx, &actor, &Filter::default(), &ALL).await;
        assert_eq!(page.unwrap().data.len(), expected);
        actor.access.scopes = Scope::ALL
            .iter()
            .copied()
            .filter(|scope| *scope != Scope::MerchantAdmin)
            .collect();
        let problem = audit::list_for(&mut tx, &actor, &Filter::default(), &ALL)
            .await
            .unwrap_err();
        assert_eq!(problem.required_scope, Some(Scope::MerchantAdmin));
    }
}

#[tokio::test]
async fn the_installations_log_is_nobodys_whose_id_is_nil() {
    // A merchant with the nil id would stand where the installation's log lies: none is made, because ids are UUIDv7.
    let nil = MerchantId::from_uuid(uuid::Uuid::nil());
    let now = kernel::clock::Timestamp::from_unix_millis(0);
    assert_ne!(MerchantId::new(now), nil);
    assert_ne!(AuditEntryId::new(now).uuid(), nil.uuid());
}
