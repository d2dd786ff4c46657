//! `KEY=VALUE` lines and the environment, with where each value came from.

use super::{ConfigError, value};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Largest settings file that is read.
const MAX_FILE: u64 = 256 * 1024;

/// The texts of all settings, and the problems found while they are read.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Key to value and origin: `berth.config line 3`, `the environment`.
    values: BTreeMap<String, (String, String)>,
    used: Vec<&'static str>,
    problems: Vec<String>,
}

/// Reads the file, then lays the environment over it.
pub(crate) fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Source, ConfigError> {
    let mut source = Source::default();
    if let Some(file) = file {
        let fail = |reason: String| ConfigError(vec![format!("{}: {reason}", file.display())]);
        let size = std::fs::metadata(file).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_FILE {
            return Err(fail(format!("is {size} bytes long; expected at most {MAX_FILE}")));
        }
        let bytes = std::fs::read(file).map_err(|e| fail(e.to_string()))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| fail("is not UTF-8 text; expected KEY=VALUE lines".into()))?;
        source.add_lines(&text, &file.display().to_string());
    }
    for (key, value) in environment {
        if let (Ok(key), Ok(value)) = (key.into_string(), value.into_string())
            && (key.starts_with("ECS_") || key.starts_with("BERTH_") || key.starts_with("AWS_"))
        {
            source.values.insert(key, (value, "the environment".into()));
        }
    }
    Ok(source)
}

impl Source {
    /// Lines as systemd's EnvironmentFile and ecs-init read them: no quoting rules, `#` begins a comment line.
    pub(crate) fn add_lines(&mut self, text: &str, name: &str) {
        for (number, line) in text.lines().enumerate() {
            let origin = format!("{name} line {}", number + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
                continue;
            }
            match line.split_once('=') {
                Some((key, value)) if is_key(key.trim()) => {
                    self.values.insert(key.trim().into(), (value.trim().into(), origin));
                }
                _ => self.problems.push(format!("{origin}: `{}`: expected KEY=VALUE", shorten(line))),
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        if !self.used.contains(&key) {
            self.used.push(key);
        }
        self.values.get(key).map(|(value, _)| value.clone()).filter(|value| !value.is_empty())
    }

    fn problem(&mut self, key: &str, expected: impl Display) {
        let (value, origin) = self.values.get(key).cloned().unwrap_or_default();
        self.problems.push(format!("{key} ({origin}): is `{}`; expected {expected}", shorten(&value)));
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.take(key)
    }

    /// Notes a check that failed.
    pub(super) fn check<T, E: Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|e| self.problems.push(format!("{key}: {e}"))).ok()
    }

    pub(super) fn number(&mut self, key: &'static str, min: u32, max: u32) -> Option<u32> {
        let text = self.take(key)?;
        let number = text.parse().ok().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.problem(key, format!("a whole number from {min} to {max}"));
        }
        number
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let Some(text) = self.take(key) else { return default };
        value::boolean(&text).unwrap_or_else(|| {
            self.problem(key, "true or false");
            default
        })
    }

    pub(super) fn duration(&mut self, key: &'static str, default: Duration, min: Duration) -> Duration {
        let Some(text) = self.take(key) else { return default };
        value::duration(&text).filter(|d| *d >= min).unwrap_or_else(|| {
            self.problem(key, format!("a duration such as 30s or 1h30m, at least {min:?}"));
            default
        })
    }

    pub(super) fn one_of<T: Copy>(&mut self, key: &'static str, default: &str, choices: &[(&str, T)]) -> T {
        let text = self.take(key);
        let find = |wanted: &str| choices.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        match text.as_deref().map(find) {
            Some(Some(value)) => value,
            other => {
                if other.is_some() {
                    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                    self.problem(key, format!("one of {}", names.join(", ")));
                }
                find(default).unwrap_or(choices[0].1)
            }
        }
    }

    /// A list divided by commas; `[]` and quotes as in JSON lists are taken too.
    pub(super) fn list<T: FromStr>(&mut self, key: &'static str) -> Vec<T>
    where
        T::Err: Display,
    {
        let Some(text) = self.take(key) else { return Vec::new() };
        let inner = text.trim_start_matches('[').trim_end_matches(']');
        let mut items = Vec::new();
        for item in inner.split(',').map(|i| i.trim().trim_matches('"')).filter(|i| !i.is_empty()) {
            match item.parse() {
                Ok(value) => items.push(value),
                Err(error) => self.problem(key, format!("a list divided by commas, but {error}")),
            }
        }
        items
    }

    pub(super) fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        let Some(text) = self.take(key) else { return default.into() };
        if !text.starts_with('/') {
            self.problem(key, "an absolute path");
        }
        text.into()
    }

    /// A name without spaces or slashes.
    pub(super) fn word(&mut self, key: &'static str, default: &str) -> String {
        let Some(text) = self.take(key) else { return default.into() };
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            self.problem(key, "letters, digits, dots, dashes and underscores");
        }
        text
    }

    pub(super) fn url(&mut self, key: &'static str) -> Option<String> {
        let text = self.take(key)?;
        if !(text.starts_with("http://") || text.starts_with("https://")) {
            self.problem(key, "a URL that begins with http:// or https://");
        }
        Some(text)
    }

    /// Reports all problems; answers the settings of the official agent that were given and not used.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ConfigError> {
        let unknown: Vec<String> =
            self.values.keys().filter(|k| !self.used.contains(&k.as_str())).map(String::clone).collect();
        for key in unknown.iter().filter(|k| k.starts_with("BERTH_")) {
            let mut known: Vec<&str> =
                self.used.iter().copied().filter(|k| k.starts_with("BERTH_")).collect();
            known.sort_unstable();
            self.problem(key, format!("no such setting; there are {}", known.join(", ")));
        }
        if self.problems.is_empty() {
            Ok(unknown.into_iter().filter(|k| k.starts_with("ECS_")).collect())
        } else {
            Err(ConfigError(self.problems))
        }
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.as_bytes()[0].is_ascii_digit()
}

/// Values can be secrets or megabytes: an error shows the beginning only.
fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        text.into()
    } else {
        format!("{}...", text.chars().take(SHOWN).collect::<String>())
    }
}
