//! A server's folder: made for it, locked while its owner lives, removed with it.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use super::DevError;
use super::children::{is_alive, with_variable};
use super::process::signal;

/// The environment variable by which a leftover process is recognised as one of a folder's.
pub(super) const MARKER: &str = "POSTHASTE_DEV_FOLDER";

/// The user a server runs as when the caller is root: servers refuse to be root.
#[derive(Debug, Clone)]
pub(super) struct Unprivileged {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Unprivileged {
    /// The package's own user, else `nobody`; `None` when the caller is no root.
    pub(super) fn choose(preferred: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            return None;
        }
        let user = [preferred, "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten())?;
        Some(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}

/// A server's folder. The lock in it is held by the owner and ends with it, whatever kills it.
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
    user: Option<Unprivileged>,
    _lock: File,
}

impl Folder {
    /// A folder for one server, called `kind`: below `keep`, or a new one below `$TMPDIR`, after clearing what dead
    /// owners left there.
    pub(super) async fn open(kind: &'static str, keep: Option<&Path>, preferred_user: &str) -> Result<Self, DevError> {
        let user = Unprivileged::choose(preferred_user);
        let (path, lock, keep) = match keep {
            Some(keep) => {
                let (path, lock) = open_kept(&keep.join(kind))?;
                (path, lock, true)
            }
            None => {
                let (path, lock, dead) = create_below(&base()?, kind)?;
                for leftover in dead {
                    leftover.clear().await?;
                }
                (path, lock, false)
            }
        };
        let folder = Self { path, keep, user, _lock: lock };
        if folder.keep {
            end_marked(&folder.path).await;
        }
        folder.check_reachable(kind)?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn user(&self) -> Option<&Unprivileged> {
        self.user.as_ref()
    }

    /// What the leash removes when the owner dies: nothing when the data are to be kept.
    pub(super) fn removable(&self) -> Option<&Path> {
        (!self.keep).then_some(self.path.as_path())
    }

    /// A folder below this one that belongs to the server and that nobody else can read.
    pub(super) fn subfolder(&self, name: &str) -> Result<PathBuf, DevError> {
        let path = self.path.join(name);
        make_folder(&path, 0o700)?;
        self.give(&path)?;
        Ok(path)
    }

    /// Writes a file that belongs to the server; replaces what was there.
    pub(super) fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), DevError> {
        let doing = || DevError::io(format!("write {}", path.display()));
        if path.exists() {
            fs::remove_file(path).map_err(doing())?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(doing())?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(doing())?;
        self.give(path)
    }

    /// The secret of this folder's server: made once, kept with the data, readable by the server only.
    pub(super) fn secret(&self, name: &str) -> Result<String, DevError> {
        let path = self.path.join(name);
        if let Ok(secret) = fs::read_to_string(&path) {
            return Ok(secret);
        }
        let secret = random_hex(24);
        self.write(&path, &secret, 0o400)?;
        Ok(secret)
    }

    fn give(&self, path: &Path) -> Result<(), DevError> {
        let Some(user) = &self.user else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).map_err(DevError::io(format!(
            "give {} to {}",
            path.display(),
            user.name
        )))
    }

    /// A server that is another user than the caller must be able to walk down to its folder.
    fn check_reachable(&self, server: &'static str) -> Result<(), DevError> {
        let Some(user) = &self.user else { return Ok(()) };
        let closed = self.path.ancestors().find(|folder| {
            let Ok(meta) = fs::metadata(folder) else { return true };
            let needed = match (meta.uid() == user.uid, meta.gid() == user.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            meta.mode() & needed == 0
        });
        match closed {
            Some(folder) => {
                Err(DevError::Unreachable { server, user: user.name.clone(), folder: folder.to_path_buf() })
            }
            None => Ok(()),
        }
    }

    /// Removes the folder unless it is to be kept. Call it when the server has ended.
    pub(super) fn remove(&self) -> Result<(), DevError> {
        match self.removable() {
            Some(path) if path.exists() => {
                fs::remove_dir_all(path).map_err(DevError::io(format!("remove {}", path.display())))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Folder {
    /// A start that failed leaves nothing; after a start the leash does this once more, when the server has ended.
    fn drop(&mut self) {
        let _best_effort = self.remove();
    }
}

/// A folder whose owner is gone; holding its lock keeps others from clearing it too.
struct Leftover {
    path: PathBuf,
    _lock: File,
}

impl Leftover {
    async fn clear(self) -> Result<(), DevError> {
        end_marked(&self.path).await;
        match fs::remove_dir_all(&self.path) {
            Ok(()) => Ok(()),
            // Its leash may be removing it at this moment.
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DevError::Io { doing: format!("remove {}", self.path.display()), source }),
        }
    }
}

/// Ends every process that carries this folder's marker and waits until they are gone.
async fn end_marked(folder: &Path) {
    let variable = format!("{MARKER}={}", folder.display());
    for round in 0..60 {
        let alive: Vec<u32> = with_variable(&variable).into_iter().filter(|pid| is_alive(*pid)).collect();
        if alive.is_empty() {
            return;
        }
        // SIGQUIT lets PostgreSQL end its own children; what does not listen is killed.
        let how = if round < 40 { Signal::SIGQUIT } else { Signal::SIGKILL };
        for pid in alive {
            signal(pid, Signal::SIGCONT);
            signal(pid, how);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `$TMPDIR/posthaste-dev-<uid>`, ours and closed to others' writing.
pub(super) fn base() -> Result<PathBuf, DevError> {
    let base = base_path();
    make_folder(&base, 0o711)?;
    let meta = fs::symlink_metadata(&base).map_err(DevError::io(format!("look at {}", base.display())))?;
    if is_ours_alone(&meta) { Ok(base) } else { Err(DevError::Untrusted(base)) }
}

/// The same if it is there; nothing is made.
pub(super) fn trusted_base() -> Option<PathBuf> {
    let base = base_path();
    fs::symlink_metadata(&base).ok().filter(is_ours_alone).map(|_meta| base)
}

fn base_path() -> PathBuf {
    env::temp_dir().join(format!("posthaste-dev-{}", Uid::effective()))
}

fn is_ours_alone(meta: &fs::Metadata) -> bool {
    meta.is_dir() && meta.uid() == Uid::effective().as_raw() && meta.mode() & 0o022 == 0
}

/// Makes a folder with exactly this mode; one that exists is left as it is.
fn make_folder(path: &Path, mode: u32) -> Result<(), DevError> {
    let doing = || DevError::io(format!("make {}", path.display()));
    match DirBuilder::new().mode(mode).create(path) {
        // The mode again: the caller's umask may have taken bits away.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(doing()),
        Err(there) if there.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(doing()(source)),
    }
}

fn open_kept(path: &Path) -> Result<(PathBuf, File), DevError> {
    fs::create_dir_all(path).map_err(DevError::io(format!("make {}", path.display())))?;
    let path = fs::canonicalize(path).map_err(DevError::io(format!("resolve {}", path.display())))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).map_err(DevError::io("open the kept folder"))?;
    match try_lock(&path)? {
        Some(lock) => Ok((path, lock)),
        None => Err(DevError::InUse(path)),
    }
}

/// A new locked folder below `base`, and the folders there that nobody holds.
fn create_below(base: &Path, kind: &str) -> Result<(PathBuf, File, Vec<Leftover>), DevError> {
    // Without this lock another start could take a folder for a leftover before it is locked.
    let starting = lock_file(&base.join(".lock"))?;
    starting.lock().map_err(DevError::io(format!("lock {}", base.display())))?;
    let mut dead = Vec::new();
    for entry in fs::read_dir(base).map_err(DevError::io(format!("list {}", base.display())))?.filter_map(Result::ok) {
        if entry.path().is_dir()
            && let Ok(Some(lock)) = try_lock(&entry.path())
        {
            dead.push(Leftover { path: entry.path(), _lock: lock });
        }
    }
    let path = base.join(format!("{kind}-{}-{}", std::process::id(), random_hex(6)));
    make_folder(&path, 0o711)?;
    match try_lock(&path)? {
        Some(lock) => Ok((path, lock, dead)),
        None => Err(DevError::InUse(path)),
    }
}

fn lock_file(path: &Path) -> Result<File, DevError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(DevError::io(format!("open {}", path.display())))
}

/// The folder's lock, or `None` when a living owner holds it.
fn try_lock(folder: &Path) -> Result<Option<File>, DevError> {
    let file = lock_file(&folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(DevError::Io { doing: format!("lock {}", folder.display()), source }),
    }
}

pub(super) fn random_hex(digits: usize) -> String {
    uuid::Uuid::new_v4().simple().to_string().chars().take(digits).collect()
}
