//! Series with known labels, and how they go away again.

use prometheus::core::{MetricVec, MetricVecBuilder};
use std::collections::BTreeMap;

type Remove = Box<dyn Fn() + Send + Sync>;

/// The series that were made for one pipeline, by family and labels.
#[derive(Default)]
pub(super) struct Series(BTreeMap<(&'static str, Vec<String>), Remove>);

impl Series {
    /// The series with these labels, made with value 0 if it is new. `family` only tells series of different families apart.
    pub(super) fn of<B>(&mut self, family: &'static str, vec: &MetricVec<B>, labels: &[&str]) -> B::M
    where
        B: MetricVecBuilder + 'static,
    {
        let owned: Vec<String> = labels.iter().map(|label| (*label).to_string()).collect();
        let (vec_to_clear, values) = (vec.clone(), owned.clone());
        self.0.entry((family, owned)).or_insert_with(|| {
            Box::new(move || {
                // An error only says that it is gone already.
                let _gone = vec_to_clear.remove_label_values(&values);
            })
        });
        vec.with_label_values(labels)
    }

    /// Removes a series, as what it says is no longer known.
    pub(super) fn forget(&mut self, family: &'static str, labels: &[&str]) {
        let owned: Vec<String> = labels.iter().map(|label| (*label).to_string()).collect();
        if let Some(remove) = self.0.remove(&(family, owned)) {
            remove();
        }
    }

    /// Whether a series was made.
    pub(super) fn has(&self, family: &'static str, labels: &[&str]) -> bool {
        let owned: Vec<String> = labels.iter().map(|label| (*label).to_string()).collect();
        self.0.contains_key(&(family, owned))
    }

    /// Removes every series that is not in `kept`.
    pub(super) fn clear_except(&mut self, kept: Option<&Series>) {
        for (key, remove) in std::mem::take(&mut self.0) {
            if kept.is_none_or(|kept| !kept.0.contains_key(&key)) {
                remove();
            }
        }
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} series", self.0.len())
    }
}
