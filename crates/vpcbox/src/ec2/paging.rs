//! Paging of describe calls: `MaxResults`, `NextToken`.
//!
//! The token names the last object of the page, so a page is never lost or doubled when objects come and go in between.

use super::{error::ApiError, params::Params};

/// Which page a call wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    after: Option<String>,
    max: usize,
}

/// How every token begins: a text from elsewhere is recognised as such.
const MARK: &str = "after:";

/// Objects in a page of a call that does not say.
const DEFAULT_MAX: usize = 1000;

impl Page {
    /// Takes the paging parameters; `most` is the call's largest page. Ids and a page size exclude each other in EC2.
    pub fn take(params: &mut Params, most: u32, has_ids: bool) -> Result<Self, ApiError> {
        let max = params.value::<i64>("MaxResults", "Expecting an integer.")?;
        if let Some(max) = max {
            if has_ids {
                let message = "The parameter MaxResults cannot be used together with a list of ids";
                return Err(ApiError::new("InvalidParameterCombination", message));
            }
            if !(5..=i64::from(most)).contains(&max) {
                let expected = format!("Expecting a value between 5 and {most}.");
                return Err(ApiError::bad_value("MaxResults", &max.to_string(), &expected));
            }
        }
        let after = params.text("NextToken").filter(|t| !t.is_empty());
        let after = after.map(|token| decode(&token).ok_or_else(bad_token)).transpose()?;
        let max = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(DEFAULT_MAX);
        Ok(Self { after, max })
    }

    /// Cuts the page out of objects sorted by id; the token of the next page, if there is one.
    pub fn cut<T>(&self, sorted: Vec<T>, id: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
        let mut rest: Vec<T> =
            sorted.into_iter().filter(|x| self.after.as_ref().is_none_or(|after| id(x) > *after)).collect();
        let more = rest.len() > self.max;
        rest.truncate(self.max);
        let next = rest.last().filter(|_| more).map(|last| hex::encode(format!("{MARK}{}", id(last))));
        (rest, next)
    }
}

fn decode(token: &str) -> Option<String> {
    let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
    text.strip_prefix(MARK).map(str::to_owned)
}

fn bad_token() -> ApiError {
    ApiError::new("InvalidNextToken", "The specified NextToken is not valid.")
}
