//! What went wrong, and what to do.

use maud::{Markup, html};

use crate::{
    failure::Words,
    layout::{Page, Width, page},
};

/// The page.
pub(crate) fn view(words: &Words) -> Markup {
    let content = html! {
        div.card {
            h1 { (words.title) }
            @for sentence in &words.sentences { p { (sentence) } }
            p {
                @match words.way_out {
                    Some((href, label)) => a href=(href) { (label) },
                    None => a href="/console/" { "To the console" },
                }
            }
        }
    };
    page(
        Page {
            title: words.title,
            reader: None,
            width: Width::Narrow,
            passkeys: false,
        },
        content,
    )
}
