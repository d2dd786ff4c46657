//! Images, containers, events and logs of containerd behind the engine's port.
