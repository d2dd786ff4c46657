//! Debian's `docker-registry` as a child process: a configuration, a storage and a port of its own.

use super::{BuiltImage, ImageSource, client::Client, image};
use berth_netns::ns::Netns;
use std::{
    fs::{self, File},
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long it may take to answer; it takes a tenth of a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at whether it does.
const PAUSE: Duration = Duration::from_millis(10);
/// [`PASSWORD`](super::PASSWORD) of [`USER`](super::USER) as `htpasswd -B` writes it: the only form that the registry reads.
const HTPASSWD: &str = "berth:$2y$05$abcdefghijklmnopqrstuutHR3lsNaqBpRzCnJGGOO3BKD67dHxtu\n";

/// Who is let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Login {
    /// Everybody.
    #[default]
    None,
    /// [`USER`](super::USER) with [`PASSWORD`](super::PASSWORD).
    Htpasswd,
}

/// What kind of registry.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Who is let in.
    pub login: Login,
    /// The network namespace that it runs in, `/run/netns/NAME`; the caller's unless set.
    pub netns: Option<PathBuf>,
    /// Where it listens; on a free port of the loopback unless set.
    pub bind: Option<SocketAddr>,
}

/// A running registry; gone with all that it holds on drop.
#[derive(Debug)]
pub struct Registry {
    dir: TempDir,
    netns: Option<PathBuf>,
    client: Client,
    child: Option<Child>,
}

impl Registry {
    /// Starts one. Needs the program `docker-registry`.
    pub fn start(options: &Options) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("berth-registry-").tempdir()?;
        let bind = options.bind.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let netns = options.netns.clone();
        // The registry cannot tell which port it was given: it is asked for one that was free a moment ago.
        let address = there(netns.as_deref(), || TcpListener::bind(bind)?.local_addr())?;
        let client = Client { address, login: options.login == Login::Htpasswd };
        let mut this = Self { dir, netns, client, child: None };
        fs::write(this.path("config.yml"), this.config())?;
        if client.login {
            fs::write(this.path("htpasswd"), HTPASSWD)?;
        }
        this.run()?;
        Ok(this)
    }

    /// Starts one for everybody in a network namespace, at an address that is there.
    pub fn start_in(netns: Option<&Path>, bind: SocketAddr) -> io::Result<Self> {
        let netns = netns.map(Path::to_owned);
        Self::start(&Options { netns, bind: Some(bind), ..Options::default() })
    }

    /// Where it listens: the first part of the names of its images.
    pub fn address(&self) -> SocketAddr {
        self.client.address
    }

    /// The full name of an image of its: `127.0.0.1:40001/web:1`.
    pub fn reference(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.address())
    }

    /// Puts an image into it; answers the manifest's digest.
    pub fn push(&self, name: &str, tag: &str, image: &ImageSource) -> io::Result<String> {
        let image = image.build()?;
        self.put(name, tag, &image)?;
        Ok(image.manifest.digest)
    }

    /// Puts images of several platforms under one tag; answers the index's digest.
    pub fn push_index(&self, name: &str, tag: &str, images: &[ImageSource]) -> io::Result<String> {
        let images = images.iter().map(ImageSource::build).collect::<io::Result<Vec<_>>>()?;
        for image in &images {
            self.put(name, &image.manifest.digest, image)?;
        }
        let index = image::index(&images)?;
        self.call(async |client: Client| client.put_manifest(name, tag, &index).await)?;
        Ok(index.digest)
    }

    fn put(&self, name: &str, reference: &str, image: &BuiltImage) -> io::Result<()> {
        self.call(async |client: Client| {
            for blob in image.blobs() {
                client.put_blob(name, blob).await?;
            }
            client.put_manifest(name, reference, &image.manifest).await
        })
    }

    /// Removes a manifest with all its tags; its layers stay.
    pub fn delete(&self, name: &str, digest: &str) -> io::Result<()> {
        self.call(async |client: Client| client.delete_manifest(name, digest).await)
    }

    /// What it has logged, for a failed test.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// kill -9: from now on connections are refused.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), at the same address and with what it held.
    pub fn run(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new("docker-registry");
        // Its settings can also come from the environment; ours must be the only ones.
        command.env_clear().arg("serve").arg(self.path("config.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(there(self.netns.as_deref(), || command.spawn())?);
        let deadline = Instant::now() + DEADLINE;
        while !self.call(async |client: Client| Ok(client.answers().await))? {
            if Instant::now() > deadline {
                let log = self.log();
                return Err(io::Error::other(format!("the registry does not answer; it says:\n{log}")));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let address = self.client.address;
        let auth = if self.client.login {
            format!("auth:\n  htpasswd:\n    realm: berth\n    path: {dir}/htpasswd\n")
        } else {
            String::new()
        };
        format!(
            "version: 0.1\n\
             log:\n  level: warn\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {dir}/storage\n  delete:\n    enabled: true\n\
             http:\n  addr: \"{address}\"\n  secret: berth\n{auth}"
        )
    }

    /// Talks to it from within its namespace.
    fn call<T: Send, F: Future<Output = io::Result<T>>>(
        &self,
        talk: impl (FnOnce(Client) -> F) + Send,
    ) -> io::Result<T> {
        let client = self.client;
        there(self.netns.as_deref(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(talk(client))
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

/// Runs something on a thread of its own, in the namespace if there is one: a caller that stands on a runtime may not block on another.
fn there<T: Send>(netns: Option<&Path>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match netns {
        Some(path) => Netns::open(path).and_then(|ns| ns.run(work)).map_err(io::Error::other)?,
        None => std::thread::scope(|scope| scope.spawn(work).join())
            .map_err(|_| io::Error::other("the registry's thread panicked"))?,
    }
}
