//! Reading JSON as ECS means it: an object is an object, and a member without a value says nothing.

use super::TaskDefinitionError;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;
use std::{fmt, marker::PhantomData, ops::Deref};

/// A struct that is written as an object and in no other way. Derived code alone would take a list of its fields' values as well.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object<T>(pub(super) T);

impl<T> Deref for Object<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Reads an answer of ECS and drops the members that have no value.
pub(super) fn read(json: &[u8]) -> Result<Value, TaskDefinitionError> {
    let mut value = serde_json::from_slice(json).map_err(|e| TaskDefinitionError::new(".", e.to_string()))?;
    drop_empty(&mut value);
    Ok(value)
}

/// Entries of lists stay, whatever they are: others are counted from them. The depth is bounded by the reader's own limit.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(members) => members.retain(|_, member| {
            drop_empty(member);
            !is_empty(member)
        }),
        Value::Array(entries) => entries.iter_mut().for_each(drop_empty),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(entries) => entries.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Gives a value its type; what does not fit is named by its path.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, TaskDefinitionError> {
    serde_path_to_error::deserialize(value)
        .map(|Object(typed)| typed)
        .map_err(|e| TaskDefinitionError::new(e.path().to_string(), e.inner().to_string()))
}
