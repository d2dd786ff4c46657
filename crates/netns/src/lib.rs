//! The namespace builder: gives every slot its network namespace, with the ENI's link, addresses, routes, files and metadata listener in it.
//!
//! ```text
//!  eni ──Network──► builder ──thread──► job: observe ─► plan (pure) ─► apply ─► ... ─► plan is empty: verified
//!                      │                       kernel (rtnetlink, /proc/sys)      listener + steer (port 80)
//!                      └── watch: links of the agent's own namespace ──watch<LinkTable>──► eni
//! ```
//!
//! | module | what it hides |
//! |---|---|
//! | [`ns`] | namespaces as values; threads that enter one and end. Also for vpcbox and the tests |
//! | `plan` | what is to be done, as a pure function of wanted and seen |
//! | `kernel` | rtnetlink messages and /proc/sys |
//! | `listener`, `steer`, `sys` | the metadata listener, and how port 80 stays free for the task: a BPF program, and why |
//! | `files` | resolv.conf, hosts, hostname |
//! | `watch` | links that come and go |
//! | `job`, `builder` | the operations, and the port they stand behind |
//!
//! Nothing is remembered between operations: the kernel, the pins and the slot's directory are the state, so a restarted agent is no
//! different from a running one. All of it lies under /run and dies with the boot.
//!
//! The agent must share the machine's mount namespace (no `PrivateMounts=`, `ProtectSystem=` and the like in its unit): containerd must see
//! the named namespaces, and the pins must outlive the agent.

use std::net::Ipv4Addr;

mod builder;
mod error;
mod files;
mod job;
mod kernel;
mod listener;
pub mod ns;
mod plan;
mod steer;
mod sys;
mod watch;

pub use builder::{Config, NetnsBuilder};

/// Where tasks find their metadata: on lo of their own namespace.
pub const METADATA_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);
