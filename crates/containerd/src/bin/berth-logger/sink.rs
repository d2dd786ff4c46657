//! The log file: appended to, rotated by size, and given up for a while when the disk is full.

use crate::{
    args::Arguments,
    lines::{StreamName, encode},
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

/// Logs are for the agent and for root.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

#[derive(Debug)]
pub(crate) struct Sink {
    arguments: Arguments,
    file: Option<File>,
    size: u64,
    /// Lines that could not be written since the last one that could.
    dropped: u64,
    /// The last write stopped in the middle of a line.
    torn: bool,
}

impl Sink {
    pub(crate) fn new(arguments: Arguments) -> Self {
        Self { arguments, file: None, size: 0, dropped: 0, torn: false }
    }

    /// Opens the file, makes its directory if need be. A failure is tried again at the next write.
    pub(crate) fn open(&mut self) {
        if let Some(dir) = self.arguments.path.parent() {
            // A failure shows at the open.
            drop(DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir));
        }
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&self.arguments.path);
        self.file = file.ok();
        self.size = self.file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
    }

    /// Appends whole lines, or drops and counts them. No file grows over its size, but for a single line that is larger.
    pub(crate) fn write(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let room = self.arguments.max_size.saturating_sub(self.size);
            let mut fitting = fitting(lines, room);
            if fitting == 0 {
                if self.size > 0 {
                    self.rotate();
                }
                fitting = first_line(lines);
            }
            let (now, later) = lines.split_at(fitting);
            self.write_some(now);
            lines = later;
        }
    }

    fn write_some(&mut self, lines: &[u8]) {
        if self.file.is_none() {
            self.open();
        }
        let mut text = Vec::new();
        if self.torn {
            text.push(b'\n');
        }
        if self.dropped > 0 {
            let note = format!("berth-logger: {} lines could not be written here\n", self.dropped);
            encode(note.as_bytes(), StreamName::Stderr, &mut text);
        }
        text.extend_from_slice(lines);
        match self.append(&text) {
            Ok(()) => {
                self.dropped = 0;
                self.torn = false;
            }
            Err(written) => {
                self.torn |= written > 0;
                self.dropped += lines.iter().filter(|b| **b == b'\n').count() as u64;
            }
        }
    }

    /// Err: how many bytes were written before it failed.
    fn append(&mut self, text: &[u8]) -> Result<(), usize> {
        let Some(file) = &mut self.file else { return Err(0) };
        let mut written = 0;
        while written < text.len() {
            match file.write(&text[written..]) {
                Ok(0) => return Err(written),
                Ok(more) => {
                    written += more;
                    self.size += more as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }

    /// `log.1` becomes `log.2`, `log` becomes `log.1`; with one file only it starts from nothing.
    fn rotate(&mut self) {
        let Arguments { path, max_files, .. } = &self.arguments;
        let numbered = |number: u32| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if *max_files == 1 {
            if let Some(file) = &self.file {
                drop(file.set_len(0));
            }
            self.size = 0;
            return;
        }
        // A rename that fails costs an old file, or lets the current one grow a little: nothing to stop for.
        for number in (1..max_files - 1).rev() {
            drop(fs::rename(numbered(number), numbered(number + 1)));
        }
        drop(fs::rename(path, numbered(1)));
        self.torn = false;
        self.open();
    }
}

/// Bytes of the whole lines that fit into so much room.
fn fitting(lines: &[u8], room: u64) -> usize {
    if lines.len() as u64 <= room {
        return lines.len();
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    lines[..room].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|b| *b == b'\n').map_or(lines.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(dir: &std::path::Path, max_size: u64, max_files: u32) -> Sink {
        Sink::new(Arguments { path: dir.join("sub/web.log"), max_size, max_files })
    }

    fn text(dir: &std::path::Path, name: &str) -> String {
        fs::read_to_string(dir.join("sub").join(name)).unwrap_or_default()
    }

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), 10, 3);
        sink.write(b"aaaaaaa\nbbbbbbb\n");
        sink.write(b"ccccccc\nddddddd\n");
        assert_eq!(
            (text(dir.path(), "web.log"), text(dir.path(), "web.log.1")),
            ("ddddddd\n".into(), "ccccccc\n".into())
        );
        assert_eq!(
            (text(dir.path(), "web.log.2"), text(dir.path(), "web.log.3")),
            ("bbbbbbb\n".into(), String::new())
        );
    }

    #[test]
    fn one_file_starts_again_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), 10, 1);
        sink.write(b"aaaaaaa\n");
        sink.write(b"bbbbbbb\n");
        assert_eq!(text(dir.path(), "web.log"), "bbbbbbb\n");
        assert!(!dir.path().join("sub/web.log.1").exists());
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_later() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sub"), "in the way").unwrap();
        let mut sink = sink(dir.path(), 1000, 1);
        sink.write(b"a\nb\n");
        fs::remove_file(dir.path().join("sub")).unwrap();
        sink.write(b"c\n");
        let text = text(dir.path(), "web.log");
        assert!(text.contains("2 lines could not be written") && text.ends_with("c\n"), "{text}");
    }

    #[test]
    fn a_full_disk_ends_nothing() {
        let mut sink = Sink::new(Arguments { path: "/dev/full".into(), max_size: u64::MAX, max_files: 1 });
        for _ in 0..3 {
            sink.write(b"a\n");
        }
        assert_eq!(sink.dropped, 3);
    }
}
