//! Crash points: a test arms one, the fakes of the ports pass it at every call, and at the n-th call the program "dies".
//!
//! Death is a call that never answers: the owner of the loop then drops it, exactly as `kill -9` would, while everything that
//! the fakes stand for (EC2, kernel, disk) stays as it was. Calls made after death pend as well, so that nothing leaks out of
//! tasks which the runtime has not dropped yet.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

/// Whether the fatal call still has its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Death comes before the effect.
    Before,
    /// The effect happens, the answer is lost.
    After,
}

/// A crash point that several fakes share, so that one count runs over all ports.
#[derive(Debug)]
pub struct Crash {
    passed: AtomicU64,
    armed: Mutex<Option<(u64, Side)>>,
    dead: watch::Sender<bool>,
}

impl Default for Crash {
    fn default() -> Self {
        Self { passed: AtomicU64::new(0), armed: Mutex::new(None), dead: watch::Sender::new(false) }
    }
}

impl Crash {
    /// Dies at the `calls`-th call from now on, counted from 0.
    pub fn crash_after(&self, calls: u64, side: Side) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((self.passed() + calls, side));
    }

    /// How many calls were made so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Waits for death. The test then drops what it runs.
    pub async fn died(&self) {
        let mut dead = self.dead.subscribe();
        // The sender lives in self, so the wait ends only by the value.
        if dead.wait_for(|dead| *dead).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the armed call was reached.
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// The program is started again: calls are answered, nothing is armed.
    pub fn revive(&self) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.dead.send_replace(false);
    }

    /// To be awaited by a fake at the start of each call. Answers whether the program dies after the effect; the fake then
    /// passes the answer to [`Crash::leave`].
    pub async fn enter(&self) -> bool {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        let number = self.passed.fetch_add(1, Ordering::SeqCst);
        let armed = *self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        match armed {
            Some((at, Side::Before)) if number == at => {
                self.dead.send_replace(true);
                std::future::pending::<()>().await;
                false
            }
            Some((at, Side::After)) if number == at => true,
            Some(_) | None => false,
        }
    }

    /// To be awaited by a fake at the end of each call.
    pub async fn leave(&self, dies: bool) {
        if dies {
            self.dead.send_replace(true);
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}
