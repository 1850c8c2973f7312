//! A standby of a private PostgreSQL, which follows it by streaming replication and can take its place.

use std::time::Duration;

use super::folder::Folder;
use super::postgres::{NAME, PrivatePostgres, USER};
use super::process::{clean_command, run};
use super::{DevError, Options, binaries};

impl PrivatePostgres {
    /// Copies this one, which runs, and starts the copy as its standby, on a port of its own.
    ///
    /// # Errors
    /// As for `start`, and what `pg_basebackup` says.
    pub async fn start_standby(&self) -> Result<Self, DevError> {
        let programs = binaries::postgres_folder(&Options::default())?;
        let folder = Folder::open("standby", None, "postgres").await?;
        let data = folder.subfolder("data")?;
        let mut copy = clean_command(&programs.join("pg_basebackup"), folder.user());
        copy.env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "10");
        copy.args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--username", USER, "--no-password"]);
        copy.args(["--checkpoint", "fast", "--wal-method", "stream", "--no-sync"]);
        copy.arg("--pgdata").arg(&data);
        run(copy, "copy a private PostgreSQL", Duration::from_secs(120)).await?;
        // In the place of what was set on its primary by ALTER SYSTEM, above all which standbys that waits for.
        let follow =
            format!("primary_conninfo = 'host=127.0.0.1 port={} user={USER} password={}'\n", self.port, self.password);
        folder.write(&data.join("postgresql.auto.conf"), &follow, 0o600)?;
        folder.write(&data.join("standby.signal"), "", 0o600)?;
        let log = folder.path().join("postgres.log");
        let (password, environment) = (self.password.clone(), self.environment.clone());
        let mut standby = Self { process: None, programs, data, log, port: 0, password, environment, folder };
        standby.start_on_a_free_port().await?;
        Ok(standby)
    }

    /// Takes the place of its primary, which is gone: at the primary's port, and on a timeline of its own. It may be
    /// stopped.
    ///
    /// # Errors
    /// As for `start_again`, and what PostgreSQL says.
    pub async fn take_the_place_of(&mut self, primary: &mut Self) -> Result<(), DevError> {
        if primary.pid().is_some() {
            return Err(DevError::RunningAlready { server: NAME });
        }
        if self.pid().is_some() {
            self.stop().await?;
        }
        self.folder.write(&self.data.join("postgresql.auto.conf"), "", 0o600)?;
        self.port = primary.port;
        self.start_again().await?;
        self.sql("SELECT pg_promote()").await.map(drop)
    }
}
