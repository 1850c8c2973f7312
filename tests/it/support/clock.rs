//! A PostgreSQL whose clock can be moved: it runs under libfaketime, which reads how far from a file.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use posthaste::dev;
use tempfile::TempDir;

use super::{Disk, Servers};

pub struct Clock {
    file: PathBuf,
    /// Readable for the user that PostgreSQL runs as.
    _folder: TempDir,
}

impl Clock {
    /// Servers of one's own, PostgreSQL's clock among them.
    pub async fn with_servers() -> (Self, Arc<Servers>) {
        Self::with_servers_on(None).await
    }

    /// The same, with PostgreSQL's data on this disk.
    pub async fn with_servers_on(disk: Option<Disk>) -> (Self, Arc<Servers>) {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Self { file: folder.path().join("clock"), _folder: folder };
        clock.set(0);
        let environment = vec![
            ("LD_PRELOAD", library().into_os_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.clone().into_os_string()),
            ("FAKETIME_NO_CACHE", OsString::from("1")),
            // What waits for seconds goes on.
            ("FAKETIME_DONT_FAKE_MONOTONIC", OsString::from("1")),
        ];
        let options = dev::Options { postgres_environment: environment, ..dev::Options::default() };
        (clock, Servers::started(options, disk).await)
    }

    /// How many seconds it is ahead, from now on.
    pub fn set(&self, ahead: i64) {
        // At once, or a reader finds half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let file = Path::new("faketime/libfaketime.so.1");
    let found = folders.map(|folder| folder.join(file)).find(|path| path.exists());
    found.expect("libfaketime is missing: scripts/setup tests installs it (Debian's package libfaketime)")
}
