//! Commands beside a running `posthaste dev` find it.

use super::dev::{Dev, text};

#[test]
fn every_command_finds_the_running_dev() {
    let dev = Dev::start();
    let commands = ["prove", "doctor", "migrate --plan", "store list", "txn list"];
    // Once by the address in resources.yml, which `Dev` sets; once told where it is, from files that do not know it.
    for command in commands {
        let told = dev.run(&format!("posthaste {command}"));
        assert!(told.status.success(), "{command}: {}", text(&told));
        let elsewhere =
            format!("unset CONSOLE_LISTEN API_LISTEN; posthaste {command} --console http://{}", dev.console);
        let told = dev.run(&elsewhere);
        assert!(told.status.success(), "{command}: {}", text(&told));
    }
    let note = text(&dev.run("posthaste prove"));
    assert!(note.contains("asking the servers of `posthaste dev`, pid "), "{note}");
    let sent =
        format!("unset API_LISTEN; posthaste send writeDbAsync hello --message-id 1 --console http://{}", dev.console);
    let sent = dev.run(&sent);
    assert!(text(&sent).contains("202 Accepted"), "{}", text(&sent));
}
