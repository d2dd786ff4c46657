//! The running box: fabric, listeners and loops around one [`Service`], from [`Vpcbox::up`] to [`Vpcbox::down`].
//!
//! The API listens on the machine's own loopback for operators and tests, under the same port on 127.0.0.1 of every instance for
//! agents, and on every address of the VPC's namespace for whoever asks the subnet's router; IMDS listens in every instance.

use crate::{
    config::Config,
    fabric::{Fabric, FabricError, IMDS_ADDRESS},
    imds,
    service::{Origin, Service, control::Inventory},
    wiring::Wiring,
    world::{StartError, ids::EniId},
};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections to the API at a time, all listeners together. An SDK keeps a handful open; a thousand agents are not expected.
const MAX_CONNECTIONS: usize = 512;
/// A client that is silent for so long in the middle of a head has gone.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: out of descriptors, most likely, and spinning would not free one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections may take to end when the box goes down.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the box did not come up. Everything that was built until then was removed.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The configuration describes no possible world.
    #[error("build the world of {name}")]
    World {
        /// The box.
        name: String,
        /// Why.
        #[source]
        source: StartError,
    },
    /// The network could not be built.
    #[error("build the fabric of {name}")]
    Fabric {
        /// The box.
        name: String,
        /// Why.
        #[source]
        source: Box<FabricError>,
    },
    /// A primary ENI could not be plugged.
    #[error("plug the primary ENI {eni}")]
    Plug {
        /// Which.
        eni: EniId,
        /// Why.
        #[source]
        source: Box<FabricError>,
    },
    /// The security groups could not be enforced.
    #[error("set the filter of the VPC")]
    Filter(#[source] Box<FabricError>),
    /// A listener could not be opened.
    #[error("listen on {address} in {place}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// In which namespace.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a running box is reached, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name, the prefix of its namespaces.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// URL of the API on the machine itself.
    pub endpoint: String,
    /// Port of the API, the same everywhere.
    pub port: u16,
    /// Its region.
    pub region: String,
    /// Whether requests must be signed.
    pub auth: bool,
    /// The VPC's namespace.
    pub vpc_netns: PathBuf,
    /// The rest.
    #[serde(flatten)]
    pub inventory: Inventory,
}

/// A running box.
#[derive(Debug)]
pub struct Vpcbox {
    service: Arc<Service>,
    fabric: Fabric,
    address: SocketAddr,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Vpcbox {
    /// Builds everything and serves it.
    pub async fn up(config: Config) -> Result<Self, UpError> {
        let name = config.name.clone();
        let spec = config.fabric_spec();
        // Ids of an earlier box of this name must not come again: an agent's journal may still hold them.
        let seed = uuid::Uuid::new_v4().to_string();
        let service = Service::new(config, &seed, Timestamp::now())
            .map_err(|source| UpError::World { name: name.clone(), source })?;
        let service = Arc::new(service);
        let fabric =
            Fabric::up(spec).await.map_err(|source| UpError::Fabric { name, source: Box::new(source) })?;
        match Self::start(service, fabric.clone()).await {
            Ok(running) => Ok(running),
            Err(error) => {
                fabric.down().await;
                Err(error)
            }
        }
    }

    async fn start(service: Arc<Service>, fabric: Fabric) -> Result<Self, UpError> {
        let mut wiring = Wiring::new(Arc::clone(&service), Arc::new(fabric.clone()));
        wiring.settle().await.map_err(|(eni, source)| match eni {
            Some(eni) => UpError::Plug { eni, source: Box::new(source) },
            None => UpError::Filter(Box::new(source)),
        })?;
        let listeners = Listeners::open(service.config(), &fabric)?;
        let address = listeners.address;
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        tasks.spawn(wiring.run(shutdown.clone()));
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for (origin, listener) in listeners.api {
            let door = Door {
                service: Arc::clone(&service),
                origin,
                connections: Arc::clone(&connections),
                tasks: tasks.clone(),
                shutdown: shutdown.clone(),
            };
            tasks.spawn(door.serve(listener));
        }
        for (instance, listener) in listeners.imds {
            let view = Arc::clone(&service);
            let served = imds::serve(listener, view, instance, shutdown.clone());
            // A server that panicked would leave the box half alive; there is nobody to tell but the log.
            tasks.spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(error = &error as &dyn std::error::Error, "imds server ended");
                }
            });
        }
        tasks.close();
        Ok(Self { service, fabric, address, tasks, shutdown })
    }

    /// Where the API listens on the machine itself.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The shared state.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The fabric.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// How it is reached, and what is in it now.
    pub fn status(&self) -> Status {
        let config = self.service.config();
        let mut inventory = self.service.inventory();
        for instance in &mut inventory.instances {
            instance.netns = self.fabric.instance_netns(&instance.id);
        }
        Status {
            name: config.name.clone(),
            pid: std::process::id(),
            endpoint: format!("http://{}", self.address),
            port: self.address.port(),
            region: config.region.clone(),
            auth: config.auth,
            vpc_netns: self.fabric.vpc_netns(),
            inventory,
        }
    }

    /// Ends everything and removes it. Listeners and connections go first: any socket of a namespace keeps it alive.
    pub async fn down(self) {
        self.shutdown.cancel();
        if tokio::time::timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "connections did not end in time");
        }
        self.fabric.down().await;
    }
}

/// All listeners, bound in their namespaces.
struct Listeners {
    address: SocketAddr,
    api: Vec<(Origin, TcpListener)>,
    imds: Vec<(String, TcpListener)>,
}

impl Listeners {
    fn open(config: &Config, fabric: &Fabric) -> Result<Self, UpError> {
        let failed = |address: SocketAddr, place: &str| {
            let place = place.to_owned();
            move |source| UpError::Listen { address, place, source }
        };
        let first =
            TcpListener::bind(config.listen).map_err(failed(config.listen, "the machine's own namespace"))?;
        let address = first.local_addr().map_err(failed(config.listen, "the machine's own namespace"))?;
        // The port that the machine gave is free in namespaces that have just been made.
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let in_vpc = fabric.bind_in_vpc(everywhere).map_err(failed(everywhere, "the VPC's namespace"))?;
        let mut api = vec![(Origin::Machine, first), (Origin::Vpc, in_vpc)];
        let mut imds = Vec::new();
        for instance in &config.instances {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
            let listener =
                fabric.bind_in_instance(&instance.id, local).map_err(failed(local, &instance.id))?;
            api.push((Origin::Vpc, listener));
            let metadata = SocketAddr::from((IMDS_ADDRESS, 80));
            let listener =
                fabric.bind_in_instance(&instance.id, metadata).map_err(failed(metadata, &instance.id))?;
            imds.push((instance.id.clone(), listener));
        }
        Ok(Self { address, api, imds })
    }
}

/// One listener of the API.
struct Door {
    service: Arc<Service>,
    origin: Origin,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Door {
    async fn serve(self, listener: TcpListener) {
        let listener =
            listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "listener unusable");
                return;
            }
        };
        loop {
            // Both are cancel safe: a permit or a connection that was not handed out is not lost.
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let talk =
                        converse(Arc::clone(&self.service), self.origin, stream, self.shutdown.clone());
                    self.tasks.spawn(async move {
                        talk.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(
        &self,
        listener: &tokio::net::TcpListener,
    ) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.map_err(io::Error::other)?;
        Ok((listener.accept().await?.0, permit))
    }
}

/// Serves one connection until it ends; at shutdown the request under way is still answered.
async fn converse(service: Arc<Service>, origin: Origin, stream: TcpStream, shutdown: CancellationToken) {
    let respond = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { service.handle(origin, request).await }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), respond)
    );
    // The connection is pinned outside: leaving the select does not drop what it has read.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection ended early");
    }
}
