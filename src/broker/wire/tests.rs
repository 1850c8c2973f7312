use proptest::prelude::*;

use super::*;

fn home() -> HomeId {
    HomeId(Uuid::from_u128(7))
}

fn message(home: Option<HomeId>) -> OutMessage {
    let tx_id = TxId::mint();
    OutMessage {
        queue: "q".to_owned(),
        envelope: Envelope {
            tx_id,
            root_id: RootId(Uuid::from_u128(9)),
            message_id: MessageId::parse("1000").unwrap(),
            correlation_id: MessageId::parse("c-1").unwrap(),
            content_type: Some("text/plain".to_owned()),
            headers: Headers::from([("tenant".to_owned(), "blue".to_owned())]),
            body: Bytes::from_static(b"hello"),
        },
        attempts: 3,
        published_at: 1_700_000_000_000_001,
        home,
        redone: false,
        room: None,
    }
}

fn read(properties: &BasicProperties) -> Incoming {
    decode(properties, false, Bytes::from_static(b"hello"), home())
}

#[test]
fn an_own_message_comes_back_as_it_was_sent() {
    let sent = message(Some(home()));
    let incoming = read(&properties(&sent).unwrap());
    assert_eq!(
        incoming.source,
        Source::Own {
            tx_id: sent.envelope.tx_id,
            root_id: Some(sent.envelope.root_id),
            attempts: 3,
            published_at: Some(sent.published_at),
        }
    );
    assert_eq!(incoming.message_id.as_ref(), Some(&sent.envelope.message_id));
    assert_eq!(incoming.correlation_id.as_ref(), Some(&sent.envelope.correlation_id));
    assert_eq!(incoming.content_type, sent.envelope.content_type);
    assert_eq!(incoming.headers, sent.envelope.headers);
}

#[test]
fn only_our_own_messages_leave_out_that_they_are_their_own_root() {
    for (home, told) in [(Some(home()), false), (None, true)] {
        let mut sent = message(home);
        sent.envelope.root_id = sent.envelope.tx_id.into();
        let properties = properties(&sent).unwrap();
        let table = properties.headers().as_ref().unwrap();
        assert_eq!(table.inner().contains_key(ROOT_ID), told, "{home:?}");
        if let Source::Own { root_id, .. } = read(&properties).source {
            assert_eq!(root_id, Some(sent.envelope.root_id));
        }
        assert!(matches!(read(&properties).source, Source::Own { .. }) != told);
    }
}

#[test]
fn a_copy_that_was_published_again_is_read_as_a_redelivery() {
    let sent = OutMessage { redone: true, ..message(Some(home())) };
    let incoming = read(&properties(&sent).unwrap());
    assert!(incoming.redelivered && !read(&properties(&message(Some(home()))).unwrap()).redelivered);
    assert_eq!(incoming.headers, sent.envelope.headers);
}

#[test]
fn a_hand_over_and_another_home_are_foreign_and_keep_the_business_id() {
    for sent in [message(None), message(Some(HomeId(Uuid::from_u128(8))))] {
        let incoming = read(&properties(&sent).unwrap());
        assert_eq!(incoming.source, Source::Foreign { message_id: Some(sent.envelope.tx_id.to_string()) });
        assert_eq!(incoming.message_id, Some(sent.envelope.message_id));
    }
}

#[test]
fn our_home_without_a_uuid_as_message_id_is_foreign() {
    let mut properties = properties(&message(Some(home()))).unwrap();
    properties = properties.with_message_id("1000".into());
    assert_eq!(read(&properties).source, Source::Foreign { message_id: Some("1000".to_owned()) });
}

#[test]
fn a_chosen_header_cannot_pass_for_one_of_ours() {
    let mut sent = message(None);
    sent.envelope.headers.insert("X-Posthaste-Home".to_owned(), "x".to_owned());
    sent.envelope.headers.insert(MESSAGE_ID.to_owned(), "forged".to_owned());
    let incoming = read(&properties(&sent).unwrap());
    assert_eq!(incoming.message_id, Some(sent.envelope.message_id));
    assert_eq!(incoming.headers, Headers::from([("tenant".to_owned(), "blue".to_owned())]));
}

#[test]
fn a_foreign_message_id_property_becomes_the_business_id_only_when_valid() {
    let valid = BasicProperties::default().with_message_id("order-7".into());
    assert_eq!(read(&valid).message_id, MessageId::parse("order-7").ok());
    let invalid = BasicProperties::default().with_message_id("order 7".into());
    let incoming = read(&invalid);
    assert_eq!(incoming.message_id, None);
    assert_eq!(incoming.source, Source::Foreign { message_id: Some("order 7".to_owned()) });
    assert_eq!(read(&BasicProperties::default()).source, Source::Foreign { message_id: None });
}

#[test]
fn headers_of_32_kib_and_64_in_number_fit_and_one_more_does_not() {
    let large = |bytes: usize| Headers::from([("a".to_owned(), "x".repeat(bytes - 1 - HEADER_OVERHEAD))]);
    assert_eq!(fits(None, &large(MAX_HEADER_BYTES)), Ok(()));
    assert_eq!(fits(None, &large(MAX_HEADER_BYTES + 1)), Err(WireError::HeadersTooLarge(MAX_HEADER_BYTES + 1)));
    let many = |n: usize| (0..n).map(|i| (format!("h{i}"), String::new())).collect::<Headers>();
    assert_eq!(fits(None, &many(64)), Ok(()));
    assert_eq!(fits(None, &many(65)), Err(WireError::TooManyHeaders(65)));
    assert_eq!(fits(Some(&"x".repeat(256)), &Headers::new()), Err(WireError::ContentType(256)));
    let name = Headers::from([("n".repeat(256), String::new())]);
    assert_eq!(fits(None, &name), Err(WireError::HeaderName(256)));
}

fn any_value() -> impl Strategy<Value = AMQPValue> {
    prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<f64>().prop_map(AMQPValue::Double),
        proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        "\\PC{0,40}".prop_map(|text| AMQPValue::LongString(text.into())),
        Just(AMQPValue::LongString(home().to_string().into())),
        Just(AMQPValue::FieldTable(FieldTable::default())),
        Just(AMQPValue::Void),
    ]
}

proptest! {
    #[test]
    fn whatever_a_sender_writes_is_read_within_the_bounds(
        headers in proptest::collection::vec((prop_oneof!["[a-zA-Z-]{0,12}", proptest::sample::select(OURS.to_vec()).prop_map(str::to_owned)], any_value()), 0..120),
        id in proptest::option::of("\\PC{0,40}"),
    ) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(ShortString::try_new(name).unwrap(), value);
        }
        let mut properties = BasicProperties::default().with_headers(table);
        if let Some(id) = id.and_then(|id| short(&id)) {
            properties = properties.with_message_id(id);
        }
        let incoming = read(&properties);
        prop_assert_eq!(fits(None, &incoming.headers), Ok(()));
        let ours = incoming.headers.keys().any(|name| OURS.contains(&name.as_str()));
        prop_assert!(!ours);
    }
}
