//! The console: server-rendered pages for people. Sign-in, consent, installed apps, one's own account, and an app developer's desk.
//!
//! Put together by `gateway`; renders what `auth` decides and holds no rule of its own.
