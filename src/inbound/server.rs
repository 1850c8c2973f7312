//! Serving HTTP/1.1 to clients that may be slow, broken or hostile. Used by both surfaces.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::lifecycle::Lifecycle;

/// A request's head may always have so many bytes; what does not fit into what is read at once beyond them is answered 431.
/// Each connection keeps room for so much, also for what it reads of bodies.
const MAX_HEAD: usize = 40 * 1024;
/// Most headers of a request; more is answered 431.
const MAX_HEADERS: usize = 128;
/// How long a stop waits for requests in hand.
const DRAIN: Duration = Duration::from_secs(20);

/// What protects a listener.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// From accepting a connection, or the end of the last answer, to the end of the next head.
    pub header_timeout: Duration,
    pub max_connections: usize,
}

/// Binds an address.
///
/// # Errors
/// The address is taken, not ours, or not allowed.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until the soft stop, then finishes what is in hand.
pub async fn serve(listener: TcpListener, router: Router, settings: ServerSettings, lifecycle: Lifecycle) {
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .half_close(false);
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit,
            () = lifecycle.soft.cancelled() => break,
        };
        let Ok(permit) = permit else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    // Out of descriptors, say: what is open now ends some day.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = lifecycle.soft.cancelled() => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        let hard = lifecycle.hard.clone();
        lifecycle.tasks.spawn(async move {
            if let Some(Err(error)) = hard.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still in hand at the end of the stop");
    }
}
