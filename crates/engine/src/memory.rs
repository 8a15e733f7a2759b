//! The process's ceiling on buffered event data, shared by its pipelines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A ceiling and what is held under it, bytes.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    held: AtomicU64,
}

impl MemoryBudget {
    /// A ceiling of so many bytes.
    pub fn new(limit: u64) -> MemoryBudget {
        MemoryBudget(Arc::new(Inner { limit, held: AtomicU64::new(0) }))
    }

    /// A holder that holds nothing yet.
    pub fn holder(&self) -> Holder {
        Holder { budget: self.clone(), held: 0 }
    }

    /// What all holders hold now.
    pub fn held(&self) -> u64 {
        self.0.held.load(Relaxed)
    }

    /// The ceiling.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }
}

/// One pipeline's part; gives it back when dropped.
#[derive(Debug)]
pub struct Holder {
    budget: MemoryBudget,
    held: u64,
}

impl Holder {
    /// States how much is held now.
    pub fn set(&mut self, bytes: u64) {
        let all = &self.budget.0.held;
        if bytes >= self.held {
            all.fetch_add(bytes - self.held, Relaxed);
        } else {
            all.fetch_sub(self.held - bytes, Relaxed);
        }
        self.held = bytes;
    }

    /// What is held by this holder.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether all holders together are at the ceiling.
    pub fn is_exhausted(&self) -> bool {
        self.budget.0.held.load(Relaxed) >= self.budget.0.limit
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.set(0);
    }
}
