//! How a parsed pipeline becomes a running one. The supervisor knows only this seam, so its tests run without an engine.

use crate::handle::Handle;
use crate::memory::MemoryBudget;
use crate::pipeline;
use crate::spec::PipelineSpec;
use deltaforge_core::checkpoint::StateStore;
use deltaforge_core::metrics::PipelineMetrics;
use std::sync::Arc;

/// Starts pipelines.
pub trait Launcher: Send + Sync {
    /// Starts a pipeline and returns at once: connections are made, and fail, in its own task.
    fn launch(&self, spec: PipelineSpec, metrics: Arc<PipelineMetrics>) -> Handle;
}

/// Starts pipelines for real.
pub struct EngineLauncher {
    store: Arc<dyn StateStore>,
    memory: MemoryBudget,
}

impl EngineLauncher {
    /// A launcher of pipelines that keep their state in `store` and share `memory`.
    pub fn new(store: Arc<dyn StateStore>, memory: MemoryBudget) -> EngineLauncher {
        EngineLauncher { store, memory }
    }
}

impl Launcher for EngineLauncher {
    fn launch(&self, spec: PipelineSpec, metrics: Arc<PipelineMetrics>) -> Handle {
        pipeline::start(spec, self.store.clone(), &self.memory, metrics)
    }
}
