//! Reading a container's log: the last lines over all its rotated files, and what comes after.
//!
//! All of it is plain file work that blocks. A line that does not parse (torn by a full disk) is passed over.

use berth_types::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Most lines that one answer holds.
pub const MAX_TAIL: usize = 10_000;
/// Most bytes of log that are looked at for one answer: lines of 16 KiB fill it with 1000 lines.
const MAX_BYTES: u64 = 16 << 20;
/// Longest wait for the logger of an ended container: it ends when containerd forgets the container, which takes 50 ms and on a
/// loaded machine some hundreds.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two looks at the logger.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bytes read backwards at a time.
const BLOCK: u64 = 64 << 10;
/// Rotated files looked for; the logger keeps no more.
const MAX_FILES: u32 = 100;

/// One line (or a piece of 16 KiB of a longer one) that a container wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the logger read it.
    pub time: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text; it ends with a newline unless the line goes on in the next one.
    pub log: String,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read log {}", path.display())]
pub struct ReadError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The last `tail` lines (at most [`MAX_TAIL`]) not older than `since`, the oldest first. A log that is not there is empty.
pub fn read(path: &Path, tail: usize, since: Option<Timestamp>) -> Result<Vec<LogLine>, ReadError> {
    let wanted = tail.min(MAX_TAIL);
    let mut lines: Vec<LogLine> = Vec::new();
    let mut budget = MAX_BYTES;
    for number in 0..=MAX_FILES {
        if lines.len() >= wanted || budget == 0 {
            break;
        }
        let file = rotated(path, number);
        let older = last_lines(&file, wanted - lines.len(), &mut budget)
            .map_err(|source| ReadError { path: file.clone(), source })?;
        let Some(older) = older else { break };
        lines.splice(0..0, older);
    }
    if let Some(since) = since {
        lines.retain(|line| line.time >= since);
    }
    Ok(lines)
}

/// Waits until the logger of an ended container has written its last words, which it gets a moment after the container's end is known.
/// A logger that takes longer is not waited for.
pub fn await_end(path: &Path) {
    let start = Instant::now();
    while start.elapsed() < LAST_WORDS {
        // The logger holds the directory locked while it lives.
        let Some(Ok(directory)) = path.parent().map(File::open) else { return };
        if Flock::lock(directory, FlockArg::LockSharedNonblock).is_ok() {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// `web.log`, `web.log.1`, ...: the newest first.
fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The last lines of one file, read from its end; `None` when it is not there.
fn last_lines(path: &Path, wanted: usize, budget: &mut u64) -> io::Result<Option<Vec<LogLine>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut start = file.metadata()?.len();
    let mut bytes: Vec<u8> = Vec::new();
    let mut newlines = 0;
    // One newline more than lines: the text before the first one is the end of a line that began earlier.
    while start > 0 && newlines <= wanted && *budget > 0 {
        let step = BLOCK.min(start).min(*budget);
        start -= step;
        *budget -= step;
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        file.by_ref().take(step).read_to_end(&mut block)?;
        newlines += block.iter().filter(|b| **b == b'\n').count();
        block.append(&mut bytes);
        bytes = block;
    }
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    if start > 0 && !lines.is_empty() {
        lines.remove(0);
    }
    let parsed: Vec<LogLine> =
        lines.into_iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let skip = parsed.len().saturating_sub(wanted);
    Ok(Some(parsed.into_iter().skip(skip).collect()))
}

/// Reads what a log gets after the point where it was opened, over rotations.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// Absent until the container has written something.
    file: Option<(File, u64)>,
    /// The start of a line whose end has not been written yet.
    rest: Vec<u8>,
}

impl Follower {
    /// From the end of what is there now; a log that is not there yet is followed from its start.
    pub fn from_end(path: &Path) -> Result<Self, ReadError> {
        let mut follower = Self { path: path.to_owned(), file: None, rest: Vec::new() };
        if let Some((mut file, inode)) = follower.open()? {
            file.seek(SeekFrom::End(0)).map_err(|source| follower.error(source))?;
            follower.file = Some((file, inode));
        }
        Ok(follower)
    }

    /// The complete lines since the last call, at most 16 MiB of them; the rest comes with the next call.
    pub fn poll(&mut self) -> Result<Vec<LogLine>, ReadError> {
        let mut lines = self.take()?;
        let Some((fresh, inode)) = self.open()? else { return Ok(lines) };
        if self.file.as_ref().is_none_or(|(_, old)| *old != inode) {
            // The old file was read to its end just now, and nobody writes to it any more.
            self.file = Some((fresh, inode));
            self.rest.clear();
            lines.extend(self.take()?);
        }
        Ok(lines)
    }

    fn open(&self) -> Result<Option<(File, u64)>, ReadError> {
        match File::open(&self.path) {
            Ok(file) => {
                let inode = file.metadata().map_err(|source| self.error(source))?.ino();
                Ok(Some((file, inode)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error(e)),
        }
    }

    fn take(&mut self) -> Result<Vec<LogLine>, ReadError> {
        let Some((file, _)) = &mut self.file else { return Ok(Vec::new()) };
        // With one file only, a rotation empties it in place.
        let length = file.metadata().map(|m| m.len());
        let position = file.stream_position();
        if let (Ok(length), Ok(position)) = (length, position)
            && length < position
        {
            self.rest.clear();
            file.rewind().map_err(|source| ReadError { path: self.path.clone(), source })?;
        }
        let read = file.by_ref().take(MAX_BYTES).read_to_end(&mut self.rest);
        read.map_err(|source| ReadError { path: self.path.clone(), source })?;
        let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        Ok(whole.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    fn error(&self, source: io::Error) -> ReadError {
        ReadError { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    fn line(number: usize) -> String {
        format!(
            "{{\"log\":\"{number}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{:02}.5Z\"}}\n",
            number % 60
        )
    }

    fn numbers(lines: &[LogLine]) -> Vec<usize> {
        lines.iter().map(|l| l.log.trim().parse().unwrap()).collect()
    }

    #[test]
    fn the_tail_reaches_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.log");
        fs::write(rotated(&path, 2), line(0) + &line(1)).unwrap();
        fs::write(rotated(&path, 1), line(2) + &line(3)).unwrap();
        fs::write(&path, line(4) + "{\"log\":\"torn").unwrap();
        assert_eq!(numbers(&read(&path, 100, None).unwrap()), [0, 1, 2, 3, 4]);
        assert_eq!(numbers(&read(&path, 2, None).unwrap()), [3, 4]);
        let since = "2026-01-01T00:00:03Z".parse().unwrap();
        assert_eq!(numbers(&read(&path, 100, Some(since)).unwrap()), [3, 4]);
        assert_eq!(read(&dir.path().join("none"), 5, None).unwrap(), []);
    }

    #[test]
    fn a_large_log_is_read_from_its_end_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.log");
        let text: String = (0..20_000).map(line).collect();
        fs::write(&path, text).unwrap();
        assert_eq!(numbers(&read(&path, 3, None).unwrap()), [19_997, 19_998, 19_999]);
        assert_eq!(read(&path, usize::MAX, None).unwrap().len(), MAX_TAIL);
    }

    #[test]
    fn following_goes_on_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.log");
        let mut follower = Follower::from_end(&path).unwrap();
        assert_eq!(follower.poll().unwrap(), []);
        let mut file = File::create(&path).unwrap();
        let text = line(1);
        file.write_all(&text.as_bytes()[..10]).unwrap();
        assert_eq!(follower.poll().unwrap(), []);
        file.write_all(&text.as_bytes()[10..]).unwrap();
        assert_eq!(numbers(&follower.poll().unwrap()), [1]);
        file.write_all(line(2).as_bytes()).unwrap();
        fs::rename(&path, rotated(&path, 1)).unwrap();
        fs::write(&path, line(3)).unwrap();
        assert_eq!(numbers(&follower.poll().unwrap()), [2, 3]);
        assert_eq!(numbers(&read(&path, 9, None).unwrap()), [1, 2, 3]);
    }
}
