//! Reading input: JSON into a typed value, with every fault named by its pointer at once.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{self, FieldError, Problem};

/// An input that has rules beyond its types.
pub trait Validate {
    /// Reports every fault to `faults`.
    fn validate(&self, faults: &mut Faults);
}

/// Reads `T` from JSON: 400 if it is not JSON, 422 with every fault if it is not a valid `T`.
pub fn from_json<T: DeserializeOwned + Validate>(json: &[u8]) -> Result<T, Problem> {
    from_json_line(json).map_err(|error| match error {
        JsonError::Syntax(detail) => Problem::new(&problem::MALFORMED_REQUEST, detail),
        JsonError::Fields(errors) => Problem::invalid_fields(errors),
    })
}

/// Why a text is not a valid `T`.
#[derive(Debug, PartialEq, Eq)]
pub enum JsonError {
    /// It is not JSON; the sentence says where it breaks.
    Syntax(String),
    /// It is JSON, and these fields are wrong.
    Fields(Vec<FieldError>),
}

/// Reads `T` from JSON, telling broken JSON from wrong fields.
pub fn from_json_line<T: DeserializeOwned + Validate>(json: &[u8]) -> Result<T, JsonError> {
    // serde would also take an array for a struct, its elements for the fields in their order.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(
            match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
                Ok(_) => {
                    JsonError::Fields(vec![FieldError::at("", "invalid", "must be a JSON object")])
                }
                Err(error) => syntax(&error),
            },
        );
    }
    // A valid body is read straight from its bytes; only a faulty one pays for being searched.
    let value = match serde_json::from_slice::<T>(json) {
        Ok(value) => value,
        // Not by the error's own category: of a word that is looked for and null that is found, serde_json says that the syntax is broken.
        Err(error) => {
            let document = serde_json::from_slice::<Value>(json).map_err(|error| syntax(&error))?;
            let mut faults = structural_faults::<T>(document);
            if faults.is_empty() {
                // A document keeps one of two fields of the same name, so the search finds nothing: what was said of the bytes has to do.
                faults.push(FieldError::at("", "invalid", error.to_string()));
            }
            return Err(JsonError::Fields(faults));
        }
    };
    check(&value).map_err(JsonError::Fields)?;
    Ok(value)
}

/// The rules of `value` beyond its types, every fault at once.
pub fn check<T: Validate>(value: &T) -> Result<(), Vec<FieldError>> {
    let mut faults = Faults::default();
    value.validate(&mut faults);
    faults.into_result()
}

fn syntax(error: &serde_json::Error) -> JsonError {
    JsonError::Syntax(format!("The body is not JSON: {error}."))
}

/// Faults that one body may be told of; enough to mend it, too few to be a burden.
const FAULTS_MAX: usize = 100;

/// Characters of what is said about one fault.
const DETAIL_CHARACTERS_MAX: usize = 200;

/// Finds the faults of structure one after another: each is noted and cut out of the document, until it reads or only what was cut out
/// is missing.
fn structural_faults<T: DeserializeOwned + Validate>(mut document: Value) -> Vec<FieldError> {
    let mut faults: Vec<FieldError> = Vec::new();
    while faults.len() < FAULTS_MAX {
        let error = match serde_path_to_error::deserialize::<_, T>(&document) {
            Ok(value) => {
                faults.extend(check(&value).err().unwrap_or_default());
                break;
            }
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let (code, field) = if let Some(field) = quoted(&message, "unknown field ") {
            ("unknown_field", Some(field))
        } else if let Some(field) = quoted(&message, "missing field ") {
            ("required", Some(field))
        } else {
            ("invalid", None)
        };
        let mut pointer = pointer_of(error.path());
        if let Some(field) = field {
            let leaf = format!("/{}", escape(field));
            if !pointer.ends_with(&leaf) || code == "required" {
                pointer.push_str(&leaf);
            }
        }
        if faults
            .iter()
            .any(|fault| fault.pointer.as_deref() == Some(&pointer))
        {
            break;
        }
        let detail = match code {
            "unknown_field" => "there is no such field here".to_owned(),
            "required" => "must be given".to_owned(),
            _ => shortened(in_words_of_json(&message)),
        };
        faults.push(FieldError::at(pointer.clone(), code, detail));
        if code == "required" || !cut(&mut document, &pointer) {
            break;
        }
    }
    faults
}

/// What serde says of a value that does not fit, which names types of Rust.
fn in_words_of_json(message: &str) -> String {
    let found = [
        ("invalid type: map", "invalid type: object"),
        ("invalid type: sequence", "invalid type: array"),
        ("unknown variant", "unknown value"),
    ];
    let found = found.into_iter().find_map(|(rust, json)| {
        let rest = message.strip_prefix(rust)?;
        Some(format!("{json}{rest}"))
    });
    let message = found.unwrap_or_else(|| message.to_owned());
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return message;
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "an array",
        "string or map" => "a string",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// What serde says of a value repeats it, however long it is; the client has it already.
fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(DETAIL_CHARACTERS_MAX) {
        message.truncate(end);
        message.push('…');
    }
    message
}

fn quoted<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    message
        .strip_prefix(prefix)?
        .strip_prefix('`')?
        .split('`')
        .next()
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .fold(String::new(), |pointer, segment| match segment {
            Segment::Seq { index } => format!("{pointer}/{index}"),
            Segment::Map { key } => format!("{pointer}/{}", escape(key)),
            Segment::Enum { .. } | Segment::Unknown => pointer,
        })
}

/// Escapes one step of a JSON Pointer (RFC 6901, section 3).
pub fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// Takes out the member that `pointer` names, or nulls the element; false if there is none.
fn cut(document: &mut Value, pointer: &str) -> bool {
    let Some((parent, leaf)) = pointer.rsplit_once('/') else {
        return false;
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => members
            .remove(&leaf.replace("~1", "/").replace("~0", "~"))
            .is_some(),
        _ => false,
    }
}

/// Collects faults, each with the pointer of where it is.
#[derive(Debug, Default)]
pub struct Faults {
    errors: Vec<FieldError>,
    within: String,
}

impl Faults {
    /// Nothing if there are no faults, or else all of them.
    pub fn into_result(self) -> Result<(), Vec<FieldError>> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }

    /// Notes a fault at `step` (a relative pointer such as `/title`, or empty for the place itself).
    pub fn add(&mut self, step: &str, code: &'static str, detail: impl Into<String>) {
        self.errors.push(FieldError::at(
            format!("{}{step}", self.within),
            code,
            detail,
        ));
    }

    /// Runs `rules` with every pointer below `step`.
    pub fn within(&mut self, step: &str, rules: impl FnOnce(&mut Self)) {
        let length = self.within.len();
        self.within.push_str(step);
        rules(self);
        self.within.truncate(length);
    }

    /// A text must have 1 to `max` characters that are not all blank, and no control characters but line ends and tabs.
    pub fn text(&mut self, step: &str, text: &str, max: usize) {
        if text.trim().is_empty() {
            self.add(step, "required", "must not be empty");
        }
        self.optional_text(step, Some(text), max);
    }

    /// A text, if there is one, must have at most `max` characters and no control characters but line ends and tabs.
    pub fn optional_text(&mut self, step: &str, text: Option<&str>, max: usize) {
        let Some(text) = text else { return };
        if text.chars().count() > max {
            self.add(
                step,
                "too_long",
                format!("must have at most {max} characters"),
            );
        }
        if text
            .chars()
            .any(|character| character.is_control() && !matches!(character, '\n' | '\r' | '\t'))
        {
            self.add(step, "invalid", "must not contain control characters");
        }
    }

    /// A list must have at most `max` elements.
    pub fn at_most<T>(&mut self, step: &str, list: &[T], max: usize) {
        if list.len() > max {
            self.add(
                step,
                "too_many",
                format!("must have at most {max} elements"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the way in is tested")]
    struct Order {
        reference: String,
        lines: Vec<Line>,
        note: Option<String>,
        #[serde(default)]
        urgency: Urgency,
    }

    #[derive(Debug, Default, Deserialize)]
    enum Urgency {
        #[default]
        Low,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        quantity: u32,
    }

    impl Validate for Order {
        fn validate(&self, faults: &mut Faults) {
            faults.text("/reference", &self.reference, 10);
            for (place, line) in self.lines.iter().enumerate() {
                faults.within(&format!("/lines/{place}"), |faults| {
                    if line.quantity == 0 {
                        faults.add("/quantity", "out_of_range", "must be at least 1");
                    }
                });
            }
        }
    }

    fn pointers(json: &str) -> Vec<(String, String)> {
        match from_json_line::<Order>(json.as_bytes()) {
            Err(JsonError::Fields(errors)) => errors
                .into_iter()
                .map(|error| (error.pointer.unwrap_or_default(), error.code.into_owned()))
                .collect(),
            other => vec![(format!("{other:?}"), String::new())],
        }
    }

    fn pair(pointer: &str, code: &str) -> (String, String) {
        (pointer.to_owned(), code.to_owned())
    }

    #[test]
    fn every_fault_is_named_at_once() {
        assert_eq!(
            pointers(
                r#"{"reference": " ", "lines": [{"quantity": 0}, {"quantity": 1}, {"quantity": 0}]}"#
            ),
            [
                pair("/reference", "required"),
                pair("/lines/0/quantity", "out_of_range"),
                pair("/lines/2/quantity", "out_of_range")
            ]
        );
        assert_eq!(
            pointers(r#"{"refernce": "a", "note": 5, "x/y": 1, "lines": [], "reference": " "}"#),
            [
                pair("/note", "invalid"),
                pair("/refernce", "unknown_field"),
                pair("/x~1y", "unknown_field"),
                pair("/reference", "required")
            ]
        );
        assert_eq!(
            pointers(r#"{"reference": "a", "lines": [{"quantity": "1"}]}"#),
            [pair("/lines/0/quantity", "invalid"),]
        );
        assert_eq!(
            pointers(r#"{"lines": []}"#),
            [pair("/reference", "required")]
        );
        for no_word in ["null", "5", "true", "[]"] {
            assert_eq!(
                pointers(&format!(
                    r#"{{"reference": "a", "lines": [], "urgency": {no_word}}}"#
                )),
                [pair("/urgency", "invalid")]
            );
        }
    }

    #[test]
    fn a_fault_speaks_of_json() {
        let details = |json: &str| match from_json_line::<Order>(json.as_bytes()) {
            Err(JsonError::Fields(errors)) => {
                errors.into_iter().map(|error| error.detail).collect()
            }
            _ => Vec::new(),
        };
        let order = |fields: &str| format!(r#"{{"reference": "a", {fields}}}"#);
        for (fields, detail) in [
            (r#""lines": {}"#, "invalid type: object, expected an array"),
            (
                r#""lines": [5]"#,
                "invalid type: integer `5`, expected an object",
            ),
            (
                r#""lines": [{"quantity": -1}]"#,
                "invalid value: integer `-1`, expected a whole number that is not negative",
            ),
            (
                r#""lines": [], "urgency": "High""#,
                "unknown value `High`, expected `Low`",
            ),
            (
                r#""lines": [], "note": ["x, expected u8"]"#,
                "invalid type: array, expected a string",
            ),
        ] {
            assert_eq!(details(&order(fields)), [detail]);
        }
    }

    #[test]
    fn a_fault_does_not_repeat_a_value_of_any_length() {
        let json = format!(r#"{{"reference": "a", "lines": "{}"}}"#, "ü".repeat(5_000));
        let Some(JsonError::Fields(faults)) = from_json_line::<Order>(json.as_bytes()).err() else {
            return assert_eq!(json, "");
        };
        let detail = faults
            .into_iter()
            .next()
            .map(|fault| fault.detail)
            .unwrap_or_default();
        assert!(
            detail.starts_with("invalid type: string") && detail.ends_with('…'),
            "{detail}"
        );
        assert_eq!(detail.chars().count(), DETAIL_CHARACTERS_MAX + 1);
    }

    #[test]
    fn a_field_given_twice_is_a_fault() {
        assert_eq!(
            pointers(r#"{"reference": "a", "reference": "b", "lines": []}"#),
            [pair("", "invalid")]
        );
    }

    #[test]
    fn an_array_is_no_object_however_well_its_elements_fit() {
        assert_eq!(pointers(r#" ["a", []]"#), [pair("", "invalid")]);
        assert_eq!(pointers("null"), [pair("", "invalid")]);
    }

    #[test]
    fn broken_json_says_where() {
        let error = from_json_line::<Order>(br#"{"reference": "#).err();
        assert!(matches!(error, Some(JsonError::Syntax(detail)) if detail.contains("line 1")));
    }
}
