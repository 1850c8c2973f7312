//! `posthaste run`: one instance, until it is told to stop.

use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure, Global, output};
use crate::app::{self, Listeners};
use crate::dev::holder_of;
use crate::inbound::server::bind;
use crate::telemetry::MetricsHandle;

pub async fn run(global: &Global) -> Result<(), Failure> {
    global.start_logging()?;
    let settings = global.load()?;
    let metrics = MetricsHandle::install().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let listeners = listen(settings.api.listen, settings.console.listen).await?;
    announce(&listeners).await?;
    app::run(settings, listeners, metrics, None, told_to_stop()?).await?;
    Ok(())
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
async fn announce(listeners: &Listeners) -> Result<(), Failure> {
    let address = |listener: &tokio::net::TcpListener| {
        listener.local_addr().map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    };
    let (api, console) = (address(&listeners.api)?, address(&listeners.console)?);
    output::print_aside(format!("listening api={api} console={console}\n")).await
}

/// Ready at the first SIGTERM or SIGINT.
pub(super) fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Internal, format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _signal = terminate.recv() => {}
            _signal = interrupt.recv() => {}
        }
    })
}
