//! Behavioural fakes of the ports and namespaces for tests (dev-dependency only).
