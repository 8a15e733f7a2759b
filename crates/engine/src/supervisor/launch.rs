//! How a parsed pipeline becomes a running one. The supervisor knows only this seam, so its tests run without an engine.

use crate::handle::Handle;
use crate::spec::PipelineSpec;

/// Starts pipelines.
pub trait Launcher: Send + Sync {
    /// Starts a pipeline and returns at once: connections are made, and fail, in its own task.
    fn launch(&self, spec: PipelineSpec) -> Handle;

    /// Drops what is remembered of a deleted pipeline, such as its series of metrics.
    fn forget(&self, pipeline: &str) {
        let _nothing_kept = pipeline;
    }
}
