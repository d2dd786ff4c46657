//! The form of a call's input as a value, and the reading of an input by it.
//!
//! [`conform`] gives back what of an input the form knows, in the form's types: unknown members are passed over and `null` is
//! absent, as with AWS. What it gives can be stored and sent again without a look at what the caller wrote.

use crate::ecs::{error::ApiError, input::Input};
use serde_json::{Map, Value};

/// The form of one value.
#[derive(Debug)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An integer of 32 bits.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A map from text to text.
    Texts,
    /// A list.
    List(&'static Shape),
    /// An object, by the name that messages call it.
    Structure(&'static str, &'static [Member]),
}

/// A member of a [`Shape::Structure`].
#[derive(Debug)]
pub(super) struct Member {
    name: &'static str,
    shape: Shape,
    required: bool,
}

impl Member {
    /// A member that may be absent.
    pub(super) const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, required: false }
    }

    /// A member that the service's model marks as required.
    pub(super) const fn required(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, required: true }
    }
}

/// Reads an object of these members.
pub(super) fn conform(
    structure: &str,
    members: &[Member],
    input: Input<'_>,
) -> Result<Map<String, Value>, ApiError> {
    let mut known = Map::new();
    for member in members {
        if let Some(value) = read(member.name, &member.shape, input)? {
            known.insert(member.name.to_owned(), value);
        }
        let absent = known.get(member.name).is_none_or(|value| value.as_str() == Some(""));
        if member.required && absent {
            return Err(blank(structure, member.name));
        }
    }
    Ok(known)
}

/// The refusal of a member that must be there.
pub(super) fn blank(structure: &str, member: &str) -> ApiError {
    ApiError::client(format!("{structure}.{member} should not be null or empty."))
}

fn read(name: &str, shape: &Shape, input: Input<'_>) -> Result<Option<Value>, ApiError> {
    if !input.has(name) {
        return Ok(None);
    }
    Ok(match shape {
        Shape::Text => input.text(name)?.map(Value::from),
        Shape::Word(words) => input.text(name)?.map(|text| word(name, words, text)).transpose()?,
        Shape::Integer => input.integer(name)?.map(integer).transpose()?,
        Shape::Boolean => input.boolean(name)?.map(Value::from),
        Shape::Texts => {
            let entries = input.text_map(name)?.into_iter();
            Some(entries.map(|(key, value)| (key.to_owned(), Value::from(value))).collect())
        }
        Shape::List(item) => Some(list(name, item, input)?.into()),
        Shape::Structure(structure, members) => {
            input.object(name)?.map(|inner| conform(structure, members, inner)).transpose()?.map(Value::from)
        }
    })
}

/// The service knows lists of these four kinds only.
fn list(name: &str, item: &Shape, input: Input<'_>) -> Result<Vec<Value>, ApiError> {
    match item {
        Shape::Structure(structure, members) => {
            // `objects` would take a null for an empty object.
            if input.list(name)?.iter().any(Value::is_null) {
                return Err(ApiError::serialization("NULL_VALUE can not be converted to a structure"));
            }
            let read = |inner| conform(structure, members, inner).map(Value::from);
            input.objects(name)?.into_iter().map(read).collect()
        }
        Shape::Integer => {
            let not = || ApiError::serialization("VALUE can not be converted to an Integer");
            let read = |value: &Value| value.as_i64().ok_or_else(not).and_then(integer);
            input.list(name)?.iter().map(read).collect()
        }
        Shape::Word(words) => input.texts(name)?.into_iter().map(|text| word(name, words, text)).collect(),
        _ => Ok(input.texts(name)?.into_iter().map(Value::from).collect()),
    }
}

fn integer(number: i64) -> Result<Value, ApiError> {
    let number = i32::try_from(number)
        .map_err(|_| ApiError::serialization("NUMBER_VALUE is not in the range of an Integer"));
    number.map(Value::from)
}

fn word(name: &str, words: &[&str], text: &str) -> Result<Value, ApiError> {
    if words.contains(&text) {
        return Ok(text.into());
    }
    Err(ApiError::client(format!("{name} should be one of [{}].", words.join(","))))
}
