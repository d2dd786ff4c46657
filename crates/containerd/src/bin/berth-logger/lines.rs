//! Bytes of a stream to JSON lines: one for each line, and one for each 16 KiB of a longer one, as Docker splits them.

use jiff::Timestamp;
use serde::Serialize;

/// Docker's size of a piece: a line that is longer comes in pieces without a newline at their end.
const PIECE: usize = 16 << 10;

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

#[derive(Serialize)]
struct Line<'a> {
    log: &'a str,
    stream: StreamName,
    time: Timestamp,
}

/// A line of the log file.
pub(crate) fn encode(text: &[u8], stream: StreamName, out: &mut Vec<u8>) {
    let start = out.len();
    // Output need not be text: what is not UTF-8 is replaced, as Docker does.
    let line = Line { log: &String::from_utf8_lossy(text), stream, time: Timestamp::now() };
    match serde_json::to_writer(&mut *out, &line) {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(start),
    }
}

/// One of the container's two streams.
#[derive(Debug)]
pub(crate) struct Stream {
    name: StreamName,
    /// The start of a line whose end has not come yet; shorter than a piece.
    partial: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(name: StreamName) -> Self {
        Self { name, partial: Vec::new() }
    }

    /// Takes bytes, gives the lines that they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let room = PIECE - self.partial.len();
            let newline = bytes.iter().take(room).position(|b| *b == b'\n');
            let taken = newline.map_or(room.min(bytes.len()), |at| at + 1);
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if newline.is_some() {
                encode(&self.partial, self.name, &mut out);
                self.partial.clear();
            } else if self.partial.len() == PIECE {
                let whole = whole_characters(&self.partial);
                encode(&self.partial[..whole], self.name, &mut out);
                self.partial.drain(..whole);
            }
        }
        out
    }

    /// The last line, if it had no newline.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.partial.is_empty() {
            encode(&self.partial, self.name, &mut out);
            self.partial.clear();
        }
        out
    }
}

/// How many of the bytes to write now, so that no character is cut in two. Never 0: bytes that are not UTF-8 go as they are.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|b| b & 0b1100_0000 != 0b1000_0000).unwrap_or_default();
    let complete = std::str::from_utf8(&bytes[last..]).is_ok();
    if complete || last == 0 || bytes.len() - last > 3 { bytes.len() } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(out: &[u8]) -> Vec<String> {
        let lines = std::str::from_utf8(out).unwrap().lines();
        lines
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).unwrap()["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_line_may_come_in_parts_and_the_last_without_a_newline() {
        let mut stream = Stream::new(StreamName::Stderr);
        assert_eq!(texts(&stream.push(b"hel")), Vec::<String>::new());
        let out = stream.push(b"lo\n\nend");
        assert!(std::str::from_utf8(&out).unwrap().contains("\"stream\":\"stderr\",\"time\":\"20"));
        assert_eq!(texts(&out), ["hello\n", "\n"]);
        assert_eq!(texts(&stream.end()), ["end"]);
        assert_eq!(stream.end(), b"");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut stream = Stream::new(StreamName::Stdout);
        let text = format!("x{}\n", "ü".repeat(PIECE));
        let mut all = stream.push(text.as_bytes());
        all.extend(stream.end());
        let pieces = texts(&all);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.len() == 3 && pieces.iter().all(|p| p.len() <= PIECE));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut stream = Stream::new(StreamName::Stdout);
        assert_eq!(texts(&stream.push(b"a\xff\n")), ["a\u{fffd}\n"]);
        assert!(texts(&stream.push(&[0xbf; 2 * PIECE])).len() >= 2);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_cut(text in "[a-zäß\n]{0,400}", cut in 1usize..50) {
            let mut stream = Stream::new(StreamName::Stdout);
            let mut all = Vec::new();
            for part in text.as_bytes().chunks(cut) {
                all.extend(stream.push(part));
            }
            all.extend(stream.end());
            proptest::prop_assert_eq!(texts(&all).concat(), text);
        }
    }
}
