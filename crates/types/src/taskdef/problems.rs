//! What is wrong with a definition, collected while its good parts are translated, and the rules of texts that several parts share.

use super::TaskDefinitionError;
use std::fmt;

/// 24 TiB in MiB, the largest instance type's memory.
const MAX_MIB: i64 = 25_165_824;

/// Everything that is wrong with a definition, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TaskDefinitionErrors(pub Vec<TaskDefinitionError>);

impl fmt::Display for TaskDefinitionErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// Collects problems while the good parts are translated.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<TaskDefinitionError>);

impl Problems {
    /// All of them, if there are any.
    pub(super) fn into_result(self) -> Result<(), TaskDefinitionErrors> {
        if self.0.is_empty() { Ok(()) } else { Err(TaskDefinitionErrors(self.0)) }
    }

    pub(super) fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(TaskDefinitionError::new(field, problem));
    }

    /// Refuses a field that is present and that this agent cannot honour.
    pub(super) fn unsupported(&mut self, present: bool, field: impl Into<String>, instead: &str) {
        if present {
            self.add(field, format!("is not supported by this agent; expected {instead}"));
        }
    }

    /// A number that must lie in a range.
    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        field: &str,
        value: i64,
        min: i64,
        max: i64,
    ) -> Option<T> {
        let number = (min..=max).contains(&value).then(|| T::try_from(value).ok()).flatten();
        if number.is_none() {
            self.add(field, format!("is {value}; expected {min} to {max}"));
        }
        number
    }
}

pub(super) const NAME_RULE: &str = "1 to 255 letters, digits, dashes and underscores";

/// Names of families, containers and volumes: the ECS API's own rule. They become file names.
pub(super) fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether an optional list is there and not empty.
pub(super) fn is_some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|l| !l.is_empty())
}

/// An absolute path that stays where it says.
pub(super) fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..")
}

pub(super) fn mib(value: Option<i64>, field: &str, min: i64, problems: &mut Problems) -> Option<u64> {
    value.and_then(|v| problems.number(field, v, min, MAX_MIB))
}
