//! A stream of NATS JetStream.
//!
//! Each event is a message on the subject `{prefix}.{merchant}.{type}` (`stoa.mer_….order.placed`), so that consumers choose by merchant and type. Its `Nats-Msg-Id` is the
//! event's id, by which the server drops repeats within the stream's window; `Stoa-Feed-Number` is the number in the merchant's feed, by which consumers find order and
//! gaps. An event that is larger than the server or the stream takes is sent without its data, with the header `Stoa-Data: omitted`.
//!
//! The stream is the operator's: if there is none of that name, it is made with the server's defaults, in files.

use std::time::Duration;

use async_nats::{
    ConnectOptions,
    jetstream::{
        self, Context, ErrorCode,
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
        stream,
    },
};
use kernel::id::MerchantId;
use tokio::sync::Mutex;

use super::{
    Bounds, Entry, WriteError,
    config::{Credentials, JetStream},
};

/// Some of a second's messages, of which all are on the way at once.
const BATCH: Bounds = Bounds {
    events: 500,
    bytes: 4 * 1_024 * 1_024,
    linger: Duration::ZERO,
};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to say that it has a message.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stream that we make remembers ids. A repeat comes within a lease and some pauses.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(10);

/// The number in the merchant's feed.
const NUMBER_HEADER: &str = "Stoa-Feed-Number";

/// Says that the event was too large for the server.
const DATA_HEADER: &str = "Stoa-Data";

/// A stream at a server; connected when it is first written to.
#[derive(Debug)]
pub(super) struct Stream {
    at: JetStream,
    credentials: Credentials,
    context: Mutex<Option<Context>>,
}

impl Stream {
    pub(super) fn new(at: JetStream, credentials: Credentials) -> Self {
        Self {
            at,
            credentials,
            context: Mutex::default(),
        }
    }

    #[allow(clippy::unused_self, reason = "the same shape as other sinks")]
    pub(super) const fn bounds(&self) -> Bounds {
        BATCH
    }

    /// Publishes a batch and waits until the stream has all of it. Whatever fails, the connection is made anew for the next one: the stream may be gone.
    pub(super) async fn write(
        &self,
        merchant: MerchantId,
        batch: &[Entry],
    ) -> Result<(), WriteError> {
        let context = self.connected().await?;
        let published = self.publish(&context, merchant, batch).await;
        if published.is_err() {
            *self.context.lock().await = None;
        }
        published
    }

    async fn connected(&self) -> Result<Context, WriteError> {
        let mut known = self.context.lock().await;
        if let Some(context) = &*known {
            return Ok(context.clone());
        }
        let mut options = ConnectOptions::new()
            .name("stoa")
            .connection_timeout(CONNECT_TIMEOUT)
            .require_tls(self.at.server.scheme() == "tls");
        let Credentials {
            nats_user,
            nats_password,
            nats_token,
            ..
        } = &self.credentials;
        if let Some(token) = nats_token {
            options = options.token(token.clone());
        }
        if let (Some(user), Some(password)) = (nats_user, nats_password) {
            options = options.user_and_password(user.clone(), password.clone());
        }
        let client = options
            .connect(self.at.server.as_str())
            .await
            .map_err(failed)?;
        let mut context = jetstream::new(client);
        context.set_timeout(ACKNOWLEDGE_TIMEOUT);
        let wanted = stream::Config {
            name: self.at.stream.clone(),
            subjects: vec![format!("{}.>", self.at.subject_prefix)],
            duplicate_window: DUPLICATE_WINDOW,
            ..stream::Config::default()
        };
        context.get_or_create_stream(wanted).await.map_err(failed)?;
        *known = Some(context.clone());
        Ok(context)
    }

    async fn publish(
        &self,
        context: &Context,
        merchant: MerchantId,
        batch: &[Entry],
    ) -> Result<(), WriteError> {
        let mut on_the_way: Vec<(&Entry, PublishAckFuture)> = Vec::with_capacity(batch.len());
        for entry in batch {
            let sent = match self.send(context, merchant, entry, true).await {
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    self.send(context, merchant, entry, false).await
                }
                sent => sent,
            };
            on_the_way.push((entry, sent.map_err(failed)?));
        }
        for (entry, sent) in on_the_way {
            let acknowledged = match sent.await {
                Err(error) if is_too_large_for_stream(&error) => {
                    let again = self.send(context, merchant, entry, false).await;
                    again.map_err(failed)?.await
                }
                acknowledged => acknowledged,
            };
            acknowledged.map_err(failed)?;
        }
        Ok(())
    }

    async fn send(
        &self,
        context: &Context,
        merchant: MerchantId,
        entry: &Entry,
        with_data: bool,
    ) -> Result<PublishAckFuture, PublishError> {
        let subject = format!("{}.{merchant}.{}", self.at.subject_prefix, entry.event.kind);
        let json = entry.json(merchant, with_data);
        let json =
            json.map_err(|error| PublishError::with_source(PublishErrorKind::Other, error))?;
        let mut message = PublishMessage::build()
            .message_id(entry.id().to_string())
            .expected_stream(&self.at.stream)
            .header(NUMBER_HEADER, entry.number.to_string().as_str())
            .payload(json.into());
        if !with_data {
            message = message.header(DATA_HEADER, "omitted");
        }
        context.send_publish(subject, message).await
    }
}

/// Whether the stream, rather than the server, takes no message as large.
fn is_too_large_for_stream(error: &PublishError) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> WriteError {
    WriteError::JetStream(Box::new(error))
}
