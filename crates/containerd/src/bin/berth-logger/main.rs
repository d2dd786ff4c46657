//! `berth-logger`: takes a container's output from the shim and writes it to a file of JSON lines, as Docker's json-file driver does.
//!
//! The shim starts it as `berth-logger path PATH max-size BYTES max-files N` with the container's stdout on descriptor 3, its stderr
//! on 4, and waits until descriptor 5 is closed. It ends when both streams do. It belongs to the container and not to the agent, so
//! it must be small (one per container), must outlive everything else, and must never make the container wait for good: whatever
//! happens to the disk, the pipes are read on.

mod args;
mod lines;
mod sink;

use args::Arguments;
use lines::{Stream, StreamName};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};
use sink::Sink;
use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    process::ExitCode,
};

/// Bytes taken from a pipe at once: the size of a pipe.
const BUFFER: usize = 64 << 10;

fn main() -> ExitCode {
    // The shim says SIGTERM when the container is deleted. What is still in the pipes then is its last words.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    let blocked = signals.thread_block();
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) if blocked.is_ok() => arguments,
        _ => {
            eprintln!(
                "usage: berth-logger path PATH max-size BYTES max-files N, started by a containerd shim"
            );
            return ExitCode::FAILURE;
        }
    };
    let mut streams = Vec::new();
    for (number, name) in [(3, StreamName::Stdout), (4, StreamName::Stderr)] {
        // A second descriptor of the same pipe, because owning number 3 itself would take unsafe code.
        if let Ok(pipe) = File::open(format!("/proc/self/fd/{number}")) {
            streams.push((pipe, Stream::new(name)));
        }
        nix::unistd::close(number).ok();
    }
    // Held until the end, so that readers can tell whether more is to come; without it they only do not wait.
    let directory = arguments.path.parent().and_then(|dir| File::open(dir).ok());
    let _writing = directory.and_then(|dir| Flock::lock(dir, FlockArg::LockExclusiveNonblock).ok());
    let mut sink = Sink::new(arguments);
    // Open before the container runs, so that its first line has a place.
    sink.open();
    nix::unistd::close(5).ok();
    pump(&mut streams, &mut sink);
    ExitCode::SUCCESS
}

/// Reads until both streams have ended.
fn pump(streams: &mut Vec<(File, Stream)>, sink: &mut Sink) {
    let mut buffer = vec![0; BUFFER];
    while !streams.is_empty() {
        let mut polled: Vec<_> =
            streams.iter().map(|(pipe, _)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Without poll there is nothing left to do but to read on, one stream after the other.
            Err(_) => polled.clear(),
        }
        let ready: Vec<bool> = polled.iter().map(|p| p.any().unwrap_or(true)).collect();
        drop(polled);
        let mut position = 0;
        streams.retain_mut(|(pipe, stream)| {
            let is_ready = ready.get(position).copied().unwrap_or(true);
            position += 1;
            !is_ready || !take(pipe, stream, &mut buffer, sink)
        });
    }
}

/// Moves what is in the pipe; true when the stream has ended.
fn take(pipe: &mut File, stream: &mut Stream, buffer: &mut [u8], sink: &mut Sink) -> bool {
    match pipe.read(buffer) {
        Ok(0) => {
            sink.write(&stream.end());
            true
        }
        Ok(read) => {
            sink.write(&stream.push(&buffer[..read]));
            false
        }
        Err(e) => e.kind() != io::ErrorKind::Interrupted,
    }
}
