//! The members of a tar file by name, and where their bytes lie. One pass over the headers; contents are read later, in place.

use crate::{
    error::{Fault, Result},
    image::content::MAX_DOCUMENT,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tar::EntryType;

/// Members of an archive: an image of 500 layers has 1500 of them in Docker's old form.
const MAX_MEMBERS: usize = 20_000;
/// Characters of the tar reader's own words in an error: it quotes whole headers.
const MAX_QUOTE: usize = 120;
/// Links from one member to another that are followed; Docker writes one.
const MAX_LINKS: usize = 8;
/// Buffer while hashing.
const BLOCK: usize = 256 << 10;

/// Where a member's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    offset: u64,
    pub(crate) size: u64,
}

#[derive(Debug)]
enum Entry {
    File(Member),
    Link(String),
}

#[derive(Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
    members: BTreeMap<String, Entry>,
}

impl Archive {
    /// Opens a tar file and reads its headers. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut archive = Self::raw(path)?;
        let mut magic = [0; 4];
        let read = archive.file.read_at(&mut magic, 0).unwrap_or_default();
        if magic[..read].starts_with(&[0x1f, 0x8b]) || magic[..read].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(archive.bad("it is compressed: decompress it first"));
        }
        archive.members = archive.scan()?;
        Ok(archive)
    }

    /// Opens any file, to be read as a whole. Blocks.
    pub(crate) fn raw(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Fault::io(format!("open {}", path.display())))?;
        let meta = file.metadata().map_err(Fault::io(format!("look at {}", path.display())))?;
        if !meta.is_file() {
            return Err(Fault::Invalid(format!("{} is not a regular file", path.display())));
        }
        Ok(Self { file: Arc::new(file), path: path.to_owned(), length: meta.len(), members: BTreeMap::new() })
    }

    fn scan(&self) -> Result<BTreeMap<String, Entry>> {
        let damaged =
            |e: io::Error| self.bad(&format!("it is not a tar file or is damaged: {}", legible(&e)));
        let mut members = BTreeMap::new();
        let mut tar =
            tar::Archive::new(MemberReader { file: self.file.clone(), offset: 0, left: self.length });
        for entry in tar.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = plain(&entry.path().map_err(damaged)?)
                .ok_or_else(|| self.bad("a member's path leads out of the archive"))?;
            let found = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let member = Member { offset: entry.raw_file_position(), size: entry.size() };
                    if member.offset.checked_add(member.size).is_none_or(|end| end > self.length) {
                        return Err(self.bad(&format!("it is cut off: {name} is incomplete")));
                    }
                    Entry::File(member)
                }
                kind @ (EntryType::Symlink | EntryType::Link) => {
                    let target = entry.link_name().map_err(damaged)?.unwrap_or_default();
                    // A symbolic link starts at its own directory, a hard link at the archive's root.
                    let base = if kind == EntryType::Symlink { Path::new(&name).parent() } else { None };
                    let target = base.unwrap_or(Path::new("")).join(target);
                    Entry::Link(
                        resolved(&target)
                            .ok_or_else(|| self.bad(&format!("the link {name} leads out of the archive")))?,
                    )
                }
                _ => continue,
            };
            members.insert(name, found);
            if members.len() > MAX_MEMBERS {
                return Err(self.bad(&format!("it has more than {MAX_MEMBERS} members")));
            }
        }
        Ok(members)
    }

    /// A member by its name, through links.
    pub(crate) fn member(&self, name: &str) -> Option<Member> {
        let mut name = resolved(Path::new(name))?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&name)? {
                Entry::File(member) => return Some(*member),
                Entry::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// The whole file as one member.
    pub(crate) fn whole(&self) -> Member {
        Member { offset: 0, size: self.length }
    }

    /// A document's bytes.
    pub(crate) fn document(&self, name: &str, member: Member) -> Result<Vec<u8>> {
        if member.size > MAX_DOCUMENT {
            return Err(self.bad(&format!("{name} is larger than {MAX_DOCUMENT} bytes")));
        }
        let mut bytes = Vec::new();
        self.read(&member)?
            .read_to_end(&mut bytes)
            .map_err(Fault::io(format!("read {}", self.path.display())))?;
        Ok(bytes)
    }

    /// The member's content. Each reader has a position of its own.
    #[expect(clippy::unnecessary_wraps, reason = "one signature with sources that must be opened")]
    pub(crate) fn read(&self, member: &Member) -> Result<MemberReader> {
        Ok(MemberReader { file: self.file.clone(), offset: member.offset, left: member.size })
    }

    /// Digest and size of a member.
    pub(crate) fn digest(&self, member: &Member) -> Result<(String, u64)> {
        let mut reader = self.read(member)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        loop {
            let read = reader.read(&mut block).map_err(Fault::io(format!("read {}", self.path.display())))?;
            if read == 0 {
                return Ok((format!("sha256:{}", hex::encode(hash.finalize())), member.size));
            }
            hash.update(&block[..read]);
        }
    }

    /// An error about this archive.
    pub(crate) fn bad(&self, why: &str) -> Fault {
        Fault::Invalid(format!("{} cannot be imported: {why}", self.path.display()))
    }
}

/// A member's name without `./`; `None` when it is absolute or climbs.
fn plain(path: &Path) -> Option<String> {
    let climbs = path.components().any(|c| matches!(c, Component::ParentDir | Component::RootDir));
    if climbs { None } else { resolved(path) }
}

/// A path inside the archive with `.` and `..` resolved; `None` when it leads out.
fn resolved(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Reads a stretch of the file without moving anyone else's position.
#[derive(Debug)]
pub(crate) struct MemberReader {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for MemberReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl io::Seek for MemberReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let end = self.offset + self.left;
        let next = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            io::SeekFrom::End(by) => end.checked_add_signed(by),
        };
        let next = next.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.offset = next;
        self.left = end.saturating_sub(next);
        Ok(next)
    }
}

/// An error of the tar reader without the archive's own bytes, which it quotes as they are.
fn legible(error: &io::Error) -> String {
    error.to_string().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_QUOTE).collect()
}
