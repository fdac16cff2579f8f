//! A request at work on an import: gathers batches and commits them one after the other.
//!
//! While one batch is being committed, the next is read and checked. A batch that meets a deadlock is run again; one for which the database is
//! away is tried again for [`PATIENCE`]; one that fails for a reason unknown is halved until the line at fault is alone, and that line fails
//! alone. Whether a commit whose answer was lost went through is seen by the checkpoint.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use kernel::{
    actor::{AccessSource, Actor, MissingScope},
    clock::Clock,
    db::{self, Database},
    event::{self, Announcer, NewEvent, ResourceRef},
    idempotency::{self, Failure as _, Key},
    problem::Problem,
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use utoipa::ToSchema;

use super::{
    Begun, CatalogImport, CatalogImportId, CatalogImportParameters, CatalogImportStatus,
    LineResult, LineStatus, SummaryStatus,
    batch::{self, Batch, Entry, Failure, Read},
    begin,
    results::{self, Reader},
    store,
};
use crate::{
    Error,
    product::{self, Decided, Upsert, UpsertOutcome},
};

/// How long a batch is tried again while the database is away: a restart takes a second or two, a failover some more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Times that a batch is run again after a deadlock.
const RERUNS_MAX: u32 = 10;

/// How long a change of a grant takes to be heard of in every process.
const VIEW_LAG: Duration = Duration::from_millis(500);

/// The first pause before a batch is tried again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(5);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Batches that wait while another is committed.
const BATCHES_WAITING: usize = 1;

/// Runs imports. One per process; clones share it.
#[derive(Clone)]
pub struct Importer {
    pub(super) database: Database,
    grants: Arc<dyn AccessSource>,
    clock: Clock,
    announcer: Announcer,
    pub(super) patience: Duration,
}

impl Importer {
    /// Over the API role's database. `grants` tells what a grant allows while an import goes on, which may be for longer than a token lives.
    pub fn new(
        database: Database,
        grants: Arc<dyn AccessSource>,
        clock: Clock,
        announcer: Announcer,
    ) -> Self {
        Self {
            database,
            grants,
            clock,
            announcer,
            patience: PATIENCE,
        }
    }

    /// Fails unless the actor's grant allows `scope` at this moment.
    pub(super) async fn require(&self, actor: &Actor, scope: Scope) -> Result<(), Error> {
        if self.allows(actor, scope).await? {
            return Ok(());
        }
        // A grant that was widened a moment ago may not have been heard of here, although its token was issued by it.
        sleep(VIEW_LAG).await;
        if self.allows(actor, scope).await? {
            return Ok(());
        }
        Err(MissingScope(scope).into())
    }

    async fn allows(&self, actor: &Actor, scope: Scope) -> Result<bool, Error> {
        let access = self.grants.access(actor.merchant, actor.grant).await?;
        Ok(access.is_some_and(|access| access.require(scope).is_ok()))
    }

    /// Begins the import of this key, or takes it over from an earlier request.
    pub async fn begin(
        &self,
        actor: &Actor,
        key: &Key,
        parameters: &CatalogImportParameters,
    ) -> Result<Session, Error> {
        actor.access.require(Scope::CatalogWrite)?;
        let mut tx = self.database.enter(actor.merchant).await?;
        let begun = begin(&mut tx, actor, key, parameters, self.clock.now()).await?;
        tx.commit().await?;
        let end = (begun.import.status == CatalogImportStatus::Completed).then_some(End::Completed);
        let (progress, _) = watch::channel(Progress {
            import: begun.import.clone(),
            end,
        });
        Ok(Session {
            importer: self.clone(),
            actor: actor.clone(),
            begun,
            progress,
        })
    }

    /// The results that are there by now, from the line after `after_line` on, and a summary. Does not wait for more.
    pub async fn results(
        &self,
        actor: &Actor,
        id: CatalogImportId,
        after_line: i64,
    ) -> Result<impl Stream<Item = Bytes> + Send + use<>, Error> {
        let mut tx = self.database.enter(actor.merchant).await?;
        let import = super::get(&mut tx, actor, id).await?;
        tx.commit().await?;
        Ok(results::stream(Reader::new(
            self, actor, import, after_line, None,
        )))
    }
}

impl fmt::Debug for Importer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Importer").finish_non_exhaustive()
    }
}

/// A request's hold on an import. [`results`](Self::results) may be read while [`run`](Self::run) is at work, and whichever is dropped
/// disturbs the other no further than that results end.
#[derive(Debug)]
pub struct Session {
    importer: Importer,
    actor: Actor,
    begun: Begun,
    progress: watch::Sender<Progress>,
}

/// How far a session has come.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The import as last committed.
    pub(super) import: CatalogImport,
    /// How the session ended, once it has.
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone)]
pub(super) enum End {
    Completed,
    Interrupted(Interruption),
}

/// Why a request's work on an import ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interruption {
    /// The reason, in a word.
    pub reason: InterruptionReason,
    /// A sentence.
    pub detail: String,
}

/// Why a request's work on an import ended early, in a word. In every case what is committed stays, and the same body under the same key
/// continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptionReason {
    /// The request's body broke off.
    BodyFailed,
    /// The body has fewer lines than are dealt with already: it is not the body that the import was begun with.
    BodyTooShort,
    /// Another request has taken the import over.
    TakenOver,
    /// The grant has ended, or no longer allows this.
    GrantEnded,
    /// The database was away for too long.
    Unavailable,
    /// Something went wrong on our side that no line is to blame for.
    InternalError,
    /// The process is stopping, or gave the request up.
    Stopped,
}

impl Interruption {
    pub(super) fn new(reason: InterruptionReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    pub(super) fn stopped() -> Self {
        Self::new(
            InterruptionReason::Stopped,
            "The server has stopped working on this request.",
        )
    }

    pub(super) fn grant_ended() -> Self {
        Self::new(
            InterruptionReason::GrantEnded,
            "The app's grant has ended, or no longer allows this.",
        )
    }

    fn taken_over() -> Self {
        Self::new(
            InterruptionReason::TakenOver,
            "Another request has taken this import over.",
        )
    }
}

/// Why a batch was not committed.
enum Stop {
    /// The session is over.
    Interrupted(Interruption),
    /// Something in the batch, perhaps.
    Failed(Error),
}

/// What a session persists, in a transaction each.
#[derive(Clone, Copy)]
enum Step<'s> {
    /// A batch with its results and checkpoint.
    Batch(&'s Batch),
    /// That there is no more.
    Completion {
        /// How many lines the body had.
        lines: i64,
    },
}

impl Session {
    /// The import as it was when the request began or took it over.
    pub const fn import(&self) -> &CatalogImport {
        &self.begun.import
    }

    /// Whether the import was there already: `Idempotent-Replayed`.
    pub const fn is_continued(&self) -> bool {
        self.begun.continued
    }

    /// The results from the line after `after_line` on, as they are committed, and a summary when this session ends.
    pub fn results(&self, after_line: i64) -> impl Stream<Item = Bytes> + Send + use<> {
        let progress = self.progress.subscribe();
        results::stream(Reader::new(
            &self.importer,
            &self.actor,
            self.begun.import.clone(),
            after_line,
            Some(progress),
        ))
    }

    /// Reads the body to its end and commits it, from the checkpoint on. An import that is completed already is left as it is, its body unread.
    /// Dropping this future is safe at any point.
    pub async fn run<S, E>(self, body: S) -> Result<CatalogImport, Interruption>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: fmt::Display,
    {
        if self.begun.import.status == CatalogImportStatus::Completed {
            return Ok(self.begun.import);
        }
        let skipped = self.begun.import.lines_done;
        let (batches, waiting) = mpsc::channel(BATCHES_WAITING);
        // Commits come first, so that the database is at work while lines are read.
        let (committed, gathered) =
            tokio::join!(biased; self.commit_all(waiting), batch::gather(body, skipped, batches));
        let end = match (committed, gathered) {
            (Err(interruption), _) | (Ok(()), Err(interruption)) => Err(interruption),
            (Ok(()), Ok(lines)) => self.complete(lines).await,
        };
        self.progress.send_modify(|progress| {
            progress.end = Some(match &end {
                Ok(import) => {
                    progress.import = import.clone();
                    End::Completed
                }
                Err(interruption) => End::Interrupted(interruption.clone()),
            });
        });
        end
    }

    async fn commit_all(&self, mut waiting: mpsc::Receiver<Batch>) -> Result<(), Interruption> {
        while let Some(batch) = waiting.recv().await {
            // The halves of a batch that fails, the first on top.
            let mut parts = vec![batch];
            while let Some(part) = parts.pop() {
                match self.persist(Step::Batch(&part)).await {
                    Ok(import) => self
                        .progress
                        .send_modify(|progress| progress.import = import),
                    Err(Stop::Interrupted(interruption)) => return Err(interruption),
                    Err(Stop::Failed(error)) => parts.extend(self.without_culprit(part, &error)?),
                }
            }
        }
        Ok(())
    }

    /// What to try instead of a batch that failed: its halves, the second first; or its only line as a failed one.
    fn without_culprit(&self, batch: Batch, error: &Error) -> Result<Vec<Batch>, Interruption> {
        let import = self.begun.import.id;
        let mut alone = match batch.halved() {
            Ok((first, second)) => return Ok(vec![second, first]),
            Err(alone) => alone,
        };
        if let Some(Entry {
            line,
            read: read @ Read::Upsert(_),
        }) = alone.entries.first_mut()
        {
            tracing::error!(error = %error, import.id = %import, import.line = *line, "a line of an import failed");
            *read = Read::Failed(Failure::whole(
                "internal_error",
                "something went wrong on our side",
            ));
            return Ok(vec![alone]);
        }
        tracing::error!(error = %error, import.id = %import, "an import can't go on");
        let detail = "Something went wrong on our side; the cause is in our logs.";
        Err(Interruption::new(InterruptionReason::InternalError, detail))
    }

    /// Tries a transaction until it is done, fails for good, or has been tried for too long.
    async fn persist(&self, step: Step<'_>) -> Result<CatalogImport, Stop> {
        let mut pause = PAUSE_FIRST;
        let mut reruns = 0;
        let mut away_since: Option<Instant> = None;
        loop {
            let done = match (self.still_allowed().await, step) {
                (Err(error), _) => Err(Stop::Failed(error)),
                (Ok(()), Step::Batch(batch)) => self.commit(batch).await,
                (Ok(()), Step::Completion { lines }) => self.commit_completion(lines).await,
            };
            let error = match done {
                Err(Stop::Failed(Error::MissingScope(_))) => {
                    return Err(Stop::Interrupted(Interruption::grant_ended()));
                }
                Err(Stop::Failed(error)) => error,
                done => return done,
            };
            if error.is_retryable() && reruns < RERUNS_MAX {
                reruns += 1;
            } else if is_unavailable(&error) {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.importer.patience {
                    tracing::warn!(error = %error, import.id = %self.begun.import.id, "an import stops while the database is away");
                    let detail = "The database can't be reached at the moment.";
                    return Err(Stop::Interrupted(Interruption::new(
                        InterruptionReason::Unavailable,
                        detail,
                    )));
                }
            } else {
                return Err(Stop::Failed(error));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn still_allowed(&self) -> Result<(), Error> {
        self.importer
            .require(&self.actor, Scope::CatalogWrite)
            .await
    }

    /// One transaction: the batch's products, results and checkpoint.
    async fn commit(&self, batch: &Batch) -> Result<CatalogImport, Stop> {
        let upserts: Vec<Upsert> = batch
            .entries
            .iter()
            .filter_map(|entry| match &entry.read {
                Read::Upsert(upsert) => Some(Upsert::clone(upsert)),
                Read::Failed(_) => None,
            })
            .collect();
        let merchant = self.actor.merchant;
        let import = self.begun.import.id;
        let now = self.importer.clock.now();
        let mut tx = self.importer.database.enter(merchant).await?;
        let decided = product::upsert_many(&mut tx, &self.actor, &upserts, now).await?;
        let results = batch_results(batch, decided)?;
        let advanced =
            store::advance(&mut tx, merchant, import, self.begun.attempt, &results, now).await?;
        let Some(advanced) = advanced else {
            let stored = store::get(&mut tx, merchant, import).await?;
            tx.rollback().await.map_err(db::Error::from)?;
            // A commit whose answer was lost had gone through.
            return stored
                .filter(|stored| {
                    stored.attempt == self.begun.attempt
                        && stored.import.lines_done >= batch.last_line
                })
                .map(|stored| stored.import)
                .ok_or_else(|| Stop::Interrupted(Interruption::taken_over()));
        };
        tx.commit().await.map_err(db::Error::from)?;
        self.importer.announcer.announce(merchant, now);
        Ok(advanced.import)
    }

    async fn complete(&self, lines: i64) -> Result<CatalogImport, Interruption> {
        let skipped = self.begun.import.lines_done;
        if lines < skipped {
            let detail = format!(
                "The body has {lines} lines, but {skipped} are dealt with already. Send the same body again."
            );
            return Err(Interruption::new(InterruptionReason::BodyTooShort, detail));
        }
        self.persist(Step::Completion { lines }).await.map_err(|stop| match stop {
            Stop::Interrupted(interruption) => interruption,
            Stop::Failed(error) => {
                tracing::error!(error = %error, import.id = %self.begun.import.id, "an import can't be completed");
                let detail = "Something went wrong on our side; the cause is in our logs.";
                Interruption::new(InterruptionReason::InternalError, detail)
            }
        })
    }

    async fn commit_completion(&self, lines: i64) -> Result<CatalogImport, Stop> {
        let merchant = self.actor.merchant;
        let id = self.begun.import.id;
        let now = self.importer.clock.now();
        let mut tx = self.importer.database.enter(merchant).await?;
        let Some(import) =
            store::complete(&mut tx, merchant, id, self.begun.attempt, lines, now).await?
        else {
            let stored = store::get(&mut tx, merchant, id).await?;
            tx.rollback().await.map_err(db::Error::from)?;
            let mine = |stored: &Begun| {
                stored.attempt == self.begun.attempt
                    && stored.import.status == CatalogImportStatus::Completed
            };
            return stored
                .filter(mine)
                .map(|stored| stored.import)
                .ok_or_else(|| Stop::Interrupted(Interruption::taken_over()));
        };
        let data = serde_json::value::to_raw_value(&import).map_err(idempotency::Error::Input)?;
        let event = NewEvent {
            kind: "catalog.import_completed",
            resource: ResourceRef {
                kind: "catalog_import",
                id: id.to_string(),
                version: import.version.number(),
            },
            scope: Scope::CatalogRead,
            locations: Vec::new(),
            data,
            personal: None,
        };
        event::append(&mut tx, merchant, self.actor.request, now, &[event]).await?;
        tx.commit().await.map_err(db::Error::from)?;
        self.importer.announcer.announce(merchant, now);
        Ok(import)
    }
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether the database is away, rather than displeased.
pub(super) fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::Database(error) | Error::Idempotency(idempotency::Error::Database(error)) => {
            error.is_unavailable()
        }
        _ => false,
    }
}

/// The results of a batch whose valid lines came to `decided`.
fn batch_results(
    batch: &Batch,
    decided: Vec<Result<Decided, Error>>,
) -> Result<store::NewBatch, Error> {
    let mut new = store::NewBatch {
        after_line: batch.after_line,
        last_line: batch.last_line,
        ..store::NewBatch::default()
    };
    let mut decided = decided.into_iter();
    for entry in &batch.entries {
        let result = match &entry.read {
            Read::Failed(failure) => failed(
                entry.line,
                failure.external_id.clone(),
                failure.errors.clone(),
            ),
            Read::Upsert(upsert) => {
                let external_id = Some(upsert.external_id().to_owned());
                match decided.next() {
                    Some(Ok(decided)) => LineResult {
                        line: entry.line,
                        status: match decided.outcome {
                            UpsertOutcome::Created => LineStatus::Created,
                            UpsertOutcome::Updated => LineStatus::Updated,
                            UpsertOutcome::Unchanged => LineStatus::Unchanged,
                        },
                        external_id,
                        product_id: Some(decided.id),
                        errors: Vec::new(),
                    },
                    Some(Err(error)) => {
                        let problem = Problem::from(error);
                        let whole =
                            kernel::problem::FieldError::at("", problem.kind.slug, problem.detail);
                        failed(entry.line, external_id, vec![whole])
                    }
                    None => failed(
                        entry.line,
                        external_id,
                        Failure::whole("internal_error", "was not decided").errors,
                    ),
                }
            }
        };
        let count = match result.status {
            LineStatus::Created => &mut new.created,
            LineStatus::Updated => &mut new.updated,
            LineStatus::Unchanged => &mut new.unchanged,
            LineStatus::Failed => &mut new.failed,
        };
        *count += 1;
        new.text
            .push_str(&serde_json::to_string(&result).map_err(idempotency::Error::Input)?);
        new.text.push('\n');
    }
    Ok(new)
}

fn failed(
    line: i64,
    external_id: Option<String>,
    errors: Vec<kernel::problem::FieldError>,
) -> LineResult {
    LineResult {
        line,
        status: LineStatus::Failed,
        external_id,
        product_id: None,
        errors,
    }
}

impl Progress {
    /// The summary of a session that has ended.
    pub(super) fn summary(&self, end: End) -> super::Summary {
        match end {
            End::Completed => self.import.summary(SummaryStatus::Completed, None),
            End::Interrupted(interruption) => self
                .import
                .summary(SummaryStatus::Interrupted, Some(interruption)),
        }
    }
}
