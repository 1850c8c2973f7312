//! Serving HTTP/1.1 to clients that may be slow, broken or hostile. Used by both surfaces.

use std::convert::Infallible;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower::ServiceExt;

use super::connection::{Asked, Closed, Connection};
use super::connections::{Connections, Place};
use super::lent::{Lent, answered};
use super::progress::{Phase, address_of};
use super::socket::Socket;
use crate::lifecycle::{Lifecycle, Task, point};

/// A request's head may always have so many bytes; what does not fit into what is read at once beyond them is answered 431.
/// Each connection keeps room for so much, also for what it reads of bodies.
const MAX_HEAD: usize = 40 * 1024;
/// How long a stop waits for requests in hand.
const DRAIN: Duration = Duration::from_secs(20);
/// What the kernel keeps of answers that a client has not read, in bytes; it counts twice as much. So little, that who reads
/// at all is seen to.
const SEND_BUFFER: u32 = 64 * 1024;
/// Connections that wait in the kernel's queue; the system may allow fewer.
const BACKLOG: u32 = 1024;

/// What one more connection of an address is told that has all it may have.
static TOO_MANY: LazyLock<String> = LazyLock::new(|| {
    let body = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"too many connections from this address; close some, or try again"}"#;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
         x-outcome: none\r\nretry-after: 2\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
});

/// What protects a listener.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// From accepting a connection, or the end of the last answer, to the end of the next head.
    pub header_timeout: Duration,
    /// How far a client may fall behind 512 bytes a second with a body or with reading an answer; then it is cut off.
    pub progress_timeout: Duration,
    /// When all are in use a newcomer gets the place of the slowest.
    pub max_connections: usize,
    /// Of one IPv4 address, or of one /64 of IPv6. `None`: no bound of its own.
    pub max_connections_per_address: Option<usize>,
}

/// Binds an address.
///
/// # Errors
/// The address is taken, not ours, or not allowed.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Inherited by what is accepted.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
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
    let name = task.name().to_owned();
    let connections = Connections::new(&name, settings);
    let (most, graceful) = (settings.max_connections, GracefulShutdown::new());
    let mut server = Server { name, listener, http, answer, connections, most, graceful, lifecycle };
    watch.until_stopped(task, &soft, &mut server, |server| server.run().boxed()).await;
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
    connections: Arc<Connections>,
    /// As many there may be.
    most: usize,
    graceful: GracefulShutdown,
    lifecycle: Lifecycle,
}

impl<A> Server<A> {
    /// A place for a newcomer; that nobody makes room for long is told. `None`: the stop has come.
    async fn place(&self, address: IpAddr) -> Option<Place> {
        let Self { connections, lifecycle, name, most, .. } = self;
        let mut place = pin!(lifecycle.soft.run_until_cancelled(connections.place(address)));
        if let Some(place) = place.as_mut().now_or_never() {
            return place;
        }
        lifecycle.watch.held_up(name, Some(format!("nobody is let in: all {most} connections of {name} are in use")));
        let place = place.await;
        lifecycle.watch.held_up(name, None);
        place
    }
}

impl<F: Future<Output = Response> + Send + 'static, A: Fn(Request<Lent>) -> F + Clone + Send + 'static> Server<A> {
    /// Until the soft stop.
    async fn run(&self) {
        tokio::select! {
            () = self.accept_all() => {}
            () = self.connections.look_after() => {}
        }
    }

    async fn accept_all(&self) {
        let Self { listener, http, lifecycle, connections, .. } = self;
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
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
            let address = address_of(peer.ip());
            if !connections.may_come(address) {
                turn_away(stream);
                continue;
            }
            let Some(place) = self.place(address).await else { return };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY not set");
            }
            let (answer, connection) = (self.answer.clone(), place.connection.clone());
            let stream = Socket::new(stream, connection.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                answered(request, connection.clone(), answer.clone()).map(Ok::<_, Infallible>)
            });
            let served = self.graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            let (hard, connections) = (lifecycle.hard.clone(), connections.clone());
            lifecycle.tasks.spawn(async move {
                let ended = hard.run_until_cancelled(until_ended(served, &place.connection)).await;
                if let Some(closed) = ended.flatten() {
                    connections.count(closed);
                }
                drop(place);
            });
        }
    }
}

/// Serves a connection until its end. Answers why it was closed, if that was before its time.
async fn until_ended(
    served: impl Future<Output = Result<(), hyper::Error>>,
    connection: &Connection,
) -> Option<Closed> {
    let mut served = pin!(served);
    let mut refused = false;
    loop {
        tokio::select! {
            // What the client has done meanwhile comes first.
            biased;
            ended = &mut served => {
                let Err(error) = ended else { return connection.has_refused_body().then_some(Closed::Body) };
                tracing::debug!(%error, "a connection ended early");
                let head = error.is_timeout() && connection.seen().phase == Phase::Head;
                let body = connection.has_refused_body().then_some(Closed::Body);
                return if head { Some(Closed::Head) } else { body };
            }
            () = connection.woken() => match connection.asked() {
                Asked::Nothing => {}
                // Whoever reads the body answers, now that he is asked again. If nobody reads it, that is the end.
                Asked::RefuseBody if !refused => refused = true,
                Asked::RefuseBody => return Some(Closed::Body),
                Asked::Close(closed) => return Some(closed),
            },
        }
    }
}

/// Refuses a connection, as far as that can be done without waiting for its client.
fn turn_away(stream: TcpStream) {
    let told = stream.into_std().and_then(|mut stream| stream.write_all(TOO_MANY.as_bytes()));
    if let Err(error) = told {
        tracing::debug!(%error, "a connection was turned away without a word");
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
