//! Links follow what EC2 says.

use super::*;
use crate::samples::{ONE_INSTANCE, config};
use std::sync::Mutex;

/// Long enough for a machine that is busy with seven other builds.
const DEADLINE: Duration = Duration::from_secs(20);

/// Hardware that remembers what is plugged and obeys the fabric's rules; it fails the first few steps on demand.
#[derive(Debug, Default)]
struct Bench {
    plugged: Mutex<BTreeMap<String, Plug>>,
    failures: Mutex<u32>,
    forgotten: Mutex<BTreeSet<IpAddr>>,
    filter: Mutex<Filter>,
}

impl Bench {
    fn step(&self) -> Result<(), FabricError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures == 0 {
            return Ok(());
        }
        *failures -= 1;
        Err(FabricError::Down)
    }

    fn has(&self, eni: &str) -> bool {
        self.plugged.lock().unwrap().contains_key(eni)
    }
}

#[async_trait]
impl Hardware for Bench {
    async fn plug(&self, plug: Plug) -> Result<(), FabricError> {
        self.step()?;
        assert!(self.filter.lock().unwrap().enis.contains_key(&plug.eni), "a link came before its filter");
        let old = self.plugged.lock().unwrap().insert(plug.eni.clone(), plug.clone());
        assert!(old.is_none_or(|old| old == plug), "an ENI was moved without being unplugged");
        Ok(())
    }

    async fn unplug(&self, eni: &str) -> Result<(), FabricError> {
        self.step()?;
        self.plugged.lock().unwrap().remove(eni);
        Ok(())
    }

    async fn filter(&self, filter: Filter) -> Result<(), FabricError> {
        self.step()?;
        *self.filter.lock().unwrap() = filter;
        Ok(())
    }

    async fn forget(&self, addresses: BTreeSet<IpAddr>) -> Result<(), FabricError> {
        self.step()?;
        self.forgotten.lock().unwrap().extend(addresses);
        Ok(())
    }
}

struct Rig {
    service: Arc<Service>,
    bench: Arc<Bench>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start() -> Self {
        let config = config(ONE_INSTANCE);
        let service = Arc::new(Service::new(config, "seed", Timestamp::now()).unwrap());
        let bench = Arc::new(Bench::default());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Wiring::new(service.clone(), bench.clone()).run(shutdown.clone()));
        Self { service, bench, shutdown, running }
    }

    /// Makes an EC2 call; the text of the first element of this name in the reply.
    async fn call(&self, query: &str, element: &str) -> String {
        let request =
            http::Request::post("/").body(http_body_util::Full::new(bytes::Bytes::from(query.to_owned())));
        let reply = self.service.handle(crate::service::Origin::Vpc, request.unwrap()).await.unwrap();
        let body = http_body_util::BodyExt::collect(reply.into_body()).await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let rest = text.split_once(&format!("<{element}>")).unwrap_or_else(|| panic!("{query}: {text}")).1;
        rest.split_once('<').unwrap().0.to_owned()
    }

    async fn create(&self) -> String {
        let query = "Action=CreateNetworkInterface&SubnetId=subnet-0123456789abcdef0";
        self.call(query, "networkInterfaceId").await
    }

    async fn attach(&self, eni: &str, index: u32) -> String {
        let query = format!(
            "Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId=i-0123456789abcdef0&DeviceIndex={index}"
        );
        self.call(&query, "attachmentId").await
    }

    fn status(&self, eni: &str) -> String {
        self.service.inventory().enis.into_iter().find(|e| e.id == eni).unwrap().status
    }

    async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn links_follow_attach_detach_and_attach_again() {
    let rig = Rig::start();
    let eni = rig.create().await;
    for index in [1, 2] {
        let attachment = rig.attach(&eni, index).await;
        rig.until("plugged", || rig.bench.has(&eni)).await;
        rig.call(&format!("Action=DetachNetworkInterface&AttachmentId={attachment}"), "return").await;
        rig.until("free", || rig.status(&eni) == "available").await;
        assert!(!rig.bench.has(&eni), "free only when the link is gone");
    }
    rig.stop().await;
}

#[tokio::test]
async fn addresses_that_come_and_go_while_the_link_stays_are_forgotten_by_the_routers() {
    let rig = Rig::start();
    let eni = rig.create().await;
    rig.attach(&eni, 1).await;
    let forgotten = |address: &IpAddr| rig.bench.forgotten.lock().unwrap().remove(address);
    let query =
        format!("NetworkInterfaceId={eni}&PrivateIpAddress.1=10.0.1.77&Action=AssignPrivateIpAddresses");
    rig.call(&query, "networkInterfaceId").await;
    let address = IpAddr::from([10, 0, 1, 77]);
    rig.until("forgotten when it comes", || forgotten(&address)).await;
    rig.call(&query.replace("=Assign", "=Unassign"), "return").await;
    rig.until("forgotten when it goes", || forgotten(&address)).await;
    rig.stop().await;
}

#[tokio::test]
async fn failing_hardware_is_tried_again() {
    let rig = Rig::start();
    let eni = rig.create().await;
    *rig.bench.failures.lock().unwrap() = 3;
    rig.attach(&eni, 1).await;
    rig.until("plugged", || rig.bench.has(&eni)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_detach_of_a_link_that_never_came_ends() {
    let rig = Rig::start();
    rig.service.turn(&crate::knobs::Knobs { link_never: Some(1), ..Default::default() }).unwrap();
    let eni = rig.create().await;
    let attachment = rig.attach(&eni, 1).await;
    assert_eq!(rig.status(&eni), "in-use");
    rig.call(&format!("Action=DetachNetworkInterface&AttachmentId={attachment}"), "return").await;
    rig.until("free", || rig.status(&eni) == "available").await;
    assert!(!rig.bench.has(&eni));
    rig.stop().await;
}

#[tokio::test]
async fn a_pulled_link_goes_and_its_eni_stays_attached() {
    let rig = Rig::start();
    let eni = rig.create().await;
    rig.attach(&eni, 1).await;
    rig.until("plugged", || rig.bench.has(&eni)).await;
    rig.service.turn(&crate::knobs::Knobs { pull: vec![eni.clone()], ..Default::default() }).unwrap();
    rig.until("pulled", || !rig.bench.has(&eni)).await;
    assert_eq!(rig.status(&eni), "in-use");
    rig.stop().await;
}

#[tokio::test]
async fn the_primaries_are_plugged_before_the_box_is_up_or_it_is_an_error() {
    let config = config(ONE_INSTANCE);
    let service = Arc::new(Service::new(config, "seed", Timestamp::now()).unwrap());
    let bench = Arc::new(Bench::default());
    *bench.failures.lock().unwrap() = 1;
    let mut wiring = Wiring::new(service, bench.clone());
    assert!(wiring.settle().await.is_err());
    wiring.settle().await.unwrap();
    assert_eq!(bench.plugged.lock().unwrap().values().next().unwrap().name.as_deref(), Some("eth0"));
}

#[test]
fn an_attachment_that_took_over_waits_for_the_old_link_to_go() {
    let eni = EniId::parse("eni-00000001").unwrap();
    let (old, new) = ("eni-attach-00000001", "eni-attach-00000002");
    let (old, new) = (AttachmentId::parse(old).unwrap(), AttachmentId::parse(new).unwrap());
    let plug = Plug {
        instance: "i-00000001".into(),
        subnet: "subnet-00000001".into(),
        eni: eni.to_string(),
        mac: [2; 6],
        name: None,
        addresses: Vec::new(),
    };
    let addresses = BTreeSet::from([IpAddr::from([10, 0, 1, 7])]);
    let wanted = WantedLink { attachment: new.clone(), plug, addresses: addresses.clone() };
    let view = LinkView { wanted: [(eni.clone(), wanted.clone())].into(), ..LinkView::default() };
    let filter = Some(Filter::default());
    let done = |attachment, addresses| {
        let plugged = BTreeMap::from([(eni.clone(), Plugged { attachment, addresses })]);
        Done { filter: filter.clone(), plugged }
    };
    let nothing = Done { filter: filter.clone(), plugged: BTreeMap::new() };
    assert_eq!(plan(&view, &done(old, addresses.clone())), [Op::Unplug(eni.clone())]);
    assert_eq!(plan(&view, &nothing), [Op::Plug(eni.clone(), wanted.clone())]);
    assert_eq!(
        plan(&view, &Done::default()),
        [Op::Filter(view.filter.clone())],
        "the link waits for its filter"
    );
    assert_eq!(plan(&view, &done(new.clone(), BTreeSet::new())), [Op::Readdress(eni.clone(), wanted)]);
    assert_eq!(plan(&view, &done(new, addresses)), []);
}
