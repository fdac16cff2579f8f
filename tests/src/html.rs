//! Reads pages: just enough HTML to find forms, links and text in what a server of ours renders.

/// A piece of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A start tag, with its attributes; one without a value has an empty one.
    Open(String, Vec<(String, String)>),
    /// An end tag.
    Close(String),
    /// Text, with its references resolved.
    Text(String),
}

impl Token {
    /// An attribute of a start tag.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let Self::Open(_, attributes) = self else {
            return None;
        };
        let found = attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The pieces of a page, in order. Scripts, styles and comments are left out.
pub(crate) fn tokens(html: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        if !text.is_empty() {
            tokens.push(Token::Text(resolved(text)));
        }
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = after(comment, "-->");
        } else if rest.starts_with("<!") {
            rest = after(rest, ">");
        } else if let Some(end) = rest.strip_prefix("</") {
            let name = end.split('>').next().unwrap_or_default().trim();
            tokens.push(Token::Close(name.to_ascii_lowercase()));
            rest = after(end, ">");
        } else {
            let (name, attributes, behind) = start_tag(&rest[1..]);
            rest = behind;
            if name == "script" || name == "style" {
                rest = after(rest, &format!("</{name}>"));
            } else {
                tokens.push(Token::Open(name, attributes));
            }
        }
    }
    if !rest.is_empty() {
        tokens.push(Token::Text(resolved(rest)));
    }
    tokens
}

/// The words of some pieces, with single spaces between them.
pub(crate) fn text(tokens: &[Token]) -> String {
    let words = tokens.iter().filter_map(|token| match token {
        Token::Text(text) => Some(text.as_str()),
        Token::Open(..) | Token::Close(_) => None,
    });
    words
        .flat_map(str::split_whitespace)
        .collect::<Vec<_>>()
        .join(" ")
}

fn after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or("", |(_, rest)| rest)
}

/// Name, attributes, and what follows a start tag.
fn start_tag(text: &str) -> (String, Vec<(String, String)>, &str) {
    let is_end = |c: char| c.is_whitespace() || c == '>' || c == '/';
    let (name, mut rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if let Some(behind) = rest.strip_prefix('>') {
            return (name.to_ascii_lowercase(), attributes, behind);
        }
        if rest.is_empty() {
            return (name.to_ascii_lowercase(), attributes, rest);
        }
        let end = rest.find(|c: char| is_end(c) || c == '=');
        let (key, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let (value, behind) = match behind.strip_prefix('=') {
            None => ("", behind),
            Some(value) => match value.chars().next() {
                Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or_default(),
                _ => value.split_at(value.find(is_end).unwrap_or(value.len())),
            },
        };
        attributes.push((key.to_ascii_lowercase(), resolved(value)));
        rest = behind;
    }
}

fn resolved(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&nbsp;", " ")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_attributes_and_text_are_told_apart() {
        let html = "<!DOCTYPE html><p class=\"a &amp; b\" hidden>One <b>two</b></p><!-- <i> --><script>1 < 2</script><input name=x value='y'/>";
        let tokens = tokens(html);
        assert_eq!(tokens[0].attribute("class"), Some("a & b"));
        assert_eq!(tokens[0].attribute("hidden"), Some(""));
        assert_eq!(text(&tokens), "One two");
        let input = tokens.last().unwrap();
        assert_eq!(
            (input.attribute("name"), input.attribute("value")),
            (Some("x"), Some("y"))
        );
        assert_eq!(tokens.len(), 7);
    }
}
