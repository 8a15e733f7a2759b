//! The one file that names every connector.

use deltaforge_core::Event;
use deltaforge_core::sink::SinkContext;
use deltaforge_encode::{Encoder, EnvelopePlan};
use deltaforge_engine::config::Registry;

/// Every connector, and the words of those that a later release builds.
pub(crate) fn registry() -> Registry {
    Registry {
        sources: deltaforge_sources::kinds(),
        sinks: deltaforge_sinks::kinds(),
        planned_sources: deltaforge_sources::PLANNED,
        planned_sinks: deltaforge_sinks::PLANNED,
        render_event: Some(render_event),
        planned_processors: &["javascript", "filter", "flatten", "outbox"],
    }
}

/// The words for sources and for sinks.
pub(crate) fn names() -> (Vec<&'static str>, Vec<&'static str>) {
    let Registry { sources, sinks, .. } = registry();
    (sources.iter().map(|kind| kind.name()).collect(), sinks.iter().map(|kind| kind.name()).collect())
}

/// An event as native JSON. It is asked for of single events only, so an encoder of its own is cheap enough.
fn render_event(event: &Event<'_>, context: &SinkContext) -> Vec<u8> {
    let mut out = Vec::new();
    // What sinks share is made for whole batches.
    let context = SinkContext { shares_encoding: false, ..context.clone() };
    Encoder::new(&EnvelopePlan::default(), &context).event(event, &mut out);
    out
}
