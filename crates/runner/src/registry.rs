//! The one file that names every connector.

use deltaforge_engine::config::Registry;

/// Every connector, and the words of those that a later release builds.
pub(crate) fn registry() -> Registry {
    Registry {
        sources: deltaforge_sources::kinds(),
        sinks: deltaforge_sinks::kinds(),
        planned_sources: deltaforge_sources::PLANNED,
        planned_sinks: deltaforge_sinks::PLANNED,
        render_event: Some(deltaforge_sinks::render_event),
        planned_processors: &["javascript", "filter", "flatten", "outbox"],
    }
}

/// The words for sources and for sinks.
pub(crate) fn names() -> (Vec<&'static str>, Vec<&'static str>) {
    let Registry { sources, sinks, .. } = registry();
    (sources.iter().map(|kind| kind.name()).collect(), sinks.iter().map(|kind| kind.name()).collect())
}
