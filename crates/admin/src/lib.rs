//! What operators ask: the admin REST API on a unix socket.
