//! What an app is answered: parameters added to its redirect URI (RFC 6749, sections 4.1.2 and 4.1.2.1), always with `iss` (RFC 9207), so that a
//! client of several servers knows whose answer it has.

use url::Url;

use crate::{Issuer, client::secret::Secret};

/// Where to send the browser with a code.
pub fn code(issuer: &Issuer, redirect_uri: Url, state: Option<&str>, code: &Secret) -> Url {
    answer(issuer, redirect_uri, state, &[("code", code.expose())])
}

/// Where to send the browser with an error; `description` is a sentence for the app's developer.
pub fn error(
    issuer: &Issuer,
    redirect_uri: Url,
    state: Option<&str>,
    error: &str,
    description: &str,
) -> Url {
    answer(
        issuer,
        redirect_uri,
        state,
        &[("error", error), ("error_description", description)],
    )
}

/// What the redirect URI has in its query stays there (RFC 6749, section 3.1.2).
fn answer(
    issuer: &Issuer,
    mut redirect_uri: Url,
    state: Option<&str>,
    parameters: &[(&str, &str)],
) -> Url {
    {
        let mut query = redirect_uri.query_pairs_mut();
        for (name, value) in parameters {
            query.append_pair(name, value);
        }
        if let Some(state) = state {
            query.append_pair("state", state);
        }
        query.append_pair("iss", issuer.as_str());
    }
    redirect_uri
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_answer_keeps_the_query_and_names_the_issuer() {
        let issuer = Issuer::parse("https://stoa.example").unwrap();
        for (uri, expected) in [
            (
                "https://desk.example/callback?shop=1",
                "https://desk.example/callback?shop=1&error=access_denied&error_description=No.&state=a+%26%3D%23&iss=https%3A%2F%2Fstoa.example",
            ),
            (
                "com.example.desk:/callback",
                "com.example.desk:/callback?error=access_denied&error_description=No.&state=a+%26%3D%23&iss=https%3A%2F%2Fstoa.example",
            ),
        ] {
            let answer = error(
                &issuer,
                uri.parse().unwrap(),
                Some("a &=#"),
                "access_denied",
                "No.",
            );
            assert_eq!(answer.as_str(), expected);
        }
    }
}
