//! ListTaskDefinitions and ListTaskDefinitionFamilies.

use super::{Definitions, Status};
use crate::ecs::{error::ApiError, input::Input, paging};
use serde_json::Value;

const STATUSES: &[&str] = &["ACTIVE", "INACTIVE", "DELETE_IN_PROGRESS"];
const FAMILY_STATUSES: &[&str] = &["ACTIVE", "INACTIVE", "ALL"];

impl Definitions {
    /// ListTaskDefinitions: ARNs by family and revision.
    pub fn list(&self, input: &Value) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        // Despite its name this is a whole family.
        let family = input.text("familyPrefix")?.filter(|family| !family.is_empty());
        let status = input.one_of("status", STATUSES)?.unwrap_or(Status::Active.as_str());
        let descending = input.one_of("sort", &["ASC", "DESC"])? == Some("DESC");
        let mut found: Vec<(String, &str)> = Vec::new();
        for (name, revisions) in &self.families {
            if family.is_some_and(|family| family != name) {
                continue;
            }
            for (revision, definition) in &revisions.definitions {
                if definition.status.as_str() == status {
                    found.push((sort_key(name, *revision, descending), &definition.arn));
                }
            }
        }
        found.sort();
        let (page, next) = paging::cut(input, found, |(key, _)| key.clone())?;
        let arns = page.into_iter().map(|(_, arn)| Value::from(arn)).collect();
        Ok(paging::reply("taskDefinitionArns", arns, next))
    }

    /// ListTaskDefinitionFamilies: names of families by their beginning.
    pub fn list_families(&self, input: &Value) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let prefix = input.text("familyPrefix")?.unwrap_or_default();
        let status = input.one_of("status", FAMILY_STATUSES)?.unwrap_or("ALL");
        let wanted = |active: bool| match status {
            "ACTIVE" => active,
            "INACTIVE" => !active,
            _ => true,
        };
        let names = self.families.iter().filter(|(name, revisions)| {
            let active = revisions.definitions.values().any(|d| d.status == Status::Active);
            // Of a deleted family only the count is left, which is nobody's business.
            let known = revisions.definitions.values().any(|d| d.status != Status::DeleteInProgress);
            name.starts_with(prefix) && known && wanted(active)
        });
        paging::page(input, "families", names.map(|(name, _)| name.clone()).collect())
    }
}

/// A text that sorts as (family, revision) does, or the other way round. The blank is below all letters of names, and no key
/// begins another, so turning every bit of the bytes turns the order.
fn sort_key(family: &str, revision: u32, descending: bool) -> String {
    let key = format!("{family} {revision:010}");
    if descending { hex::encode(key.bytes().map(|byte| !byte).collect::<Vec<_>>()) } else { key }
}
