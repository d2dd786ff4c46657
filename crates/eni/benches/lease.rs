//! How long a task waits for a warm slot while the pool is filling behind it.
//!
//! A manager on fakes with the delays of real things leases and releases warm slots as fast as they come back: every sample is
//! taken while other slots are built and torn down. Prints a table and a line of JSON; ends with an error past the promise.
//! The journal is a fake, and its speed does not matter: leases are recorded behind the answer.

use berth_eni::{Deps, EniConfig, EniManager};
use berth_testkit::{
    cloud::{self, FakeCloud, Link},
    crash::Crash,
    journal::FakeJournal,
    network::FakeNetwork,
};
use berth_types::{
    ids::TaskArn,
    lease::{LISTENER_QUEUE, LeaseNeeds, ListenerChange},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Samples: enough that the 99th percentile is the mean of what 20 of them say.
const SAMPLES: u32 = 2000;
/// The promise.
const P99: Duration = Duration::from_millis(1);
/// ENIs of the largest type without trunking.
const ENIS: u32 = 15;

/// Whatever fails ends the program.
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}

/// Closes listeners as the metadata endpoint does.
async fn serve(mut changes: mpsc::Receiver<ListenerChange>) {
    while let Some(change) = changes.recv().await {
        match change {
            ListenerChange::Open { listener, .. } => drop(listener),
            ListenerChange::Close { done, .. } => done.send(()).unwrap_or_default(),
        }
    }
}

async fn run() -> Outcome {
    let crash = Arc::new(Crash::default());
    let network = Arc::new(FakeNetwork::new(Arc::clone(&crash)));
    network.set(|knobs| {
        // A tenth of what moving a link takes, so that 2000 samples come in seconds; more builds per second is the harder case.
        knobs.build_delay = Duration::from_millis(3);
        knobs.tear_down_delay = Duration::from_millis(3);
    });
    let instance = cloud::instance(ENIS + 1);
    let ec2 = Arc::new(FakeCloud::new(instance.clone(), Arc::clone(&network), Arc::clone(&crash)));
    ec2.set(|knobs| {
        knobs.call_delay = Duration::from_millis(20);
        knobs.attach_delay = Duration::from_millis(100);
        knobs.link = Link::After(Duration::from_millis(50));
    });
    let (listeners, changes) = mpsc::channel(LISTENER_QUEUE);
    tokio::spawn(serve(changes));
    let journal = Arc::new(FakeJournal::new(crash));
    let deps = Deps { cloud: ec2, network, journal, listeners, instance };
    let config = EniConfig { warm: ENIS, cooldown: Duration::ZERO, ..EniConfig::default() };
    let (manager, handle) = EniManager::new(config, deps);
    let shutdown = CancellationToken::new();
    let manager = tokio::spawn(manager.run(shutdown.clone()));
    handle.lease.recovered().await?;
    let mut snapshot = handle.snapshot.clone();
    snapshot.wait_for(|s| s.pool.warm == ENIS).await?;

    let mut samples = Vec::new();
    for number in 0..SAMPLES {
        let task: TaskArn = format!("arn:aws:ecs:us-west-2:111122223333:task/bench/{number:032x}").parse()?;
        snapshot.wait_for(|s| s.pool.warm > 0).await?;
        let began = Instant::now();
        handle.lease.lease(&task, LeaseNeeds::default(), None).await?;
        samples.push(began.elapsed());
        handle.lease.release(&task).await?;
    }
    shutdown.cancel();
    manager.await?;
    report(samples)
}

fn report(mut samples: Vec<Duration>) -> Outcome {
    samples.sort();
    let at = |per_mille: usize| samples[(samples.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    let (p50, p90, p99, max) = (at(500), at(900), at(990), at(1000));
    println!("lease of a warm slot, {} samples under a fill of {ENIS} ENIs", samples.len());
    println!("{:>10} {:>10} {:>10} {:>10} {:>12}", "p50 us", "p90 us", "p99 us", "max us", "promise us");
    println!("{p50:>10.1} {p90:>10.1} {p99:>10.1} {max:>10.1} {:>12.1}", P99.as_secs_f64() * 1e6);
    let promise = P99.as_secs_f64() * 1e6;
    let line = serde_json::json!({
        "benchmark": "warm_lease", "samples": samples.len(), "p50_us": p50, "p90_us": p90, "p99_us": p99,
        "max_us": max, "promise_p99_us": promise,
    });
    println!("{line}");
    if cfg!(debug_assertions) {
        println!("not optimised: the promise is not checked");
        return Ok(());
    }
    if p99 > promise {
        Err(format!("p99 is {p99:.1} us, past the promise of {promise:.1} us").into())
    } else {
        Ok(())
    }
}
