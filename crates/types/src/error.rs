//! What every operation's error can say about itself, and how a chain of causes is printed once.

use std::{error::Error, fmt, time::Duration};

/// Whether trying again can help. The planner decides on retries by this, never the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same act may succeed later; back off by the planner's policy.
    Retry,
    /// As `Retry`, but the other side named the wait.
    RetryAfter(Duration),
    /// The same act fails again until someone changes something.
    Permanent,
    /// Our own mistake: an invariant does not hold.
    Bug,
}

/// Prints an error and its causes, each once: `attach eni-1 to i-2: request limit exceeded`.
///
/// Errors in Berth do not repeat their source in `Display`, so this is how they are logged and shown.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("attach eni-1")]
    struct Outer(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("throttled")]
    struct Inner;

    #[test]
    fn chain_prints_every_cause_once() {
        assert_eq!(Chain(&Outer(Inner)).to_string(), "attach eni-1: throttled");
    }
}
