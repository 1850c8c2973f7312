//! Where the servers' programs are: Debian's places first, then `PATH`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::{DevError, Options};

/// A program that must be there, and the Debian package that brings it.
pub(super) struct Wanted {
    pub binary: &'static str,
    pub package: &'static str,
}

/// The folder with PostgreSQL's programs (the newest version that is installed).
pub(super) fn postgres_folder(options: &Options) -> Result<PathBuf, DevError> {
    let mut versions: Vec<PathBuf> = subfolders(Path::new("/usr/lib/postgresql"));
    versions.sort_by_key(|folder| std::cmp::Reverse(version_of(folder)));
    let usual = versions.into_iter().map(|folder| folder.join("bin")).collect();
    let initdb = find(options, usual, &Wanted { binary: "initdb", package: "postgresql" })?;
    // A link in /usr/local/bin leads to the folder that also holds `postgres` and `psql`.
    let initdb = fs::canonicalize(&initdb).map_err(DevError::io(format!("resolve {}", initdb.display())))?;
    Ok(initdb.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// RabbitMQ's own start script. Debian's wrapper in /usr/sbin is passed over: it insists on its own folders.
pub(super) fn rabbit_server(options: &Options) -> Result<PathBuf, DevError> {
    let usual = vec![PathBuf::from("/usr/lib/rabbitmq/bin"), PathBuf::from("/opt/rabbitmq/sbin")];
    find(options, usual, &Wanted { binary: "rabbitmq-server", package: "rabbitmq-server" })
}

/// Erlang's port mapper, needed by every RabbitMQ.
pub(super) fn epmd(options: &Options) -> Result<PathBuf, DevError> {
    let mut usual = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib/erlang/bin")];
    usual.extend(
        subfolders(Path::new("/usr/lib/erlang"))
            .into_iter()
            .filter(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("erts-")))
            .map(|folder| folder.join("bin")),
    );
    find(options, usual, &Wanted { binary: "epmd", package: "rabbitmq-server" })
}

fn find(options: &Options, usual: Vec<PathBuf>, wanted: &Wanted) -> Result<PathBuf, DevError> {
    let folders = match &options.binaries {
        Some(only) => vec![only.clone()],
        None => usual.into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())).collect(),
    };
    folders.iter().map(|folder| folder.join(wanted.binary)).find(|file| file.is_file()).ok_or_else(|| {
        let looked = match &options.binaries {
            Some(only) => only.display().to_string(),
            None => "the places of Debian's packages and PATH".to_owned(),
        };
        DevError::Missing { binary: wanted.binary, looked, package: wanted.package }
    })
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// `9.6` < `15` < `17`: compared as numbers, not as text.
fn version_of(folder: &Path) -> Vec<u32> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_postgres_is_found_by_number_not_by_spelling() {
        let mut found = [PathBuf::from("/x/9.6"), PathBuf::from("/x/17"), PathBuf::from("/x/15")];
        found.sort_by_key(|folder| std::cmp::Reverse(version_of(folder)));
        assert_eq!(found, [PathBuf::from("/x/17"), PathBuf::from("/x/15"), PathBuf::from("/x/9.6")]);
    }

    #[test]
    fn a_missing_program_names_its_debian_package() {
        let options = Options { binaries: Some(PathBuf::from("/nowhere")), ..Options::default() };
        let postgres = postgres_folder(&options).unwrap_err().to_string();
        assert_eq!(
            postgres,
            "cannot find initdb on this machine (looked in /nowhere); on Debian: apt-get install postgresql"
        );
        let rabbit = rabbit_server(&options).unwrap_err().to_string();
        assert!(rabbit.ends_with("apt-get install rabbitmq-server"), "{rabbit}");
    }
}
