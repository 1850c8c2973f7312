//! Large buffers go back to the operating system as soon as they are freed.
//!
//! glibc's allocator raises the size from which on it does that with each one that is freed, up to 32 MiB, and keeps twice as
//! much in each of its arenas: eight messages of 30 MiB, one after the other, took 50 MiB more. What is smaller stays in its arena,
//! as did a message of 60 MiB that had been published in frames. It reads its settings at the start of a process only.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// In bytes: from which size on a buffer is mapped by itself (a full frame is; a body of 64 KiB is not), and how much an arena
/// keeps free. Fixed by being set.
const SETTINGS: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "69632"), ("MALLOC_TRIM_THRESHOLD_", "4194304")];
/// Whoever has set this knows better.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Begins the program anew, as the same process, with these settings, unless there are some already. Where that is not
/// possible it goes on without them.
pub(super) fn set_up() {
    let names = SETTINGS.iter().map(|(name, _value)| *name).chain([TUNABLES]);
    if cfg!(not(target_env = "gnu")) || names.into_iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else { return };
    // It comes back only when it has failed.
    let _why_not = Command::new(program).arg0(name).args(arguments).envs(SETTINGS).exec();
}
