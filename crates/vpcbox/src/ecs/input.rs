//! The input of a call: a JSON object, read member by member with the types of the service's model.
//!
//! As with AWS, unknown members are passed over, `null` is the same as absent, and a member of another JSON type than the
//! model's is a `SerializationException`, whichever operation it is.

use super::error::ApiError;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::LazyLock};

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// A JSON object to read from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    members: &'a Map<String, Value>,
}

impl<'a> Input<'a> {
    /// Reads a value that must be an object.
    pub fn new(value: &'a Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(members) => Ok(Self { members }),
            Value::Null => Ok(Self { members: &EMPTY }),
            other => Err(mismatch(other, "a structure")),
        }
    }

    /// A member that is there.
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// Whether a member is there.
    pub fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A text.
    pub fn text(self, name: &str) -> Result<Option<&'a str>, ApiError> {
        let read = |value: &'a Value| value.as_str().ok_or_else(|| mismatch(value, "a String"));
        self.get(name).map(read).transpose()
    }

    /// A text that must be there and not be empty, with the words for when it is not.
    pub fn required(self, name: &str, otherwise: &str) -> Result<&'a str, ApiError> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| ApiError::invalid(otherwise))
    }

    /// An integer. A number with a fraction is none.
    pub fn integer(self, name: &str) -> Result<Option<i64>, ApiError> {
        let read = |value: &Value| value.as_i64().ok_or_else(|| mismatch(value, "an Integer"));
        self.get(name).map(read).transpose()
    }

    /// A number.
    pub fn number(self, name: &str) -> Result<Option<f64>, ApiError> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| mismatch(value, "a Double"));
        self.get(name).map(read).transpose()
    }

    /// A boolean.
    pub fn boolean(self, name: &str) -> Result<Option<bool>, ApiError> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| mismatch(value, "a Boolean"));
        self.get(name).map(read).transpose()
    }

    /// An object.
    pub fn object(self, name: &str) -> Result<Option<Self>, ApiError> {
        self.get(name).map(Self::new).transpose()
    }

    /// A list, whatever is in it; absent is empty.
    pub fn list(self, name: &str) -> Result<&'a [Value], ApiError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(mismatch(other, "a list")),
        }
    }

    /// A list of objects; absent is empty.
    pub fn objects(self, name: &str) -> Result<Vec<Self>, ApiError> {
        self.list(name)?.iter().map(Self::new).collect()
    }

    /// A list of texts; absent is empty.
    pub fn texts(self, name: &str) -> Result<Vec<&'a str>, ApiError> {
        let read = |value: &'a Value| value.as_str().ok_or_else(|| mismatch(value, "a String"));
        self.list(name)?.iter().map(read).collect()
    }

    /// A map from text to text; absent is empty.
    pub fn text_map(self, name: &str) -> Result<BTreeMap<&'a str, &'a str>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(BTreeMap::new()) };
        let Value::Object(entries) = value else { return Err(mismatch(value, "a map")) };
        let read = |(key, value): (&'a String, &'a Value)| match value {
            Value::String(text) => Ok((key.as_str(), text.as_str())),
            other => Err(mismatch(other, "a String")),
        };
        entries.iter().map(read).collect()
    }

    /// Whether a list of a model's enumeration names this one.
    pub fn includes(self, name: &str, allowed: &[&str], wanted: &str) -> Result<bool, ApiError> {
        let named = self.texts(name)?;
        if named.iter().any(|text| !allowed.contains(text)) {
            return Err(ApiError::invalid(format!("{name} should be one of [{}].", allowed.join(", "))));
        }
        Ok(named.contains(&wanted))
    }

    /// One of a model's enumeration.
    pub fn one_of(self, name: &str, allowed: &[&'static str]) -> Result<Option<&'static str>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let known = allowed.iter().find(|known| **known == text).copied();
        known
            .map(Some)
            .ok_or_else(|| ApiError::invalid(format!("{name} should be one of [{}].", allowed.join(", "))))
    }
}

/// A member of the wrong JSON type, in AWS's words.
fn mismatch(value: &Value, expected: &str) -> ApiError {
    let found = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "Start of list",
        Value::Object(_) => "Start of structure or map",
    };
    ApiError::serialization(format!("{found} can not be converted to {expected}"))
}
