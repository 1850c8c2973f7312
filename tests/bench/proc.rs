use crate::proc::*;

#[test]
fn cpu_time_is_that_of_the_process_and_of_its_ended_children() {
    let line = "7 (a (b) c) S 3 7 7 0 -1 4194560 9 9 0 0 10 20 300 4000 20 0 1 0 5 0 0";
    let stat = stat_in(line).unwrap();
    assert_eq!((stat.parent, stat.own_ticks, stat.ticks), (3, 30, 4330));
    assert!(stat_in("7 (cut off) S 3").is_none());
}

#[test]
fn memory_is_read_by_its_key() {
    let status = "VmPeak:\t  999 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n";
    assert_eq!(mib_in(status, "VmHWM:"), Some(2.0));
    assert_eq!(mib_in(status, "VmSwap:"), None);
}

#[test]
fn this_process_has_memory_and_its_children_belong_to_it() {
    let pid = std::process::id();
    assert!(rss(pid).unwrap() > 1.0 && peak_rss(&[pid]).unwrap() >= 1.0);
    assert!(families(&[1]).contains(&1));
    assert_eq!(peak_rss(&[u32::MAX]), None);
}
