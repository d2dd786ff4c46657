//! The outbox: reports of task state, durable before they are sent, sent in order until they are acknowledged.
