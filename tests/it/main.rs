//! Tests against the real binary and real servers, and the judge of its histories.

#[cfg(test)]
mod history;
#[cfg(test)]
mod load;
#[cfg(test)]
mod nemesis;
#[cfg(test)]
mod support;
#[cfg(test)]
mod trial;

#[cfg(test)]
mod accept;
#[cfg(test)]
mod adopt;
#[cfg(test)]
mod alarms;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod backpressure;
#[cfg(test)]
mod bytes;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod core_commit;
#[cfg(test)]
mod core_poison;
#[cfg(test)]
mod core_store;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod dequeue_groups;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod foreign_text;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod hang;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http;
#[cfg(test)]
mod log_reader;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod poolers;
#[cfg(test)]
mod prefetch;
#[cfg(test)]
mod prove;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod resend;
#[cfg(test)]
mod retry;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod search_path;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod surface;
#[cfg(test)]
mod two_databases;
#[cfg(test)]
mod unreadable;
#[cfg(test)]
mod web_pages;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod witness;
