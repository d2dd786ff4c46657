//! The unix socket and its connections.

use crate::{
    Admin,
    events::{self, EventLog},
    routes::{self, Api},
};
use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// The socket could not be had, or serving failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process answers on the socket.
    #[error("admin socket {0}: another agent answers on it")]
    InUse(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("admin socket {0}: a file that is not a socket has that name")]
    NotASocket(PathBuf),
    /// The socket could not be made.
    #[error("admin socket {path}: {op}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Which step.
        op: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The accept loop ended.
    #[error("serve the admin socket")]
    Serve(#[source] io::Error),
}

/// Makes the socket, mode 0600: whoever can open it runs containers as root. One that a dead agent left is replaced.
pub async fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let error = |op| move |source| ServeError::Bind { path: path.to_owned(), op, source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(error("make its directory"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(ServeError::InUse(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(error("remove the old one"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(error("look at it")(e)),
    }
    let listener = UnixListener::bind(path).map_err(error("bind"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(error("set mode 0600"))?;
    Ok(listener)
}

/// How long answers under way may still take at shutdown: a client that reads nothing must not hold up the agent's end.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// Serves until cancelled; requests under way are finished, unless their clients are too slow.
pub async fn serve(
    listener: UnixListener,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let log = EventLog::new();
    let recorder = events::record(admin.clone(), log.clone(), shutdown.clone());
    let router = routes::router(Api { admin, events: log, shutdown: shutdown.clone() });
    let stop = shutdown.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        // Both arms end serving; what they drop is over with it.
        (served, ()) = async { tokio::join!(server, recorder) } => served.map_err(ServeError::Serve),
        () = patience => Ok(()),
    }
}

#[cfg(test)]
mod tests;
