//! The names that a definition goes by in calls: `family`, `family:revision`, or its ARN.

use crate::ecs::error::ApiError;

/// A definition as a caller names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The family.
    pub(super) family: String,
    /// `None` is the latest active one.
    pub(super) revision: Option<u32>,
}

impl Reference {
    /// Reads a name. An ARN of another region or account reads as a family that cannot exist.
    pub(super) fn parse(text: &str, arn_prefix: &str) -> Result<Self, ApiError> {
        let name = text.strip_prefix(arn_prefix).unwrap_or(text);
        if name.starts_with("arn:") {
            return Ok(Self { family: name.to_owned(), revision: Some(0) });
        }
        let Some((family, revision)) = name.split_once(':') else {
            return Ok(Self { family: name.to_owned(), revision: None });
        };
        // `parse` alone would take `+1`.
        let number = revision.bytes().all(|b| b.is_ascii_digit()).then(|| revision.parse().ok()).flatten();
        let number =
            number.ok_or_else(|| ApiError::client(format!("Invalid revision number. Number: {revision}")))?;
        Ok(Self { family: family.to_owned(), revision: Some(number) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "arn:aws:ecs:us-west-2:123456789012:task-definition/";

    #[test]
    fn a_definition_goes_by_family_revision_or_arn() {
        let read = |text: &str| Reference::parse(text, PREFIX).map(|r| (r.family, r.revision));
        assert_eq!(read("web"), Ok(("web".to_owned(), None)));
        assert_eq!(read("web:7"), Ok(("web".to_owned(), Some(7))));
        assert_eq!(read(&format!("{PREFIX}web:7")), Ok(("web".to_owned(), Some(7))));
        assert_eq!(read(&format!("{PREFIX}web")), Ok(("web".to_owned(), None)));
        for wrong in ["web:", "web:x", "web:+1", "web:-1", "web:1:2", "web:99999999999"] {
            assert_eq!(read(wrong).unwrap_err().code, "ClientException", "{wrong}");
        }
        let elsewhere = read("arn:aws:ecs:eu-west-1:123456789012:task-definition/web:7").unwrap();
        assert_eq!(elsewhere.1, Some(0), "no definition has revision 0");
    }
}
