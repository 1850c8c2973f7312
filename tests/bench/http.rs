use crate::http::*;

#[test]
fn an_answer_is_as_long_as_its_head_and_body() {
    let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\ndate: x\r\n\r\nhelloHTTP/1.1 304";
    assert_eq!(
        head_in(answer).unwrap(),
        Some(Head {
            status: 202,
            retry_after: false,
            nothing_done: false,
            length: answer.len() - b"HTTP/1.1 304".len()
        })
    );
    assert_eq!(head_in(b"HTTP/1.1 304 Not Modified\r\n\r\n").unwrap().unwrap().length, 29);
}

#[test]
fn a_refusal_may_say_when_to_come_again() {
    let answer =
        head_in(b"HTTP/1.1 503 x\r\nRetry-After: 1\r\nX-Outcome: none\r\ncontent-length:0\r\n\r\n").unwrap().unwrap();
    assert_eq!((answer.status, answer.retry_after, answer.nothing_done), (503, true, true));
    assert!(!head_in(b"HTTP/1.1 503 x\r\nX-Outcome: unknown\r\n\r\n").unwrap().unwrap().nothing_done);
}

#[test]
fn half_a_head_is_waited_for_and_what_is_none_is_refused() {
    assert_eq!(head_in(b"HTTP/1.1 202 Accepted\r\nContent-Le").unwrap(), None);
    assert!(head_in(b"SSH-2.0\r\n\r\n").is_err());
    assert!(head_in(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    assert!(head_in(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
}
