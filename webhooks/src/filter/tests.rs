#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What a thread of the runtime has left at the worst, also in a debug build.
const STACK_BYTES: usize = 1024 * 1024;

fn data() -> Box<RawValue> {
    let data = json!({
        "number": "A-1001",
        "total": {"amount": "120.50", "currency": "EUR"},
        "lines": [
            {"sku": "tea", "quantity": 2, "price": {"amount": "10.25"}},
            {"sku": "pot", "quantity": 1, "price": {"amount": "100.00"}},
        ],
        "note": null,
        "tags": ["gift", "rush"],
        "weight": 1.5,
        "paid": true,
    });
    RawValue::from_string(data.to_string()).unwrap()
}

fn facts(data: Option<&RawValue>) -> Facts<'_> {
    Facts {
        kind: "order.placed",
        resource_kind: "order",
        resource_id: "ord_1",
        resource_version: 3,
        merchant: MerchantId::new(Timestamp::from_unix_millis(0)),
        occurred_at: Timestamp::from_unix_millis(1_700_000_000_000),
        data,
    }
}

fn judged(expression: &str) -> bool {
    let data = data();
    let filter = Filter::compile(None, Some(expression)).unwrap();
    filter
        .matches(&FilterInput::new(facts(Some(&data))))
        .unwrap()
}

fn refusal(expression: &str) -> String {
    match Filter::compile(None, Some(expression)) {
        Ok(_) => panic!("{expression:?} was taken"),
        Err(error) => error.to_string(),
    }
}

/// Runs it where there is little stack; an overflow ends the whole test process.
fn with_little_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).unwrap();
        running.join().unwrap()
    })
}

#[test]
fn a_pattern_means_a_type_or_all_that_begin_so_or_all() {
    for (pattern, kind, matches) in [
        ("order.placed", "order.placed", true),
        ("order.placed", "order.placed_again", false),
        ("order.*", "order.placed", true),
        ("order.*", "order.line.added", true),
        ("order.*", "orders.placed", false),
        ("order.*", "order", false),
        ("*", "ping", true),
    ] {
        let pattern = TypePattern::parse(pattern).unwrap();
        assert_eq!(pattern.matches(kind), matches, "{pattern:?} {kind}");
    }
    for pattern in [
        "",
        ".",
        "order.",
        ".*",
        "**",
        "order*",
        "*.placed",
        "Order.placed",
        "order .*",
        "a.*.b",
    ] {
        assert!(TypePattern::parse(pattern).is_err(), "{pattern}");
    }
    assert!(TypePattern::parse(&"a".repeat(101)).is_err());
}

#[test]
fn types_are_asked_first_and_data_is_not_read_for_nothing() {
    let unreadable = RawValue::from_string("{}".to_owned()).unwrap();
    let types = ["product.*".to_owned()];
    let filter = Filter::compile(Some(&types), Some("event.data.paid")).unwrap();
    assert!(filter.needs_data());
    // No data: it would be a fault to look at it.
    assert_eq!(filter.matches(&FilterInput::new(facts(None))), Ok(false));
    let filter = Filter::compile(None, Some("event.resource.version >= 3")).unwrap();
    assert!(!filter.needs_data());
    assert_eq!(filter.matches(&FilterInput::new(facts(None))), Ok(true));
    assert_eq!(
        Filter::compile(None, Some("event.data.paid"))
            .unwrap()
            .matches(&FilterInput::new(facts(None))),
        Err(FilterFault::Unreadable)
    );
    let input = FilterInput::new(facts(Some(&unreadable)));
    assert!(input.with_data.get().is_none());
    assert_eq!(
        Filter::compile(None, None).unwrap().matches(&input),
        Ok(true)
    );
    assert!(input.with_data.get().is_none());
}

#[test]
fn conditions_say_what_cel_says() {
    for expression in [
        "event.type == 'order.placed'",
        "event.type.startsWith('order.') && event.resource.type == 'order'",
        "event.resource.version > 2 && event.resource.version < 4",
        "event.occurredAt > '2023-01-01' && event.merchantId.startsWith('mer_')",
        "double(event.data.total.amount) > 100.0",
        "double(event.data.total.amount) > 100",
        "event.data.total.currency in ['EUR', 'CHF']",
        "event.data.lines.exists(line, line.sku == 'pot')",
        "event.data.lines.all(line, line.quantity >= 1)",
        "event.data.lines.exists_one(line, double(line.price.amount) >= 100.0)",
        "size(event.data.lines.filter(line, line.quantity > 1)) == 1",
        "event.data.lines.filter(line, line.quantity > 1).exists(line, line.sku == 'tea')",
        "event.data.lines[0].sku == 'tea'",
        "event.data['lines'].size() == 2",
        "'gift' in event.data.tags",
        "has(event.data.total) && !has(event.data.discount)",
        "has(event.data.note) && event.data.note == null",
        "event.data.weight == 1.5 || false",
        "event.data.paid",
        "event.data.paid ? event.data.number.endsWith('1') : false",
        "!(event.data.number.contains('B'))",
        "-1 < 0 && 7 % 4 == 3",
        "// a remark\nevent.data.paid",
    ] {
        assert!(judged(expression), "{expression}");
    }
    for expression in [
        "event.type == 'order.paid'",
        "double(event.data.total.amount) > 1000.0",
        "false",
    ] {
        assert!(!judged(expression), "{expression}");
    }
}

#[test]
fn what_fails_is_not_true() {
    for expression in [
        "event.data.missing == 1",
        "event.data.missing.deeper",
        "event.data.missing != 1",
        "event.data.total.amount > 100.0",
        "double(event.data.number) > 1.0",
        "event.data.lines[7].sku == 'tea'",
        "event.data.number",
        "event.data.note.text == 'x'",
        "1 / 0 == 1",
        "event.data.lines.all(line, line.missing == 1)",
    ] {
        assert!(!judged(expression), "{expression}");
    }
    // CEL's own exception: what the other side has decided stays decided.
    assert!(judged("event.data.missing == 1 || event.data.paid"));
}

#[test]
fn a_refusal_names_place_and_reason() {
    for (expression, says) in [
        (
            "order.total > 1",
            "there is no variable \"order\": a condition is about \"event\" (line 1, column 1)",
        ),
        (
            "event.type == 'a' &&\n  evnt.type == 'b'",
            "there is no variable \"evnt\": a condition is about \"event\" (line 2, column 3)",
        ),
        (
            "event.kind == 'order'",
            "\"event\" has no member \"kind\", only type, resource, data, occurredAt, merchantId (line 1, column 7)",
        ),
        (
            "event.resource.name == 'x'",
            "\"event.resource\" has no member \"name\", only type, id, version (line 1, column 16)",
        ),
        (
            "matches(event.type, 'a+')",
            "there is no function \"matches\" here (line 1, column 1)",
        ),
        (
            "event.data.lines.map(line, line.sku) == ['a']",
            "there is no macro \"map\" here (line 1, column 18)",
        ),
        (
            "event.data.lines.exists(a, event.data.lines.exists(b, a == b))",
            "macros such as \"exists\" can't be put into one another (line 1, column 52)",
        ),
        (
            "'a' + 'b'",
            "a condition is true or false, and this is neither (line 1, column 1)",
        ),
        (
            "size(event.data)",
            "a condition is true or false, and this is neither (line 1, column 1)",
        ),
        (
            "[event, event] == []",
            "a list holds nothing but constants (line 1, column 1)",
        ),
        (
            "{'a': event} == {}",
            "objects can't be made here (line 1, column 1)",
        ),
        (
            "double(1, 2) > 1.0",
            "\"double\" takes one value (line 1, column 1)",
        ),
    ] {
        assert_eq!(refusal(expression), says, "{expression}");
    }
    for (expression, begins, ends) in [
        ("event.type ==", "it can't be read: ", "(line 1, column 14)"),
        (
            "event.type == 'a",
            "it can't be read: ",
            "(line 1, column 15)",
        ),
        ("", "it can't be read: ", "(line 1, column 1)"),
        (
            "event.type == 'a' )",
            "it can't be read: ",
            "(line 1, column 19)",
        ),
    ] {
        let refusal = refusal(expression);
        assert!(
            refusal.starts_with(begins) && refusal.ends_with(ends),
            "{expression}: {refusal}"
        );
        assert!(!refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn what_is_long_or_deep_is_refused_with_little_stack() {
    let deep = [
        format!("{}true{}", "(".repeat(1_000), ")".repeat(1_000)),
        format!("{}1{} == []", "[".repeat(1_000), "]".repeat(1_000)),
        format!("{}true", "!(".repeat(600)),
        "size(".repeat(400),
        format!("event.data{} == 1", ".a".repeat(900)),
        format!("event.data{} == 1", "[0]".repeat(600)),
        format!("1{} == 1", "+1".repeat(900)),
        format!("true{}", "?true:false".repeat(180)),
        format!("{}true{}", "true?".repeat(200), ":true".repeat(200)),
        format!("true{}", "&&true".repeat(300)),
        format!("{}true", "!".repeat(2_040)),
        format!("{}1 == 1", "-".repeat(2_040)),
        "x".repeat(2_049),
        "event.data.a.filter(x, true)".to_owned() + &".filter(x, true)".repeat(100),
    ];
    for source in deep {
        let error = with_little_stack(|| Filter::compile(None, Some(&source)).map(|_| ()));
        match error {
            Err(FilterError::Expression { .. }) => {}
            // An even number of marks is none.
            Ok(()) if source.starts_with("!!") || source.starts_with("--") => {}
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn the_deepest_that_is_taken_is_evaluated_with_little_stack() {
    let data = data();
    for source in [
        format!("{}true{}", "(".repeat(16), ")".repeat(16)),
        format!("1{} > 1", "+1".repeat(14)),
        format!("{}true{}", "(true ? ".repeat(15), " : false)".repeat(15)),
        format!(
            "{}event.data.paid{}",
            "(event.data.paid && ".repeat(13),
            ")".repeat(13)
        ),
        format!(
            "event.data.lines.exists(line, {}line.quantity{} > 0)",
            "(1 + ".repeat(10),
            ")".repeat(10)
        ),
    ] {
        let judged = with_little_stack(|| {
            let filter = Filter::compile(None, Some(&source)).unwrap();
            filter.matches(&FilterInput::new(facts(Some(&data))))
        });
        assert_eq!(judged, Ok(true), "{source}");
    }
}

#[test]
fn an_event_that_is_too_much_work_is_not_judged() {
    let numbers = vec!["1"; 100_000].join(",");
    let data = RawValue::from_string(format!(
        r#"{{"list":[{numbers}],"text":"{}"}}"#,
        "x".repeat(50_000)
    ))
    .unwrap();
    let judged = |source: &str| {
        let filter = Filter::compile(None, Some(source)).unwrap();
        filter.matches(&FilterInput::new(facts(Some(&data))))
    };
    assert_eq!(
        judged("event.data.list.all(item, event.data.text == event.data.text)"),
        Err(FilterFault::TooLarge)
    );
    assert_eq!(judged("size(event.data.list) == 100000"), Ok(true));
    // Neither is the condition to blame for what it does not look at.
    assert_eq!(judged("event.type == 'order.placed'"), Ok(true));
}

#[test]
fn filters_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Filter>();
}

proptest! {
    #[test]
    fn whatever_is_written_is_taken_or_refused(source in r#"(event|\.data|\.type|\.exists\(|x|,|==|&&|\|\||!|\(|\)|\[|\]|\{|\}|\?|:|'|"|1|\+|-| |\.|true|has\(|in|\n|é|`|@|r'|b"|0x|1e9|\\){0,40}"#) {
        if let Ok(filter) = Filter::compile(None, Some(&source)) {
            let data = data();
            let _ = filter.matches(&FilterInput::new(facts(Some(&data))));
        }
    }
}
