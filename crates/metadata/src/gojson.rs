//! JSON as Go's `encoding/json` writes it, byte for byte: bodies are compared and hashed by clients of the official agent.
//!
//! What differs from serde_json: `<`, `>`, `&`, U+2028 and U+2029 are escaped, and a float without a fraction has no `.0`.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;
use std::io;

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(special) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(special))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// One line, no trailing newline. Fails only where a `Serialize` of ours does.
pub(crate) fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut bytes = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, GoFormatter))?;
    // The body is kept as long as the task does not change: without its spare room.
    bytes.shrink_to_fit();
    Ok(bytes.into())
}

/// CPU units (1024 = one vCPU) as vCPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VCpu(pub(crate) u32);

impl Serialize for VCpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1024) {
            serializer.serialize_u32(self.0 / 1024)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1024.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text<T: Serialize + ?Sized>(value: &T) -> String {
        String::from_utf8(to_bytes(value).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn html_and_line_separators_are_escaped_as_go_does() {
        let escaped = r#""a\u003cb\u003e\u0026\u2028\u2029\"\\\n\u0001ü""#;
        assert_eq!(text("a<b>&\u{2028}\u{2029}\"\\\n\u{1}ü"), escaped);
    }

    #[test]
    fn whole_vcpus_have_no_fraction() {
        assert_eq!(
            [256, 1024, 1536, 1, 10].map(|units| text(&VCpu(units))),
            ["0.25", "1", "1.5", "0.0009765625", "0.009765625"]
        );
    }

    proptest! {
        #[test]
        fn every_text_reads_back_as_itself(original in "\\PC*|[<>&\u{2028}\u{2029}\\x00-\\x20]*") {
            prop_assert_eq!(serde_json::from_str::<String>(&text(&original)).unwrap(), original);
        }
    }
}
