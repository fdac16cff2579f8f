//! An endpoint that is walked with: its receiver, and the model of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    super::{
        receiver::{Receiver, Reply},
        world::World,
    },
    model::Model,
    seen::Said,
};
use crate::endpoint::{
    Create, EndpointId, EndpointInput, SettingsChange,
    settings::{DeliverySettings, Ordering},
};

/// Requests in flight to one endpoint, unless its owner allows fewer.
pub(super) const IN_FLIGHT: u32 = 8;

/// The schedule of whoever asks for none.
const DEFAULT_WAITS_SECONDS: [u32; 11] = [
    5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400,
];

/// How a receiver is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Up,
    Down,
    /// Takes connections, and closes them.
    HangsUp,
    /// Refuses by this status, and asks for patience.
    Busy(u16, u64),
    /// Takes one of two.
    Flaky,
    Gone,
}

/// What a receiver knows.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) mood: Mood,
    random: StdRng,
    /// What was received since the last observation.
    pub(super) received: Vec<(i64, Said)>,
}

impl Told {
    fn answer(&mut self, sequence: i64) -> Reply {
        let said = match self.mood {
            Mood::Up => Said::Status(204, None),
            Mood::Down => Said::Status(500, None),
            Mood::HangsUp => Said::Nothing,
            Mood::Busy(status, seconds) => Said::Status(status, Some(seconds)),
            Mood::Flaky if self.random.random_bool(0.5) => Said::Status(200, None),
            Mood::Flaky => Said::Status(502, None),
            Mood::Gone => Said::Status(410, None),
        };
        self.received.push((sequence, said));
        match said {
            Said::Status(status, None) => Reply::Status(status),
            Said::Status(status, Some(seconds)) => Reply::RetryAfter(status, seconds),
            Said::Nothing => Reply::HangUp,
        }
    }
}

/// An endpoint, its receiver, and how it should be.
pub(super) struct Walker {
    pub(super) id: EndpointId,
    pub(super) told: Arc<Mutex<Told>>,
    pub(super) model: Model,
}

impl Walker {
    pub(super) async fn new(world: &World, seed: u64, delivery: DeliverySettings) -> Self {
        let told = Arc::new(Mutex::new(Told {
            mood: Mood::Up,
            random: StdRng::seed_from_u64(seed),
            received: Vec::new(),
        }));
        let teller = Arc::clone(&told);
        let receiver = Receiver::start(move |request, _| {
            let sequence = request.body["sequence"].as_i64().unwrap();
            teller.lock().unwrap().answer(sequence)
        })
        .await;
        let waits = delivery.retry_waits_seconds.as_deref();
        let waits = waits.unwrap_or(&DEFAULT_WAITS_SECONDS).iter();
        let model = Model::new(
            waits
                .map(|wait| Duration::from_secs((*wait).into()))
                .collect(),
            delivery.ordering == Ordering::Resource,
            usize::try_from(delivery.concurrency_max.unwrap_or(IN_FLIGHT)).unwrap(),
        );
        let input = EndpointInput {
            url: Some(receiver.url.clone()),
            event_types: Some(vec!["order.placed".to_owned()]),
            settings: SettingsChange {
                delivery: Some(delivery),
                ..SettingsChange::default()
            },
            ..EndpointInput::default()
        };
        let setting = world.setting();
        let created = world.run(&Create { input, setting }).await.unwrap();
        Self {
            id: created.endpoint.id,
            told,
            model,
        }
    }
}
