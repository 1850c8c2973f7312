//! What an operator says of a home that has moved or is old, done in its database and then at each broker.

use std::time::Duration;

use serde::Serialize;

use super::boot::{BROKER_BOUND, RunError, why_not};
use crate::broker::{AmqpSettings, Broker, CallError, PublisherSettings};
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use crate::model::Epoch;
use crate::store::migrate::MigrateError;
use crate::store::{HomeDecision, HomeSettled, PostgresSettings, home_epoch, settle_home};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HomeReport {
    #[serde(flatten)]
    pub settled: HomeSettled,
    /// Brokers whose user may not show the home's epoch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_shown: Vec<String>,
}

/// Every broker is asked before anything is changed: the home goes on from above the newest epoch that one was shown.
pub(super) async fn settle(
    settings: &Settings,
    postgres: &PostgresSettings,
    decision: HomeDecision,
    who: &str,
    failed: impl Fn(MigrateError) -> RunError,
) -> Result<HomeReport, RunError> {
    let lifecycle = Lifecycle::default();
    let work = async {
        let held = home_epoch(postgres).await.map_err(&failed)?;
        let mut asked = Vec::new();
        for amqp in &settings.amqp {
            let (broker, newest) = ask(amqp, held, &lifecycle).await?;
            asked.push((broker, newest));
        }
        let newest = asked.iter().map(|(_, newest)| *newest).max().unwrap_or(held.number);
        let settled = settle_home(postgres, decision, newest, who).await.map_err(&failed)?;
        let mut not_shown = Vec::new();
        for (broker, newest) in &asked {
            // Of a copy the names are its own: the original's stay.
            let before = if settled.epoch.home == held.home { *newest } else { settled.epoch.number };
            match broker.show_epoch(settled.epoch, before).await {
                Ok(true) => {}
                Ok(false) => not_shown.push(broker.name().to_owned()),
                // The next instance does it.
                Err(error) => tracing::warn!(amqp.connection = broker.name(), %error, "the epoch is not shown yet"),
            }
            broker.close().await;
        }
        Ok(HomeReport { settled, not_shown })
    };
    let report = work.await;
    lifecycle.stop(Duration::from_secs(2)).await;
    report
}

async fn ask(amqp: &AmqpSettings, held: Epoch, lifecycle: &Lifecycle) -> Result<(Broker, u64), RunError> {
    let broker = Broker::start(amqp, PublisherSettings::default(), lifecycle)
        .map_err(|error| RunError::Configuration(error.to_string()))?;
    let unreachable = |reason: String| {
        RunError::Unreachable(format!("broker {} ({}): {reason}; nothing was changed", broker.name(), broker.address()))
    };
    if !broker.can_consume(BROKER_BOUND).await {
        return Err(unreachable(why_not(broker.consume_status())));
    }
    let newest = broker.newest_epoch(held.home, held.number).await;
    let newest = newest.map_err(|error: CallError| unreachable(error.to_string()))?;
    Ok((broker, newest))
}
