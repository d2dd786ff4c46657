//! What tasks ask: the task metadata endpoint v3 and v4 on a listener in each namespace.
