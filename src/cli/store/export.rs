//! `posthaste store export`.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::list::Pages;
use crate::cli::client::{Client, encode};
use crate::cli::output::{member, print};
use crate::cli::select::Select;
use crate::cli::{Exit, Failure, Global, find};
use crate::model::text;

/// Messages that are looked up from one page.
const PAGE: usize = 500;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The slot
    slot: String,
    /// Write into this new file instead of to standard output
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    #[command(flatten)]
    select: Select,
}

/// One JSON document per line, newest first. The store stays as it is.
pub(super) async fn export(global: &Global, args: &ExportArgs) -> Result<(), Failure> {
    let client = find::console(global)?;
    let mut pages = Pages::new(&args.slot, &args.select);
    // Before any file is made: there may be no such slot.
    let first = pages.next(&client, PAGE).await?;
    let Some(path) = &args.to_file else {
        let out = &mut std::io::stdout().lock();
        return match write_all(args, &client, first, pages, out).await {
            // Whoever read it has seen enough.
            Err(Ended::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(Ended::Output(error)) => Err(Failure::failed(format!("standard output: {error}"))),
            Err(Ended::Failure(failure)) => Err(failure),
            Ok(_written) => Ok(()),
        };
    };
    let cannot = |error: std::io::Error| Failure::failed(format!("{} cannot be written: {error}", path.display()));
    // It holds messages: whoever else may see them is for its owner to say.
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let mut file = BufWriter::new(file);
    let written = match write_all(args, &client, first, pages, &mut file).await {
        Ok(written) => written,
        Err(Ended::Output(error)) => return Err(cannot(error)),
        Err(Ended::Failure(failure)) => return Err(failure),
    };
    file.into_inner().map_err(|error| cannot(error.into_error()))?.sync_all().map_err(cannot)?;
    print(&format!("exported {written} messages to {}\n", path.display()))
}

/// Why an export ended early.
enum Ended {
    Output(std::io::Error),
    Failure(Failure),
}

async fn write_all(
    args: &ExportArgs,
    client: &Client,
    first: Option<Vec<Value>>,
    mut pages: Pages,
    out: &mut impl Write,
) -> Result<usize, Ended> {
    let mut written = 0;
    let mut page = first;
    while let Some(messages) = page {
        for message in messages {
            let path = format!("/api/v1/stores/{}/messages/{}", encode(&args.slot), member(&message, "key"));
            match client.get(&path).await {
                Ok(message) => writeln!(out, "{}", text::json(&message.to_string())).map_err(Ended::Output)?,
                // Resent or deleted since the page was read.
                Err(failure) if failure.exit == Exit::Failed => continue,
                Err(failure) => return Err(Ended::Failure(failure)),
            }
            written += 1;
        }
        page = pages.next(client, PAGE).await.map_err(Ended::Failure)?;
    }
    out.flush().map_err(Ended::Output)?;
    Ok(written)
}
