//! The task engine: task and container state machines, launch and stop plans, one loop.
