//! Signal names as images write them in STOPSIGNAL: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.

use nix::sys::signal::Signal;
use std::str::FromStr;

/// SIGTERM.
pub(crate) const TERM: u32 = 15;
/// SIGKILL.
pub(crate) const KILL: u32 = 9;
/// The first real-time signal that programs may use: the C library keeps two below for itself.
const RT_MIN: u32 = 34;
/// The last signal there is.
const RT_MAX: u32 = 64;

/// The number of a signal.
pub(crate) fn number(name: &str) -> Result<u32, String> {
    let unknown = || format!("the image's stop signal `{name}` is not a signal");
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<u32>() {
        return if (1..=RT_MAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text[1..].parse::<u32>().ok() };
    let real_time = match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => {
            offset(rest).and_then(|n| RT_MIN.checked_add(n))
        }
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => {
            offset(rest).and_then(|n| RT_MAX.checked_sub(n))
        }
        _ => None,
    };
    if let Some(number) = real_time.filter(|n| (RT_MIN..=RT_MAX).contains(n)) {
        return Ok(number);
    }
    let signal = Signal::from_str(&format!("SIG{short}")).map_err(|_| unknown())?;
    u32::try_from(signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        for (name, expected) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGQUIT", 3),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(number(name), Ok(expected), "{name}");
        }
        for wrong in ["", "0", "65", "SIGFUN", "RTMIN+31", "RTMIN-1", "-1"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }
}
