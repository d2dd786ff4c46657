//! The namespace builder: observe, plan, apply over rtnetlink and nix; link watcher; listeners inside namespaces.
