use std::{
    thread,
    time::{Duration, Instant},
};

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not hold within `limit`. The message contains `what`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}
