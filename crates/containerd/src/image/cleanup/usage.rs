//! How full a file system is.

use crate::error::{Fault, Result, blocking};
use nix::sys::statvfs::{Statvfs, statvfs};
use std::path::Path;

/// Percent of the file system under `root` that is used, of its space or its inodes: images of many small files use up the latter.
pub(super) async fn percent(root: &Path) -> Result<u8> {
    let root = root.to_owned();
    blocking(move || {
        let what = format!("look at the file system of {}", root.display());
        let found = statvfs(&root).map_err(|errno| Fault::io(what)(errno.into()))?;
        Ok(fullest(&found))
    })
    .await
}

fn fullest(found: &Statvfs) -> u8 {
    let space = share(found.blocks(), found.blocks_free(), found.blocks_available());
    let inodes = share(found.files(), found.files_free(), found.files_available());
    space.max(inodes)
}

/// As `df` counts: what only root may still use is neither used nor left, and what is begun counts as a whole percent. A file system that
/// makes inodes as it needs them says it has none.
fn share(total: u64, free: u64, available: u64) -> u8 {
    let used = u128::from(total.saturating_sub(free));
    let all = used + u128::from(available);
    if all == 0 { 0 } else { u8::try_from((used * 100).div_ceil(all)).unwrap_or(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_counted_as_df_does() {
        assert_eq!(share(0, 0, 0), 0);
        assert_eq!(share(1000, 500, 450), 53);
        assert_eq!(share(1000, 50, 0), 100);
        assert_eq!(share(u64::MAX, 0, 0), 100);
        assert_eq!(share(100, 200, 200), 0);
    }

    #[tokio::test]
    async fn a_file_system_has_a_share_and_a_path_that_is_not_there_has_a_reason() {
        assert!(percent(Path::new("/proc/self/")).await.is_ok());
        let fault = percent(Path::new("/nowhere/at/all")).await.unwrap_err();
        assert_eq!(fault.to_string(), "look at the file system of /nowhere/at/all");
    }
}
