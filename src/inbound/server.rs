//! Serving HTTP/1.1 to clients that may be slow, broken or hostile. Used by both surfaces.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::lent::{Lent, answered};
use crate::lifecycle::{Lifecycle, Task, point};

/// A request's head may always have so many bytes; what does not fit into what is read at once beyond them is answered 431.
/// Each connection keeps room for so much, also for what it reads of bodies.
const MAX_HEAD: usize = 40 * 1024;
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

/// A router's answer, for [`serve`].
pub async fn routed(router: Router, request: Request<Lent>) -> Response {
    let Ok(response) = router.oneshot(request.map(Body::new)).await;
    response
}

/// Serves until the soft stop, then finishes what is in hand. When accepting panics it begins anew; connections go on.
pub async fn serve<F: Future<Output = Response> + Send + 'static>(
    task: Task,
    listener: TcpListener,
    answer: impl Fn(Request<Lent>) -> F + Clone + Send + Sync + 'static,
    settings: ServerSettings,
    lifecycle: Lifecycle,
) {
    let mut http = http1::Builder::new();
    // Also: 100 headers at most, or 431. With a bound of our own they would be read into 8 KiB from the heap each time.
    http.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout).max_buf_size(MAX_HEAD).half_close(false);
    let (watch, soft) = (lifecycle.watch.clone(), lifecycle.soft.clone());
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    let name = task.name().to_owned();
    let mut server = Server { name, listener, http, answer, connections, graceful: GracefulShutdown::new(), lifecycle };
    watch.until_stopped(task, &soft, &mut server, |server| server.accept_all().boxed()).await;
    let Server { listener, graceful, .. } = server;
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still in hand at the end of the stop");
    }
}

struct Server<A> {
    name: String,
    listener: TcpListener,
    http: http1::Builder,
    answer: A,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
    lifecycle: Lifecycle,
}

impl<F: Future<Output = Response> + Send + 'static, A: Fn(Request<Lent>) -> F + Clone + Send + 'static> Server<A> {
    async fn accept_all(&self) {
        let Self { listener, http, lifecycle, .. } = self;
        loop {
            let permit = tokio::select! {
                permit = self.connections.clone().acquire_owned() => permit,
                () = lifecycle.soft.cancelled() => return,
            };
            let Ok(permit) = permit else { return };
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
                () = lifecycle.soft.cancelled() => return,
            };
            point(&self.name);
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY not set");
            }
            let answer = self.answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                answered(request, answer.clone()).map(Ok::<_, Infallible>)
            });
            let connection = self.graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            let hard = lifecycle.hard.clone();
            lifecycle.tasks.spawn(async move {
                if let Some(Err(error)) = hard.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(permit);
            });
        }
    }
}
