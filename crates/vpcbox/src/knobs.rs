//! Knobs: what an operator or a test turns to make the box behave badly.
//!
//! One JSON document sets them (`POST /_vpcbox/knobs`, or `vpcbox knob`), the same keys come back. Delays and the fate of links
//! are the [`World`]'s; what happens to calls on the wire is kept here, in [`Faults`], which decides for each call by itself:
//! no I/O, no clock.

use crate::{
    config::Delays,
    ec2,
    ecs::{self, Ecs},
    world::{World, ids::EniId},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::VecDeque, time::Duration};

/// Longest delay: a test that needs more does not need a delay but a fault.
const MAX_MS: u64 = 3_600_000;
/// Faults that may wait at one time.
const MAX_FAULTS: usize = 256;

/// What to change; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// First of all, forget all faults and let reads be fresh.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// An ENI stays `attaching` for this long.
    pub attach_ms: Option<u64>,
    /// An ENI stays `detaching` for at least this long.
    pub detach_ms: Option<u64>,
    /// From the attach call to the link.
    pub link_ms: Option<u64>,
    /// Describe calls and IMDS show the world as it was this long ago, and an ENI younger than this cannot be used yet.
    pub read_lag_ms: Option<u64>,
    /// Every EC2 call takes this much longer to answer.
    pub call_ms: Option<u64>,
    /// The next so many attachments never show a link.
    pub link_never: Option<u32>,
    /// The next so many calls are answered `RequestLimitExceeded`.
    pub throttle: Option<u32>,
    /// Calls that fail, besides those that wait already.
    pub fail: Vec<Fail>,
    /// Calls that are acted on, but whose connection is closed without a reply.
    pub lose_reply: Vec<LoseReply>,
    /// ENIs whose link is pulled out, wherever it is.
    pub pull: Vec<String>,
    /// What befalls calls of ECS.
    pub ecs: EcsKnobs,
}

/// What to change of ECS; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EcsKnobs {
    /// ECS is away: every connection that asks it anything is closed, and nothing is acted on.
    pub outage: Option<bool>,
    /// The next so many calls are answered `ThrottlingException`.
    pub throttle: Option<u32>,
    /// Every call takes this much longer to answer.
    pub call_ms: Option<u64>,
    /// An agent that makes no call for this long counts as disconnected.
    pub agent_silence_ms: Option<u64>,
}

/// Which API a call is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// EC2, whose actions a fault names, or `*` for any.
    Ec2,
    /// ECS, whose operations a fault names, or `ecs:*` for any.
    Ecs,
}

impl Api {
    /// Whether a fault that names `named` is meant for this call.
    fn meant(self, named: &str, action: &str) -> bool {
        let any = match self {
            Self::Ec2 => "*",
            Self::Ecs => "ecs:*",
        };
        named == any || named == action
    }
}

/// The next calls of an action fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// Which action; `*` is any of EC2's, `ecs:*` any of ECS's.
    pub action: String,
    /// The API's code.
    pub code: String,
    /// How many calls.
    #[serde(default = "one")]
    pub times: u32,
    /// Whether the call is acted on all the same: an `InternalError` says nothing about it.
    #[serde(default)]
    pub acts: bool,
}

/// The replies of the next calls of an action are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoseReply {
    /// Which action; `*` is any of EC2's, `ecs:*` any of ECS's.
    pub action: String,
    /// How many calls.
    #[serde(default = "one")]
    pub times: u32,
}

fn one() -> u32 {
    1
}

/// Why knobs cannot be turned so. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnobError {
    /// A delay beyond the limit.
    #[error("{key}: {ms} ms, expected at most {MAX_MS}")]
    TooLong {
        /// Which knob.
        key: &'static str,
        /// Its value.
        ms: u64,
    },
    /// An action that does not exist.
    #[error("no such action: {0}")]
    NoSuchAction(String),
    /// An ENI that cannot be pulled.
    #[error("pull {eni}: {reason}")]
    Pull {
        /// Which.
        eni: String,
        /// The world's words.
        reason: String,
    },
    /// More faults than the box remembers.
    #[error("{0} faults wait already, expected at most {MAX_FAULTS}")]
    TooMany(usize),
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered as it should be.
    Answer,
    /// It is refused, with or without being acted on.
    Fail {
        /// The API's code.
        code: Cow<'static, str>,
        /// For people.
        message: &'static str,
        /// Whether it is acted on.
        acts: bool,
    },
    /// It is acted on, and the connection is closed.
    LoseReply,
}

/// Faults of the wire that wait for their calls.
#[derive(Debug, Default)]
pub struct Faults {
    throttle: u32,
    call_delay: Duration,
    fail: VecDeque<Fail>,
    lose_reply: VecDeque<LoseReply>,
    ecs: EcsFaults,
}

/// Faults of ECS alone.
#[derive(Debug, Default)]
struct EcsFaults {
    outage: bool,
    throttle: u32,
    call_delay: Duration,
}

impl Faults {
    /// What happens to this call. Each fault is used up by the calls it was meant for.
    pub fn decide(&mut self, api: Api, action: &str) -> Verdict {
        let (throttle, code, message) = match api {
            Api::Ec2 => (&mut self.throttle, "RequestLimitExceeded", "Request limit exceeded."),
            Api::Ecs => (&mut self.ecs.throttle, "ThrottlingException", "Rate exceeded"),
        };
        if let Some(left) = throttle.checked_sub(1) {
            *throttle = left;
            return Verdict::Fail { code: code.into(), message, acts: false };
        }
        let meant = |named: &str| api.meant(named, action);
        if let Some(at) = self.fail.iter().position(|f| meant(&f.action))
            && let Some(fault) = self.fail.get_mut(at)
        {
            let code = fault.code.clone().into();
            let verdict = Verdict::Fail { code, message: "An injected fault.", acts: fault.acts };
            fault.times = fault.times.saturating_sub(1);
            if fault.times == 0 {
                self.fail.remove(at);
            }
            return verdict;
        }
        if let Some(at) = self.lose_reply.iter().position(|f| meant(&f.action))
            && let Some(fault) = self.lose_reply.get_mut(at)
        {
            fault.times = fault.times.saturating_sub(1);
            if fault.times == 0 {
                self.lose_reply.remove(at);
            }
            return Verdict::LoseReply;
        }
        Verdict::Answer
    }

    /// How much longer every call takes.
    pub fn call_delay(&self, api: Api) -> Duration {
        match api {
            Api::Ec2 => self.call_delay,
            Api::Ecs => self.ecs.call_delay,
        }
    }

    /// Whether ECS is away.
    pub fn is_ecs_away(&self) -> bool {
        self.ecs.outage
    }

    /// Turns the knobs: all that `knobs` names, or nothing.
    pub fn turn(
        &mut self,
        world: &mut World,
        ecs: &mut Ecs,
        knobs: &Knobs,
        now: Timestamp,
    ) -> Result<(), KnobError> {
        let pulled = check(world, knobs, now)?;
        let waiting = if knobs.reset { 0 } else { self.fail.len() + self.lose_reply.len() };
        let waiting = waiting + knobs.fail.len() + knobs.lose_reply.len();
        if waiting > MAX_FAULTS {
            return Err(KnobError::TooMany(waiting));
        }
        if knobs.reset {
            *self = Self::default();
            world.set_read_lag(Duration::ZERO, now);
            world.set_links_never(0);
            ecs.set_agent_silence(ecs::AGENT_SILENCE);
        }
        let ms = |value: Option<u64>, old: Duration| value.map_or(old, Duration::from_millis);
        let old = world.delays();
        world.set_delays(Delays {
            attach: ms(knobs.attach_ms, old.attach),
            detach: ms(knobs.detach_ms, old.detach),
            link: ms(knobs.link_ms, old.link),
        });
        if let Some(lag) = knobs.read_lag_ms {
            world.set_read_lag(Duration::from_millis(lag), now);
        }
        if let Some(attachments) = knobs.link_never {
            world.set_links_never(attachments);
        }
        self.call_delay = ms(knobs.call_ms, self.call_delay);
        self.throttle = knobs.throttle.unwrap_or(self.throttle);
        self.ecs.outage = knobs.ecs.outage.unwrap_or(self.ecs.outage);
        self.ecs.throttle = knobs.ecs.throttle.unwrap_or(self.ecs.throttle);
        self.ecs.call_delay = ms(knobs.ecs.call_ms, self.ecs.call_delay);
        ecs.set_agent_silence(ms(knobs.ecs.agent_silence_ms, ecs.agent_silence()));
        self.fail.extend(knobs.fail.iter().filter(|f| f.times > 0).cloned());
        self.lose_reply.extend(knobs.lose_reply.iter().filter(|f| f.times > 0).cloned());
        for eni in &pulled {
            // Checked above, under the same lock.
            let pull = world.pull(eni, now);
            pull.map_err(|e| KnobError::Pull { eni: eni.to_string(), reason: e.to_string() })?;
        }
        Ok(())
    }

    /// How the knobs stand.
    pub fn knobs(&self, world: &World, ecs: &Ecs) -> Knobs {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).ok();
        let delays = world.delays();
        Knobs {
            reset: false,
            attach_ms: ms(delays.attach),
            detach_ms: ms(delays.detach),
            link_ms: ms(delays.link),
            read_lag_ms: ms(world.read_lag()),
            call_ms: ms(self.call_delay),
            link_never: Some(world.links_never()),
            throttle: Some(self.throttle),
            fail: self.fail.iter().cloned().collect(),
            lose_reply: self.lose_reply.iter().cloned().collect(),
            pull: Vec::new(),
            ecs: EcsKnobs {
                outage: Some(self.ecs.outage),
                throttle: Some(self.ecs.throttle),
                call_ms: ms(self.ecs.call_delay),
                agent_silence_ms: ms(ecs.agent_silence()),
            },
        }
    }
}

/// Whether the knobs can be turned so; the ENIs to pull.
fn check(world: &mut World, knobs: &Knobs, now: Timestamp) -> Result<Vec<EniId>, KnobError> {
    let delays = [
        ("attach_ms", knobs.attach_ms),
        ("detach_ms", knobs.detach_ms),
        ("link_ms", knobs.link_ms),
        ("read_lag_ms", knobs.read_lag_ms),
        ("call_ms", knobs.call_ms),
        ("ecs.call_ms", knobs.ecs.call_ms),
        ("ecs.agent_silence_ms", knobs.ecs.agent_silence_ms),
    ];
    for (key, ms) in delays {
        if let Some(ms) = ms.filter(|ms| *ms > MAX_MS) {
            return Err(KnobError::TooLong { key, ms });
        }
    }
    let actions = knobs.fail.iter().map(|f| &f.action).chain(knobs.lose_reply.iter().map(|f| &f.action));
    for action in actions {
        let is_any = matches!(action.as_str(), "*" | "ecs:*");
        if !is_any && !ec2::is_action(action) && !ecs::is_operation(action) {
            return Err(KnobError::NoSuchAction(action.clone()));
        }
    }
    let state = world.current(now);
    let pull = |eni: &String| {
        let refuse = |reason: String| KnobError::Pull { eni: eni.clone(), reason };
        let id = EniId::parse(eni).map_err(|e| refuse(e.to_string()))?;
        match state.enis.get(&id) {
            Some(found) if found.attachment.is_some() => Ok(id),
            Some(_) => Err(refuse("it is not attached".to_owned())),
            None => Err(refuse(id.not_found().to_string())),
        }
    };
    knobs.pull.iter().map(pull).collect()
}
