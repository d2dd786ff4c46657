//! Paging of list calls: `maxResults`, `nextToken`. The token names the last ARN of the page, so a page is never lost or doubled
//! when objects come and go in between.

use super::{error::ApiError, input::Input};
use serde_json::{Map, Value, json};

/// How every token begins: a text from elsewhere is recognised as such.
const MARK: &str = "after:";
/// Largest page, and that of a call that does not say.
const MAX: usize = 100;

/// Cuts the page that a call asks for out of sorted names, and lays it out as `member` with the next token.
pub(super) fn page(input: Input<'_>, member: &str, sorted: Vec<String>) -> Result<Value, ApiError> {
    let (page, next) = cut(input, sorted, Clone::clone)?;
    Ok(reply(member, page.into(), next))
}

/// A page of anything sorted by a name.
pub(super) fn cut<T>(
    input: Input<'_>,
    sorted: Vec<T>,
    name: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let max = input.integer("maxResults")?.map_or(Ok(MAX), usize::try_from);
    let max = max.ok().filter(|max| (1..=MAX).contains(max));
    let max = max.ok_or_else(|| ApiError::invalid(format!("maxResults must be between 1 and {MAX}.")))?;
    let token = input.text("nextToken")?.filter(|token| !token.is_empty());
    let after = token.map(|token| decode(token).ok_or_else(|| ApiError::invalid("Invalid token.")));
    let after = after.transpose()?;
    let mut rest: Vec<T> =
        sorted.into_iter().filter(|x| after.as_ref().is_none_or(|after| name(x) > *after)).collect();
    let more = rest.len() > max;
    rest.truncate(max);
    let next = rest.last().filter(|_| more).map(|last| hex::encode(format!("{MARK}{}", name(last))));
    Ok((rest, next))
}

/// A page and the token of the next one, if there is one.
pub(super) fn reply(member: &str, page: Value, next: Option<String>) -> Value {
    let mut reply = Map::from_iter([(member.to_owned(), page)]);
    if let Some(next) = next {
        reply.insert("nextToken".to_owned(), json!(next));
    }
    Value::Object(reply)
}

fn decode(token: &str) -> Option<String> {
    let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
    text.strip_prefix(MARK).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_together_are_the_whole_and_a_foreign_token_is_refused() {
        let all: Vec<String> = (0..7).map(|n| format!("arn:{n}")).collect();
        let mut seen = Vec::new();
        let mut token = Value::Null;
        loop {
            let input = json!({ "maxResults": 3, "nextToken": token });
            let reply = page(Input::new(&input).unwrap(), "arns", all.clone()).unwrap();
            seen.extend(reply["arns"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()));
            token = reply.get("nextToken").cloned().unwrap_or_default();
            if token.is_null() {
                break;
            }
        }
        assert_eq!(seen, all);
        for bad in [json!({ "nextToken": "x" }), json!({ "maxResults": 0 }), json!({ "maxResults": 101 })] {
            assert!(page(Input::new(&bad).unwrap(), "arns", all.clone()).is_err(), "{bad}");
        }
    }
}
