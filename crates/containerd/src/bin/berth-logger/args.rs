//! The arguments, as the shim makes them from the URI: pairs of key and value in any order.

use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) path: PathBuf,
    /// Size at which the file is rotated.
    pub(crate) max_size: u64,
    /// Files kept, the current one included; at least one.
    pub(crate) max_files: u32,
}

/// The arguments are not pairs of these keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadArguments;

impl Arguments {
    pub(crate) fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, BadArguments> {
        let (mut path, mut max_size, mut max_files) = (None, None, None);
        while let Some(key) = given.next() {
            let value = given.next().ok_or(BadArguments)?;
            match key.as_str() {
                "path" => path = Some(PathBuf::from(value)),
                "max-size" => max_size = value.parse().ok(),
                "max-files" => max_files = value.parse().ok(),
                // Of an agent newer than this program.
                _ => {}
            }
        }
        match (path, max_size, max_files) {
            (Some(path), Some(max_size), Some(max_files)) if max_files > 0 => {
                Ok(Self { path, max_size, max_files })
            }
            _ => Err(BadArguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_in_any_order() {
        let parse = |text: &str| Arguments::parse(text.split(' ').map(str::to_owned));
        let expected = Arguments { path: "/l".into(), max_size: 5, max_files: 2 };
        assert_eq!(parse("max-files 2 path /l new x max-size 5"), Ok(expected));
        assert_eq!(parse("path /l max-size 5 max-files 0"), Err(BadArguments));
        assert_eq!(parse("path"), Err(BadArguments));
    }
}
