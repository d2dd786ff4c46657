//! A VPC in a box: EC2, ECS and IMDS endpoints over a fabric of real network devices, for unmodified AWS clients.
//!
//! ```text
//!  config  vpc.toml ──► Config
//!  cli     the commands; `up` ──► serve: Vpcbox, the running box
//!                                   │
//!        awscli, boto3, SDK ──► service (signature: sigv4 + keys; faults: knobs) ──► ec2 (query in, XML out) ──► world
//!                                   └──────────────────────────────────────────────► ecs (JSON in, JSON out) ─────► │
//!        agents, in their instance ──► imds ────────────────────────────────────────────────────────────────────► │
//!                                                              fabric ◄── wiring (plan, apply) ◄── links(now) ────┘
//! ```
//!
//! [`world`] decides everything and does nothing; [`fabric`] does everything and decides nothing; [`wiring`] is between them.
//! It never runs in production, and shares no parsing code with the agent that it plays against.

pub mod cli;
pub mod config;
pub mod ec2;
pub mod ecs;
pub mod fabric;
pub mod imds;
pub mod keys;
pub mod knobs;
#[cfg(test)]
mod samples;
pub mod serve;
pub mod service;
pub mod sigv4;
pub mod wiring;
pub mod world;
