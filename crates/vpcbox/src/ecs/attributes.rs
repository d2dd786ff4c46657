//! Attributes of container instances: what agents register, what operators put there, and what placement asks for.

use super::{Call, Ecs, error::ApiError, input::Input, instances::Status, paging};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Values by name; a capability has none.
pub(super) type Attributes = BTreeMap<String, Option<String>>;

/// ECS's limits.
const MAX_TEXT: usize = 128;
const MAX_PUT: usize = 10;
/// Attributes of an operator's own on one instance.
const MAX_CUSTOM: usize = 10;

/// Whether an attribute is of an operator's making, and not one that agents and ECS give.
pub(super) fn is_custom(name: &str) -> bool {
    !name.starts_with("ecs.") && !name.starts_with("com.amazonaws.ecs.")
}

/// The attributes in a call, without their targets.
pub(super) fn read(input: Input<'_>, max: usize) -> Result<Attributes, ApiError> {
    let listed = input.objects("attributes")?;
    if listed.len() > max {
        return Err(ApiError::invalid(format!("attributes can have at most {max} items.")));
    }
    let read = |attribute: Input<'_>| {
        let name = attribute.required("name", "Attribute name can not be blank.")?;
        let value = attribute.text("value")?;
        if !is_name(name) {
            return Err(ApiError::invalid(format!("Attribute name {name:?} contains invalid characters.")));
        }
        if let Some(value) = value.filter(|value| !is_value(value)) {
            return Err(ApiError::invalid(format!("Attribute value {value:?} contains invalid characters.")));
        }
        Ok((name.to_owned(), value.map(str::to_owned)))
    };
    listed.into_iter().map(read).collect()
}

fn is_name(name: &str) -> bool {
    (1..=MAX_TEXT).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./\\".contains(&b))
}

fn is_value(value: &str) -> bool {
    value.len() <= MAX_TEXT
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./\\:@ ".contains(&b))
        && value.trim() == value
}

/// An attribute and the id of the instance that it is of.
struct Targeted {
    instance: String,
    name: String,
    value: Option<String>,
}

impl Ecs {
    pub(super) fn put_attributes(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let attributes = self.targeted(Input::new(input)?)?;
        for id in attributes.iter().map(|a| &a.instance) {
            let held = self.instances.get(id).map(|instance| &instance.attributes);
            let old = held.into_iter().flatten().map(|(name, _)| name);
            let new = attributes.iter().filter(|a| a.instance == *id).map(|a| &a.name);
            let all: std::collections::BTreeSet<_> = old.chain(new).filter(|n| is_custom(n)).collect();
            if all.len() > MAX_CUSTOM {
                let message = format!("An instance can have at most {MAX_CUSTOM} custom attributes.");
                return Err(ApiError::new("AttributeLimitExceededException", message));
            }
        }
        for attribute in &attributes {
            if let Some(instance) = self.instances.get_mut(&attribute.instance) {
                instance.attributes.insert(attribute.name.clone(), attribute.value.clone());
                instance.version += 1;
            }
        }
        Ok(json!({ "attributes": self.written(&attributes) }))
    }

    pub(super) fn delete_attributes(
        &mut self,
        input: &Value,
        _call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let attributes = self.targeted(Input::new(input)?)?;
        for attribute in &attributes {
            if let Some(instance) = self.instances.get_mut(&attribute.instance) {
                instance.attributes.remove(&attribute.name);
                instance.version += 1;
            }
        }
        Ok(json!({ "attributes": self.written(&attributes) }))
    }

    pub(super) fn list_attributes(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        if input.one_of("targetType", &["container-instance"])?.is_none() {
            return Err(ApiError::invalid("targetType can not be blank."));
        }
        let (name, value) = (input.text("attributeName")?, input.text("attributeValue")?);
        if value.is_some() && name.is_none() {
            return Err(ApiError::invalid("attributeValue needs an attributeName."));
        }
        let instances =
            self.instances.values().filter(|i| i.cluster == cluster && i.status != Status::Inactive);
        let all = instances.flat_map(|i| i.attributes.iter().map(move |(name, value)| (&i.id, name, value)));
        let wanted = all.filter(|(_, n, v)| {
            name.is_none_or(|name| name == *n) && value.is_none_or(|value| v.as_deref() == Some(value))
        });
        let (page, next) = paging::cut(input, wanted.collect(), |(id, name, _)| format!("{id} {name}"))?;
        let shown = page.into_iter().map(|(id, name, value)| self.attribute_json(id, name, value.as_deref()));
        Ok(paging::reply("attributes", shown.collect(), next))
    }

    /// The attributes of a call that names their targets. Those that agents and ECS give are not an operator's to change: without
    /// its zone or its capabilities an instance would get no tasks any more.
    fn targeted(&self, input: Input<'_>) -> Result<Vec<Targeted>, ApiError> {
        let cluster = self.cluster(input)?;
        let named = read(input, MAX_PUT)?;
        if named.is_empty() {
            return Err(ApiError::invalid("Attributes can not be empty."));
        }
        if let Some(name) = named.keys().find(|name| !is_custom(name)) {
            let message = format!("Attribute name {name:?} begins with a reserved prefix.");
            return Err(ApiError::invalid(message));
        }
        let target = |attribute: Input<'_>| {
            attribute.one_of("targetType", &["container-instance"])?;
            let name = attribute.required("name", "Attribute name can not be blank.")?;
            let id = attribute.required("targetId", "Attribute target can not be blank.")?;
            let missing = || ApiError::new("TargetNotFoundException", format!("{id} could not be found."));
            let instance = self.find_instance(&cluster, id).ok_or_else(missing)?;
            if instance.status == Status::Inactive {
                return Err(missing());
            }
            let value = attribute.text("value")?.map(str::to_owned);
            Ok(Targeted { instance: instance.id.clone(), name: name.to_owned(), value })
        };
        input.objects("attributes")?.into_iter().map(target).collect()
    }

    fn written(&self, attributes: &[Targeted]) -> Value {
        attributes.iter().map(|a| self.attribute_json(&a.instance, &a.name, a.value.as_deref())).collect()
    }

    fn attribute_json(&self, instance: &str, name: &str, value: Option<&str>) -> Value {
        let mut shown = json!({ "name": name, "targetType": "container-instance" });
        if let Some(instance) = self.instances.get(instance) {
            shown["targetId"] = json!(self.instance_arn(instance));
        }
        if let Some(value) = value {
            shown["value"] = json!(value);
        }
        shown
    }
}
