//! Logs of containers: one file of JSON lines each, as Docker's json-file driver writes them, rotated by size.
//!
//! They are written by `berth-logger`, a program of its own that the shim starts with the container and that ends with it, so they
//! outlive the agent. This side tells the shim how to start it ([`uri`]) and reads the files ([`read()`], [`Follower`]).

mod read;

pub use read::{Follower, LogLine, MAX_TAIL, ReadError, await_end, read};

use crate::{
    error::{Fault, Result},
    stored::Log,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{collections::BTreeMap, fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path};

/// Size at which a log is rotated when the definition does not say. Docker never rotates by default, and fills disks so.
const DEFAULT_MAX_SIZE: u64 = 50 << 20;
/// Files kept by default: two, because with one a rotation throws away everything that was said just before it. 100 MiB in sum.
const DEFAULT_MAX_FILES: u32 = 2;
/// Most files that a definition may ask for: a rotation renames each.
const MOST_FILES: u32 = 100;
/// Logs are for the agent and for root.
const DIRECTORY_MODE: u32 = 0o750;

/// `max-size` and `max-file` of a log configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_size: u64,
    pub(crate) max_files: u32,
}

impl Limits {
    /// Options that are not known here are ignored, as the official agent passes them on unseen.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> std::result::Result<Self, String> {
        let bad = |name: &str, text: &str, expected: &str| {
            format!("logConfiguration option {name}: `{text}` is not {expected}")
        };
        let max_size = match options.get("max-size").map(String::as_str) {
            None => DEFAULT_MAX_SIZE,
            Some(text) => size(text).ok_or_else(|| bad("max-size", text, "a size such as 10m"))?,
        };
        let max_files = match options.get("max-file").map(String::as_str) {
            None => DEFAULT_MAX_FILES,
            Some(text) => {
                let files = text.parse().ok().filter(|n| (1..=MOST_FILES).contains(n));
                files.ok_or_else(|| bad("max-file", text, "a number from 1 to 100"))?
            }
        };
        Ok(Self { max_size, max_files })
    }
}

/// Docker's sizes: `500k`, `10m`, `1g`, bytes; -1 is without bound.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    if text == "-1" {
        return Some(u64::MAX);
    }
    let text = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok().filter(|n| *n > 0)?.checked_mul(1 << shift)
}

/// Everything but what may stand in a path unencoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// How the shim is told to start the logger: `binary:///path?key=value`, where each key and value becomes an argument.
pub(crate) fn uri(logger: &Path, log: &Log) -> String {
    let encode = |path: &Path| utf8_percent_encode(&path.to_string_lossy(), ENCODED).to_string();
    let (program, path) = (encode(logger), encode(&log.path));
    format!("binary://{program}?path={path}&max-size={}&max-files={}", log.max_size, log.max_files)
}

/// Makes the log's directory: here, where a failure still has someone to tell.
pub(crate) fn prepare_directory(log: &Path) -> Result<()> {
    let Some(dir) = log.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir);
    made.map_err(Fault::io(format!("make log directory {}", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(size: &str, files: &str) -> std::result::Result<Limits, String> {
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Limits::parse(&BTreeMap::from([option("max-size", size), option("max-file", files)]))
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("10m", 10 << 20),
            ("1g", 1 << 30),
            ("500K", 500 << 10),
            ("77", 77),
            ("2MiB", 2 << 20),
            ("-1", u64::MAX),
        ] {
            assert_eq!(parsed(text, "3"), Ok(Limits { max_size: bytes, max_files: 3 }), "{text}");
        }
        assert!(parsed("lots", "1").unwrap_err().contains("`lots` is not a size"));
        assert!(parsed("0", "1").is_err() && parsed("", "1").is_err());
        assert!(parsed("1m", "0").unwrap_err().contains("max-file"));
        assert_eq!(Limits::parse(&BTreeMap::new()).unwrap().max_files, DEFAULT_MAX_FILES);
    }

    #[test]
    fn paths_are_encoded_for_the_shim() {
        let log = Log { path: "/var/log/a b&c.log".into(), max_size: 5, max_files: 2 };
        assert_eq!(
            uri(Path::new("/opt/berth-logger"), &log),
            "binary:///opt/berth-logger?path=/var/log/a%20b%26c.log&max-size=5&max-files=2"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_size_makes_it_panic(text in "\\PC{0,12}") {
            proptest::prop_assert!(size(&text) != Some(0));
        }
    }
}
