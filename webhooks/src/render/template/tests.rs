#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What a thread of the runtime has left at the worst, also in a debug build.
const STACK_BYTES: usize = 1024 * 1024;

fn event() -> Value {
    json!({
        "type": "order.placed",
        "sequence": 7,
        "resource": {"type": "order", "id": "ord_1", "version": 3},
        "data": {
            "number": "A-1001",
            "note": "she said \"hi\"\n</script>",
            "lines": [{"sku": "tea", "quantity": 2}, {"sku": "pot", "quantity": 1}],
            "items": ["a", "b"],
            "none": null,
            "weight": 1.5,
            "paid": true,
        },
    })
}

fn made(source: &str) -> Result<String, TransformationError> {
    made_of(source, &event())
}

fn made_of(source: &str, event: &Value) -> Result<String, TransformationError> {
    let template = Template::compile(source).unwrap();
    let output = template.render(&serde_json::to_vec(event).unwrap())?;
    Ok(String::from_utf8(output).unwrap())
}

fn refusal(source: &str) -> String {
    match Template::compile(source) {
        Ok(_) => panic!("{source:?} was taken"),
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
fn every_value_is_json() {
    for (source, output) in [
        ("{{ event.type }}", r#""order.placed""#),
        (
            r#"{"text": {{ event.type | tojson }}}"#,
            r#"{"text": "order.placed"}"#,
        ),
        ("{{ event.data.note }}", r#""she said \"hi\"\n</script>""#),
        (
            "{{ event.data.lines }}",
            r#"[{"quantity":2,"sku":"tea"},{"quantity":1,"sku":"pot"}]"#,
        ),
        (
            "[{{ event.data.paid }}, {{ event.data.weight }}, {{ event.sequence }}]",
            "[true, 1.5, 7]",
        ),
        ("{{ event.data.missing }}", "null"),
        ("{{ event.data.missing.deeper.still }}", "null"),
        ("{{ event.data.none }}", "null"),
        ("{{ event.data.missing | default('x') }}", r#""x""#),
        ("{{ event.data.none | default(0) }}", "0"),
        (
            "{{ ['Order ', event.data.number, ': ', event.data.lines | length] | join }}",
            r#""Order A-1001: 2""#,
        ),
        ("{{ event.data.items | join(', ') }}", r#""a, b""#),
        ("{{ event.data.number | lower | trim }}", r#""a-1001""#),
        ("{{ event.data.items | first }}", r#""a""#),
        ("{{ (event.data.lines | last).sku | upper }}", r#""POT""#),
        ("{{ event['data']['items'][1] }}", r#""b""#),
        ("{{ event.data.lines[0].quantity - 1 }}", "1"),
        ("{{ 'yes' if event.data.paid else 'no' }}", r#""yes""#),
        ("{# a remark #}{}", "{}"),
    ] {
        assert_eq!(made(source).as_deref(), Ok(output), "{source}");
    }
}

#[test]
fn loops_and_conditions_choose() {
    let source = r#"{"lines": [{% for line in event.data.lines if line.quantity > 0 %}
        {"sku": {{ line.sku }}, "first": {{ loop.first }}}{% if not loop.last %},{% endif %}
    {% endfor %}]{% if event.data.missing is defined %}, "m": 1{% elif event.type in ["order.placed"] %}, "placed": true{% endif %}}"#;
    let output: Value = serde_json::from_str(&made(source).unwrap()).unwrap();
    assert_eq!(
        output,
        json!({"lines": [{"sku": "tea", "first": true}, {"sku": "pot", "first": false}], "placed": true})
    );
}

#[test]
fn what_is_not_json_is_a_failure_that_says_so() {
    let error = made(r#"{"text": "Order {{ event.data.number }}"}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "what the transformation made is not JSON: expected `,` or `}` at line 1 column 18"
    );
    for source in [
        "",
        "{",
        "{} {}",
        "hello",
        "{{ event.type }}{{ event.type }}",
    ] {
        assert!(
            matches!(made(source), Err(TransformationError::NotJson { .. })),
            "{source}"
        );
    }
    assert_eq!(
        made("{}\n{{ event.type - 1 }}").unwrap_err().to_string(),
        "the transformation failed: tried to use - operator on unsupported types string and number (line 2)"
    );
}

#[test]
fn a_refusal_names_line_and_reason() {
    for (source, says) in [
        (
            "{{ order.id }}",
            "there is no variable \"order\": a transformation is about \"event\" (line 1)",
        ),
        (
            "\n{{ event.type | shout }}",
            "there is no filter \"shout\", only tojson, join, default, length, lower, upper, trim, first, last (line 2)",
        ),
        (
            "{% if event.type is odd %}1{% endif %}",
            "there is no test \"odd\", only defined, undefined, none (line 1)",
        ),
        (
            "{% set x = 1 %}",
            "there is no tag \"set\" here, only \"for\" and \"if\" (line 1)",
        ),
        ("{{ range(10) }}", "there are no functions here (line 1)"),
        (
            "{{ event.data.lines == event.data.items }}",
            "a value is compared with a constant here (line 1)",
        ),
        (
            "{{ line }}{% for line in event.data.lines %}{% endfor %}",
            "there is no variable \"line\": a transformation is about \"event\" (line 1)",
        ),
    ] {
        assert_eq!(refusal(source), says, "{source}");
    }
    for source in ["{{", "{% for %}", "{% if x %}", "{{ event. }}", "{{ 'a }}"] {
        let refusal = refusal(source);
        assert!(
            refusal.ends_with("(line 1)") && !refusal.contains('\n'),
            "{refusal}"
        );
    }
}

#[test]
fn what_would_make_much_of_little_is_refused() {
    for source in [
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 10 ** 1000000000 }}",
        "{{ event.type ~ event.type }}",
        "{{ event.type + event.type }}",
        "{{ range(1000000000) }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% set x = event %}{{ x }}",
        "{% set x %}{{ event }}{% endset %}",
        "{% with x = event %}{{ x }}{% endwith %}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1) }}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape false %}{% endautoescape %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% call x() %}{% endcall %}",
        "{% do event.x() %}",
        "{% for x in event.data recursive %}{% endfor %}",
        "{% for a, b in event.data %}{% endfor %}",
        "{{ [event, event, event] }}",
        "{{ {'a': event} }}",
        "{% for x in [event, event] %}{{ x }}{% endfor %}",
        "{{ event.data.items | indent(1000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x' | replace('x', event.type) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ event.type | safe }}",
        "{{ event.data.items[::1] }}",
        "{{ event.type.upper() }}",
        "{{ loop }}",
        "{{ debug() }}",
        "{{ event.type in event.data.items }}",
        "{{ self.x() }}",
        "{{ event | join(between=',') }}",
        "{{ event.data.items | join(*event.data.items) }}",
    ] {
        assert!(Template::compile(source).is_err(), "{source}");
    }
    assert!(Template::compile(&"x".repeat(SOURCE_BYTES_MAX + 1)).is_err());
}

#[test]
fn work_and_output_end_at_their_bounds() {
    let many = json!({"data": {
        "list": vec![1; 20_000],
        "text": "\"".repeat(100_000),
        "nested": {"list": vec![vec!["x"; 100]; 100]},
    }});
    let nested = |inner: &str| {
        format!(
            "{{% for a in event.data.list %}}{{% for b in event.data.list %}}{{% for c in event.data.list %}}{inner}{{% endfor %}}{{% endfor %}}{{% endfor %}}"
        )
    };
    for (source, error) in [
        (nested(""), TransformationError::TooLong),
        (nested("{{ c }}"), TransformationError::TooLong),
        (
            nested("{{ event.data.text }}"),
            TransformationError::TooLarge,
        ),
        ("{{ event }}".repeat(3), TransformationError::TooLarge),
        (
            nested("{% if event.data.text | upper == 'x' %}{% endif %}"),
            TransformationError::TooLarge,
        ),
        (
            nested("{% if event.data.list | join == 'x' %}{% endif %}"),
            TransformationError::TooLarge,
        ),
        (
            nested("{% if event.data.text | length == 1 %}{% endif %}"),
            TransformationError::TooLarge,
        ),
        // Each doubles the backslashes.
        (
            format!("{{{{ event.data.text{} }}}}", " | tojson".repeat(20)),
            TransformationError::TooLarge,
        ),
        (
            format!(
                "{{{{ [{}] | join }}}}",
                vec!["event.data.text"; 100].join(",")
            ),
            TransformationError::TooLarge,
        ),
    ] {
        assert_eq!(made_of(&source, &many), Err(error), "{source}");
    }
}

#[test]
fn what_is_nested_deeply_is_refused_with_little_stack() {
    let mut ifs = String::new();
    for _ in 0..500 {
        let _ = write!(ifs, "{{% if 1 %}}");
    }
    let closed = format!("{ifs}1{}", "{% endif %}".repeat(500));
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(4_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(16_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(1_300)),
        format!("{{{{ 1{} }}}}", "-1".repeat(8_000)),
        format!("{{{{ event{} }}}}", ".a".repeat(8_000)),
        format!("{{{{ event{} }}}}", "[0]".repeat(5_000)),
        format!("{{{{ event{} }}}}", "|first".repeat(2_500)),
        format!("{{{{ event{} }}}}", " is defined".repeat(1_400)),
        format!("{{{{ 1{} }}}}", " and 1".repeat(2_700)),
        format!("{{{{ 1{} }}}}", " == 1".repeat(3_000)),
        ifs,
        closed,
        "{% if 1 %}".to_owned() + &"{% elif 1 %}".repeat(1_300) + "{% endif %}",
    ] {
        let compiled = with_little_stack(|| Template::compile(&source).map(|_| ()));
        // A chain of comparisons is no nesting.
        assert!(compiled.is_err() || source.contains("=="), "{source}");
    }
}

#[test]
fn the_deepest_that_is_taken_is_rendered_with_little_stack() {
    for source in [
        format!("{}1{}", "{% if 1 %}".repeat(22), "{% endif %}".repeat(22)),
        format!("{{{{ {}event{} }}}}", "(".repeat(36), ")".repeat(36)),
        format!("{{{{ event{} }}}}", ".a".repeat(22)),
        format!("{{{{ 1{} }}}}", "-1".repeat(22)),
        format!(
            "{}1{}",
            "{% for a in [1] %}".repeat(22),
            "{% endfor %}".repeat(22)
        ),
    ] {
        let made = with_little_stack(|| made(&source));
        assert!(made.is_ok(), "{source}: {made:?}");
    }
}

proptest! {
    #[test]
    fn whatever_is_written_is_taken_or_refused(source in r#"(\{\{|\}\}|\{%|%\}|\{#|#\}| |event|\.data|\.lines|\.items|for x in|endfor|if|endif|else|x|\||join|tojson|\(|\)|\[|\]|'|"|1|-|,|==|in|is|not|defined|\n|é){0,40}"#) {
        if let Ok(template) = Template::compile(&source) {
            let _ = template.render(&serde_json::to_vec(&event()).unwrap());
        }
    }
}
