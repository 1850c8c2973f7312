//! Putting the parts together: what `run` starts, in which order, and how it ends.

mod auditing;
mod boot;
mod cleaning;
mod databases;
mod descriptors;
mod destinations;
mod doctor;
mod entrances;
mod figures;
mod looking;
mod prove;
mod readiness;
mod settle;
mod steady;
mod tasks;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use crate::store::AcceptedIn;
pub use boot::{MigrationReport, RunError, migrate};
pub use doctor::{Finding, Level, Report, doctor};
pub use prove::{ProveRequest, prove};
pub use verdict::Proof;

use readiness::Probe;

use crate::broker::{Broker, PublisherSettings};
use crate::config::Settings;
use crate::console::{self, ClaimedSlot, Console, SlotPurpose};
use crate::inbound::server::{ServerSettings, routed, serve};
use crate::inbound::{Acceptor, Groups, PublicApi};
use crate::lifecycle::{Lifecycle, NeededFor, Task, caught};
use crate::model::Incarnation;
use crate::pipeline::{AdapterRegistry, AllOutcomes, Announced, Pipelines};
use crate::receiver::{InAdvance, Processor, Resender};
use crate::relay::{Relay, RelaySettings, Room, Shared, last_round};
use crate::store::{SessionTimeouts, Store};
use crate::telemetry::MetricsHandle;

/// Open connections of the management address.
const CONSOLE_CONNECTIONS: usize = 128;

/// The two addresses, bound before anything else is started.
#[derive(Debug)]
pub struct Listeners {
    pub api: TcpListener,
    pub console: TcpListener,
}

/// Everything that one instance consists of.
struct Parts {
    settings: Settings,
    store: Store,
    relay: Relay,
    shared: Shared,
    registry: AdapterRegistry,
    processor: Processor,
    acceptor: Arc<Acceptor>,
    outcomes: AllOutcomes,
    host: Arc<str>,
}

/// Who is told how far an instance has come.
#[derive(Debug, Default)]
pub struct Told {
    /// It is not refused as it is: it goes on, be it that it waits for a server.
    pub goes_on: Option<oneshot::Sender<()>>,
    /// Messages are accepted and processed for the first time.
    pub ready: Option<oneshot::Sender<()>>,
}

/// Runs an instance until `stop` is ready, then stops it gracefully.
///
/// # Errors
/// `Configuration` and `Schema` when it must not run as it is, `Fenced` when another instance has taken over.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    metrics: MetricsHandle,
    told: Told,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let lifecycle = Lifecycle::default();
    let bound = settings.instance.stop_timeout;
    let parts = assemble(settings, &lifecycle)?;
    let probe = serve_both(&parts, listeners, metrics, &lifecycle)?;
    if let Some(ready) = told.ready {
        lifecycle.tasks.spawn(tell_when_ready(probe, ready, lifecycle.clone()));
    }
    let (relay_end, shared_end, store) = (parts.relay.clone(), parts.shared.clone(), parts.store.clone());
    let live = async {
        let reached = boot::until_registered(&parts, told.goes_on).await?;
        tasks::start(&parts, reached, &lifecycle);
        tasks::beat(&parts, &lifecycle).await.map_err(RunError::Fenced)
    };
    // What is outside of the tasks is not begun anew: the process ends.
    let live = async { caught(live).await.unwrap_or_else(|reason| Err(RunError::Panicked(reason))) };
    let mut live = std::pin::pin!(live);
    let ended = tokio::select! {
        ended = &mut live => ended,
        () = stop => {
            tracing::info!("stopping: finishing what is in hand");
            // The heart-beat goes on meanwhile: what is finished now is still ours.
            let mut stopping = std::pin::pin!(stop_in_time(&lifecycle, bound));
            tokio::select! {
                () = &mut stopping => Ok(()),
                ended = &mut live => {
                    // The heart-beat ends with the hard stop; what is in hand has its last words after it.
                    if ended.is_ok() {
                        stopping.await;
                    }
                    ended
                }
            }
        }
    };
    relay_end.close().await;
    lifecycle.soft.cancel();
    lifecycle.hard.cancel();
    if ended.is_ok() {
        last_round(&relay_end, &shared_end).await;
        if let Err(error) = store.sign_off().await {
            tracing::debug!(%error, "not signed off; the lease ends by itself");
        }
    }
    ended
}

async fn stop_in_time(lifecycle: &Lifecycle, bound: Duration) {
    if !lifecycle.stop(bound).await {
        tracing::warn!("not everything was finished in time; the rest is handed back");
    }
}

fn assemble(settings: Settings, lifecycle: &Lifecycle) -> Result<Parts, RunError> {
    let incarnation = Incarnation::mint();
    let home =
        settings.home().ok_or_else(|| RunError::Configuration("instance.home names no postgres entry".to_owned()))?;
    let store = Store::new(&settings.postgres, &home.name, incarnation, SessionTimeouts::default())
        .map_err(|error| RunError::Configuration(error.to_string()))?;
    // Until the heart-beat lets it go.
    store.hold(true);
    let host: Arc<str> = gethostname::gethostname().to_string_lossy().chars().take(100).collect::<String>().into();
    let brokers: Result<Vec<Broker>, _> =
        settings.amqp.iter().map(|amqp| Broker::guarded(amqp, PublisherSettings::default(), lifecycle)).collect();
    let brokers = brokers.map_err(|error| RunError::Configuration(error.to_string()))?;
    let relay_settings = RelaySettings {
        destinations: destinations::of(&settings),
        watch: destinations::watch(&settings),
        lease: settings.instance.lease,
        host: host.to_string(),
    };
    let relay = Relay::start(store.clone(), brokers, relay_settings, lifecycle);
    let registry = AdapterRegistry::new(announced(&settings), Timestamp::now());
    let pipelines = Pipelines::new(&settings.adapters);
    let outcomes = AllOutcomes::new(settings.adapters.iter().map(|adapter| adapter.name.clone()));
    let processor = Processor {
        store: store.clone(),
        relay: relay.clone(),
        registry: registry.clone(),
        pipelines: pipelines.clone(),
        host: host.clone(),
        pace: Arc::default(),
        troubles: Arc::default(),
        outcomes: Arc::default(),
        in_advance: InAdvance::default(),
    };
    let acceptor = Arc::new(Acceptor {
        store: store.clone(),
        groups: Groups::new(relay.clone()),
        relay: relay.clone(),
        registry: registry.clone(),
        pipelines,
        host: host.clone(),
        outcomes: outcomes.clone(),
    });
    tracing::info!(instance = %incarnation, name = %settings.instance.name, home = %home.address(), "starting");
    let shared = Shared::default();
    Ok(Parts { settings, store, relay, shared, registry, processor, acceptor, outcomes, host })
}

fn announced(settings: &Settings) -> Vec<Announced> {
    let listener = |name: &crate::model::AdapterName| {
        let api = settings.inbound.iter().find(|one| one.adapter == *name);
        let queue = settings.receivers.iter().find(|one| one.adapter == *name);
        let api = api.map(|one| format!("{} /api{}", one.method, one.uri_pattern));
        api.or_else(|| queue.map(|one| one.destination.to_string()))
    };
    let announce = |adapter: &crate::pipeline::AdapterSettings| Announced {
        name: adapter.name.clone(),
        configuration: adapter.configuration.clone(),
        description: adapter.description.clone(),
        listener: listener(&adapter.name),
        supervised: settings.receivers.iter().any(|one| one.adapter == adapter.name),
    };
    settings.adapters.iter().map(announce).collect()
}

fn serve_both(
    parts: &Parts,
    listeners: Listeners,
    metrics: MetricsHandle,
    lifecycle: &Lifecycle,
) -> Result<Arc<Probe>, RunError> {
    let settings = &parts.settings;
    let own = listeners.console.local_addr().map_err(|error| RunError::Configuration(error.to_string()))?;
    if settings.console.unauthenticated && !own.ip().is_loopback() {
        tracing::warn!(address = %own, "the console has no log-ins: whoever reaches this address may read, resend and delete");
    }
    let api = PublicApi::new(parts.acceptor.clone(), &settings.api, settings.inbound.clone(), &settings.adapters);
    let probe = Arc::new(Probe::of(parts, &lifecycle.watch));
    let state = (probe.clone(), lifecycle.clone());
    lifecycle.spawn_watched(looking::task(), state, |(probe, lifecycle)| {
        looking::look_after(probe.clone(), lifecycle.clone()).boxed()
    });
    let readiness = probe.clone();
    let console = Console {
        store: parts.store.clone(),
        registry: parts.registry.clone(),
        resender: Resender::new(parts.processor.clone(), settings.receivers.clone()),
        room: parts.relay.room().clone(),
        answers: Room::default(),
        settings: settings.console.clone(),
        slots: claimed_slots(settings).into(),
        readiness: Arc::new(move || readiness.ask()),
        metrics: figures::page(parts, metrics),
    };
    let clients = descriptors::clients(descriptors::raise(), descriptors::kept(settings), settings.api.max_connections);
    if let Some(warning) = clients.warning {
        tracing::warn!("{warning}");
    }
    let protection = ServerSettings {
        header_timeout: settings.api.header_timeout,
        progress_timeout: settings.api.progress_timeout,
        max_connections: clients.at_most,
        max_connections_per_address: settings.api.max_connections_per_address,
    };
    let api_task = Task::new("api", NeededFor::Accepting);
    let answer = move |request| api.clone().answer(request);
    lifecycle.tasks.spawn(serve(api_task, listeners.api, answer, protection, lifecycle.clone()));
    let protection =
        ServerSettings { max_connections: CONSOLE_CONNECTIONS, max_connections_per_address: None, ..protection };
    let console = console::router(console, own);
    let console = move |request| routed(console.clone(), request);
    // Who could be told that it is away would have to ask it.
    let console_task = Task::new("console", NeededFor::Neither);
    lifecycle.tasks.spawn(serve(console_task, listeners.console, console, protection, lifecycle.clone()));
    Ok(probe)
}

async fn tell_when_ready(probe: Arc<Probe>, ready: oneshot::Sender<()>, lifecycle: Lifecycle) {
    while !probe.is_at_work() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            () = lifecycle.soft.cancelled() => return,
        }
    }
    // Nobody listens any more: nothing to tell.
    let _told = ready.send(()).is_ok();
}

fn claimed_slots(settings: &Settings) -> Vec<ClaimedSlot> {
    let logs = settings.inbound.iter().filter_map(|inbound| {
        let log = inbound.message_log.as_ref()?;
        Some(ClaimedSlot { slot_id: log.slot_id.clone(), purpose: SlotPurpose::Log, adapter: inbound.adapter.clone() })
    });
    let errors = settings.receivers.iter().map(|receiver| ClaimedSlot {
        slot_id: receiver.error_slot.clone(),
        purpose: SlotPurpose::Errors,
        adapter: receiver.adapter.clone(),
    });
    logs.chain(errors).collect()
}
