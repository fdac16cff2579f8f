//! The filters and tests of templates. All are ours, because each says what it costs: the bytes that it reads and makes are counted over the whole template.

use std::fmt::Write as _;

use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Their names.
pub(super) const FILTERS: [&str; 9] = [
    "tojson", "join", "default", "length", "lower", "upper", "trim", "first", "last",
];

/// The names of tests: `{% if event.data.note is defined %}`.
pub(super) const TESTS: [&str; 3] = ["defined", "undefined", "none"];

/// Bytes that filters read and make for one event, all in all.
const WORK_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// What is said when that is used up.
pub(super) const TOO_LARGE: &str = "filters made too much";

/// Where it is counted.
const COUNTER: &str = "stoa.work_bytes";

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("join", join);
    environment.add_filter("default", |value: Value, other: Option<Value>| {
        if value.is_undefined() || value.is_none() {
            other.unwrap_or_else(|| Value::from(""))
        } else {
            value
        }
    });
    environment.add_filter("length", length);
    environment.add_filter("lower", |state: &mut State, text: String| {
        changed(state, &text, str::to_lowercase)
    });
    environment.add_filter("upper", |state: &mut State, text: String| {
        changed(state, &text, str::to_uppercase)
    });
    environment.add_filter("trim", |state: &mut State, text: String| {
        changed(state, &text, |text| text.trim().to_owned())
    });
    environment.add_filter("first", |list: Value| {
        list.get_item_by_index(0).unwrap_or_default()
    });
    environment.add_filter("last", |list: Value| {
        let last = list.len().and_then(|length| length.checked_sub(1));
        last.and_then(|last| list.get_item_by_index(last).ok())
            .unwrap_or_default()
    });
    environment.add_test("defined", |value: &Value| !value.is_undefined());
    environment.add_test("undefined", |value: &Value| value.is_undefined());
    environment.add_test("none", |value: &Value| value.is_none());
}

/// Counts bytes, and fails where there are too many.
fn charge(state: &mut State, bytes: usize) -> Result<(), Error> {
    let spent = state
        .get_temp(COUNTER)
        .and_then(|spent| usize::try_from(spent).ok())
        .unwrap_or_default()
        .saturating_add(bytes);
    if spent > WORK_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, TOO_LARGE));
    }
    state.set_temp(COUNTER, Value::from(spent));
    Ok(())
}

/// The value as JSON. What is put out is JSON anyway, so this changes nothing there; elsewhere it makes a text.
fn tojson(state: &mut State, value: &Value) -> Result<Value, Error> {
    let json = serde_json::to_string(value).map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "the value is no JSON").with_source(error)
    })?;
    charge(state, json.len())?;
    Ok(Value::from_safe_string(json))
}

/// The members of a list as one text; what is missing is left out.
fn join(state: &mut State, list: &Value, between: Option<String>) -> Result<Value, Error> {
    let between = between.unwrap_or_default();
    let mut text = String::new();
    for (place, member) in list.try_iter()?.enumerate() {
        let before = text.len();
        if place > 0 {
            text.push_str(&between);
        }
        match member.as_str() {
            Some(member) => text.push_str(member),
            None if member.is_undefined() || member.is_none() => {}
            None => {
                // Writing to memory does not fail.
                let _ = write!(text, "{member}");
            }
        }
        // One more, so that empty members cost something too.
        charge(state, text.len() - before + 1)?;
    }
    Ok(Value::from(text))
}

/// The members of a list or an object, the characters of a text.
fn length(state: &mut State, value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        charge(state, text.len())?;
        return Ok(text.chars().count());
    }
    value
        .len()
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "this has no length"))
}

fn changed(
    state: &mut State,
    text: &str,
    change: impl FnOnce(&str) -> String,
) -> Result<Value, Error> {
    charge(state, text.len())?;
    let text = change(text);
    charge(state, text.len())?;
    Ok(Value::from(text))
}
