use crate::instructions::count_in;

#[test]
fn what_perf_has_counted_is_read_and_what_it_cannot_count_is_nothing() {
    assert_eq!(count_in("123456,,instructions:u,500123,100.00,,\n"), Some(123_456.0));
    assert_eq!(count_in("# started on Mon\n\n42,,instructions:u,1,100.00,,\n"), Some(42.0));
    assert_eq!(count_in("<not supported>,,instructions:u,0,100.00,,\n"), None);
    assert_eq!(count_in("<not counted>,,instructions:u,0,0.00,,\n"), None);
    assert_eq!(count_in(""), None);
}
