//! Named places at which a test lets the process die, as `kill -9` would: nothing is flushed, nothing unwinds.
//!
//! Only debug builds have them. In a release build [`pass`] is empty, and [`arm`] says so.

/// What an exactly-once sink holds is acknowledged, and not yet saved in the state store.
pub const ACKNOWLEDGED: &str = "acknowledged";

#[cfg(debug_assertions)]
static ARMED: std::sync::OnceLock<(String, std::sync::atomic::AtomicI64)> = std::sync::OnceLock::new();

/// Arms one place, `NAME:N`: the process dies when it passes there for the Nth time.
///
/// # Errors
/// A sentence: the text is not of that form, or this is a release build.
pub fn arm(text: &str) -> Result<(), String> {
    let parsed = text.split_once(':').and_then(|(name, count)| Some((name, count.parse::<i64>().ok()?)));
    let Some((name, count)) = parsed.filter(|(name, count)| *name == ACKNOWLEDGED && *count > 0) else {
        return Err(format!("expected `{ACKNOWLEDGED}:N`, found `{text}`"));
    };
    #[cfg(debug_assertions)]
    {
        let _armed_already = ARMED.set((name.into(), count.into()));
        Ok(())
    }
    #[cfg(not(debug_assertions))]
    Err(format!("a release build has no failpoints: `{name}` is never passed {count} times"))
}

/// The process comes by.
#[inline]
#[allow(unused_variables, reason = "a release build passes by")]
pub fn pass(name: &'static str) {
    #[cfg(debug_assertions)]
    if let Some((armed, left)) = ARMED.get()
        && armed == name
        && left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}
