use super::super::nested::DEEPEST;
use super::*;

const CONTENT_TYPE: u16 = 1 << 15;
const HEADERS: u16 = 1 << 13;
const ID: u16 = 1 << 7;

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [short(name), b"S".to_vec(), long(value)].concat()
}

fn envelope(flags: u16, properties: &[Vec<u8>]) -> Envelope {
    let properties = [flags.to_be_bytes().to_vec(), properties.concat()].concat();
    Envelope { exchange: Vec::new(), routing_key: b"q".to_vec(), properties, frame_max: 131_072 }
}

fn kept(envelope: &Envelope) -> Unreadable {
    envelope.keep("q", Bytes::from_static(b"hi"))
}

#[test]
fn what_the_library_reads_is_readable_and_nothing_else() {
    assert!(envelope(0, &[]).is_readable());
    assert!(envelope(CONTENT_TYPE | ID, &[short("café".as_bytes()), short(b"1")]).is_readable());
    assert!(envelope(HEADERS, &[long(&header(b"a", b"\xff"))]).is_readable(), "a value may be any bytes");
    assert!(!envelope(CONTENT_TYPE, &[short(b"caf\xe9")]).is_readable());
    assert!(!envelope(ID, &[short(b"\xff")]).is_readable());
    assert!(!envelope(HEADERS, &[long(&header(b"\xff", b"1"))]).is_readable());
    assert!(!envelope(ID, &[]).is_readable(), "cut off");
    assert!(!Envelope { routing_key: b"\xff".to_vec(), ..envelope(0, &[]) }.is_readable());
}

#[test]
fn what_is_wrong_is_told_and_the_rest_is_kept() {
    let table = [
        header(b"caf\xe9", b"x"),
        header(b"Fine", b"y"),
        header(b"x-message-id", b"business"),
        header(b"x-posthaste-home", b"z"),
        [short(b"count"), vec![b'I', 0, 0, 0, 1]].concat(),
    ];
    let kept = kept(&envelope(CONTENT_TYPE | HEADERS | ID, &[short(b"a\xff"), long(&table.concat()), short(b"7")]));
    assert_eq!(kept.what, "its content type and header name are not UTF-8");
    assert_eq!(kept.message_id, MessageId::parse("business").ok());
    assert_eq!(kept.content_type.as_deref(), Some("a\u{fffd}"));
    let headers: Vec<_> = kept.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, [("caf\u{fffd}", "x"), ("fine", "y")]);
    assert_eq!(&kept.body[..], b"hi");
}

#[test]
fn a_message_that_comes_again_is_the_same_whatever_the_broker_has_added() {
    let bad = header(b"\xff", b"1");
    let other = header(b"a", b"2");
    let again = [short(b"x-delivery-count"), vec![b'l', 0, 0, 0, 0, 0, 0, 0, 3]].concat();
    let of = |table: &[&[u8]], id: &[u8]| kept(&envelope(HEADERS | ID, &[long(&table.concat()), short(id)])).tx_id;
    let first = of(&[&bad, &other], b"1");
    assert!(first.is_some());
    assert_eq!(of(&[&again, &other, &bad], b"1"), first);
    assert_ne!(of(&[&bad, &other], b"2"), first);
    assert_ne!(of(&[&bad], b"1"), first);
    assert_eq!(kept(&envelope(HEADERS, &[long(&bad)])).tx_id, None, "two of them may be two messages");
    let elsewhere =
        envelope(HEADERS | ID, &[long(&[bad, other].concat()), short(b"1")]).keep("p", Bytes::from_static(b"hi"));
    assert_ne!(elsewhere.tx_id, first);
}

fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![b'V'], |inner, _| [b"A".to_vec(), long(&inner)].concat())
}

#[test]
fn tables_in_tables_end_no_stack() {
    let of = |depth| envelope(HEADERS, &[long(&[short(b"deep"), nested(depth)].concat())]);
    assert!(of(DEEPEST - 1).is_readable());
    assert!(!of(20_000).is_readable());
    assert_eq!(kept(&of(20_000)).what, "its headers are tables in tables without end");
}

#[test]
fn what_is_larger_than_the_library_takes_is_told_with_its_bytes() {
    // The flags, the table's length, and a header of 9 bytes beside its value; 12 bytes stand before them.
    let of = |bytes: usize| envelope(HEADERS, &[long(&header(b"big", &vec![b'x'; bytes - 15]))]);
    let (largest, larger) = (of(131_052), of(131_053));
    assert_eq!((largest.properties.len(), larger.properties.len()), (131_052, 131_053));
    assert!(largest.is_readable());
    assert!(!larger.is_readable());
    assert!(!Envelope { frame_max: 131_071, ..largest }.is_readable());
    assert_eq!(kept(&larger).what, "its headers are too large for our client: 131053 bytes");
}

#[test]
fn no_bytes_make_it_panic() {
    let nested = nested(200);
    let table = [header(b"\xff", b"1"), short(b"deep"), nested, short(b"odd"), vec![b'?', 1]].concat();
    let whole = envelope(CONTENT_TYPE | HEADERS | ID, &[short(b"\xff"), long(&table), short(b"7")]);
    assert_eq!(kept(&whole).tx_id, None, "nobody knows where the table ends");
    for length in 0..whole.properties.len() {
        let cut = Envelope { properties: whole.properties[..length].to_vec(), ..whole.clone() };
        assert!(!cut.is_readable());
        assert_eq!(kept(&cut).tx_id, None);
    }
    for flags in 0..=u16::MAX {
        let _kept = kept(&envelope(flags, &[vec![1, 200, 3]]));
    }
}
