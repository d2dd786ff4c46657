//! Cold slot build against the bare netlink floor, in alternating rounds of one run: what [`NetnsBuilder`] adds to the kernel's own time.
//!
//! *Ours* is the whole `build`: thread, files, namespace, observation, the move of an existing veth, configuration, verification, listener,
//! BPF steering. *Floor* is the same kernel work by hand: unshare, bind mount, move, settings; no look before or after, no listener. Also
//! measured: a build of what is built already, and connect + accept through the steering beside a plain connect.
//!
//! `BENCH_ROUNDS` (60) sets the rounds. Prints a table, then one line of JSON.
#![allow(clippy::unwrap_used, reason = "a benchmark ends at the first failure")]

use berth_netns::{Config, NetnsBuilder};
use berth_testkit::netns::Scratch;
use berth_types::{
    eni::SlotSpec,
    ids::{InstanceId, MacAddr, SlotId},
    ports::Network,
};
use nix::{mount::MsFlags, sched::CloneFlags};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder, packet_route::route::RouteType,
};
use std::{
    fs::File,
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0x30, 1]);

/// Connections measured each way; a connect is a hundred times shorter than a build.
const CONNECTS: usize = 2000;

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index below the number of rounds"
        )]
        let index = ((sorted.len() - 1) as f64 * share).round() as usize;
        sorted[index].as_secs_f64() * 1e3
    }

    fn row(&self, name: &str) -> serde_json::Value {
        let (median, p99) = (self.at(0.5), self.at(0.99));
        println!("{name:<34} {median:>10.3} {p99:>10.3} {:>6}", self.0.len());
        serde_json::json!({ "name": name, "median_ms": median, "p99_ms": p99, "n": self.0.len() })
    }
}

fn main() {
    let rounds: usize = std::env::var("BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let scratch = Scratch::new(&["10.0.1.1/24"]).unwrap();
    let instance: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    let config =
        Config { netns_dir: scratch.netns_dir(), ..Config::new(instance.clone(), &scratch.run_dir()) };
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let home = scratch.host().try_clone().unwrap();
    let builder = runtime.block_on(NetnsBuilder::start(config, home, &tracker, stop.clone())).unwrap();

    let (mut ours, mut floor, mut again) = (Times::default(), Times::default(), Times::default());
    for round in 0..=rounds {
        // Each inherits the other's clean-up, which the kernel does in the background under the same locks: so they take turns at going first.
        let mut measure_ours = || {
            scratch.attach("ens6", MAC).unwrap();
            let spec = spec(&instance);
            let begin = Instant::now();
            let built = runtime.block_on(builder.build(&spec)).unwrap();
            let cold = begin.elapsed();
            let begin = Instant::now();
            drop(runtime.block_on(builder.build(&spec)).unwrap());
            let warm = begin.elapsed();
            drop(built);
            scratch.detach("ens6").unwrap();
            runtime.block_on(builder.tear_down(&spec.slot)).unwrap();
            // The first round warms caches and makes the directories.
            if round > 0 {
                ours.0.push(cold);
                again.0.push(warm);
            }
        };
        let mut measure_floor = || {
            let took = floor_once(&scratch);
            if round > 0 {
                floor.0.push(took);
            }
        };
        if round % 2 == 0 {
            measure_ours();
            measure_floor();
        } else {
            measure_floor();
            measure_ours();
        }
    }
    let (steered, plain) = connects(&scratch, &runtime, &builder, &instance);
    stop.cancel();
    println!("{:<34} {:>10} {:>10} {:>6}", "", "median ms", "p99 ms", "n");
    let rows = [
        ours.row("cold build, whole"),
        floor.row("bare netlink floor"),
        again.row("build of what is built already"),
        steered.row("connect + accept, steered from :80"),
        plain.row("connect + accept, plain"),
    ];
    let ratio = ours.at(0.5) / floor.at(0.5);
    println!("cold build is {ratio:.2} x the floor (promised: at most 1.5)");
    println!("{}", serde_json::json!({ "bench": "cold_build", "ratio": ratio, "rows": rows }));
}

fn spec(instance: &InstanceId) -> SlotSpec {
    SlotSpec {
        slot: SlotId::random(instance),
        eni: "eni-0123456789abcdef0".parse().unwrap(),
        mac: MAC,
        addresses: vec!["10.0.1.7/24".parse().unwrap()],
        gateway_ipv4: Ipv4Addr::new(10, 0, 1, 1),
        gateway_ipv6: None,
        mtu: 1500,
        block_imds: true,
        hostname: "ip-10-0-1-7".into(),
        dns_servers: vec!["10.0.0.2".parse().unwrap()],
        dns_search: vec![],
    }
}

/// One build by hand, without what comes before and after.
fn floor_once(scratch: &Scratch) -> Duration {
    scratch.attach("ens6", MAC).unwrap();
    let path = scratch.netns_dir().join("floor");
    berth_netns::ns::share_dir(&scratch.netns_dir()).unwrap();
    let index = scratch.ip_json(scratch.host(), "link show ens6").unwrap()[0]["ifindex"].as_u64().unwrap();
    let index = u32::try_from(index).unwrap();
    let begin = Instant::now();
    bare(scratch, &path, index);
    let took = begin.elapsed();
    scratch.detach("ens6").unwrap();
    berth_netns::ns::remove_named(&path).unwrap();
    took
}

/// The floor: on a fresh thread, as ours, with rtnetlink on a runtime of its own, as ours.
fn bare(scratch: &Scratch, path: &Path, index: u32) {
    thread::scope(|scope| scope.spawn(|| bare_here(scratch, path, index)).join().unwrap());
}

#[allow(
    clippy::disallowed_methods,
    reason = "the floor is the kernel's work without our helpers; the thread ends in the namespace"
)]
fn bare_here(scratch: &Scratch, path: &Path, index: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        nix::sched::setns(scratch.host(), CloneFlags::CLONE_NEWNET).unwrap();
        let host = connect();
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::create(path).unwrap();
        let own = "/proc/thread-self/ns/net";
        nix::mount::mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let netns = File::open(path).unwrap();
        let inside = connect();
        for (key, value) in
            [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("disable_ipv6", "1")]
        {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), value).unwrap();
        }
        let link = |index| LinkMessageBuilder::<LinkUnspec>::new().index(index);
        let moved = link(index).setns_by_fd(netns.as_fd().as_raw_fd()).name("eth0").mtu(1500).up();
        // The index stays when it is free, as here.
        host.link().set(moved.build()).execute().await.unwrap();
        inside.link().set(link(1).up().build()).execute().await.unwrap();
        inside.address().add(1, Ipv4Addr::new(169, 254, 170, 2).into(), 32).execute().await.unwrap();
        inside.address().add(index, Ipv4Addr::new(10, 0, 1, 7).into(), 24).execute().await.unwrap();
        let route = || RouteMessageBuilder::<Ipv4Addr>::new();
        let default = route().gateway(Ipv4Addr::new(10, 0, 1, 1)).output_interface(index);
        inside.route().add(default.build()).execute().await.unwrap();
        let imds =
            route().kind(RouteType::BlackHole).destination_prefix(Ipv4Addr::new(169, 254, 169, 254), 32);
        inside.route().add(imds.build()).execute().await.unwrap();
    });
}

fn connect() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// Connect and accept in a slot, through the steering and to the listener's own port.
fn connects(
    scratch: &Scratch,
    runtime: &tokio::runtime::Runtime,
    builder: &NetnsBuilder,
    instance: &InstanceId,
) -> (Times, Times) {
    scratch.attach("ens6", MAC).unwrap();
    let spec = spec(instance);
    let built = runtime.block_on(builder.build(&spec)).unwrap();
    built.listener.set_nonblocking(false).unwrap();
    let own = built.listener.local_addr().unwrap();
    let netns = berth_netns::ns::Netns::open(&built.netns_path).unwrap();
    let (mut steered, mut plain) = (Times::default(), Times::default());
    netns
        .run(|| {
            for _ in 0..CONNECTS {
                for (times, port) in [(&mut steered, 80), (&mut plain, own.port())] {
                    let begin = Instant::now();
                    let client = TcpStream::connect((own.ip(), port)).unwrap();
                    let server = built.listener.accept().unwrap();
                    times.0.push(begin.elapsed());
                    drop((client, server));
                }
            }
        })
        .unwrap();
    drop((netns, built));
    runtime.block_on(builder.tear_down(&spec.slot)).unwrap();
    (steered, plain)
}
