//! Revisions, lists, deregistration, deletion.

use super::*;

/// Three revisions of `web` and two of `api`.
fn five() -> Definitions {
    let mut definitions = none();
    for family in ["web", "api", "web", "api", "web"] {
        register(&mut definitions, &with(pair(), &[("family", json!(family))])).unwrap();
    }
    definitions
}

fn arn(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn arns(definitions: &Definitions, input: &Value) -> Vec<String> {
    let reply = definitions.list(input).unwrap();
    let all = reply["taskDefinitionArns"].as_array().unwrap().iter();
    all.map(|arn| arn.as_str().unwrap().strip_prefix(PREFIX).unwrap().to_owned()).collect()
}

fn deregister(definitions: &mut Definitions, name: &str) -> Value {
    definitions.deregister(&json!({ "taskDefinition": name }), at(10)).unwrap()["taskDefinition"].clone()
}

fn delete(definitions: &mut Definitions, names: &[&str]) -> Value {
    definitions.delete(&json!({ "taskDefinitions": names }), at(20)).unwrap()
}

#[test]
fn a_family_alone_is_its_latest_active_revision() {
    let mut definitions = five();
    assert_eq!(definitions.find("web").unwrap().revision, 3);
    deregister(&mut definitions, "web:3");
    assert_eq!(definitions.find("web").unwrap().revision, 2);
    assert_eq!(definitions.find(&arn("api:1")).unwrap().revision, 1);
    for (name, message) in [
        ("web:3", "TaskDefinition is inactive"),
        ("web:9", "TaskDefinition not found."),
        ("nothing", "TaskDefinition not found."),
        ("arn:aws:ecs:eu-west-1:123456789012:task-definition/web:1", "TaskDefinition not found."),
        ("web:x", "Invalid revision number. Number: x"),
    ] {
        let error = definitions.find(name).unwrap_err();
        assert_eq!((&*error.code, &*error.message), ("ClientException", message), "{name}");
    }
}

#[test]
fn a_deregistered_definition_is_still_described() {
    let mut definitions = five();
    let first = deregister(&mut definitions, "web:1");
    assert_eq!((&first["status"], &first["deregisteredAt"]), (&json!("INACTIVE"), &json!(1_800_000_010.0)));
    assert_eq!(deregister(&mut definitions, &arn("web:1")), first, "once more changes nothing");
    let reply = definitions.describe(&json!({ "taskDefinition": "web:1", "include": ["TAGS"] })).unwrap();
    assert_eq!(reply, json!({ "taskDefinition": first, "tags": [] }));
    let reply = definitions.describe(&json!({ "taskDefinition": "web:2" })).unwrap();
    assert_eq!(reply.get("tags"), None);

    let refused = |input: Value| definitions.describe(&input).unwrap_err().message;
    assert_eq!(refused(json!({ "taskDefinition": "web:9" })), "Unable to describe task definition.");
    assert_eq!(refused(json!({})), "Task definition can not be blank.");
    assert!(refused(json!({ "taskDefinition": "web", "include": ["ALL"] })).contains("[TAGS]"));
}

#[test]
fn revisions_are_never_used_twice() {
    let mut definitions = five();
    for revision in ["web:1", "web:2", "web:3"] {
        deregister(&mut definitions, revision);
    }
    delete(&mut definitions, &["web:1", "web:2", "web:3"]);
    let next = register(&mut definitions, &pair()).unwrap();
    assert_eq!(next["taskDefinition"]["revision"], 4);
}

#[test]
fn lists_are_sorted_filtered_and_paged_both_ways() {
    let mut definitions = five();
    assert_eq!(arns(&definitions, &json!({})), ["api:1", "api:2", "web:1", "web:2", "web:3"]);
    assert_eq!(
        arns(&definitions, &json!({ "sort": "DESC", "familyPrefix": "web" })),
        ["web:3", "web:2", "web:1"]
    );
    assert_eq!(
        arns(&definitions, &json!({ "familyPrefix": "we" })),
        [""; 0],
        "a prefix that is a whole name"
    );
    for sort in ["ASC", "DESC"] {
        let expected = arns(&definitions, &json!({ "sort": sort }));
        let (mut seen, mut token) = (Vec::new(), Value::Null);
        loop {
            let input = json!({ "sort": sort, "maxResults": 2, "nextToken": token });
            seen.extend(arns(&definitions, &input));
            token = definitions.list(&input).unwrap().get("nextToken").cloned().unwrap_or_default();
            if token.is_null() {
                break;
            }
        }
        assert_eq!(seen, expected, "{sort}");
    }
    deregister(&mut definitions, "web:2");
    assert_eq!(arns(&definitions, &json!({ "status": "INACTIVE" })), ["web:2"]);
    assert!(!arns(&definitions, &json!({})).contains(&"web:2".to_owned()));
    assert!(definitions.list(&json!({ "status": "GONE" })).is_err());
}

#[test]
fn the_tenth_revision_comes_after_the_ninth() {
    let mut definitions = none();
    for _ in 0..11 {
        register(&mut definitions, &pair()).unwrap();
    }
    let all = arns(&definitions, &json!({ "sort": "DESC" }));
    assert_eq!(&all[..3], ["web:11", "web:10", "web:9"]);
}

#[test]
fn families_are_listed_by_prefix_and_by_whether_they_are_in_use() {
    let mut definitions = five();
    let families = |definitions: &Definitions, input: Value| {
        definitions.list_families(&input).unwrap()["families"].clone()
    };
    assert_eq!(families(&definitions, json!({})), json!(["api", "web"]));
    assert_eq!(families(&definitions, json!({ "familyPrefix": "w" })), json!(["web"]));
    deregister(&mut definitions, "api:1");
    deregister(&mut definitions, "api:2");
    assert_eq!(families(&definitions, json!({ "status": "ACTIVE" })), json!(["web"]));
    assert_eq!(families(&definitions, json!({ "status": "INACTIVE" })), json!(["api"]));
    delete(&mut definitions, &["api:1", "api:2"]);
    assert_eq!(families(&definitions, json!({})), json!(["web"]));
}

#[test]
fn only_deregistered_definitions_are_deleted_each_by_itself() {
    let mut definitions = five();
    deregister(&mut definitions, "web:1");
    let reply = delete(&mut definitions, &["web:1", "web:2", "web:9", "web", "web:x"]);
    assert_eq!(reply["taskDefinitions"].as_array().unwrap().len(), 1);
    let deleted = &reply["taskDefinitions"][0];
    assert_eq!(
        (&deleted["status"], &deleted["deleteRequestedAt"]),
        (&json!("DELETE_IN_PROGRESS"), &json!(1_800_000_020.0))
    );
    let reasons: Vec<_> =
        reply["failures"].as_array().unwrap().iter().map(|f| f["reason"].as_str().unwrap()).collect();
    for (reason, part) in
        reasons.iter().zip(["still in ACTIVE status", "does not exist", "is invalid", "is invalid"])
    {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(reasons.len(), 4);
    assert_eq!(definitions.find("web:1").unwrap_err().message, "TaskDefinition not found.");
    assert!(definitions.delete(&json!({}), at(0)).is_err());
    assert!(definitions.delete(&json!({ "taskDefinitions": vec!["a:1"; 11] }), at(0)).is_err());
}

#[test]
fn a_full_box_makes_room_by_forgetting_what_was_deleted() {
    let mut definitions = none();
    for _ in 0..super::super::MAX_DEFINITIONS {
        register(&mut definitions, &pair()).unwrap();
    }
    assert_eq!(register(&mut definitions, &pair()).unwrap_err().code, "LimitExceededException");
    deregister(&mut definitions, "web:7");
    delete(&mut definitions, &["web:7"]);
    assert_eq!(register(&mut definitions, &pair()).unwrap()["taskDefinition"]["revision"], 2001);
    assert!(definitions.describe(&json!({ "taskDefinition": "web:7" })).is_err());
}

#[test]
fn tags_are_changed_by_arn() {
    let mut definitions = five();
    definitions.tags_mut(&arn("web:1")).unwrap().insert("team".to_owned(), "red".to_owned());
    let reply = definitions.describe(&json!({ "taskDefinition": "web:1", "include": ["TAGS"] })).unwrap();
    assert_eq!(reply["tags"], json!([{ "key": "team", "value": "red" }]));
    assert!(definitions.tags_mut(&arn("web")).is_none() && definitions.tags_mut(&arn("web:9")).is_none());
}
