//! Queues that others have declared, and policies over them.

use std::collections::BTreeSet;

use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use super::{Named, adapters, named, servers};
use crate::support::{Amqp, App, LONG, Options, eventually, run};

/// A queue, whether it is a quorum queue, its other arguments, and what doctor says of it.
type Planted<'a> = (&'a str, bool, &'a [(&'a str, AMQPValue)], &'a [(&'a str, &'a str)]);

fn arguments(quorum: bool, more: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    if quorum {
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    }
    for (name, value) in more {
        table.insert((*name).into(), value.clone());
    }
    table
}

#[test]
fn every_rule_by_which_a_queue_drops_messages_is_named_and_where() {
    run(async {
        let app = App::lay_out(servers().await, Options::default()).await;
        app.show_management().await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        let number = AMQPValue::LongInt;
        let text = |text: &str| AMQPValue::LongString(text.into());
        let queues: &[Planted<'_>] = &[
            ("fine", true, &[("x-max-length", number(9)), ("x-overflow", text("reject-publish"))], &[]),
            ("classic", false, &[], &[("warning", "queue-type")]),
            ("expiring", true, &[("x-message-ttl", number(60_000))], &[("void", "message-ttl")]),
            ("short", true, &[("x-max-length", number(5))], &[("void", "max-length")]),
            ("limited", true, &[("x-delivery-limit", number(3))], &[("void", "delivery-limit")]),
            ("minusOne", true, &[("x-delivery-limit", number(-1))], &[("void", "delivery-limit")]),
            ("fleeting", true, &[("x-expires", number(600_000))], &[("void", "expires")]),
            (
                "caught",
                true,
                &[("x-message-ttl", number(60_000)), ("x-dead-letter-exchange", text("amq.fanout"))],
                &[("warning", "message-ttl")],
            ),
            (
                "uncaught",
                true,
                &[("x-message-ttl", number(60_000)), ("x-dead-letter-exchange", text("nowhere"))],
                &[("void", "message-ttl"), ("warning", "dead-letter-exchange")],
            ),
            (
                "single",
                true,
                &[("x-single-active-consumer", AMQPValue::Boolean(true))],
                &[("warning", "single-active-consumer")],
            ),
            (
                "theirs",
                false,
                &[("x-message-ttl", number(60_000))],
                &[("void", "queue-type"), ("warning", "message-ttl")],
            ),
        ];
        for (queue, quorum, more, _) in queues {
            amqp.declare_with(queue, arguments(*quorum, more)).await;
        }
        let own: Vec<&str> = queues.iter().map(|(queue, ..)| *queue).filter(|queue| *queue != "theirs").collect();
        app.write("configurations/more/adapters.yml", &adapters(&own, "theirs"));
        app.edit_resources("amqp:\n  - name", "    poolMaxSize: 64\namqp:\n  - name");
        app.migrate();
        let wanted: BTreeSet<Named> = queues
            .iter()
            .flat_map(|(queue, _, _, told)| {
                told.iter().map(move |(level, check)| named(level, check, &format!("rabbit/{queue}")))
            })
            .collect();
        let (status, complaints) = app.complaints();
        assert_eq!((status, complaints.into_iter().collect::<BTreeSet<_>>()), (1, wanted));
        let minus_one = app.finding("delivery-limit", "rabbit/minusOne");
        assert!(minus_one["found"].as_str().unwrap().contains("destroys"), "{minus_one}");

        // A policy over all of them is told by its name.
        app.policy(Some(json!({"max-length": 100, "overflow": "drop-head"}))).await;
        eventually("the policy is named", LONG, async || {
            let found = app.finding("max-length", "rabbit/myQueue");
            let told = found["found"].as_str().unwrap().contains("policy planted") && found["level"] == "void";
            if told { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
        assert!(app.finding("max-length", "rabbit/myQueue")["change"].as_str().unwrap().contains("reject-publish"));
        app.policy(None).await;
        amqp.delete("short").await;
        app.edit_resources("createDestination: true", "createDestination: false");
        let listed: String =
            own.iter().chain(&["theirs"]).map(|queue| format!("      - {{ name: {queue} }}\n")).collect();
        app.edit_resources("    queues:\n", &format!("    queues:\n{listed}"));
        assert_eq!(app.finding("queue", "rabbit/short")["level"], "void", "it must be there, and is not");
    });
}
