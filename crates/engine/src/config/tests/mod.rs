//! Documents with small connectors of their own; the real ones are tested in `runner`.

mod documents;
mod kinds;
mod secrets;
mod trees;

use super::*;
use kinds::{TestSinkKind, TestSourceKind};
use std::collections::BTreeMap;

/// Variables and files of a test.
#[derive(Default)]
struct Fixed {
    vars: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, &'static str>,
}

impl Environment for Fixed {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(ToString::to_string)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        self.files.get(path).map(ToString::to_string).ok_or_else(|| "no such file".into())
    }
}

fn loader(vars: &[(&'static str, &'static str)], files: &[(&'static str, &'static str)]) -> Loader {
    let registry = Registry {
        sources: vec![&TestSourceKind],
        sinks: vec![&TestSinkKind { name: "redis" }, &TestSinkKind { name: "file" }],
        planned_sources: &["mysql"],
        planned_sinks: &["kafka", "s3"],
        render_event: None,
        planned_processors: &["javascript"],
    };
    let environment = Fixed { vars: vars.iter().copied().collect(), files: files.iter().copied().collect() };
    Loader::new(Arc::new(registry), Arc::new(environment), 256 << 20)
}

fn text(file: &str, text: &str) -> ConfigText {
    ConfigText { file: file.into(), text: text.into() }
}

fn errors(loader: &Loader, yaml: &str) -> Vec<String> {
    loader.texts(&[text("p.yaml", yaml)]).errors.iter().map(ToString::to_string).collect()
}

fn document(loader: &Loader, yaml: &str) -> Document {
    let loaded = loader.texts(&[text("p.yaml", yaml)]);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    loaded.documents.into_iter().next().expect("a document").1
}

const MINIMAL: &str = "
metadata: { name: shop }
spec:
  source: { type: postgres, config: { dsn: 'host=h' } }
  sinks:
    - { type: redis, config: { uri: 'redis://h' } }
";
