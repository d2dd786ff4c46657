//! Answers as bytes. A task definition has hundreds of members that the SDK would have us map one by one, only to write the same JSON
//! again for the reader in `berth_types::taskdef`; so the body is taken on its way to the SDK's own reader.

use aws_sdk_ecs::config::{
    ConfigBag, Intercept, RuntimeComponents, interceptors::AfterDeserializationInterceptorContextRef,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Keeps the body of the last answer that the SDK could read.
#[derive(Clone, Default)]
pub(super) struct Body(Arc<Mutex<Vec<u8>>>);

/// Bodies hold what users put into environments: not for logs.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(..)")
    }
}

impl Body {
    /// Takes the bytes.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Intercept for Body {
    fn name(&self) -> &'static str {
        "berth::Body"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), aws_smithy_runtime_api::box_error::BoxError> {
        if let Some(bytes) = context.response().body().bytes() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Described<'a> {
    #[serde(borrow, rename = "taskDefinition")]
    definition: &'a RawValue,
}

/// The definition in an answer of DescribeTaskDefinition.
pub(super) fn definition(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let described: Described<'_> = serde_json::from_slice(body)?;
    Ok(described.definition.get().as_bytes().to_vec())
}

#[derive(Deserialize)]
struct Tasks<'a> {
    #[serde(borrow, default)]
    tasks: Option<Vec<Task<'a>>>,
}

#[derive(Deserialize)]
struct Task<'a> {
    #[serde(rename = "taskArn")]
    arn: Option<String>,
    #[serde(borrow, default)]
    overrides: Option<&'a RawValue>,
}

/// The overrides in an answer of DescribeTasks, by task ARN.
pub(super) fn overrides(body: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, serde_json::Error> {
    let answer: Tasks<'_> = serde_json::from_slice(body)?;
    let tasks = answer.tasks.unwrap_or_default().into_iter();
    Ok(tasks
        .filter_map(|task| Some((task.arn?, task.overrides?.get().as_bytes().to_vec())))
        .filter(|(_, text)| text != b"null")
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_definition_comes_as_it_was_sent() {
        let body = br#"{"tags":[],"taskDefinition": {"family":"web","unknown":[1, 2]} }"#;
        assert_eq!(definition(body).unwrap(), br#"{"family":"web","unknown":[1, 2]}"#);
        assert!(definition(b"{}").is_err());
    }

    #[test]
    fn overrides_are_found_by_task() {
        let body = br#"{"tasks":[{"taskArn":"a","overrides":{"cpu":"256"}},{"taskArn":"b","overrides":null},{"taskArn":"c"}],"failures":[]}"#;
        assert_eq!(
            overrides(body).unwrap(),
            BTreeMap::from([("a".to_owned(), br#"{"cpu":"256"}"#.to_vec())])
        );
        assert!(overrides(b"{}").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_body_makes_the_readers_panic(body: Vec<u8>, text in "\\PC*") {
            drop((definition(&body), overrides(&body), definition(text.as_bytes()), overrides(text.as_bytes())));
        }
    }
}
