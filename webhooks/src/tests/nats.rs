//! A real NATS server with JetStream, of the system's packages.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::jetstream;

use super::world::PATIENCE;

/// A server on a port of its own, on this machine only, with its files in a directory that goes with it.
pub(super) struct NatsServer {
    directory: PathBuf,
    port: u16,
    process: Child,
}

/// A message of a stream.
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) payload: Vec<u8>,
    headers: async_nats::HeaderMap,
}

impl Message {
    /// A header's value; empty if there is none.
    pub(super) fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|value| value.as_str().to_owned())
            .unwrap_or_default()
    }
}

/// What `scripts/install-test-clients` has put into the target directory.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let mut candidates = test
        .ancestors()
        .map(|directory| directory.join("test-clients/bin/nats-server"));
    candidates
        .find(|path| path.exists())
        .expect("scripts/install-test-clients has to run first, as `make test` does")
}

fn spawn(directory: &Path, port: i32) -> Child {
    Command::new(program())
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .arg("--ports_file_dir")
        .arg(directory)
        .arg("--config")
        .arg(directory.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl NatsServer {
    /// A server that takes messages of up to so many bytes.
    pub(super) async fn start(message_bytes_max: usize) -> Self {
        let name = format!("stoa-nats-{}", uuid::Uuid::now_v7().simple());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let store = directory.join("store");
        let config = format!(
            "max_payload: {message_bytes_max}\njetstream {{ store_dir: {store:?}, max_memory_store: 16MB, max_file_store: 64MB }}\n"
        );
        std::fs::write(directory.join("nats.conf"), config).unwrap();
        let process = spawn(&directory, -1);
        let ports = directory.join(format!("nats-server_{}.ports", process.id()));
        let port = waited_for(|| {
            let text = std::fs::read_to_string(&ports).ok()?;
            let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
            let url = ports["nats"][0].as_str()?;
            url.rsplit(':').next()?.parse().ok()
        })
        .await;
        Self {
            directory,
            port,
            process,
        }
    }

    /// Makes a stream as an operator may have made it, which takes no larger messages.
    pub(super) async fn make_stream(&self, name: &str, subjects: &str, message_bytes_max: i32) {
        let client = async_nats::connect(self.url()).await.unwrap();
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            max_message_size: message_bytes_max,
            ..jetstream::stream::Config::default()
        };
        let made = jetstream::new(client).create_stream(config).await;
        made.unwrap();
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it where it stands.
    pub(super) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again on the same port with the same files.
    pub(super) async fn restart(&mut self) {
        self.process = spawn(&self.directory, i32::from(self.port));
        let address = ("127.0.0.1", self.port);
        waited_for(|| std::net::TcpStream::connect(address).ok()).await;
    }

    /// All messages of a stream, in its order.
    pub(super) async fn messages(&self, stream: &str) -> Vec<Message> {
        let client = async_nats::connect(self.url()).await.unwrap();
        let mut stream = jetstream::new(client).get_stream(stream).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut messages = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            messages.push(Message {
                subject: message.subject.to_string(),
                payload: message.payload.to_vec(),
                headers: message.headers,
            });
        }
        messages
    }
}

async fn waited_for<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = attempt() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the server answers in time")
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
