//! The journal's directory, and everything that is decided about it before sled is let near.
//!
//! ```text
//! NAME.lock               held while a journal is open, with the holder's process id; beside the directory, so that it stays when
//!                         the directory is renamed
//! NAME/header             whose journal, which format
//! NAME/progress           count of commits that have left the process
//! NAME/opening            count of starts that began to open and have not finished
//! NAME/db/                sled's files
//! NAME.set-aside-TIME/    journals that could not be used, the newest few
//! ```

use crate::{
    database::progress_file,
    header::{Header, MAX_HEADER_BYTES},
    progress::Progress,
    report::SetAsideReason,
};
use berth_types::{Timestamp, ids::InstanceId, ports::JournalError};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// Journals kept for a post-mortem: enough to see whether the same thing happened twice, too few to fill a disk.
const SET_ASIDE_KEPT: usize = 3;
/// Starts that may die while opening before the journal gets the blame. One can be a SIGKILL that happened to hit those few
/// milliseconds; two in a row point at the journal.
const ABORTED_OPENS_MAX: u32 = 2;
/// How often a lock that another process holds is tried again: well under what a person notices.
const LOCK_RETRY: Duration = Duration::from_millis(50);

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Where a journal lies.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    name: OsString,
}

/// The lock on a journal; freed when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct PlaceLock {
    _file: File,
}

impl Place {
    /// The place of a journal; makes the directory above it.
    pub(crate) fn new(dir: &Path) -> Result<Self, JournalError> {
        let name = dir.file_name().map(OsString::from);
        let place = Self { dir: dir.into(), name: name.clone().unwrap_or_default() };
        if name.is_none() {
            return Err(place.error("open", "the path does not end in a name".into(), None));
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(DIR_MODE)
                .create(parent)
                .map_err(|error| place.io("make the directory above", error))?;
        }
        Ok(place)
    }

    /// The journal's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn header_file(&self) -> PathBuf {
        self.dir.join("header")
    }

    fn marker_file(&self) -> PathBuf {
        self.dir.join("opening")
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        let mut name = self.name.clone();
        name.push(suffix);
        self.dir.with_file_name(name)
    }

    pub(crate) fn error(&self, op: &'static str, reason: String, source: Option<Source>) -> JournalError {
        JournalError { op, path: self.dir.clone(), reason, source }
    }

    fn io(&self, what: &str, error: io::Error) -> JournalError {
        self.error("open", format!("cannot {what}"), Some(error.into()))
    }

    /// Takes the lock, waiting for an agent that is about to die.
    pub(crate) fn lock(&self, deadline: Duration) -> Result<PlaceLock, JournalError> {
        let path = self.sibling(".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| self.io("open its lock file", error))?;
        let (began, mut told) = (Instant::now(), false);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(self.io("lock it", error)),
                Err(TryLockError::WouldBlock) if began.elapsed() < deadline => {
                    if !told {
                        info!(path = %self.dir.display(), holder = %holder(&mut file), "waiting for the journal's lock");
                        told = true;
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(TryLockError::WouldBlock) => {
                    let reason = format!("{} has held it for {deadline:?}", holder(&mut file));
                    return Err(self.error("open", reason, None));
                }
            }
        }
        // Only to name the holder to the next one; a failure to do so hurts nobody.
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "the journal's lock file does not name its holder");
        }
        Ok(PlaceLock { _file: file })
    }

    /// Why the journal that lies here cannot be used; `None` when it can, or when there is none.
    pub(crate) fn judge(&self, ours: Option<&InstanceId>) -> Result<Option<SetAsideReason>, JournalError> {
        match fs::metadata(&self.dir) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(Some(SetAsideReason::Damaged("it is not a directory".into()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("look at it", error)),
        }
        let Some(bytes) = self.header_bytes()? else {
            return self.judge_without_header();
        };
        let header = match Header::parse(&bytes) {
            Ok(header) => header,
            Err(reason) => return Ok(Some(reason)),
        };
        if let (Some(journal), Some(ours)) = (header.instance_id, ours)
            && journal != *ours
        {
            return Ok(Some(SetAsideReason::ForeignInstance { journal, ours: ours.clone() }));
        }
        let aborted = self.marker()?;
        Ok((aborted >= ABORTED_OPENS_MAX).then_some(SetAsideReason::AbortedOpens(aborted)))
    }

    /// A directory without a header was never finished, or lost it; or it is someone else's, and renaming it would be an act of
    /// vandalism behind a mistyped path.
    fn judge_without_header(&self) -> Result<Option<SetAsideReason>, JournalError> {
        let mut has_database = false;
        for entry in fs::read_dir(&self.dir).map_err(|error| self.io("list it", error))? {
            let name = entry.map_err(|error| self.io("list it", error))?.file_name();
            match name.to_str() {
                Some("header.new" | "opening" | "progress") => {}
                Some("db") => has_database = true,
                _ => {
                    let reason =
                        format!("the directory is not a journal: it holds `{}`", name.to_string_lossy());
                    return Err(self.error("open", reason, None));
                }
            }
        }
        Ok(has_database.then(|| SetAsideReason::Damaged("its header is missing".into())))
    }

    /// Whether there is no journal here yet; asked after [`Self::judge`] found nothing wrong.
    pub(crate) fn is_new(&self) -> bool {
        !self.header_file().exists()
    }

    /// Makes the directory and the header where they are missing, and gives a journal without an owner its owner.
    pub(crate) fn prepare(&self, ours: Option<&InstanceId>) -> Result<Header, JournalError> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&self.dir)
            .map_err(|error| self.io("make the directory", error))?;
        let found = match self.header_bytes()? {
            None => None,
            Some(bytes) => {
                Some(Header::parse(&bytes).map_err(|reason| self.error("open", reason.to_string(), None))?)
            }
        };
        let header = match found {
            Some(header) if header.instance_id.is_some() || ours.is_none() => return Ok(header),
            Some(header) => Header::new(ours.cloned(), header.created_at),
            None => {
                // Before the header: whoever finds a header may rely on the count.
                Progress::create(&progress_file(&self.dir))
                    .map_err(|error| self.io("write its count of commits", error))?;
                Header::new(ours.cloned(), Timestamp::now())
            }
        };
        let bytes = header
            .to_bytes()
            .map_err(|error| self.error("open", "cannot write its header".into(), Some(error.into())))?;
        self.replace(&self.header_file(), &bytes).map_err(|error| self.io("write its header", error))?;
        Ok(header)
    }

    /// Writes a file so that a reader finds the old bytes or the new ones.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.dir.join("header.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    }

    fn header_bytes(&self) -> Result<Option<Vec<u8>>, JournalError> {
        self.small_file(&self.header_file()).map_err(|error| self.io("read its header", error))
    }

    fn small_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_HEADER_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Starts that began to open this journal and did not finish.
    fn marker(&self) -> Result<u32, JournalError> {
        let bytes = self
            .small_file(&self.marker_file())
            .map_err(|error| self.io("read its opening marker", error))?;
        // A marker that was cut off still says that there was a start.
        Ok(bytes.map_or(0, |bytes| String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(1)))
    }

    /// Counts this start, before sled is given the chance to take the process down. Answers how many came before.
    pub(crate) fn mark_opening(&self) -> Result<u32, JournalError> {
        let before = self.marker()?;
        self.write_marker(before.saturating_add(1))?;
        Ok(before)
    }

    /// Makes the next start set the journal aside.
    pub(crate) fn mark_given_up(&self) -> Result<(), JournalError> {
        self.write_marker(ABORTED_OPENS_MAX)
    }

    fn write_marker(&self, count: u32) -> Result<(), JournalError> {
        // Not synced: it has to outlive the process, and after a power loss the count may well begin again.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(self.marker_file())
            .and_then(|mut file| writeln!(file, "{count}"))
            .map_err(|error| self.io("write its opening marker", error))
    }

    /// The journal is open, or known not to be at fault.
    pub(crate) fn unmark_opening(&self) -> Result<(), JournalError> {
        match fs::remove_file(self.marker_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.io("remove its opening marker", error))
            }
            _ => Ok(()),
        }
    }

    /// Renames the journal out of the way; answers its new path.
    pub(crate) fn set_aside(&self) -> Result<PathBuf, JournalError> {
        // To the microsecond, so that two in a row do not collide; sorts by age.
        let to = self.sibling(&format!(".set-aside-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ")));
        fs::rename(&self.dir, &to).map_err(|error| self.io("set it aside", error))?;
        if let Err(error) = self.prune() {
            warn!(path = %self.dir.display(), %error, "old journals that were set aside cannot be removed");
        }
        Ok(to)
    }

    fn prune(&self) -> io::Result<()> {
        let mut prefix = self.name.clone();
        prefix.push(".set-aside-");
        let parent =
            self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<PathBuf> = fs::read_dir(parent)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()))
            .map(|entry| entry.path())
            .collect();
        old.sort();
        for path in old.iter().rev().skip(SET_ASIDE_KEPT) {
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    /// Takes the journal away from everyone but its owner. sled makes its files by the umask; what it makes later lies behind the
    /// directory's mode all the same.
    pub(crate) fn restrict_modes(&self) -> Result<(), JournalError> {
        restrict(&self.dir).map_err(|error| self.io("restrict its modes", error))
    }
}

fn restrict(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let result = match entry.file_type()? {
            kind if kind.is_dir() => restrict(&entry.path()),
            kind if kind.is_file() => fs::set_permissions(entry.path(), Permissions::from_mode(FILE_MODE)),
            _ => Ok(()),
        };
        // sled drops blobs and snapshots whenever it likes.
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Who holds the lock, for people.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    let Some(pid) = read.ok().and_then(|_| text.trim().parse::<u32>().ok()) else {
        return "another process".into();
    };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(comm) => format!("process {pid} ({})", comm.trim()),
        Err(_) => format!("process {pid}"),
    }
}
