//! `vpcbox knob KEY=VALUE...`: knobs in a form that is quick to type.

use super::client;
use crate::{
    knobs::{Fail, Knobs, LoseReply},
    serve::Status,
    service::control::KNOBS,
};
use anyhow::Context;
use std::str::FromStr;

/// The name that stands for every operation of ECS.
const ANY_OF_ECS: &str = "ecs:*";

/// Turns the knobs; gives back how they stand, as JSON.
pub(super) async fn turn(status: &Status, words: &[String]) -> anyhow::Result<String> {
    let answer = if words.is_empty() {
        client::get(&status.endpoint, KNOBS).await?
    } else {
        client::post(&status.endpoint, KNOBS, serde_json::to_vec(&parse(words)?)?).await?
    };
    String::from_utf8(answer.into()).context("read the answer")
}

fn parse(words: &[String]) -> anyhow::Result<Knobs> {
    let mut knobs = Knobs::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "reset" if value.is_empty() => knobs.reset = true,
            "attach-ms" => knobs.attach_ms = Some(number(key, value)?),
            "detach-ms" => knobs.detach_ms = Some(number(key, value)?),
            "link-ms" => knobs.link_ms = Some(number(key, value)?),
            "read-lag-ms" => knobs.read_lag_ms = Some(number(key, value)?),
            "call-ms" => knobs.call_ms = Some(number(key, value)?),
            "link-never" => knobs.link_never = Some(number(key, value)?),
            "throttle" => knobs.throttle = Some(number(key, value)?),
            "fail" => knobs.fail.push(fail(key, value, false)?),
            "fail-after" => knobs.fail.push(fail(key, value, true)?),
            "lose-reply" => {
                let (action, times) = action(value);
                let times = number(key, times.unwrap_or("1"))?;
                knobs.lose_reply.push(LoseReply { action: action.to_owned(), times });
            }
            "pull" => knobs.pull.push(value.to_owned()),
            "ecs.outage" => knobs.ecs.outage = Some(switch(key, value)?),
            "ecs.throttle" => knobs.ecs.throttle = Some(number(key, value)?),
            "ecs.call-ms" => knobs.ecs.call_ms = Some(number(key, value)?),
            "ecs.agent-silence-ms" => knobs.ecs.agent_silence_ms = Some(number(key, value)?),
            _ => anyhow::bail!("{word}: no such knob, see vpcbox knob --help"),
        }
    }
    Ok(knobs)
}

fn number<T: FromStr>(key: &str, value: &str) -> anyhow::Result<T> {
    value.parse().ok().with_context(|| format!("{key}={value}: expected a number"))
}

fn switch(key: &str, value: &str) -> anyhow::Result<bool> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => anyhow::bail!("{key}={value}: expected on or off"),
    }
}

/// Splits off the action; that of any ECS operation has a colon of its own.
fn action(value: &str) -> (&str, Option<&str>) {
    if let Some(rest) = value.strip_prefix(ANY_OF_ECS) {
        return (ANY_OF_ECS, rest.strip_prefix(':'));
    }
    value.split_once(':').map_or((value, None), |(action, rest)| (action, Some(rest)))
}

fn fail(key: &str, value: &str, acts: bool) -> anyhow::Result<Fail> {
    let (action, rest) = action(value);
    let mut parts = rest.unwrap_or_default().split(':');
    let (code, times) = (parts.next().filter(|code| !code.is_empty()), parts.next().unwrap_or("1"));
    let (Some(code), None) = (code, parts.next()) else {
        anyhow::bail!("{key}={value}: expected ACTION:CODE[:TIMES]");
    };
    Ok(Fail { action: action.to_owned(), code: code.to_owned(), times: number(key, times)?, acts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn words_become_the_same_knobs_as_json() {
        let typed =
            parse(&words("attach-ms=500 fail=AttachNetworkInterface:InternalError:2 lose-reply=* reset"))
                .unwrap();
        let json = r#"{"attach_ms":500,"reset":true,"lose_reply":[{"action":"*"}],
            "fail":[{"action":"AttachNetworkInterface","code":"InternalError","times":2}]}"#;
        assert_eq!(typed, serde_json::from_str(json).unwrap());
    }

    #[test]
    fn knobs_of_ecs_are_typed_with_its_name_before_them() {
        let typed = parse(&words(
            "ecs.outage=on ecs.throttle=3 ecs.agent-silence-ms=50 fail=ecs:*:ServerException:2 lose-reply=ecs:*:4",
        ))
        .unwrap();
        let json = r#"{"ecs":{"outage":true,"throttle":3,"agent_silence_ms":50},
            "fail":[{"action":"ecs:*","code":"ServerException","times":2}],
            "lose_reply":[{"action":"ecs:*","times":4}]}"#;
        assert_eq!(typed, serde_json::from_str(json).unwrap());
    }

    #[test]
    fn a_word_that_is_no_knob_is_named() {
        for (word, part) in [
            ("speed=1", "no such knob"),
            ("link-ms=x", "expected a number"),
            ("fail=a", "ACTION:CODE"),
            ("ecs.outage=1", "expected on or off"),
        ] {
            let error = parse(&words(word)).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(part), "{error}");
        }
    }
}
