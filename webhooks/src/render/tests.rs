#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Read as _;

use flate2::read::GzDecoder;
use kernel::{
    actor::Access,
    clock::Timestamp,
    id::{DataSubjectId, EventId, RequestId},
};
use proptest::prelude::*;
use serde_json::{json, value::RawValue};

use super::*;
use crate::event::{Resource, Sealed};

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000)
}

fn event(kind: &str, data: &Value, personal: bool) -> Event {
    Event {
        id: EventId::new(now()),
        kind: kind.to_owned(),
        resource: Resource {
            kind: "order".to_owned(),
            id: "ord_1".to_owned(),
            version: 3,
        },
        scope: "orders:read".to_owned(),
        locations: vec![],
        data: RawValue::from_string(data.to_string()).unwrap(),
        request: Some(RequestId::new(now())),
        occurred_at: now(),
        personal: personal.then(|| Sealed {
            subject: DataSubjectId::new(now()),
            bytes: vec![1],
        }),
    }
}

fn receiver(scopes: &str, personal_data: bool) -> Receiver {
    Receiver(Some(Access {
        scopes: scopes.parse().unwrap(),
        locations: None,
        personal_data,
    }))
}

fn settings(change: impl FnOnce(&mut PayloadSettings)) -> PayloadSettings {
    let mut settings = PayloadSettings::default();
    change(&mut settings);
    settings
}

fn renderer(change: impl FnOnce(&mut PayloadSettings)) -> Renderer {
    Renderer::compile(&settings(change)).unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_body_is_the_bytes_of_the_envelope(
        kind in "[a-z_]{1,10}(\\.[a-z_\"\\\\é]{1,10})?",
        data in any_json(),
        personal in any_json(),
        sequence in any::<i64>(),
        has_personal in any::<bool>(),
        has_request in any::<bool>(),
        scopes in prop_oneof![Just("orders:read"), Just("orders:read orders.pii:read"), Just("catalog:read")],
        personal_data in any::<bool>(),
    ) {
        let mut event = event(&kind, &data, has_personal);
        event.request = event.request.filter(|_| has_request);
        let (merchant, receiver) = (MerchantId::new(now()), receiver(scopes, personal_data));
        let envelope = event::envelope(&event, merchant, Some(sequence), &receiver, Some(&personal)).unwrap();
        let rendered = renderer(|_| {}).render(&event, merchant, &receiver, Some(&personal)).unwrap();
        prop_assert_eq!(rendered.body(sequence), Bytes::from(serde_json::to_vec(&envelope).unwrap()));
    }
}

#[test]
fn thin_is_the_same_without_data_and_asks_for_no_personal_part() {
    let event = event("order.placed", &json!({"total": "1.00"}), true);
    let receiver = receiver("orders:read orders.pii:read", true);
    let (full, thin) = (renderer(|_| {}), renderer(|to| to.shape = Shape::Thin));
    assert!(full.wants_personal(&event, &receiver));
    assert!(!thin.wants_personal(&event, &receiver));
    let merchant = MerchantId::new(now());
    let rendered = thin.render(&event, merchant, &receiver, None).unwrap();
    let shown: Value = serde_json::from_slice(&rendered.body(7)).unwrap();
    let whole = event::envelope(&event, merchant, Some(7), &receiver, None).unwrap();
    let mut whole = serde_json::to_value(whole).unwrap();
    whole.as_object_mut().unwrap().remove("data").unwrap();
    assert_eq!(shown, whole);
    assert_ne!(full.key(&event, &receiver), thin.key(&event, &receiver));
}

#[test]
fn what_is_withheld_looks_alike_whatever_the_settings() {
    let event = event("order.placed", &json!({"total": "1.00"}), true);
    let receiver = receiver("catalog:read", true);
    let merchant = MerchantId::new(now());
    let plain = renderer(|_| {});
    let rendered = plain.render(&event, merchant, &receiver, None).unwrap();
    let expected = rendered.body(7);
    for settings in [
        settings(|to| to.shape = Shape::Thin),
        settings(|to| to.transformation = Some("{{ event.data.total }}".to_owned())),
        settings(|to| to.api_version = Some("2026-11-01".to_owned())),
    ] {
        let other = Renderer::compile(&settings).unwrap();
        assert_eq!(other.key(&event, &receiver), plain.key(&event, &receiver));
        let rendered = other.render(&event, merchant, &receiver, None).unwrap();
        assert_eq!(other.body(&rendered, 7).unwrap(), expected);
    }
}

#[test]
fn receivers_of_one_key_have_one_body() {
    let event = event("order.placed", &json!({}), true);
    let renderer = renderer(|_| {});
    let key = |scopes: &str, personal: bool| renderer.key(&event, &receiver(scopes, personal));
    assert_eq!(key("orders:read", true), key("orders:write", false));
    assert_ne!(
        key("orders:read orders.pii:read", true),
        key("orders:read orders.pii:read", false)
    );
    assert_ne!(key("orders:read", false), key("catalog:read", false));
}

#[test]
fn a_version_that_is_not_there_is_refused_by_name() {
    let refused = Renderer::compile(&settings(|to| {
        to.api_version = Some("2019-01-01".to_owned());
    }));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the API has no version \"2019-01-01\", only 2026-11-01"
    );
}

#[test]
fn a_template_makes_the_body() {
    let event = event("order.placed", &json!({"number": "A\"1"}), false);
    let transforming = renderer(|to| {
        to.transformation = Some(
            r#"{"text": {{ ["Order ", event.data.number] | join }}, "no": {{ event.sequence }}}"#
                .to_owned(),
        );
    });
    let receiver = Receiver::merchant();
    let rendered = transforming
        .render(&event, MerchantId::new(now()), &receiver, None)
        .unwrap();
    assert_eq!(
        transforming.body(&rendered, 7).unwrap(),
        r#"{"text": "Order A\"1", "no": 7}"#
    );
}

#[test]
fn several_bodies_are_a_list_in_their_order() {
    let parts = [Bytes::from(r#"{"a":1}"#), Bytes::from("2")];
    assert_eq!(batch_body(&parts), r#"{"events":[{"a":1},2]}"#);
    assert_eq!(batch_body(&[]), r#"{"events":[]}"#);
}

#[test]
fn bodies_of_a_kilobyte_are_compressed_and_always_to_the_same_bytes() {
    let body = Bytes::from(vec![b'x'; COMPRESSED_BYTES_MIN]);
    let renderer = renderer(|to| to.compression = Compression::Gzip);
    let encoded = renderer.encode(body.clone());
    assert_eq!(encoded.content_encoding, Some("gzip"));
    assert_eq!(encoded, renderer.encode(body.clone()));
    let mut read = Vec::new();
    GzDecoder::new(encoded.bytes.as_ref())
        .read_to_end(&mut read)
        .unwrap();
    assert_eq!(read, body);
    let short = body.slice(1..);
    assert_eq!(renderer.encode(short.clone()).bytes, short);
    assert_eq!(
        Renderer::compile(&PayloadSettings::default())
            .unwrap()
            .encode(body.clone())
            .bytes,
        body
    );
}

#[test]
fn renderers_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Renderer>();
    shared::<Rendered>();
}
