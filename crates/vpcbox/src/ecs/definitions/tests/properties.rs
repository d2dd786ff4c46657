//! No input does harm, and what was registered can be registered again.

use super::*;
use proptest::prelude::*;

/// Any JSON, with the names that definitions know among the keys.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![
            Just("web"),
            Just("app"),
            Just("awsvpc"),
            Just("1 vCPU"),
            Just(""),
            Just("80-90"),
            Just("web:1")
        ]
        .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let names = prop_oneof![prop::sample::select(NAMES).prop_map(str::to_owned), "[a-z]{0,6}",];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..8)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

const NAMES: &[&str] = &[
    "family",
    "containerDefinitions",
    "name",
    "image",
    "memory",
    "cpu",
    "volumes",
    "portMappings",
    "containerPort",
    "containerPortRange",
    "healthCheck",
    "command",
    "interval",
    "dependsOn",
    "containerName",
    "condition",
    "tags",
    "key",
    "logConfiguration",
    "logDriver",
    "options",
    "linuxParameters",
    "tmpfs",
    "requiresCompatibilities",
    "networkMode",
    "taskDefinition",
    "taskDefinitions",
    "nextToken",
    "maxResults",
    "ulimits",
    "softLimit",
    "hardLimit",
    "restartPolicy",
];

/// The places in a definition where another value is put.
const PLACES: &[&str] = &[
    "family",
    "networkMode",
    "cpu",
    "memory",
    "containerDefinitions",
    "containerDefinitions.0",
    "volumes",
    "containerDefinitions.0.name",
    "containerDefinitions.0.memory",
    "containerDefinitions.0.portMappings",
    "containerDefinitions.0.healthCheck",
    "containerDefinitions.0.dependsOn",
    "containerDefinitions.1.linuxParameters",
    "containerDefinitions.1.logConfiguration",
    "containerDefinitions.1.environment",
    "tags",
    "requiresCompatibilities",
];

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let number = |range: std::ops::Range<i64>| prop::option::of(range);
    let words = || prop::option::of(prop::collection::vec("[a-z]{1,5}", 0..3));
    let port = (1..65535i64, prop_oneof![Just("tcp"), Just("udp")])
        .prop_map(|(port, protocol)| json!({ "containerPort": port, "protocol": protocol }));
    let health = (number(5..300), number(2..120), number(1..10)).prop_map(
        |(interval, timeout, retries)| json!({ "command": ["CMD", "true"], "interval": interval, "timeout": timeout, "retries": retries }),
    );
    let limits = (number(0..64), 64..128i64, number(6..64));
    (limits, words(), words(), prop::option::of(port), prop::option::of(health), any::<Option<bool>>()).prop_map(
        move |((cpu, memory, soft), command, entry, port, health, readonly)| {
            json!({
                "name": name, "image": "busybox:1", "cpu": cpu, "memory": memory, "memoryReservation": soft,
                "command": command, "entryPoint": entry, "healthCheck": health, "readonlyRootFilesystem": readonly,
                "portMappings": port.map(|port| vec![port]), "essential": (name == "app").then_some(true),
                "mountPoints": [{ "sourceVolume": "scratch", "containerPath": "/scratch" }],
                "environment": [{ "name": "A", "value": "b" }],
            })
        },
    )
}

/// Definitions that ECS takes.
fn definition() -> impl Strategy<Value = Value> {
    let mode = prop::option::of(prop::sample::select(&["awsvpc", "host", "bridge"][..]));
    let size = prop::option::of(prop::sample::select(&["512", "1 vCPU", ".5 vcpu"][..]));
    (mode, size, "[A-Za-z0-9_-]{1,20}", container("app"), container("side")).prop_map(
        |(mode, cpu, family, app, side)| {
            json!({
                "family": family, "networkMode": mode, "cpu": cpu, "memory": "1GB", "containerDefinitions": [app, side],
                "volumes": [{ "name": "scratch" }], "taskRoleArn": "role",
            })
        },
    )
}

proptest! {
    #[test]
    fn no_json_makes_an_operation_panic(input in anything()) {
        let mut definitions = none();
        register(&mut definitions, &pair()).unwrap();
        drop(register(&mut definitions, &input));
        drop(definitions.describe(&input));
        drop(definitions.list(&input));
        drop(definitions.list_families(&input));
        drop(definitions.deregister(&input, at(1)));
        drop(definitions.delete(&input, at(2)));
    }

    #[test]
    fn no_value_in_any_place_of_a_definition_makes_registration_panic(
        place in prop::sample::select(PLACES),
        value in anything(),
    ) {
        let mut definitions = none();
        drop(register(&mut definitions, &with(pair(), &[(place, value)])));
    }

    #[test]
    fn what_was_described_registers_again_as_the_same(input in definition()) {
        let mut definitions = none();
        let first = match register(&mut definitions, &input) {
            // The two containers may have been given the same port.
            Err(refusal) => {
                prop_assert!(refusal.message.contains("mapped multiple times"), "{refusal}");
                return Ok(());
            }
            Ok(reply) => reply["taskDefinition"].clone(),
        };
        let again = definitions.register(&first, CALLER, at(0)).unwrap()["taskDefinition"].clone();
        prop_assert_eq!(&again["revision"], 2);
        let arn = first["taskDefinitionArn"].clone();
        prop_assert_eq!(with(again, &[("revision", json!(1)), ("taskDefinitionArn", arn)]), first);
    }
}
