//! Log lines on stderr: one JSON object each, or text for reading.
//!
//! JSON lines begin with `ts`, `level`, `target` and `msg`; the fields of the spans around an event and then its own follow as
//! members of the same object, so a line is filtered by `pipeline` whatever code wrote it.

use crate::cli::LogFormat;
use deltaforge_core::clock;
use serde_json::{Map, Value};
use std::io::Write;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The filter to use: the flag (or its variable), else `RUST_LOG`, else `info`.
///
/// # Errors
/// A sentence, when it does not parse.
pub(crate) fn filter(flag: Option<&str>, rust_log: Option<&str>) -> Result<EnvFilter, String> {
    let chosen = [(flag, "--log-level"), (rust_log, "RUST_LOG")];
    let (text, name) = chosen
        .into_iter()
        .find_map(|(text, name)| text.filter(|t| !t.trim().is_empty()).map(|t| (t, name)))
        .unwrap_or(("info", ""));
    EnvFilter::try_new(text).map_err(|e| format!("{name}: `{text}` is no log filter: {e}"))
}

/// Starts logging, once per process.
///
/// # Errors
/// When logging was started before.
pub(crate) fn start(format: LogFormat, filter: EnvFilter) -> Result<(), String> {
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => registry.with(JsonLines).try_init(),
        LogFormat::Text => {
            let text = fmt::layer().with_writer(std::io::stderr).with_timer(Clock).with_ansi(false);
            registry.with(text).try_init()
        }
    };
    started.map_err(|e| e.to_string())?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic is one line of the log like any other. Its text is left out unless it is part of the program: a formatted one may
/// hold a row's value.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let text = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("panicked");
    let location = info.location().map(ToString::to_string);
    tracing::error!(location, "panic: {text}");
}

struct Clock;

impl fmt::time::FormatTime for Clock {
    fn format_time(&self, w: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        w.write_str(&clock::rfc3339_millis(clock::unix_millis()))
    }
}

struct JsonLines;

/// Fields of one span, kept while it lives.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Fields::default();
        event.record(&mut own);
        let mut line = Map::new();
        line.insert("ts".into(), clock::rfc3339_millis(clock::unix_millis()).into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        line.insert("msg".into(), own.0.shift_remove("message").unwrap_or_else(|| "".into()));
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.extend(fields.0.clone());
            }
        }
        line.extend(
            own.0.into_iter().filter(|(name, _)| !matches!(name.as_str(), "ts" | "level" | "target" | "msg")),
        );
        write_line(&line);
    }
}

/// One write per line, so that lines of two threads do not mix. With stderr closed there is nobody left to tell.
fn write_line(line: &Map<String, Value>) {
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        let _closed = std::io::stderr().lock().write_all(&text);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn the_flag_wins_over_rust_log() {
        assert_eq!(filter(Some("warn"), Some("debug")).unwrap().to_string(), "warn");
        assert_eq!(filter(None, Some("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter(None, None).unwrap().to_string(), "info");
        assert!(filter(Some("deltaforge=lots"), None).unwrap_err().contains("--log-level"));
    }
}
