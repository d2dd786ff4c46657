//! Filters of describe calls: `Filter.N.Name` with values that may hold `*` and `?`. All filters must match, any value of each.
//!
//! Which names a call knows is a list in the call's own module; `tag:KEY` and `tag-key` work wherever there are tags.

use super::{error::ApiError, params::Params};

/// Filters of one call, and values of one filter: EC2's own limits.
const MAX_FILTERS: usize = 50;
const MAX_VALUES: usize = 200;

/// The filters of one call, with known names only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters(Vec<Filter>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    name: String,
    values: Vec<String>,
}

impl Filters {
    /// Takes the filters out of the parameters. A name that is not in `known` is refused: silence would turn a misspelt filter
    /// into "everything".
    pub fn take(params: &mut Params, known: &[&str]) -> Result<Self, ApiError> {
        let mut filters = Vec::new();
        for index in params.indices("Filter") {
            let name = params.required(&format!("Filter.{index}.Name"))?;
            let values = params.list(&format!("Filter.{index}.Value"));
            if !(known.contains(&name.as_str()) || name == "tag-key" || name.starts_with("tag:")) {
                let name: String = name.chars().take(100).collect();
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("The filter '{name}' is invalid"),
                ));
            }
            if values.is_empty() {
                let message = format!("The filter '{name}' must have a value");
                return Err(ApiError::new("InvalidParameterValue", message));
            }
            filters.push(Filter { name, values });
        }
        if filters.len() > MAX_FILTERS || filters.iter().any(|f| f.values.len() > MAX_VALUES) {
            let message = format!("At most {MAX_FILTERS} filters with {MAX_VALUES} values each");
            return Err(ApiError::new("FilterLimitExceeded", message));
        }
        Ok(Self(filters))
    }

    /// Whether an object passes: `values` gives what it has under a filter's name, nothing where it has nothing.
    pub fn pass<'t>(
        &self,
        tags: impl Iterator<Item = (&'t str, &'t str)> + Clone,
        values: impl Fn(&str) -> Vec<String>,
    ) -> bool {
        self.0.iter().all(|filter| {
            let has: Vec<String> = if filter.name == "tag-key" {
                tags.clone().map(|(key, _)| key.to_owned()).collect()
            } else if let Some(wanted) = filter.name.strip_prefix("tag:") {
                tags.clone().filter(|(key, _)| *key == wanted).map(|(_, value)| value.to_owned()).collect()
            } else {
                values(&filter.name)
            };
            filter.values.iter().any(|pattern| has.iter().any(|text| matches(pattern, text)))
        })
    }
}

/// Whether `text` is of the form of `pattern`: `*` is any text, `?` any character, a backslash takes the next one literally.
/// Linear in the product of the lengths: it goes back to the last `*` only.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern = tokens(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(t) {
        match pattern.get(p) {
            Some(Token::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(Token::One) => {
                p += 1;
                t += 1;
            }
            Some(Token::Just(wanted)) if wanted == c => {
                p += 1;
                t += 1;
            }
            Some(Token::Just(_)) | None => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|token| *token == Token::Any)
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Just(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Just(chars.next().unwrap_or('\\')),
            c => Token::Just(c),
        });
    }
    tokens
}
