//! `posthaste run`: one instance, until it is told to stop.

use std::io::IsTerminal;
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{Exit, Failure, Global, output};
use crate::app::{self, Listeners, Told};
use crate::dev::holder_of;
use crate::inbound::server::bind;
use crate::telemetry::MetricsHandle;

pub async fn run(global: &Global) -> Result<(), Failure> {
    // First of all: until then a signal ends the process at once.
    let stop = told_to_stop()?;
    global.start_logging()?;
    let settings = global.load()?;
    let metrics = MetricsHandle::install().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let listeners = listen(settings.api.listen, settings.console.listen).await?;
    let line = announcement(&listeners)?;
    let (goes_on, does_go_on) = oneshot::channel();
    let told = Told { goes_on: Some(goes_on), ready: None };
    let run = Box::pin(app::run(settings, listeners, metrics, told, stop));
    // Not before a refusal: who reads it believes it.
    let announce = async { if does_go_on.await.is_ok() { output::print_aside(line).await } else { Ok(()) } };
    let (ended, announced) = tokio::join!(run, announce);
    ended?;
    announced
}

/// Binds both addresses, or says who has one.
pub(super) async fn listen(api: SocketAddr, console: SocketAddr) -> Result<Listeners, Failure> {
    let taken = |address: SocketAddr, error: &std::io::Error| {
        let holder = holder_of(address.port()).map(|holder| format!(" (taken by {holder})")).unwrap_or_default();
        Failure::new(Exit::Failed, format!("cannot listen on {address}: {error}{holder}"))
    };
    Ok(Listeners {
        api: bind(api).await.map_err(|error| taken(api, &error))?,
        console: bind(console).await.map_err(|error| taken(console, &error))?,
    })
}

/// One line for whoever started us: the addresses that are really listened on.
fn announcement(listeners: &Listeners) -> Result<String, Failure> {
    let address = |listener: &tokio::net::TcpListener| {
        listener.local_addr().map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    };
    let (api, console) = (address(&listeners.api)?, address(&listeners.console)?);
    Ok(format!("listening api={api} console={console}\n"))
}

/// Ready at the first SIGTERM or SIGINT. SIGHUP ends nothing.
pub(super) fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    stop_unless(|| true)
}

/// The same, and when the terminal that it was started at is gone: nobody would find its servers again.
pub(super) fn told_to_stop_or_left_alone() -> Result<impl Future<Output = ()>, Failure> {
    let at_terminal = || std::io::stdin().is_terminal() || std::io::stderr().is_terminal();
    let started_at_one = at_terminal();
    stop_unless(move || !started_at_one || at_terminal())
}

/// `stays`: asked at each SIGHUP.
fn stop_unless(stays: impl Fn() -> bool) -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Internal, format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    Ok(async move {
        loop {
            tokio::select! {
                _signal = terminate.recv() => return,
                _signal = interrupt.recv() => return,
                _signal = hang_up.recv() => {
                    if !stays() {
                        return;
                    }
                    tracing::info!("SIGHUP: the configuration is read at start only; SIGTERM stops");
                }
            }
        }
    })
}
