//! The file as it is written: one struct for each table, values with their place in the text.

use super::check::Problem;
use serde::Deserialize;
use serde_path_to_error::Segment;
use toml::Spanned;

/// A piece of text and where it stands, so that an error found later still names the line.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: Text,
    pub(super) region: Text,
    pub(super) account: Text,
    pub(super) listen: Text,
    pub(super) auth: Option<Spanned<bool>>,
    pub(super) operator: Option<RawOperator>,
    pub(super) vpc: RawVpc,
    #[serde(default)]
    pub(super) subnet: Vec<RawSubnet>,
    #[serde(default)]
    pub(super) security_group: Vec<RawGroup>,
    #[serde(default)]
    pub(super) instance: Vec<RawInstance>,
    #[serde(default)]
    pub(super) ecs: RawEcs,
    #[serde(default)]
    pub(super) delays: RawDelays,
    pub(super) mtu: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOperator {
    pub(super) access_key: Text,
    pub(super) secret_key: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVpc {
    pub(super) id: Option<Text>,
    pub(super) cidr: Text,
    pub(super) ipv6_cidr: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSubnet {
    pub(super) id: Option<Text>,
    pub(super) name: Text,
    pub(super) zone: Text,
    pub(super) zone_id: Option<Text>,
    pub(super) cidr: Text,
    pub(super) ipv6_cidr: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    pub(super) id: Option<Text>,
    pub(super) name: Text,
    pub(super) description: Option<Text>,
    pub(super) ingress: Option<Vec<RawIngress>>,
    pub(super) egress: Option<Vec<RawEgress>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIngress {
    pub(super) protocol: Option<Text>,
    pub(super) ports: Option<Text>,
    pub(super) from: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEgress {
    pub(super) protocol: Option<Text>,
    pub(super) ports: Option<Text>,
    pub(super) to: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInstance {
    pub(super) id: Option<Text>,
    pub(super) name: Text,
    #[serde(rename = "type")]
    pub(super) instance_type: Text,
    pub(super) subnet: Text,
    pub(super) security_groups: Spanned<Vec<Text>>,
    pub(super) role: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEcs {
    #[serde(default)]
    pub(super) clusters: Vec<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDelays {
    pub(super) attach_ms: Option<Spanned<u64>>,
    pub(super) detach_ms: Option<Spanned<u64>>,
    pub(super) link_ms: Option<Spanned<u64>>,
}

pub(super) fn parse(text: &str) -> Result<Raw, Problem> {
    let reader = toml::Deserializer::parse(text).map_err(|e| Problem {
        at: e.span().map_or(0, |s| s.start),
        key: "TOML syntax".into(),
        problem: e.message().into(),
    })?;
    serde_path_to_error::deserialize(reader).map_err(|e| {
        let mut key = key_of(e.path());
        let (at, mut problem) = (e.inner().span().map_or(0, |s| s.start), e.inner().message().to_owned());
        // serde names the table and puts the missing key in the message; the reader looks for the key.
        if let Some(missing) = problem.strip_prefix("missing field `").and_then(|m| m.strip_suffix('`')) {
            key = if key.is_empty() { missing.into() } else { format!("{key}.{missing}") };
            problem = "missing, expected a value".into();
        }
        Problem { at, key: if key.is_empty() { "file".into() } else { key }, problem }
    })
}

/// The path without the segments that `Spanned` puts in for itself.
fn key_of(path: &serde_path_to_error::Path) -> String {
    let mut key = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } if !name.starts_with("$__serde") => {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(name);
            }
            Segment::Map { .. } | Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    key
}

/// Line of a byte of the text, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}
