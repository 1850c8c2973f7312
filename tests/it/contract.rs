//! The model of PostgreSQL that the exhaustive checker explores (`tests/model`), held against a real one: each statement
//! is run on rows in every state that the model knows, and both must answer and leave the same.

#[path = "contract/acceptance.rs"]
mod acceptance;
#[path = "contract/bench.rs"]
mod bench;
#[path = "contract/cleaning.rs"]
mod cleaning;
#[path = "contract/dequeue_groups.rs"]
mod dequeue_groups;
#[path = "contract/found.rs"]
mod found;
#[path = "contract/groups.rs"]
mod groups;
#[path = "contract/journal.rs"]
mod journal;
#[path = "../model/postgres.rs"]
mod postgres;
#[path = "contract/starts.rs"]
mod starts;
#[path = "../model/statements.rs"]
mod statements;
#[path = "contract/tables.rs"]
mod tables;
