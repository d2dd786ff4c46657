//! `KEY=VALUE` lines and the environment, with where each value came from.

use super::{ConfigError, value};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::{self, Display},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Largest settings file that is read.
const MAX_FILE: u64 = 256 * 1024;

/// Settings whose values are never repeated.
const SECRETS: [&str; 1] = ["ECS_ENGINE_AUTH_DATA"];

/// What names of settings begin with; the rest of the environment is not ours to read.
const PREFIXES: [&str; 4] = ["ECS_", "BERTH_", "AWS_", "NON_ECS_"];

/// The texts of all settings, and the problems found while they are read.
#[derive(Default)]
pub(crate) struct Source {
    /// Key to value and origin: `berth.config line 3`, `the environment`.
    values: BTreeMap<String, (String, String)>,
    used: Vec<&'static str>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// Values may be secrets (of AWS as well): only names are shown.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("keys", &self.values.keys())
            .field("problems", &self.problems)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// What the official agent takes for a duration that is less than the least that there may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Below {
    Least,
    Default,
}

/// What is left when all settings are read.
#[derive(Debug)]
pub(super) struct Rest {
    /// Settings of the official agent that nobody asked for.
    pub(super) unused: Vec<String>,
    /// What was taken otherwise than it stands there.
    pub(super) warnings: Vec<String>,
}

/// Reads the file, then lays the environment over it.
pub(crate) fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Source, ConfigError> {
    let mut source = Source::default();
    if let Some(file) = file {
        let fail = |reason: String| ConfigError(vec![format!("{}: {reason}", file.display())]);
        let meta = std::fs::metadata(file).map_err(|e| fail(e.to_string()))?;
        let size = meta.len();
        if size > MAX_FILE {
            return Err(fail(format!("is {size} bytes long; expected at most {MAX_FILE}")));
        }
        let bytes = std::fs::read(file).map_err(|e| fail(e.to_string()))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| fail("is not UTF-8 text; expected KEY=VALUE lines".into()))?;
        source.add_lines(&text, &file.display().to_string());
        let exposed = meta.permissions().mode() & 0o004 != 0;
        for key in SECRETS {
            if exposed && source.has(key) {
                source.warn(format!(
                    "{}: holds {key} and everyone can read it; expected mode 0600",
                    file.display()
                ));
            }
        }
    }
    for (key, value) in environment {
        if let (Ok(key), Ok(value)) = (key.into_string(), value.into_string())
            && PREFIXES.iter().any(|prefix| key.starts_with(prefix))
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
                // The line itself is not shown: it may be the second half of a secret.
                _ => self.problems.push(format!("{origin}: is not a setting; expected KEY=VALUE")),
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        if !self.used.contains(&key) {
            self.used.push(key);
        }
        self.values.get(key).map(|(value, _)| value.clone()).filter(|value| !value.is_empty())
    }

    /// Notes a value that cannot be read.
    pub(super) fn problem(&mut self, key: &str, expected: impl Display) {
        let (value, origin) = self.values.get(key).cloned().unwrap_or_default();
        let value = if SECRETS.contains(&key) { "(not shown)" } else { &shorten(&value) };
        self.problems.push(format!("{key} ({origin}): is `{value}`; expected {expected}"));
    }

    /// Notes what is taken otherwise than it stands there.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// Whether it is set to anything.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(value, _)| !value.is_empty())
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

    /// A number that counts things in memory.
    pub(super) fn count(&mut self, key: &'static str, min: u32, max: u32) -> Option<usize> {
        self.number(key, min, max).and_then(|n| usize::try_from(n).ok())
    }

    /// Per cent, 0 to 100.
    pub(super) fn percent(&mut self, key: &'static str, default: u8) -> u8 {
        self.number(key, 0, 100).and_then(|n| u8::try_from(n).ok()).unwrap_or(default)
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

    /// A duration of the official agent's, which goes on where there is less than the least: with the least, or with the default.
    pub(super) fn official_duration(
        &mut self,
        key: &'static str,
        default: Duration,
        min: Duration,
        below: Below,
    ) -> Duration {
        let given = self.duration(key, default, Duration::ZERO);
        if given >= min {
            return given;
        }
        let (taken, name) = match below {
            // Nothing at all is for the official agent what is not set.
            Below::Least if !given.is_zero() => (min, "the least that there may be"),
            Below::Least | Below::Default => (default, "the default"),
        };
        self.warn(format!("{key}: {given:?} is less than {min:?}; {taken:?} is taken, {name}"));
        taken
    }

    /// A number of the official agent's, which takes the default where there is less than one.
    pub(super) fn official_count(&mut self, key: &'static str, max: u32, default: u32) -> usize {
        let below = self.values.get(key).and_then(|(text, _)| text.parse::<i64>().ok()).filter(|n| *n < 1);
        let number = match below {
            Some(number) => {
                self.take(key);
                self.warn(format!("{key}: {number} is less than 1; {default} is taken, the default"));
                default
            }
            None => self.number(key, 1, max).unwrap_or(default),
        };
        usize::try_from(number).unwrap_or(usize::MAX)
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

    /// A JSON object whose values are texts.
    pub(super) fn json_map(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let Some(text) = self.take(key) else { return BTreeMap::new() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            self.problem(key, format!("a JSON object of texts such as {{\"rack\": \"a1\"}}: {error}"));
            BTreeMap::new()
        })
    }

    /// A JSON list of ports.
    pub(super) fn json_ports(&mut self, key: &'static str, default: &[u16]) -> Vec<u16> {
        let Some(text) = self.take(key) else { return default.to_vec() };
        let ports = serde_json::from_str::<Vec<u16>>(&text).ok().filter(|ports| !ports.contains(&0));
        ports.unwrap_or_else(|| {
            self.problem(key, "a JSON list of ports from 1 to 65535 such as [22, 2375]");
            Vec::new()
        })
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

    /// A host with or without scheme; HTTPS unless it says otherwise.
    pub(super) fn endpoint(&mut self, key: &'static str) -> Option<String> {
        let text = self.take(key)?;
        let url = if text.contains("://") { text } else { format!("https://{text}") };
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace)) {
            self.problem(key, "a host, or a URL that begins with http:// or https://");
        }
        Some(url)
    }

    /// Reports all problems; answers what is left if there are none.
    pub(super) fn finish(mut self) -> Result<Rest, ConfigError> {
        let unknown: Vec<String> =
            self.values.keys().filter(|k| !self.used.contains(&k.as_str())).map(String::clone).collect();
        for key in unknown.iter().filter(|k| k.starts_with("BERTH_")) {
            let mut known: Vec<&str> =
                self.used.iter().copied().filter(|k| k.starts_with("BERTH_")).collect();
            known.sort_unstable();
            let origin = self.values.get(key).map(|(_, origin)| origin.as_str()).unwrap_or_default();
            // Without its value: a name that is mistyped may belong to a secret.
            self.problems.push(format!(
                "{key} ({origin}): there is no such setting; expected one of {}",
                known.join(", ")
            ));
        }
        if self.problems.is_empty() {
            let official = |key: &String| key.starts_with("ECS_") || key.starts_with("NON_ECS_");
            Ok(Rest { unused: unknown.into_iter().filter(official).collect(), warnings: self.warnings })
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

/// Values can be long: an error shows the beginning only.
fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        text.into()
    } else {
        format!("{}...", text.chars().take(SHOWN).collect::<String>())
    }
}
