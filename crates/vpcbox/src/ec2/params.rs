//! The parameters of one call: flat names (`Filter.1.Value.2`), read once each. What nobody has read is unknown, and refused as
//! EC2 refuses it, so that a misspelt parameter never passes silently.

use super::error::ApiError;
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

/// Parameters of one call; EC2's longest lists (200 filter values of 10 filters) stay below.
const MAX_PARAMS: usize = 4000;

/// The parameters of one call.
#[derive(Debug, Default)]
pub struct Params {
    values: BTreeMap<String, String>,
    dry_run: bool,
}

impl Params {
    /// Reads a form body or a query string.
    pub fn parse(text: &[u8]) -> Result<Self, ApiError> {
        let mut params = Self::default();
        for (name, value) in form_urlencoded::parse(text) {
            params.values.insert(name.into_owned(), value.into_owned());
            if params.values.len() > MAX_PARAMS {
                let message = format!("A request may have {MAX_PARAMS} parameters");
                return Err(ApiError::new("MalformedQueryString", message));
            }
        }
        params.dry_run = params.boolean("DryRun")?.unwrap_or(false);
        Ok(params)
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// Takes a text that must be there.
    pub fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name).filter(|v| !v.is_empty()).ok_or_else(|| missing(name))
    }

    /// Takes a value of a type with a textual form: a number, an address.
    pub fn value<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ApiError::bad_value(name, &text, expected))
    }

    /// Takes a number from 0.
    pub fn number(&mut self, name: &str) -> Result<Option<u32>, ApiError> {
        self.value(name, "Expecting a non-negative integer.")
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(ApiError::bad_value(name, &text, "Expecting true or false.")),
        }
    }

    /// The indices that occur after `name.`: `[1, 2]` for `name.1.Key`, `name.2.Key`.
    pub fn indices(&self, name: &str) -> BTreeSet<u32> {
        let prefix = format!("{name}.");
        self.values
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(key, _)| key.get(prefix.len()..)?.split('.').next()?.parse().ok())
            .collect()
    }

    /// Takes `name.1`, `name.2`, ... in the order of their numbers.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let indices = self.indices(name);
        indices.into_iter().filter_map(|i| self.text(&format!("{name}.{i}"))).collect()
    }

    /// Takes a list of values of one type.
    pub fn values<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Vec<T>, ApiError> {
        let parse = |text: String| text.parse().map_err(|_| ApiError::bad_value(name, &text, expected));
        self.list(name).into_iter().map(parse).collect()
    }

    /// Ends the reading: nothing may be left over. Every action calls it before it acts, so that a dry run ends here too, with
    /// all parameters read and nothing done.
    pub fn finish(self) -> Result<(), ApiError> {
        if let Some(name) = self.values.keys().next() {
            return Err(ApiError::new("UnknownParameter", format!("The parameter {name} is not recognized")));
        }
        if self.dry_run {
            let message = "Request would have succeeded, but DryRun flag is set.";
            return Err(ApiError::new("DryRunOperation", message));
        }
        Ok(())
    }
}

/// A parameter that must be there and is not.
pub fn missing(name: &str) -> ApiError {
    ApiError::new("MissingParameter", format!("The request must contain the parameter {name}"))
}
