//! What ECS adds to a definition by default, so that a description says more than was registered.

use super::units;
use serde_json::{Map, Value, json};

/// Members of a container that are always there, with what they are when not given.
fn container_defaults() -> [(&'static str, Value); 7] {
    [
        ("cpu", json!(0)),
        ("essential", json!(true)),
        ("environment", json!([])),
        ("mountPoints", json!([])),
        ("portMappings", json!([])),
        ("systemControls", json!([])),
        ("volumesFrom", json!([])),
    ]
}

/// Lays the defaults under a definition that has been checked.
pub(super) fn fill(definition: &mut Map<String, Value>) {
    let text = |definition: &Map<String, Value>, member| {
        definition.get(member).and_then(Value::as_str).map(str::to_owned)
    };
    let mode = text(definition, "networkMode").unwrap_or_else(|| "bridge".to_owned());
    for member in ["volumes", "placementConstraints"] {
        default(definition, member, json!([]));
    }
    // ECS keeps sizes as plain numbers, however they were written.
    for (member, unit) in [("cpu", "vcpu"), ("memory", "gb")] {
        if let Some(size) = text(definition, member).and_then(|text| units::read(&text, unit)) {
            definition.insert(member.to_owned(), size.to_string().into());
        }
    }
    each(definition, "containerDefinitions", |container| {
        for (member, value) in container_defaults() {
            default(container, member, value);
        }
        each(container, "portMappings", |mapping| port_mapping(mapping, &mode));
        if let Some(Value::Object(health)) = container.get_mut("healthCheck") {
            for (member, value) in [("interval", 30), ("timeout", 5), ("retries", 3)] {
                default(health, member, value.into());
            }
        }
    });
    each(definition, "volumes", volume);
}

fn port_mapping(mapping: &mut Map<String, Value>, mode: &str) {
    default(mapping, "protocol", json!("tcp"));
    if let Some(port) = mapping.get("containerPort").cloned() {
        // A bridge chooses a port of the host at start.
        let host = if mode == "awsvpc" || mode == "host" { port } else { json!(0) };
        default(mapping, "hostPort", host);
    }
}

fn volume(volume: &mut Map<String, Value>) {
    let plain = volume.keys().all(|member| member == "name");
    if plain {
        default(volume, "host", json!({}));
    }
    if let Some(Value::Object(efs)) = volume.get_mut("efsVolumeConfiguration") {
        default(efs, "rootDirectory", json!("/"));
    }
    if let Some(Value::Object(docker)) = volume.get_mut("dockerVolumeConfiguration") {
        default(docker, "scope", json!("task"));
        default(docker, "driver", json!("local"));
    }
}

fn default(object: &mut Map<String, Value>, member: &str, value: Value) {
    object.entry(member).or_insert(value);
}

fn each(object: &mut Map<String, Value>, member: &str, mut act: impl FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Array(items)) = object.get_mut(member) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(&mut act);
    }
}
