//! `posthaste store list|show|resend|delete|export`.

mod act;
mod export;
mod list;
mod show;

use clap::Subcommand;

use super::{Failure, Global};

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Count the messages of all slots, or list those of one
    List(list::ListArgs),
    /// Show one message with its body
    Show(show::ShowArgs),
    /// Resend messages from an error store, straight into the pipeline
    Resend(act::ResendArgs),
    /// Delete messages for good
    Delete(act::DeleteArgs),
    /// Write messages with their bodies as JSON lines
    Export(export::ExportArgs),
}

pub(super) async fn store(global: &Global, command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::List(args) => list::list(global, args).await,
        StoreCommand::Show(args) => show::show(global, args).await,
        StoreCommand::Resend(args) => act::resend(global, args).await,
        StoreCommand::Delete(args) => act::delete(global, args).await,
        StoreCommand::Export(args) => export::export(global, args).await,
    }
}
