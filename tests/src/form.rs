//! Forms of pages, filled in and sent as a browser would.

use reqwest::{Method, Url};

use crate::html::{self, Token};

/// A form of a page.
#[derive(Debug, Clone)]
pub struct Form {
    /// Where it is sent.
    pub action: Url,
    /// How it is sent.
    pub method: Method,
    /// What it holds, in the order of the page.
    pub controls: Vec<Control>,
    pressed: Option<(String, String)>,
}

/// A field or a button of a form.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// `hidden`, `text`, `password`, `checkbox`, `radio`, `select`, `textarea`, `submit` …
    pub kind: String,
    /// The name that it is sent by; empty if it is not sent.
    pub name: String,
    /// The value that it is sent with.
    pub value: String,
    /// What the page calls it: the label's words, or a button's.
    pub label: String,
    /// Whether a box is ticked, a radio button chosen. True of all else.
    pub is_on: bool,
    /// Whether it can't be changed, and is not sent.
    pub is_disabled: bool,
    /// What can be chosen of a select: value and words.
    pub options: Vec<(String, String)>,
    /// Where a button sends its form, if not to the form's action.
    pub action: Option<String>,
    id: String,
}

impl Control {
    /// Whether it has this name, or its label contains these words whatever the case.
    fn is_called(&self, name: &str) -> bool {
        let in_label = || self.label.to_lowercase().contains(&name.to_lowercase());
        self.name == name || in_label()
    }

    fn is_button(&self) -> bool {
        ["submit", "button", "image", "reset"].contains(&self.kind.as_str())
    }

    fn is_switch(&self) -> bool {
        self.kind == "checkbox" || self.kind == "radio"
    }
}

impl Form {
    /// Whether it has such a field or button, by name or label.
    pub fn has(&self, name: &str) -> bool {
        self.controls.iter().any(|control| control.is_called(name))
    }

    /// A field, by name or label. The name counts more.
    #[track_caller]
    pub fn control(&self, name: &str) -> &Control {
        let index = self.index(name, |control| !control.is_button());
        &self.controls[index]
    }

    /// Fills in a field.
    #[must_use]
    #[track_caller]
    pub fn fill(mut self, name: &str, value: &str) -> Self {
        let index = self.index(name, |control| !control.is_button() && !control.is_switch());
        value.clone_into(&mut self.controls[index].value);
        self
    }

    /// Ticks a box: by its label, or by its name if that is its alone.
    #[must_use]
    #[track_caller]
    pub fn tick(self, name: &str) -> Self {
        self.switch(name, true)
    }

    /// Unticks a box.
    #[must_use]
    #[track_caller]
    pub fn untick(self, name: &str) -> Self {
        self.switch(name, false)
    }

    /// Ticks or unticks the box of this name and value, of several that share the name.
    #[must_use]
    #[track_caller]
    pub fn set_box(mut self, name: &str, value: &str, is_on: bool) -> Self {
        let found = self.controls.iter_mut().find(|control| {
            control.kind == "checkbox" && control.name == name && control.value == value
        });
        let control = found.unwrap_or_else(|| panic!("no box {name}={value}"));
        control.is_on = is_on;
        self
    }

    /// Chooses by value or words: one of the radio buttons of a name, or of a select's options.
    #[must_use]
    #[track_caller]
    pub fn choose(mut self, name: &str, choice: &str) -> Self {
        let is_it =
            |value: &str, words: &str| value == choice || words.eq_ignore_ascii_case(choice);
        let mut is_found = false;
        for control in &mut self.controls {
            if control.kind == "radio" && control.name == name {
                control.is_on = is_it(&control.value, &control.label);
                is_found |= control.is_on;
            } else if control.kind == "select" && control.is_called(name) {
                let option = control
                    .options
                    .iter()
                    .find(|(value, words)| is_it(value, words));
                if let Some((value, _)) = option.cloned() {
                    control.value = value;
                    is_found = true;
                }
            }
        }
        assert!(
            is_found,
            "nothing to choose for {name}={choice} in {self:#?}"
        );
        self
    }

    /// Presses this button when it is sent; without this it is the first one.
    #[must_use]
    #[track_caller]
    pub fn press(mut self, name: &str) -> Self {
        let index = self.index(name, Control::is_button);
        let button = self.controls[index].clone();
        if let Some(action) = &button.action {
            self.action = self.action.join(action).unwrap();
        }
        self.pressed = Some((button.name, button.value));
        self
    }

    /// What is sent.
    pub fn entries(&self) -> Vec<(String, String)> {
        let is_sent = |control: &&Control| {
            let is_part = !control.is_button() && control.is_on && !control.is_disabled;
            is_part && !control.name.is_empty()
        };
        let entry = |control: &Control| (control.name.clone(), control.value.clone());
        let first_button = || {
            let button = self
                .controls
                .iter()
                .find(|control| control.kind == "submit" && !control.is_disabled)?;
            Some((button.name.clone(), button.value.clone()))
        };
        let pressed = self.pressed.clone().or_else(first_button);
        let pressed = pressed.filter(|(name, _)| !name.is_empty());
        let fields = self.controls.iter().filter(is_sent).map(entry);
        fields.chain(pressed).collect()
    }

    fn switch(mut self, name: &str, is_on: bool) -> Self {
        let index = self.index(name, |control| control.kind == "checkbox");
        self.controls[index].is_on = is_on;
        self
    }

    #[track_caller]
    fn index(&self, name: &str, is_meant: impl Fn(&Control) -> bool) -> usize {
        let position = |is_it: &dyn Fn(&Control) -> bool| {
            self.controls
                .iter()
                .position(|control| is_meant(control) && is_it(control))
        };
        position(&|control| control.name == name)
            .or_else(|| position(&|control| control.is_called(name)))
            .unwrap_or_else(|| panic!("nothing is called {name} in {self:#?}"))
    }
}

/// The forms of a page that is at `url`.
pub(crate) fn forms(url: &Url, html: &str) -> Vec<Form> {
    let tokens = html::tokens(html);
    let mut forms: Vec<Form> = Vec::new();
    // What buttons and fields name as theirs, if not the form that they are in; it may follow them.
    let is_form = |token: &&Token| matches!(token, Token::Open(name, _) if name == "form");
    let ids: Vec<&str> = tokens
        .iter()
        .filter(is_form)
        .map(|form| form.attribute("id").unwrap_or_default())
        .collect();
    let mut elsewhere: Vec<(usize, Control)> = Vec::new();
    let mut is_inside = false;
    let mut labels: Vec<(String, String)> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Open(name, _) = token else {
            is_inside &= *token != Token::Close("form".to_owned());
            continue;
        };
        let attribute = |name: &str| token.attribute(name).unwrap_or_default().to_owned();
        match name.as_str() {
            "form" => {
                let method = if attribute("method").eq_ignore_ascii_case("post") {
                    Method::POST
                } else {
                    Method::GET
                };
                let action = match token.attribute("action") {
                    Some(action) => url.join(action).unwrap(),
                    None => url.clone(),
                };
                forms.push(Form {
                    action,
                    method,
                    controls: Vec::new(),
                    pressed: None,
                });
                is_inside = true;
            }
            "label" => labels.push((attribute("for"), element_text(&tokens, at, "label"))),
            "input" | "select" | "textarea" | "button" => {
                let mut control = control(&tokens, at, name);
                if control.label.is_empty() {
                    control.label = label_around(&tokens, at).unwrap_or_default();
                }
                if let Some(id) = token.attribute("form") {
                    let of_it = ids.iter().position(|known| *known == id);
                    elsewhere.extend(of_it.map(|index| (index, control)));
                } else if let Some(form) = forms.last_mut().filter(|_| is_inside) {
                    form.controls.push(control);
                }
            }
            _ => {}
        }
    }
    for (index, control) in elsewhere {
        forms[index].controls.push(control);
    }
    for control in forms.iter_mut().flat_map(|form| &mut form.controls) {
        let of_it = |(target, _): &&(String, String)| !target.is_empty() && *target == control.id;
        if let Some((_, words)) = labels.iter().find(of_it) {
            control.label.clone_from(words);
        }
    }
    forms
}

/// The text of the element that opens at `at`.
fn element_text(tokens: &[Token], at: usize, name: &str) -> String {
    let end = tokens[at..]
        .iter()
        .position(|token| *token == Token::Close(name.to_owned()))
        .unwrap_or(0);
    html::text(&tokens[at..at + end])
}

/// The text of the label that what is at `at` is in.
fn label_around(tokens: &[Token], at: usize) -> Option<String> {
    let opened = tokens[..at]
        .iter()
        .rposition(|token| matches!(token, Token::Open(name, _) if name == "label"))?;
    let is_closed = tokens[opened..at].contains(&Token::Close("label".to_owned()));
    (!is_closed).then(|| element_text(tokens, opened, "label"))
}

fn control(tokens: &[Token], at: usize, name: &str) -> Control {
    let token = &tokens[at];
    let attribute = |name: &str| token.attribute(name).unwrap_or_default().to_owned();
    let mut control = Control {
        kind: name.to_owned(),
        name: attribute("name"),
        value: attribute("value"),
        label: attribute("aria-label"),
        is_on: true,
        is_disabled: token.attribute("disabled").is_some(),
        options: Vec::new(),
        action: token.attribute("formaction").map(str::to_owned),
        id: attribute("id"),
    };
    match name {
        "input" => {
            token
                .attribute("type")
                .unwrap_or("text")
                .clone_into(&mut control.kind);
            if control.is_switch() {
                control.is_on = token.attribute("checked").is_some();
                token
                    .attribute("value")
                    .unwrap_or("on")
                    .clone_into(&mut control.value);
            } else if control.is_button() {
                control.label.clone_from(&control.value);
            }
        }
        "button" => {
            token
                .attribute("type")
                .unwrap_or("submit")
                .clone_into(&mut control.kind);
            if control.label.is_empty() {
                control.label = element_text(tokens, at, name);
            }
        }
        "textarea" => control.value = element_text(tokens, at, name),
        _ => {
            let end = tokens[at..]
                .iter()
                .position(|token| *token == Token::Close("select".to_owned()))
                .unwrap_or(0);
            let mut chosen = None;
            for (index, token) in tokens.iter().enumerate().take(at + end).skip(at) {
                if matches!(token, Token::Open(name, _) if name == "option") {
                    let words = element_text(tokens, index, "option");
                    let value = token.attribute("value").unwrap_or(&words).to_owned();
                    if token.attribute("selected").is_some() || chosen.is_none() {
                        chosen = Some(value.clone());
                    }
                    control.options.push((value, words));
                }
            }
            control.value = chosen.unwrap_or_default();
        }
    }
    control
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
        <form method="post" action="/next?a=1&amp;b=2"><input type="hidden" name="seal" value="x&quot;y">
        <label for="l">Login</label><input id="l" name="login" value="old">
        <label><input type="checkbox" name="scope" value="a" checked> Read orders</label>
        <label><input type="checkbox" name="scope" value="b"> Write orders</label>
        <label>Ends <select name="end"><option value="day">A day</option><option value="week" selected>A week</option></select></label>
        <input type="radio" name="r" value="1"><input type="radio" name="r" value="2" checked>
        <button name="act" value="no">Refuse</button><button name="act" value="yes">Allow it</button>
        <button form="cancel">Cancel</button></form><form id="cancel" action="/cancel"><input type="hidden" name="a" value="1"></form>"#;

    #[test]
    fn a_form_is_sent_as_it_is_filled_in() {
        let url = Url::parse("http://localhost:1/here").unwrap();
        let mut forms = forms(&url, PAGE);
        let (cancel, form) = (forms.remove(1), forms.remove(0));
        assert_eq!(cancel.press("Cancel").entries().len(), 1);
        assert!(!form.has("cancel"));
        assert_eq!(form.method, Method::POST);
        assert_eq!(form.action.as_str(), "http://localhost:1/next?a=1&b=2");
        let entries = |form: &Form| {
            let entries = form.entries();
            entries
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            entries(&form),
            "seal=x\"y login=old scope=a end=week r=2 act=no"
        );
        let form = form
            .fill("login", "new")
            .untick("read orders")
            .tick("Write orders")
            .choose("end", "A day")
            .choose("r", "1")
            .press("allow");
        assert_eq!(
            entries(&form),
            "seal=x\"y login=new scope=b end=day r=1 act=yes"
        );
    }
}
