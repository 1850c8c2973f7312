//! A request's body on loan: what its answer did not need is read and thrown away before the answer is sent. Otherwise the
//! connection would be reset, and a client that first sends everything would never see why it was refused.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::header::EXPECT;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::progress::Phase;

/// The most that is thrown away; whoever sends more is cut off.
const MOST: usize = 64 * 1024 * 1024;
/// The longest that it may take, and the longest pause in it.
const BOUND: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no more of a body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body comes too slowly")]
    TooSlow,
    /// It ended before its end, or its framing is broken.
    #[error(transparent)]
    Broken(hyper::Error),
}

/// A body that comes back when it is dropped before its end.
pub struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
    connection: Arc<Connection>,
    /// The client sends it only when it is asked for, which the first read does.
    waits_to_be_asked: bool,
}

/// Answers, and lets the client finish.
pub(super) async fn answered<F: Future<Output = Response>>(
    request: Request<Incoming>,
    connection: Arc<Connection>,
    answer: impl FnOnce(Request<Lent>) -> F,
) -> Response {
    connection.begin(Phase::Deciding);
    let waits_to_be_asked = request.headers().contains_key(EXPECT);
    let (back, mut rest) = oneshot::channel();
    let lent = |body| Lent { body: Some(body), back: Some(back), connection: connection.clone(), waits_to_be_asked };
    let response = answer(request.map(lent)).await;
    // Who was too slow already is not waited for again.
    if let Ok(rest) = rest.try_recv()
        && response.status() != StatusCode::REQUEST_TIMEOUT
    {
        connection.waits_for_body(true);
        let _cut_off = tokio::time::timeout(BOUND, discard(rest)).await.is_err();
    }
    connection.begin(Phase::Answer);
    response
}

async fn discard(mut rest: Incoming) {
    let mut discarded = 0;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(PAUSE, rest.frame()).await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > MOST {
            return;
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.waits_to_be_asked = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.connection.waits_for_body(false);
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Poll::Pending if self.connection.refuses_body() => {
                self.connection.waits_for_body(false);
                self.body = None;
                Poll::Ready(Some(Err(BodyError::TooSlow)))
            }
            Poll::Pending => {
                self.connection.waits_for_body(true);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !self.waits_to_be_asked && !body.is_end_stream());
        if let (Some(body), Some(back)) = (unread, self.back.take()) {
            // Nobody waits for it when its connection is gone.
            let _gone = back.send(body).is_err();
        }
    }
}
