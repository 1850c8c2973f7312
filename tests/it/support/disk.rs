//! A disk that can be full: a tmpfs whose size follows what is on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use posthaste::dev::fresh_name;

/// Unmounts when the owner's end of the pipe closes, however the owner ended and whoever still has files open there.
const LEASH: &str = r#"cat >/dev/null; umount -l "$1"; rmdir "$1""#;

/// Mounted while it lives.
pub struct Disk {
    folder: PathBuf,
    leash: Child,
}

impl Disk {
    /// Mounts an empty one; says why when this user or this machine does not allow it.
    pub fn mount(megabytes: u64) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(fresh_name("posthaste-disk"));
        std::fs::create_dir(&folder).unwrap();
        let mounted = mount(&format!("mode=0711,size={megabytes}m"), &folder);
        if !mounted.status.success() {
            std::fs::remove_dir(&folder).unwrap();
            return Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned());
        }
        let mut leash = Command::new("/bin/sh");
        leash.args(["-c", LEASH, "leash"]).arg(&folder).stdin(Stdio::piped());
        let leash = leash.spawn().unwrap();
        Ok(Self { folder, leash })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes away all that is free: from now on a write that needs a new block fails with ENOSPC.
    async fn fill(&self) {
        // A writer may take another block between the question and the mount.
        for _ in 0..50 {
            let now = statvfs(&self.folder).unwrap();
            let used = (now.blocks() - now.blocks_free()) * now.fragment_size();
            if mount(&format!("remount,size={used}"), &self.folder).status.success() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} could not be filled", self.folder.display());
    }

    /// Keeps it full so long: what is removed meanwhile gives room for a moment only.
    pub async fn hold_full(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            self.fill().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Gives it so much room again.
    pub fn resize(&self, megabytes: u64) {
        let grown = mount(&format!("remount,size={megabytes}m"), &self.folder);
        assert!(grown.status.success(), "{grown:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.leash.stdin.take());
        let _unmounted = self.leash.wait();
    }
}

fn mount(options: &str, folder: &Path) -> Output {
    Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output().unwrap()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::Disk;
    use crate::support::run;

    #[test]
    fn a_full_disk_refuses_writes_until_it_has_room_again() {
        run(async {
            let disk = match Disk::mount(4) {
                Ok(disk) => disk,
                Err(why) => return eprintln!("left out, for a disk of its own takes root: {why}"),
            };
            let (folder, file) = (disk.folder().to_owned(), disk.folder().join("file"));
            fs::write(&file, [1; 10_000]).unwrap();
            disk.fill().await;
            assert_eq!(fs::write(disk.folder().join("more"), [1; 10_000]).unwrap_err().kind(), ErrorKind::StorageFull);
            assert_eq!(fs::read(&file).unwrap(), [1; 10_000]);
            disk.resize(4);
            fs::write(disk.folder().join("more"), [1; 10_000]).unwrap();
            drop(disk);
            assert!(!folder.exists(), "{} is unmounted and removed", folder.display());
        });
    }
}
