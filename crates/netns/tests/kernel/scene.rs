//! What every test begins with: a scratch machine, an agent's builder on it, a slot to build.

use berth_netns::{Config, NetnsBuilder, ns::Netns};
use berth_testkit::netns::Scratch;
use berth_types::{
    eni::{BuiltSlot, SlotSpec},
    ids::{InstanceId, MacAddr, SlotId},
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) const MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0x10, 0x01]);
pub(crate) const OTHER_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0x10, 0x02]);

/// Long enough for a busy machine; nothing waits this long when it works.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Scene {
    pub(crate) scratch: Scratch,
    pub(crate) builder: NetnsBuilder,
    pub(crate) instance: InstanceId,
    pub(crate) stop: CancellationToken,
    tracker: TaskTracker,
}

impl Scene {
    /// An instance with one ENI attached, `ens6`.
    pub(crate) async fn new() -> Self {
        let scratch = Scratch::new(&["10.0.1.1/24", "fd00:1::1/64", "fe80::1/64"]).unwrap();
        scratch.attach("ens6", MAC).unwrap();
        Self::on(scratch, "i-0123456789abcdef0").await
    }

    /// An agent of this instance on a machine.
    pub(crate) async fn on(scratch: Scratch, instance: &str) -> Self {
        let instance: InstanceId = instance.parse().unwrap();
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let builder = start(&scratch, &instance, &tracker, &stop).await;
        Self { scratch, builder, instance, stop, tracker }
    }

    /// The agent dies and another starts: nothing is taken over but what lies in the kernel and under /run.
    pub(crate) async fn restart(&mut self) {
        self.builder = start(&self.scratch, &self.instance, &self.tracker, &self.stop).await;
    }

    /// A task's slot with IPv4 only.
    pub(crate) fn spec(&self) -> SlotSpec {
        SlotSpec {
            slot: SlotId::random(&self.instance),
            eni: "eni-0123456789abcdef0".parse().unwrap(),
            mac: MAC,
            addresses: vec!["10.0.1.7/24".parse().unwrap()],
            gateway_ipv4: Ipv4Addr::new(10, 0, 1, 1),
            gateway_ipv6: None,
            mtu: 1500,
            block_imds: true,
            hostname: "ip-10-0-1-7.ec2.internal".into(),
            dns_servers: vec!["10.0.0.2".parse().unwrap()],
            dns_search: vec!["ec2.internal".into()],
        }
    }

    /// A task's slot with both.
    pub(crate) fn dual_stack(&self) -> SlotSpec {
        let addresses = ["10.0.1.7/24", "10.0.1.8/24", "fd00:1::7/64"].map(|a| a.parse().unwrap());
        SlotSpec {
            addresses: addresses.into(),
            gateway_ipv6: Some("fe80::1".parse().unwrap()),
            ..self.spec()
        }
    }

    pub(crate) fn netns_path(&self, slot: &SlotId) -> PathBuf {
        self.scratch.netns_dir().join(slot.netns_name())
    }

    pub(crate) fn netns(&self, slot: &SlotId) -> Netns {
        Netns::open(&self.netns_path(slot)).unwrap()
    }

    /// `(name, mac)` of the links of a namespace by iproute2's account, without lo.
    pub(crate) fn links(&self, netns: &Netns) -> Vec<(String, String)> {
        let links = self.scratch.ip_json(netns, "link show").unwrap();
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        let all = links.as_array().unwrap().iter().map(|l| (text(&l["ifname"]), text(&l["address"])));
        all.filter(|(name, _)| name != "lo").collect()
    }
}

async fn start(
    scratch: &Scratch,
    instance: &InstanceId,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> NetnsBuilder {
    let config =
        Config { netns_dir: scratch.netns_dir(), ..Config::new(instance.clone(), &scratch.run_dir()) };
    NetnsBuilder::start(config, scratch.host().try_clone().unwrap(), tracker, stop.clone()).await.unwrap()
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits for a condition, with a deadline.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        std::thread::yield_now();
    }
}

/// Answers every connection with a word, until the listener is closed by dropping the returned guard's `stop`.
pub(crate) fn serve(listener: TcpListener, word: &'static str) -> Server {
    listener.set_nonblocking(false).unwrap();
    let (address, control) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Shut down: the scene ends.
            let Ok(mut stream) = stream else { return };
            drop(stream.write_all(word.as_bytes()));
        }
    });
    Server { address, control: Some(control), thread: Some(thread) }
}

/// A server on a thread. Dropping it closes the listener for good.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    control: Option<TcpListener>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(listener) = self.control.take() {
            // Wakes the accept; closing a descriptor does not.
            nix::sys::socket::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&listener),
                nix::sys::socket::Shutdown::Both,
            )
            .unwrap();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Connects from within a namespace and reads the answer; `Err` is the connect's or read's error kind.
pub(crate) fn ask(netns: &Netns, address: &str) -> Result<String, std::io::ErrorKind> {
    let to: SocketAddr = address.parse().unwrap();
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    netns.run(talk).unwrap().map_err(|e: std::io::Error| e.kind())
}

/// What two builds of one slot must agree on.
pub(crate) fn identity(built: &BuiltSlot) -> (u64, u32, PathBuf) {
    (built.netns.ino, built.ifindex, built.netns_path.clone())
}
