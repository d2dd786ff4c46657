//! The forms of values: durations and booleans as Go reads them, because that is what stands in people's files.

use berth_types::ids::{ClusterName, IdError};
use std::time::Duration;

/// `ECS_LOGLEVEL`.
pub(super) const LEVELS: [(&str, tracing::Level); 5] = [
    ("crit", tracing::Level::ERROR),
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
];

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The longest duration that Go knows, 292 years; a clock overflows with not much more.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// Go's `time.ParseDuration`, without negative ones: `1h30m`, `10s`, `1.5h`, `300ms`, `0`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |i| digits + i);
        let seconds = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten().filter(|d| *d <= LONGEST)
}

/// The short name of a cluster that is given by name or by ARN.
pub(super) fn cluster(text: &str) -> Result<ClusterName, IdError> {
    let name = match text.strip_prefix("arn:") {
        Some(arn) => arn.split_once(":cluster/").map_or(text, |(_, name)| name),
        None => text,
    };
    name.parse()
}
