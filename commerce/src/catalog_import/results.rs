//! Reading results back, as a stream of NDJSON.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream::unfold};
use kernel::{actor::Actor, scope::Scope};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    CatalogImport, CatalogImportStatus, Summary, SummaryLine, SummaryStatus,
    session::{End, Importer, Interruption, InterruptionReason, Progress, is_unavailable},
    store,
};
use crate::Error;

/// The pause before results are read again while the database is away.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads an import's committed batches one after the other. Holds one batch, and a connection only while it reads.
pub(super) struct Reader {
    importer: Importer,
    actor: Actor,
    import: CatalogImport,
    after_line: i64,
    after_batch: i64,
    /// The session to follow, until it has ended; without one there is nothing to wait for.
    session: Option<watch::Receiver<Progress>>,
    finished: bool,
}

impl Reader {
    pub(super) fn new(
        importer: &Importer,
        actor: &Actor,
        import: CatalogImport,
        after_line: i64,
        session: Option<watch::Receiver<Progress>>,
    ) -> Self {
        Self {
            importer: importer.clone(),
            actor: actor.clone(),
            import,
            after_line,
            after_batch: 0,
            session,
            finished: false,
        }
    }

    /// The next batch of results or the summary; nothing after that.
    async fn next(&mut self) -> Option<Bytes> {
        if self.finished {
            return None;
        }
        loop {
            // Looked at before the batches are read: what was committed by then is read before the end is believed.
            let summary = self.ended();
            match self.read_patiently().await {
                Ok(Some(text)) if text.is_empty() => {}
                Ok(Some(text)) => return Some(text),
                Ok(None) => match summary {
                    Some(summary) => return Some(self.finish(summary)),
                    None if self.session.is_none() => {
                        let status = match self.import.status {
                            CatalogImportStatus::Completed => SummaryStatus::Completed,
                            CatalogImportStatus::Running => SummaryStatus::Running,
                        };
                        return Some(self.finish(self.import.summary(status, None)));
                    }
                    None => self.wait().await,
                },
                Err(error) => {
                    let interruption = self.interruption(&error);
                    let summary = self
                        .import
                        .summary(SummaryStatus::Interrupted, Some(interruption));
                    return Some(self.finish(summary));
                }
            }
        }
    }

    /// Why results end early.
    fn interruption(&self, error: &Error) -> Interruption {
        if matches!(error, Error::MissingScope(_)) {
            return Interruption::grant_ended();
        }
        tracing::warn!(error = %error, import.id = %self.import.id, "results of an import can't be read");
        let reason = if is_unavailable(error) {
            InterruptionReason::Unavailable
        } else {
            InterruptionReason::InternalError
        };
        Interruption::new(reason, "The results can't be read at the moment.")
    }

    /// The summary of the session that is followed, if that has ended or is gone.
    fn ended(&mut self) -> Option<Summary> {
        let session = self.session.as_mut()?;
        // A session that is dropped says nothing more.
        let gone = session.has_changed().is_err();
        let progress = session.borrow_and_update();
        let stopped = gone.then(|| End::Interrupted(Interruption::stopped()));
        progress
            .end
            .clone()
            .or(stopped)
            .map(|end| progress.summary(end))
    }

    async fn wait(&mut self) {
        if let Some(session) = &mut self.session {
            // An error means that the session is gone, which the next look finds out too.
            let _ = session.changed().await;
        }
    }

    fn finish(&mut self, summary: Summary) -> Bytes {
        self.finished = true;
        let mut line = serde_json::to_vec(&SummaryLine { summary }).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }

    async fn read_patiently(&mut self) -> Result<Option<Bytes>, Error> {
        let started = Instant::now();
        loop {
            match self.read().await {
                Err(error)
                    if is_unavailable(&error) && started.elapsed() < self.importer.patience =>
                {
                    sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// The next batch that has lines to show.
    async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        self.importer
            .require(&self.actor, Scope::CatalogRead)
            .await?;
        let merchant = self.actor.merchant;
        let mut tx = self.importer.database.enter(merchant).await?;
        if self.session.is_none() {
            // Read before the batches, so that a summary never speaks of a line whose result was not shown.
            if let Some(stored) = store::get(&mut tx, merchant, self.import.id).await? {
                self.import = stored.import;
            }
        }
        let batch = store::next_batch(
            &mut tx,
            merchant,
            self.import.id,
            self.after_batch,
            self.after_line,
        )
        .await?;
        tx.commit().await?;
        let Some(batch) = batch else { return Ok(None) };
        self.after_batch = batch.batch;
        Ok(Some(Bytes::from(self.shown(batch.results))))
    }

    /// The lines after the one that the client has; a batch may begin before it.
    fn shown(&self, results: String) -> String {
        let is_shown =
            |line: &&str| line_number(line).is_none_or(|number| number > self.after_line);
        if results.lines().next().is_none_or(|first| is_shown(&first)) {
            return results;
        }
        results.split_inclusive('\n').filter(is_shown).collect()
    }
}

/// The number of a result line, which it begins with.
fn line_number(line: &str) -> Option<i64> {
    line.strip_prefix(r#"{"line":"#)?
        .split_once(',')?
        .0
        .parse()
        .ok()
}

pub(super) fn stream(reader: Reader) -> impl Stream<Item = Bytes> + Send {
    unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((text, reader))
    })
}
