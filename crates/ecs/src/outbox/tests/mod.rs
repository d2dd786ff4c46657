//! Tests of the outbox over a control plane that throttles, is out, loses replies and refuses.

mod fixtures;
mod histories;
mod sending;
mod telling;
