//! The style sheet, the script and the icon: served under paths that name their content, so that browsers may keep them for good.

use std::sync::LazyLock;

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// How long browsers keep what never changes under its path.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

/// Bytes of the hash that a path shows: enough to tell one content from another.
const HASH_LENGTH: usize = 9;

/// A file that pages name.
pub(crate) struct Asset {
    path: String,
    media_type: &'static str,
    content: &'static str,
}

/// How everything looks.
pub(crate) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "console",
        "css",
        "text/css; charset=utf-8",
        include_str!("../assets/console.css"),
    )
});

/// What talks to passkeys.
pub(crate) static PASSKEY: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "passkey",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("../assets/passkey.js"),
    )
});

/// The mark, as browsers show it beside the title.
pub(crate) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "icon",
        "svg",
        "image/svg+xml",
        include_str!("../assets/icon.svg"),
    )
});

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, content: &'static str) -> Self {
        let hash = Sha256::digest(content.as_bytes());
        let hash = BASE64_URL_SAFE_NO_PAD
            .encode(hash.iter().copied().take(HASH_LENGTH).collect::<Vec<u8>>());
        Self {
            path: format!("/console/assets/{name}.{hash}.{extension}"),
            media_type,
            content,
        }
    }

    /// Where it is served.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn answer(&self) -> Response {
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static(self.media_type),
            ),
            (header::CACHE_CONTROL, HeaderValue::from_static(FOR_GOOD)),
        ];
        (headers, self.content).into_response()
    }
}

/// The files.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    [&STYLE, &PASSKEY, &ICON]
        .into_iter()
        .fold(Router::new(), |router, asset| {
            router.route(asset.path(), get(|| async { asset.answer() }))
        })
}
