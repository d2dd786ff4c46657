//! Ids of the world, parsed at the API's edge. A text of the wrong form is refused as EC2 refuses it (`...Malformed`), before
//! anyone looks whether such an object exists.

use super::refusal::Refusal;
use std::{borrow::Borrow, fmt, sync::Arc};

/// Whether `text` is `prefix` and 8 or 17 lower-case hexadecimal digits: the two forms that EC2 has ever given out.
fn has_form(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $malformed:literal, $missing:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id in a request.
            pub fn parse(text: &str) -> Result<Self, Refusal> {
                if has_form(text, $prefix) {
                    Ok(Self(text.into()))
                } else {
                    Err(Refusal::Malformed { code: $malformed, id: cut(text), prefix: $prefix })
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// What EC2 says when there is no such object.
            pub fn not_found(&self) -> Refusal {
                Refusal::NotFound { code: $missing, kind: $kind, id: self.0.to_string() }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// An ENI.
    EniId, "eni-", "InvalidNetworkInterfaceId.Malformed", "InvalidNetworkInterfaceID.NotFound", "networkInterface ID");
id!(
    /// The binding of an ENI to an instance.
    AttachmentId, "eni-attach-", "InvalidAttachmentId.Malformed", "InvalidAttachmentID.NotFound", "attachment ID");
id!(
    /// An instance.
    InstanceId, "i-", "InvalidInstanceID.Malformed", "InvalidInstanceID.NotFound", "instance ID");
id!(
    /// A subnet.
    SubnetId, "subnet-", "InvalidSubnetId.Malformed", "InvalidSubnetID.NotFound", "subnet ID");
id!(
    /// A security group.
    GroupId, "sg-", "InvalidGroupId.Malformed", "InvalidGroup.NotFound", "security group");
id!(
    /// A rule of a security group.
    RuleId, "sgr-", "InvalidSecurityGroupRuleId.Malformed", "InvalidSecurityGroupRuleId.NotFound", "security group rule ID");
id!(
    /// A VPC.
    VpcId, "vpc-", "InvalidVpcId.Malformed", "InvalidVpcID.NotFound", "vpc ID");

/// Longest part of a bad id that an error repeats: enough to recognise it.
const SHOWN: usize = 100;

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A MAC as EC2 writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
