//! CreateTags, DeleteTags, DescribeTags.

use super::{
    error::ApiError,
    filters::Filters,
    paging::Page,
    params::{Params, missing},
    xml::Xml,
};
use crate::world::{World, resource_type, state::Tags};
use jiff::Timestamp;

const TAG_FILTERS: &[&str] = &["key", "resource-id", "resource-type", "value"];
/// Largest page.
const MAX_PAGE: u32 = 1000;
/// Resources of one CreateTags call: EC2's limit.
const MAX_RESOURCES: usize = 1000;

fn resources(params: &mut Params) -> Result<Vec<String>, ApiError> {
    let resources = params.list("ResourceId");
    match resources.len() {
        0 => Err(missing("ResourceId")),
        1..=MAX_RESOURCES => Ok(resources),
        _ => Err(ApiError::new("InvalidParameterValue", format!("At most {MAX_RESOURCES} resources"))),
    }
}

/// CreateTags.
pub(super) fn create(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let resources = resources(&mut params)?;
    let mut tags = Tags::new();
    for index in params.indices("Tag") {
        let key = params.required(&format!("Tag.{index}.Key"))?;
        let value = params.text(&format!("Tag.{index}.Value")).unwrap_or_default();
        if tags.insert(key, value).is_some() {
            return Err(ApiError::new("InvalidParameterValue", "Duplicate tag keys found."));
        }
    }
    params.finish()?;
    if tags.is_empty() {
        return Err(missing("Tag"));
    }
    world.create_tags(&resources, &tags, now)?;
    xml.leaf("return", true);
    Ok(())
}

/// DeleteTags.
pub(super) fn delete(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let resources = resources(&mut params)?;
    let mut tags = Vec::new();
    for index in params.indices("Tag") {
        let key = params.required(&format!("Tag.{index}.Key"))?;
        tags.push((key, params.text(&format!("Tag.{index}.Value"))));
    }
    params.finish()?;
    world.delete_tags(&resources, &tags, now)?;
    xml.leaf("return", true);
    Ok(())
}

/// DescribeTags.
pub(super) fn describe(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let filters = Filters::take(&mut params, TAG_FILTERS)?;
    let page = Page::take(&mut params, MAX_PAGE, false)?;
    params.finish()?;
    let state = world.read(now);
    let found = state
        .tags
        .iter()
        .flat_map(|(id, tags)| tags.iter().map(move |(key, value)| (id, key, value)))
        .filter(|(id, key, value)| {
            filters.pass(std::iter::once((key.as_str(), value.as_str())), |name| match name {
                "key" => vec![(*key).clone()],
                "resource-id" => vec![(*id).clone()],
                "resource-type" => resource_type(id).map(str::to_owned).into_iter().collect(),
                "value" => vec![(*value).clone()],
                _ => Vec::new(),
            })
        })
        .collect();
    // NUL sorts before every character of a key, so the order of the map is the order of these texts.
    let (found, next) = page.cut(found, |(id, key, _)| format!("{id}\0{key}"));
    xml.set("tagSet", found, |xml, (id, key, value)| {
        xml.leaf("resourceId", id);
        xml.leaf("resourceType", resource_type(id).unwrap_or_default());
        xml.leaf("key", key);
        xml.leaf("value", value);
    });
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}
