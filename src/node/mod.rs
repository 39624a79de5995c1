//! The assembly: store, cores, rings and doors become one running node.
//!
//! Lives on: the thread that starts the node. Serves G1, G3, G8. Invariants: nothing is accepted before everything stored is
//! loaded; a stopped node has closed every session with a reason and made durable everything it took.

pub mod certificates;
mod cluster;
pub mod control;
pub mod etcd;
mod hook;
mod host;
pub mod keys;
pub mod link_certificates;
mod listeners;
mod load;
mod names;
mod operator;
mod owners;
mod passwords;
mod replies;
mod survey;
mod tenure;
mod timed;
pub mod trust;

pub use hook::HookError;
pub use host::{Answered, CoreHost};
pub use keys::KeyError;
pub use listeners::Listening;

use crate::admin;
use crate::base::config::{self, Config, Cores, Fault, KernelTls, StoreKind};
use crate::base::id::CoreId;
use crate::base::secrets::Secrets;
use crate::base::time::WallClock;
use crate::drive::setup::SetupError;
use crate::drive::{self, Bell, DriveCounters, Driver, bridge, clock, pin, setup};
use crate::front::doors::{Doors, Speaks};
use crate::front::sasl::Decoys;
use crate::front::tls::Terms;
use crate::front::token::Keys;
use crate::front::ws;
use crate::front::xmpp::{self, StartTls};
use crate::metrics::meter::Units;
use crate::presence::home::Place;
use crate::ring::mesh::mesh;
use crate::shard::batch::Command;
use crate::shard::{Settings, Shard};
use crate::store::Backend;
use crate::store::dir::{DataDir, OpenError};
use crate::store::memory::Memory;
use crate::store::postgres::{self, PostgresStore};
use crate::store::redb::RedbStore;
use crate::store::thread::{Figures, StorageThread, Wake};
use certificates::{CertificateError, Keeper};
use cluster::Membership;
use host::Ends;
use owners::Owners;
use replies::Replies;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Why a node could not start. Each names the thing, the reason and the fix.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Kernel(#[from] setup::SetupError),
    #[error(transparent)]
    Cores(#[from] Fault),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("the store can't be loaded: {0}")]
    Load(String),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The reason names address and fix.
    #[error("listen.{door}: {source}")]
    Listen { door: &'static str, source: io::Error },
    #[error(transparent)]
    Admin(#[from] admin::server::StartError),
    #[error("can't start a thread: {0}. Raise the limits of descriptors and threads (ulimit -n, ulimit -u)")]
    Thread(#[from] io::Error),
}

/// The numbers of a node that is alone.
pub const CLUSTER: u16 = 0;
pub const NODE: u16 = 1;

type CoreThread = bridge::Core<io::Result<(CoreHost, DriveCounters)>>;

/// A running node.
pub struct Node {
    /// Where clients connect, door by door.
    pub listening: Vec<Listening>,
    pub cores: u16,
    pub report: setup::Report,
    /// What the node proves with who it is, for people.
    pub certificate: String,
    pub token_keys: Keys,
    pub trunk_keys: Keys,
    keeper: Arc<Keeper>,
    membership: Arc<Membership>,
    /// Ends the daily look at the certificate when it is dropped.
    _daily: Sender<()>,
    owners: Option<Owners>,
    threads: Vec<CoreThread>,
    commands: Vec<(Sender<Command>, Bell)>,
    answers: Option<Receiver<Answered>>,
    storage: StorageThread,
    admin: Option<admin::server::Server>,
}

/// What a node leaves behind, for whoever stopped it.
pub struct Stopped {
    pub hosts: Vec<CoreHost>,
    pub store: Figures,
}

/// A core's whole life. `born` hears whether it has begun: when its executor can't, nothing.
async fn run_core(
    config: drive::Config,
    bell: Bell,
    listeners: Vec<TcpListener>,
    host: CoreHost,
    born: Sender<Result<(), SetupError>>,
) -> io::Result<(CoreHost, DriveCounters)> {
    let driver = Driver::new(config, bell, listeners);
    let (driver, begun) = match driver {
        Ok(driver) => (Ok(driver), Ok(())),
        Err(why) => (Err(io::Error::other(why.to_string())), Err(why)),
    };
    // Nobody listens any more when another core could not begin.
    let _ = born.send(begun);
    bridge::drive(driver?, host).await
}

impl Node {
    /// Starts a node. It serves when this returns.
    pub fn start(config: &Config) -> Result<Node, StartError> {
        let processors = processors(&config.node.cores)?;
        let cores =
            u16::try_from(processors.len()).map_err(|_| Fault::new("node.cores", "there are too many", "name at most 65,535"))?;
        let mut drive = drive::Config::default();
        let mut report = setup::probe(processors.len(), drive.task_run)?;
        report.seals = report.kernel_tls && config.tls.kernel == KernelTls::Auto;
        drive.kernel_tls = report.seals;
        let mut secrets = Secrets::new(keys::system_seed()?);
        let (mut backend, keys) = open_store(config, &mut secrets)?;
        let (keeper, certificate) = Keeper::open(config)?;
        let epoch = backend.begin_epoch().map_err(StartError::Load)?;
        let membership = Membership::of(config, epoch, clock::wall())?;
        let (listening, listeners) = listeners::open(&config.listen, membership.address, processors.len())?;
        let terms = Terms::new(keeper.certificates.clone()).map_err(CertificateError::from)?;
        let mut doors = doors(config, &listening, terms.in_kernel(report.seals));
        doors.links = keeper.links.as_ref().map(|links| links.credentials.clone());
        let mut shards = shards(config, cores, epoch, &membership, &keys, &doors, &mut secrets);
        let kept = load::load(&*backend, &mut shards, membership.table.as_ref())?;
        let bells = (0..cores).map(|_| Bell::new()).collect::<io::Result<Vec<Bell>>>()?;
        let ring_bells = bells.iter().map(|bell| Arc::new(bell.clone()) as Arc<dyn crate::ring::doorbell::Bell>).collect();
        let opening = membership.table.as_ref().map(|_| owners::Opening::new(cores));
        let desk = opening.as_ref().map(owners::Opening::desk);
        let (storage, mut stores) = StorageThread::start(backend, wakes(&bells, opening.as_ref()))?;
        let opening = opening.and_then(|opening| Some((opening, owners::Ports { table: stores.pop()?, shared: stores.pop()? })));
        let (replies, replied) = Replies::new(&bells);
        let hook = hook::start(config, &replies)?;
        let passwords = passwords::start(replies)?;
        let (answers, answered) = channel();
        let ports = mesh(config.limits.ring_batches as usize, ring_bells);
        let (mut threads, mut commands) = (Vec::new(), Vec::new());
        let (born, births) = channel();
        let ends = shards.into_iter().zip(ports).zip(stores).zip(replied).zip(bells).zip(listeners).zip(processors);
        for ((((((shard, ports), store), replies), bell), listeners), processor) in ends {
            let (order, orders) = channel();
            commands.push((order, bell.clone()));
            let (passwords, hook, answers) = (passwords.clone(), hook.clone(), answers.clone());
            let ends = Ends { ports, store, passwords, hook, replies, commands: orders, answers, owners: desk.clone() };
            let name = format!("fanal-core-{}", shard.settings.core.0);
            let host = CoreHost::new(shard, ends);
            let born = born.clone();
            let work = move || run_core(drive, bell, listeners, host, born);
            threads.push(bridge::on_core(&name, Some(processor), work)?);
        }
        drop(born);
        (0..cores).try_for_each(|_| births.recv().unwrap_or_else(|_| Err(SetupError::locked())))?;
        let owners = opening.zip(membership.table.as_ref()).map(|((opening, ports), table)| {
            opening.start(table, table.myself(cores, keys.identity(), &listening), kept, ports, commands.clone())
        });
        let keeper = Arc::new(keeper);
        Ok(Node {
            listening,
            cores,
            report,
            certificate,
            token_keys: keys.token,
            trunk_keys: keys.trunk,
            _daily: certificates::warn_daily(&keeper)?,
            keeper,
            membership: Arc::new(membership),
            owners: owners.transpose()?,
            threads,
            commands,
            answers: Some(answered),
            storage,
            admin: None,
        })
    }

    /// Where a door is open; `None`: the node has no such door.
    pub fn address(&self, speaks: Speaks) -> Option<SocketAddr> {
        self.listening.iter().find(|door| door.speaks == speaks).map(|door| door.address)
    }

    /// Where native clients connect.
    pub fn native(&self) -> SocketAddr {
        self.address(Speaks::Native).expect("every node has a native door")
    }

    /// The control thread's way to the cores. There is one.
    ///
    /// # Panics
    /// When it was taken before.
    pub fn control(&mut self) -> control::Controller {
        let answers = self.answers.take().expect("one controller per node");
        let (keeper, membership) = (self.keeper.clone(), self.membership.clone());
        let owners = self.owners.as_ref().map(Owners::desk);
        control::Controller::new(self.commands.clone(), answers, self.storage.readings(), keeper, membership, owners)
    }

    /// Reads the certificate's files again, and gives what there is to say; no session ends.
    ///
    /// # Errors
    /// They can't be used: the certificate stays as it was.
    pub fn reload_certificate(&self) -> Result<String, CertificateError> {
        self.keeper.reload()
    }

    /// Starts the admin API, with the control of the cores.
    ///
    /// # Panics
    /// When the control was taken before.
    pub fn start_admin(&mut self, config: &Config) -> Result<SocketAddr, StartError> {
        let mut settings = admin::server::Settings::new(config.listen.admin, config.listen.admin_token.clone());
        settings.interval = Duration::from_secs(config.metrics.interval_seconds.into());
        settings.interval_log = config.metrics.interval_log.clone();
        settings.limits = config::keys::limits(&config.limits);
        let server = admin::server::Server::start(settings, Box::new(self.control()))?;
        let address = server.address();
        self.admin = Some(server);
        Ok(address)
    }

    /// Stops: every session ends with a reason, every line is drained, every commit is made durable. Waits for all that.
    ///
    /// # Errors
    /// A core had ended badly.
    pub fn stop(self) -> io::Result<Stopped> {
        drop(self.admin);
        self.owners.into_iter().for_each(Owners::stop);
        for (orders, bell) in &self.commands {
            // A core that is gone has stopped.
            _ = orders.send(Command { ticket: 0, order: crate::shard::batch::Order::Stop });
            bell.ring();
        }
        let mut hosts = Vec::new();
        for thread in self.threads {
            let (host, _) = thread.join()??;
            hosts.push(host);
        }
        let readings = self.storage.readings();
        self.storage.stop();
        Ok(Stopped { hosts, store: readings.figures() })
    }
}

/// What the store rings after its answers: the cores' bells, and the thread of owners last, if there is one, for both its ports.
fn wakes(bells: &[Bell], opening: Option<&owners::Opening>) -> Vec<Wake> {
    let cores = bells.iter().cloned().map(|bell| Box::new(move || bell.ring()) as Wake);
    cores.chain(opening.into_iter().flat_map(|opening| [opening.wake(), opening.wake()])).collect()
}

/// The processors of a node with these cores.
///
/// # Errors
/// This process may not run on one of them.
pub fn processors(cores: &Cores) -> Result<Vec<usize>, Fault> {
    let wanted: Option<Vec<usize>> = match cores {
        Cores::All => None,
        Cores::These(ids) => Some(ids.iter().map(|&id| usize::from(id)).collect()),
    };
    pin::choose(wanted.as_deref(), &pin::processors())
}

/// What clients are held to at every door.
fn doors(config: &Config, listening: &[Listening], tls: Terms) -> Doors {
    let xmpp = Arc::new(xmpp::Rules {
        domain: config.node.domain.as_str().into(),
        stanza_bytes: config.limits.stanza_bytes(),
        start_tls: if config.login.plain { StartTls::Offered } else { StartTls::Required },
        registration: config.login.open_registration,
        location: config.listen.xmpp_location.as_deref().map(Box::from),
    });
    let mut ws = ws::Rules::new(config.limits.frame_bytes);
    ws.xmpp = Some(xmpp.clone());
    (ws.origins, ws.url) = (config.listen.ws_origins.clone(), config.listen.ws_url.clone());
    let listeners = listening.iter().map(|door| door.speaks).collect();
    Doors { listeners, private: !config.login.plain, xmpp: Some(xmpp), ws: Some(Arc::new(ws)), tls: Some(tls), links: None }
}

fn open_store(config: &Config, secrets: &mut Secrets) -> Result<(Box<dyn Backend>, keys::NodeKeys), StartError> {
    if config.store.kind == StoreKind::Memory {
        return Ok((Box::new(Memory::default()), keys::NodeKeys::from_config(&config.login, secrets)?));
    }
    let dir = DataDir::take_or_create(&config.node.data)?;
    let keys = keys::NodeKeys::in_dir(&config.login, &config.node.data, secrets)?;
    let seed = u64::from_le_bytes(*secrets.bytes16().first_chunk().expect("16"));
    let backend: Box<dyn Backend> = match database(config, config.cluster.node.unwrap_or(NODE), seed)? {
        Some(settings) => Box::new(PostgresStore::open(settings, Some(dir))?),
        None => Box::new(RedbStore::open(dir)?),
    };
    Ok((backend, keys))
}

/// How the database of this configuration is used; `None`: it has none. `seed` is for the jitter of waits.
pub fn database(config: &Config, node: u16, seed: u64) -> Result<Option<postgres::Settings>, OpenError> {
    let Some(url) = config.store.url.as_ref().filter(|_| config.store.kind == StoreKind::Postgres) else { return Ok(None) };
    let patience = Duration::from_millis(config.store.timeout_ms.into());
    let writer = postgres::Writer { cluster: config.cluster.number.unwrap_or(CLUSTER), node };
    Ok(Some(postgres::Settings { target: postgres::Target::parse(&url.0)?, writer, patience, seed }))
}

fn shards(
    config: &Config,
    cores: u16,
    epoch: u32,
    membership: &Membership,
    keys: &keys::NodeKeys,
    doors: &Doors,
    secrets: &mut Secrets,
) -> Vec<Shard> {
    let limits = Arc::new(config.limits.clone());
    let wall_at_zero = WallClock(clock::wall().0 - clock::now().0 / 1_000_000);
    let shard = |core| {
        let core = CoreId(core);
        let place = Place {
            cluster: membership.number,
            directory: config.directory.cluster.unwrap_or_default(),
            epoch,
            domain: config.node.domain.clone(),
            limits: limits.clone(),
            wall_at_zero,
        };
        let settings = Settings {
            links: membership.links.clone(),
            node: membership.node,
            core,
            cores,
            domain: config.node.domain.clone(),
            limits: limits.clone(),
            token_keys: keys.token.clone(),
            trunk_keys: keys.trunk.clone(),
            doors: doors.clone(),
            plain: config.login.plain,
            open_registration: config.login.open_registration,
            hook: config.login.http.is_some(),
            decoys: Decoys::new(keys.decoys),
            sample: config.metrics.sample,
            units: Units { unit_bytes: config.metrics.meter_unit_bytes, unit_ms: config.metrics.meter_unit_ms },
            clock: clock::now,
        };
        Shard::new(settings, place, secrets.fork())
    };
    (0..cores).map(shard).collect()
}
