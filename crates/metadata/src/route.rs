//! From a request's target to what is asked for: decoding, path cleaning and the route table, as Go's `net/http` and gorilla/mux do
//! them. Pure; every byte comes from a container that may be hostile.

use http::{HeaderValue, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::borrow::Cow;

/// A request's target.
#[derive(Debug, PartialEq)]
pub(crate) enum Target<'u> {
    /// Decoded and clean: to be looked up in the route table.
    Path(Cow<'u, str>),
    /// Not clean (`//`, `.`, `..`): the client is sent to the clean form.
    Redirect(HeaderValue),
    /// Broken percent escapes.
    Malformed,
}

/// Version of the metadata endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V4,
}

impl Version {
    /// As error texts begin.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "V3",
            Self::V4 => "V4",
        }
    }
}

/// What a metadata request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Container,
    Task,
}

/// The route table: what is served. Credentials, stats, tags, associations, task protection and faults join it later; until
/// then they are unknown paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// `/v3/ID`, `/v4/ID`, `/v3/ID/task`, `/v4/ID/task`. The id is whatever stands there, perhaps nothing.
    Metadata { version: Version, subject: Subject, endpoint_id: &'p str },
    /// Everything else.
    Unknown,
}

impl<'p> Route<'p> {
    pub(crate) fn of(path: &'p str) -> Self {
        let (version, rest) = if let Some(rest) = path.strip_prefix("/v4/") {
            (Version::V4, rest)
        } else if let Some(rest) = path.strip_prefix("/v3/") {
            (Version::V3, rest)
        } else {
            return Self::Unknown;
        };
        match rest.split_once('/') {
            None => Self::Metadata { version, subject: Subject::Container, endpoint_id: rest },
            Some((endpoint_id, "task")) => Self::Metadata { version, subject: Subject::Task, endpoint_id },
            Some(_) => Self::Unknown,
        }
    }
}

/// What Go's `url.URL.String` leaves as it is in a path.
const PATH_SAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Decodes and cleans the path of a request's target. Well-formed requests, nearly all, pass without a copy.
pub(crate) fn target(uri: &Uri) -> Target<'_> {
    let raw = uri.path();
    if !escapes_are_whole(raw.as_bytes()) {
        return Target::Malformed;
    }
    let path: Cow<'_, [u8]> = percent_decode_str(raw).into();
    if !is_clean(&path) {
        let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        let location = format!("{}{query}", percent_encode(&clean(&path), PATH_SAFE));
        return HeaderValue::try_from(location).map_or(Target::Malformed, Target::Redirect);
    }
    Target::Path(match path {
        // Nothing was decoded.
        Cow::Borrowed(_) => Cow::Borrowed(raw),
        Cow::Owned(bytes) => Cow::Owned(lossy(&bytes)),
    })
}

fn escapes_are_whole(mut path: &[u8]) -> bool {
    while let Some(at) = path.iter().position(|&b| b == b'%') {
        match path[at + 1..] {
            [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => path = &path[at + 3..],
            _ => return false,
        }
    }
    true
}

/// One replacement character for each byte that is not UTF-8, as Go has it; std has one for each broken sequence.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Whether [`clean`] leaves this path as it is.
fn is_clean(path: &[u8]) -> bool {
    let Some(path) = path.strip_prefix(b"/") else { return false };
    let mut segments = path.split(|&b| b == b'/').rev();
    // The last one is empty where the path ends with a slash.
    let unclean = |segment: &[u8]| matches!(segment, b"." | b"..");
    !segments.next().is_some_and(unclean) && !segments.any(|s| s.is_empty() || unclean(s))
}

/// gorilla/mux's `cleanPath`: no empty, `.` or `..` segments; a trailing slash stays.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&b| b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut clean = Vec::with_capacity(path.len() + 1);
    for segment in &segments {
        clean.push(b'/');
        clean.extend_from_slice(segment);
    }
    if segments.is_empty() || path.ends_with(b"/") {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn container(version: Version, endpoint_id: &str) -> Route<'_> {
        Route::Metadata { version, subject: Subject::Container, endpoint_id }
    }

    fn redirect(to: &'static str) -> Target<'static> {
        Target::Redirect(HeaderValue::from_static(to))
    }

    #[test]
    fn the_route_table_knows_containers_and_tasks_only() {
        assert_eq!(Route::of("/v4/x"), container(Version::V4, "x"));
        assert_eq!(Route::of("/v4/"), container(Version::V4, ""));
        assert_eq!(Route::of("/v3/task"), container(Version::V3, "task"));
        let task = Route::Metadata { version: Version::V3, subject: Subject::Task, endpoint_id: "x" };
        assert_eq!(Route::of("/v3/x/task"), task);
        for unknown in [
            "/",
            "/v4",
            "/v5/x",
            "/v4/x/",
            "/v4/x/task/",
            "/v4/x/Task",
            "/v4/x/stats",
            "/v2/metadata",
            "/v4/x/task/stats",
        ] {
            assert_eq!(Route::of(unknown), Route::Unknown, "{unknown}");
        }
    }

    #[test]
    fn unclean_paths_are_sent_to_the_clean_one_with_their_query() {
        for (asked, answered) in [
            ("//v4//x", "/v4/x"),
            ("/v4/./x/../y", "/v4/y"),
            ("/../..", "/"),
            ("/v4/x//?a=b&c", "/v4/x/?a=b&c"),
            ("/v4/%2e%2e/z%20%3f!", "/z%20%3F%21"),
            ("/v4//%E2%82", "/v4/%E2%82"),
        ] {
            assert_eq!(target(&asked.parse().unwrap()), redirect(answered), "{asked}");
        }
    }

    #[test]
    fn escapes_are_decoded_before_the_route_is_looked_up() {
        assert_eq!(target(&"/v4/a%2Fb".parse().unwrap()), Target::Path("/v4/a/b".into()));
        assert_eq!(
            target(&"/v4/%e2%82/%C3%BC".parse().unwrap()),
            Target::Path("/v4/\u{fffd}\u{fffd}/ü".into())
        );
        for broken in ["/v4/%", "/v4/%4", "/v4/%zz", "/%%41"] {
            assert_eq!(target(&broken.parse().unwrap()), Target::Malformed, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_clean_exactly_when_cleaning_leaves_it(path in "[a/.]{0,12}") {
            prop_assert_eq!(is_clean(path.as_bytes()), clean(path.as_bytes()) == path.as_bytes());
        }

        #[test]
        fn no_path_panics_and_every_redirect_leads_to_a_clean_path(path in "/([a-z./%?0-9A-F~!*]|\\PC){0,40}") {
            let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
            match target(&uri) {
                Target::Redirect(location) => {
                    let next = Uri::try_from(location.as_bytes()).unwrap();
                    prop_assert!(matches!(target(&next), Target::Path(_)), "{next}");
                }
                Target::Path(path) => { Route::of(&path); }
                Target::Malformed => {}
            }
        }
    }
}
