//! Between the agents and the registry: counts what comes, slows it down, holds it back, or is not there.

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Bytes handed on at a time, and the unit of pacing.
const PIECE: usize = 16 << 10;
/// Between two looks at whether there is something to do.
const PAUSE: Duration = Duration::from_millis(5);
/// As fast as it comes.
pub(crate) const FAST: u64 = u64::MAX;

/// What can be told to it while it runs.
#[derive(Debug)]
struct Shared {
    /// Bytes a second from the registry, for each connection; none at all when it is 0.
    pace: AtomicU64,
    /// Bytes that came from the registry and were handed on.
    sent: AtomicU64,
    stop: AtomicBool,
}

/// A proxy in a network namespace; dropped, its port refuses connections and those that there are break off.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens in the namespace of this name and hands on to `to`, which is there too.
    pub(crate) fn start(netns: &str, listen: &str, to: &str) -> Self {
        let shared = Arc::new(Shared {
            pace: AtomicU64::new(FAST),
            sent: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (sender, listens) = std::sync::mpsc::channel();
        let (netns, listen, to, mine) =
            (format!("/run/netns/{netns}"), listen.to_owned(), to.to_owned(), shared.clone());
        // A thread of its own: it stays in the other namespace, and those that it starts are there from the beginning.
        let thread = std::thread::spawn(move || {
            #[expect(
                clippy::disallowed_methods,
                reason = "a thread of its own, of a program that links none of Berth's crates"
            )]
            setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind(&listen).unwrap();
            listener.set_nonblocking(true).unwrap();
            sender.send(()).unwrap();
            accept(&listener, &to, &mine);
        });
        listens.recv().expect("the proxy to listen");
        Self { shared, thread: Some(thread) }
    }

    /// Bytes a second from now on.
    pub(crate) fn pace(&self, bytes_a_second: u64) {
        self.shared.pace.store(bytes_a_second, SeqCst);
    }

    /// Bytes that came from the registry since this was asked last.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.swap(0, SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn accept(listener: &TcpListener, to: &str, shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    while !shared.stop.load(SeqCst) {
        match listener.accept() {
            Ok((client, _)) => {
                let Ok(server) = TcpStream::connect(to) else { continue };
                client.set_nonblocking(false).unwrap();
                server.set_read_timeout(Some(PAUSE)).unwrap();
                let (mut requests, mut upward) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut requests, &mut upward));
                let shared = shared.clone();
                connections.push(std::thread::spawn(move || hand_on(server, client, &shared)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => panic!("{error}"),
        }
    }
    // Agents keep connections open: one that outlived the proxy would still reach the registry.
    connections.into_iter().for_each(|connection| drop(connection.join()));
}

/// From the registry to the agent, at the pace that is set.
fn hand_on(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut piece = vec![0; PIECE];
    while !shared.stop.load(SeqCst) {
        let pace = shared.pace.load(SeqCst);
        if pace == 0 {
            std::thread::sleep(PAUSE);
            continue;
        }
        let length = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
        shared.sent.fetch_add(length as u64, SeqCst);
        if pace != FAST {
            std::thread::sleep(
                Duration::from_secs(1) * u32::try_from(length).unwrap() / u32::try_from(pace).unwrap(),
            );
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
