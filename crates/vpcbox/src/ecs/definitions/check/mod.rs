//! What a definition must be like beyond its types, in AWS's words.
//!
//! One file per part of a definition; each function looks and refuses, none changes anything. The input has been read by
//! [`super::shape::conform`], so members have their types. Where AWS's own words are known they are used; the others follow
//! their pattern.

mod container;
mod fargate;
mod graph;
mod ports;
mod runtime;
mod task;

pub(super) use fargate::fits as fits_fargate;

use crate::ecs::{error::ApiError, input::Input};

/// Longest document that ECS takes, in bytes of JSON.
const MAX_BYTES: usize = 64 << 10;

/// A container as the checks see it.
#[derive(Debug, Clone, Copy)]
struct Container<'a> {
    name: &'a str,
    input: Input<'a>,
}

impl<'a> Container<'a> {
    /// `Invalid 'SETTING' setting for container 'NAME'.`
    fn bad(self, setting: &str) -> ApiError {
        ApiError::client(format!("Invalid '{setting}' setting for container '{}'.", self.name))
    }

    /// The same with a reason.
    fn because(self, reason: &str) -> ApiError {
        ApiError::client(format!("Invalid setting for container '{}'. {reason}", self.name))
    }

    fn essential(self) -> Result<bool, ApiError> {
        Ok(self.input.boolean("essential")?.unwrap_or(true))
    }

    /// Refuses an integer outside of a range.
    fn within(
        self,
        part: Input<'a>,
        member: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<(), ApiError> {
        match part.integer(member)? {
            Some(value) if !range.contains(&value) => {
                let (low, high) = range.into_inner();
                Err(self.because(&format!("'{member}' must be between {low} and {high}.")))
            }
            _ => Ok(()),
        }
    }
}

/// Looks at a whole definition; `bytes` is the length of what will be stored.
pub(super) fn check(input: Input<'_>, bytes: usize) -> Result<(), ApiError> {
    if bytes > MAX_BYTES {
        let message = format!("Actual length: '{bytes}'. Max allowed length is '{MAX_BYTES}' bytes.");
        return Err(ApiError::client(message));
    }
    task::family(input)?;
    let containers = container::named(input)?;
    task::roles(input)?;
    let volumes = task::volumes(input)?;
    for container in &containers {
        container::check(*container, input)?;
        container::mounts(*container, &volumes)?;
        runtime::check(*container, input)?;
    }
    ports::check(input, &containers)?;
    graph::check(&containers)?;
    runtime::firelens(&containers)?;
    task::sizes(input, &containers)?;
    task::placement(input)?;
    task::proxy(input, &containers)?;
    task::compatible(input, &containers)
}

/// Letters, digits, dashes and underscores, at most 255.
fn is_name(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The first text that comes twice.
fn twice<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    texts.into_iter().find(|text| !seen.insert(*text))
}
