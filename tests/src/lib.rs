//! Harness of the whole-program tests and of the demo.
