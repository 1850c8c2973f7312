//! Each task that lives as long as the process panics, again and again until it is let: that is told and counted, and afterwards
//! all is as if nothing had been.

use std::sync::Arc;
use std::time::Instant;

use posthaste::txn::faults::Point;

use crate::instance::{Armed, Fault, Instance};
use crate::messages::Messages;
use crate::site::{Ground, QUEUES, Site};
use crate::support::{LONG, eventually};
use crate::verdict::Torn;

/// Every task of an instance with this configuration, and who is told in `/readyz` that it is away.
const TASKS: &[(&str, &[&str])] = &[
    ("api", &["accepting"]),
    ("audit", &[]),
    ("clean-up", &["processing"]),
    ("connection rabbit consume", &["processing"]),
    ("connection rabbit publish", &["accepting"]),
    // Who asks it is asked in vain.
    ("console", &[]),
    ("databases", &["processing"]),
    ("figures", &[]),
    ("heartbeat", &["accepting", "processing"]),
    ("marker", &["processing"]),
    ("publisher rabbit 1", &["accepting"]),
    ("publisher rabbit 2", &["accepting"]),
    ("publisher rabbit 3", &["accepting"]),
    ("readiness", &[]),
    ("receiver one", &["processing"]),
    ("receiver three", &["processing"]),
    ("recovery", &["processing"]),
    ("sweeper", &["processing"]),
    ("verifier", &["accepting"]),
];

pub async fn run_all(ground: &Arc<Ground>) {
    let wanted = std::env::var("POSTHASTE_CASES").ok();
    for (task, parts) in TASKS {
        let name = format!("{task}:task");
        if wanted.as_ref().is_some_and(|wanted| !wanted.split(',').any(|part| name.contains(part))) {
            continue;
        }
        let begun = Instant::now();
        panics_until_it_is_let(ground.clone(), task, parts).await;
        println!("{:>6.1} s  {name}", begun.elapsed().as_secs_f64());
    }
}

async fn panics_until_it_is_let(ground: Arc<Ground>, task: &'static str, parts: &[&str]) {
    let (site, messages) = (Site::lay_out(ground, task.to_owned()).await, Messages::default());
    let instance = site.armed(Fault::Task(task)).await;
    instance.run();
    until_told(&instance, &messages, task, parts).await;
    instance.go_on();
    instance.ready().await;
    // It says so no more, once it has lived for a while.
    eventually(&format!("{task} is well"), LONG, async || match reasons(&instance).await?.as_slice() {
        [] => Ok(()),
        others => Err(format!("{others:?}")),
    })
    .await;
    for queue in QUEUES {
        messages.send(&instance, queue).await;
    }
    messages.repeat_unknown(&instance).await;
    site.quiet(&[&instance]).await;
    site.judge(&messages, &Torn::default(), false).await;
    site.resend_all(&instance).await;
    site.quiet(&[&instance]).await;
    site.queues_are_empty(&instance).await;
    counted(&instance, task).await;
    let said = instance.said();
    let line = said.lines().find(|line| line.contains("a task has ended too early") && line.contains(task));
    assert!(line.is_some_and(|line| line.contains("ERROR") && line.contains("fault injected")), "{task}: {line:?}");
    instance.stop().await;
    site.judge(&messages, &Torn::default(), true).await;
    site.leave().await;
}

/// A message's own task panics: before its COMMIT, amid its steps, and after its COMMIT. It takes effect all the same, and its
/// delivery does not stay with the receiver, which would have one place less for ever.
pub async fn messages_panic(ground: &Arc<Ground>) {
    for (point, queue) in [(Point::DQ1, "one"), (Point::MD1, "three"), (Point::DQ3, "one")] {
        let name = format!("{}:message", point.name());
        let (site, messages) = (Site::lay_out(ground.clone(), name.clone()).await, Messages::default());
        let armed = Armed { point, kind: "panic", nth: 1, group: false };
        let instance = site.armed(Fault::At(armed)).await;
        instance.run();
        instance.ready().await;
        messages.send_until_hit(&instance, queue, 1).await;
        messages.repeat_unknown(&instance).await;
        site.quiet(&[&instance]).await;
        // With the same session: another one would be given everything again.
        let held = async || match site.unsettled().await.as_str() {
            "[0,0]" => Ok(()),
            held => Err(held.to_owned()),
        };
        eventually(&format!("{name}: nothing is unsettled"), LONG, held).await;
        site.judge(&messages, &Torn::default(), false).await;
        instance.stop().await;
        site.leave().await;
    }
}

/// Some tasks only come round when there is something to do: messages are sent until it is told.
async fn until_told(instance: &Instance, messages: &Messages, task: &str, parts: &[&str]) {
    let what = format!("the task {task} has ended too early and begins anew: fault injected");
    let is_told = async || match reasons(instance).await {
        Ok(reasons) if !parts.is_empty() => {
            parts.iter().all(|part| reasons.contains(&((*part).to_owned(), what.clone())))
        }
        Ok(_) | Err(_) => parts.is_empty() && instance.was_hit(),
    };
    let told = async || {
        if is_told().await {
            return Ok(());
        }
        if instance.readyz().await.is_ok_and(|reply| reply.status == 200) {
            for queue in QUEUES {
                messages.send(instance, queue).await;
                if is_told().await {
                    return Ok(());
                }
            }
        }
        Err(format!("{:?}", reasons(instance).await))
    };
    eventually(&format!("/readyz tells of {task}"), LONG, told).await;
    assert!(instance.was_hit(), "{task}");
}

/// What `/readyz` says: the part, and why.
async fn reasons(instance: &Instance) -> Result<Vec<(String, String)>, String> {
    let reply = instance.readyz().await.map_err(|error| format!("{error:?}"))?;
    let body: serde_json::Value = serde_json::from_str(&reply.body).map_err(|error| error.to_string())?;
    let reasons = body["reasons"].as_array().cloned().unwrap_or_default();
    let text = |reason: &serde_json::Value, key: &str| reason[key].as_str().unwrap_or_default().to_owned();
    let told: Vec<_> = reasons.iter().map(|reason| (text(reason, "part"), text(reason, "what"))).collect();
    for (part, _) in &told {
        assert_eq!(body[part.as_str()], false, "{body}");
    }
    Ok(told)
}

/// It was begun anew at least once, and no other was; there are no more tasks than are tried here.
async fn counted(instance: &Instance, task: &str) {
    let figures = instance.metrics().await.unwrap().body;
    let mut names = Vec::new();
    for line in figures.lines().filter(|line| line.starts_with("posthaste_task_restarts_total{")) {
        let (label, count) = line.rsplit_once(' ').unwrap();
        let name = label.split('"').nth(1).unwrap();
        names.push(name.to_owned());
        assert_eq!(count.parse::<u64>().unwrap() > 0, name == task, "{line}");
    }
    // Where something was under way as a connection ended twice, one more has come up.
    names.retain(|name| name != "publisher rabbit apart");
    names.sort();
    let known: Vec<_> = TASKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known);
}
