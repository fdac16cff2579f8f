//! An archive in an object store: S3 and what is compatible with it, or a directory.
//!
//! An object is a batch of one merchant's feed, as gzipped lines of JSON: `{prefix}/{merchant}/{first}-{last}.ndjson.gz`, its first and last number with leading zeros, so that the order of
//! names is the order of the feed. An object is never written over with other events: a repeat of the same batch makes the same bytes under the same name, and a
//! repeat that has grown meanwhile gets a name of its own. So a number may be in two objects, after a crash, but never in none.

use std::{fmt::Debug, io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use kernel::id::MerchantId;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, aws::AmazonS3Builder, local::LocalFileSystem,
    path::Path,
};

use super::{Bounds, ConfigError, Entry, WriteError, config::Credentials};

/// Events in an object at most: some megabytes of lines.
const BATCH_EVENTS_MAX: usize = 10_000;

/// Bytes of their data at most; held in memory together with what they become.
const BATCH_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// The level of gzip: its usual one.
const COMPRESSION_LEVEL: u32 = 6;

/// How long one request to the store may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// An archive.
#[derive(Debug)]
pub(super) struct Archive {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    linger: Duration,
}

impl Archive {
    /// A bucket of S3.
    pub(super) fn s3(
        bucket: &str,
        prefix: &str,
        credentials: &Credentials,
        linger: Duration,
    ) -> Result<Self, ConfigError> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(credentials.s3_region.as_deref().unwrap_or("us-east-1"));
        let mut client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT);
        if let Some(endpoint) = &credentials.s3_endpoint {
            builder = builder.with_endpoint(endpoint);
            client = client.with_allow_http(endpoint.starts_with("http://"));
        }
        if let (Some(id), Some(secret)) = (
            &credentials.s3_access_key_id,
            &credentials.s3_secret_access_key,
        ) {
            builder = builder
                .with_access_key_id(id)
                .with_secret_access_key(secret);
        }
        if let Some(token) = &credentials.s3_session_token {
            builder = builder.with_token(token);
        }
        Ok(Self {
            store: Arc::new(builder.with_client_options(client).build()?),
            prefix: Path::from(prefix),
            linger,
        })
    }

    /// A directory; made if it isn't there. An object is on the disk before it is acknowledged.
    pub(super) fn directory(path: PathBuf, linger: Duration) -> Result<Self, ConfigError> {
        if let Err(source) = std::fs::create_dir_all(&path) {
            return Err(ConfigError::Directory { path, source });
        }
        let store = LocalFileSystem::new_with_prefix(path)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            prefix: Path::default(),
            linger,
        })
    }

    pub(super) const fn bounds(&self) -> Bounds {
        Bounds {
            events: BATCH_EVENTS_MAX,
            bytes: BATCH_BYTES_MAX,
            linger: self.linger,
        }
    }

    /// Writes a batch as one object.
    pub(super) async fn write(
        &self,
        merchant: MerchantId,
        batch: Vec<Entry>,
    ) -> Result<(), WriteError> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(());
        };
        let name = format!("{:020}-{:020}.ndjson.gz", first.number, last.number);
        let path = self.prefix.clone().join(merchant.to_string()).join(name);
        // Some tenths of a second of computing.
        let bytes = tokio::task::spawn_blocking(move || lines(merchant, &batch)).await??;
        self.store.put(&path, bytes.into()).await?;
        Ok(())
    }
}

/// The batch as gzipped lines; the same batch makes the same bytes.
fn lines(merchant: MerchantId, batch: &[Entry]) -> Result<Vec<u8>, WriteError> {
    let mut encoder: GzEncoder<Vec<u8>> = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::new(COMPRESSION_LEVEL));
    for entry in batch {
        encoder.write_all(&entry.json(merchant, true)?)?;
        encoder.write_all(b"\n")?;
    }
    Ok(encoder.finish()?)
}
