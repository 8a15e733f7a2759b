//! The URL of `--state`.

use crate::{file, memory, sqlite};
use deltaforge_core::Fault;
use deltaforge_core::checkpoint::StateStore;
use std::path::PathBuf;
use std::sync::Arc;

const SCHEMES: &str = "`file:DIR`, `sqlite:PATH` or `memory:`";

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `file:DIR`: JSON files in a directory.
    File(PathBuf),
    /// `sqlite:PATH`: one database file.
    Sqlite(PathBuf),
    /// `memory:`: nothing survives the process.
    Memory,
}

impl Location {
    /// Reads a URL: a scheme, then a path as the operating system takes it, relative to the working directory or
    /// absolute; `file:///var/lib/df` means what it means elsewhere. Touches nothing.
    ///
    /// # Errors
    /// `Config` (`state.url`). The message names the scheme only: the rest may hold credentials.
    pub fn parse(url: &str) -> Result<Location, Fault> {
        let wrong = |message: String| Fault::config("state.url", message);
        let Some((scheme, rest)) = url.split_once(':') else {
            let fault = wrong(format!("the state store `{url}` has no scheme: use {SCHEMES}"));
            return Err(if url.is_empty() { fault } else { fault.hint(format!("--state file:{url}")) });
        };
        let path = || match rest.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => Ok(PathBuf::from(absolute)),
            // Elsewhere a host would stand here; some tools read a relative path. Better not to guess where state is.
            Some(_) => {
                Err(wrong(format!("`{scheme}://` must be followed by an absolute path: `{scheme}:///PATH`"))
                    .hint(format!("a relative path is written `{scheme}:PATH`")))
            }
            None if rest.is_empty() => Err(wrong(format!("`{scheme}:` names no path: use {SCHEMES}"))),
            None => Ok(PathBuf::from(rest)),
        };
        match scheme {
            "file" => path().map(Location::File),
            "sqlite" if rest == ":memory:" => {
                Err(wrong("SQLite's `:memory:` is not a state store".into()).hint("--state memory:"))
            }
            "sqlite" => path().map(Location::Sqlite),
            "memory" if rest.is_empty() => Ok(Location::Memory),
            "memory" => Err(wrong("`memory:` takes no path".into()).hint("--state memory:")),
            "postgres" | "postgresql" | "s3" => Err(wrong(format!(
                "a state store at `{scheme}://` is planned, not in this release: use {SCHEMES}"
            ))),
            _ => Err(wrong(format!("unknown scheme `{scheme}:` of the state store: use {SCHEMES}"))),
        }
    }

    /// Opens the store, creating what is missing, and takes the process lock. Blocks for as long as the disk needs.
    ///
    /// # Errors
    /// `Retry`: `state.locked` while another process has the store open, `state.unwritable` when the disk refuses.
    /// `Config`: `state.corrupt` when stored state does not parse, `state.newer_format` when a newer release wrote it,
    /// `state.foreign` when the file is somebody else's database. None of them changes what is stored.
    pub fn open(&self) -> Result<Arc<dyn StateStore>, Fault> {
        Ok(match self {
            Location::File(dir) => Arc::new(file::FileStore::open(dir)?),
            Location::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path)?),
            Location::Memory => Arc::new(memory::MemoryStore::default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Location;
    use deltaforge_core::Class;

    #[test]
    fn urls() {
        let parse = |url| Location::parse(url).unwrap();
        assert_eq!(parse("file:./data"), Location::File("./data".into()));
        assert_eq!(parse("file:/var/lib/df"), Location::File("/var/lib/df".into()));
        assert_eq!(parse("file:///var/lib/df"), Location::File("/var/lib/df".into()));
        assert_eq!(parse("sqlite:./data/df.db?x"), Location::Sqlite("./data/df.db?x".into()));
        assert_eq!(parse("memory:"), Location::Memory);
    }

    #[test]
    fn wrong_urls_say_what_is_right() {
        for (url, part) in [
            ("", "has no scheme"),
            ("./data", "file:./data"),
            ("file:", "names no path"),
            ("file://data", "absolute path"),
            ("sqlite::memory:", "--state memory:"),
            ("memory:x", "takes no path"),
            ("postgres://u:geheim@h/db", "planned, not in this release"),
            ("postgresql://u:geheim@h/db", "planned, not in this release"),
            ("s3://bucket/prefix", "planned, not in this release"),
            ("redis://:geheim@h", "`file:DIR`, `sqlite:PATH` or `memory:`"),
        ] {
            let fault = Location::parse(url).unwrap_err();
            assert_eq!((fault.class(), fault.code()), (Class::Config, "state.url"), "{url}");
            let text = fault.to_string();
            assert!(text.contains(part) && !text.contains("geheim"), "{url}: {text}");
        }
    }
}
