//! Commands beside a running `posthaste dev` find it, and its samples do no harm when they are called wrongly.

use super::dev::{Dev, text};

#[test]
fn every_command_finds_the_running_dev_and_a_sample_that_cannot_read_its_file_sends_nothing() {
    let dev = Dev::start();
    let commands = ["prove", "doctor", "migrate --plan", "store list", "txn list", "conflict list"];
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

    nothing_is_sent(&dev);
}

fn nothing_is_sent(dev: &Dev) {
    dev.run("printf x >\"$TMPDIR/body\"");
    for wrong in
        ["1001 \"$TMPDIR/missing\"", "1001 \"$TMPDIR\"", "1001", "'' \"$TMPDIR/body\"", "'a b' \"$TMPDIR/body\""]
    {
        let output = dev.run(&format!("docs/samples/send.sh http://127.0.0.1:8080/api/write {wrong}"));
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", text(&output));
    }
    assert_eq!(dev.number("SELECT count(*) FROM ibisstore WHERE messageid <> '1'"), 0, "nothing was accepted");
    let sent = dev.run("docs/samples/send.sh http://127.0.0.1:8080/api/write 1001 \"$TMPDIR/body\"");
    assert_eq!(text(&sent), "1001: accepted\n", "the id is unused");
}
