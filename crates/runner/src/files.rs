//! Files of configuration: finding and reading them, and what their `${…}` refer to.

use crate::environment::Variables;
use deltaforge_core::config::{Finding, FindingClass, Span};
use deltaforge_engine::config::{ConfigText, Environment, MAX_BYTES, Problem, holds_document};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The variables and files that documents refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    variables: Variables,
}

impl Surroundings {
    /// Those of the process, and these variables.
    pub(crate) fn with(variables: Variables) -> Surroundings {
        Surroundings { variables }
    }
}

impl Environment for Surroundings {
    fn var(&self, name: &str) -> Option<String> {
        self.variables.get(name)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        // One byte more than allowed tells a large file from one of just the right size.
        read_at_most(Path::new(path), (1 << 20) + 1).map_err(|e| reason(&e))
    }
}

/// Reads the files at `paths`; a directory is walked, in path order, for `*.yaml`, `*.yml` and `*.json`. What is named twice is read
/// once.
///
/// # Errors
/// Everything that is missing, unreadable or without any document.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<ConfigText>, Vec<Problem>> {
    let mut reader = Reader::default();
    for path in paths {
        reader.named(path);
    }
    if reader.problems.is_empty() { Ok(reader.texts) } else { Err(reader.problems) }
}

#[derive(Default)]
struct Reader {
    texts: Vec<ConfigText>,
    problems: Vec<Problem>,
    /// Files and directories met, without links.
    met: BTreeSet<PathBuf>,
}

impl Reader {
    /// Reads what the command line names.
    fn named(&mut self, path: &Path) {
        let found = match std::fs::metadata(path) {
            Ok(about) if about.is_dir() => {
                let mut files = Vec::new();
                let is_first = self.walk(path, &mut files);
                files.sort();
                // Counted, not asked for any: each file is read.
                let found = files.iter().filter(|file| self.file(file)).count();
                found > 0 || !is_first
            }
            Ok(_) => self.file(path),
            Err(e) => return self.problem(path, FindingClass::Missing, reason(&e), None),
        };
        if !found {
            let message = "there is no pipeline document here".into();
            let hint = "a directory is searched for *.yaml, *.yml and *.json";
            self.problem(path, FindingClass::Missing, message, Some(hint.into()));
        }
    }

    /// Finds the documents below a directory; hidden entries are skipped, links followed. False when it was met before, or
    /// cannot be read, which is reported.
    fn walk(&mut self, directory: &Path, files: &mut Vec<PathBuf>) -> bool {
        if !self.is_new(directory) {
            return false;
        }
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) => {
                self.problem(directory, FindingClass::Missing, reason(&e), None);
                return false;
            }
        };
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(e) => {
                    self.problem(directory, FindingClass::Missing, reason(&e), None);
                    return false;
                }
            };
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            let is_document =
                path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
            if path.is_dir() {
                self.walk(&path, files);
            } else if is_document {
                files.push(path);
            }
        }
        true
    }

    /// Whether a path, all links followed, was not met before. One that cannot be resolved fails where it is read.
    fn is_new(&mut self, path: &Path) -> bool {
        self.met.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()))
    }

    /// Reads a file. False when it holds no document; one met before, or reported as unreadable, is not without.
    fn file(&mut self, path: &Path) -> bool {
        if !self.is_new(path) {
            return true;
        }
        let text = match read_at_most(path, MAX_BYTES as u64 + 1) {
            Ok(text) => text,
            Err(e) => {
                let class = if e.kind() == io::ErrorKind::InvalidData {
                    FindingClass::Form
                } else {
                    FindingClass::Missing
                };
                self.problem(path, class, reason(&e), None);
                return true;
            }
        };
        if !holds_document(&text) {
            return false;
        }
        self.texts.push(ConfigText { file: path.display().to_string().into(), text });
        true
    }

    fn problem(&mut self, path: &Path, class: FindingClass, message: String, hint: Option<String>) {
        let path = path.display().to_string();
        self.problems.push(Problem {
            file: None,
            finding: Finding { path, span: Span::default(), class, message, hint },
        });
    }
}

/// Reads no more than so many bytes, so that a device or a huge file ends too.
fn read_at_most(path: &Path, bytes: u64) -> io::Result<String> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(bytes).read_to_end(&mut text)?;
    if text.len() as u64 == bytes {
        // Too large, which its length will tell; the cut may have divided a character.
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    String::from_utf8(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "no permission to read it".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, write};

    fn found(paths: &[PathBuf]) -> Vec<String> {
        let name = |text: &ConfigText| text.file.rsplit('/').next().unwrap().to_string();
        read(paths).unwrap().iter().map(name).collect()
    }

    fn refused(path: &Path) -> String {
        read(&[path.to_path_buf()]).unwrap_err()[0].to_string()
    }

    #[test]
    fn directories_are_walked_in_path_order() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for sub in ["b", "..data", ".git"] {
            create_dir(at(sub)).unwrap();
        }
        for file in [
            "c.yaml",
            "a.yml",
            "b/z.json",
            "b/a.yaml",
            ".hidden.yaml",
            ".git/x.yaml",
            "..data/linked.yaml",
            "notes.txt",
        ] {
            write(at(file), "{a: 1}").unwrap();
        }
        write(at("empty.yaml"), "# nothing\n---\n").unwrap();
        std::os::unix::fs::symlink(at("..data/linked.yaml"), at("d.yaml")).unwrap();
        std::os::unix::fs::symlink(directory.path(), at("loop")).unwrap();
        assert_eq!(found(&[directory.path().into()]), ["a.yml", "a.yaml", "z.json", "c.yaml", "d.yaml"]);
        let again = [at("b/z.json"), at("b/a.yaml"), at("b"), at("b")];
        assert_eq!(found(&again), ["z.json", "a.yaml"]);
        // What is named itself is read whatever it is called, and once.
        let paths = [at("notes.txt"), directory.path().into(), at("c.yaml"), at("notes.txt")];
        assert_eq!(found(&paths), ["notes.txt", "a.yml", "a.yaml", "z.json", "c.yaml", "d.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(refused(&at("none.yaml")).ends_with("none.yaml: no such file or directory"));
        assert!(refused(directory.path()).contains("there is no pipeline document here"));
        write(at("empty.yaml"), "---\n# nothing\n").unwrap();
        assert!(refused(&at("empty.yaml")).contains("there is no pipeline document here"));
        assert!(refused(directory.path()).contains("there is no pipeline document here"));
        write(at("latin.yaml"), b"a: \xe9").unwrap();
        assert!(refused(&at("latin.yaml")).ends_with("latin.yaml: it is not UTF-8 text"));
        write(at("large.yaml"), vec![b'#'; MAX_BYTES + 1]).unwrap();
        let texts = read(&[at("large.yaml")]).unwrap();
        assert_eq!(texts[0].text.len(), MAX_BYTES + 1, "refused by the loader, with its class and place");
    }

    #[test]
    fn secrets_come_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, "pw\n").unwrap();
        let surroundings = Surroundings::default();
        assert_eq!(surroundings.file(path.to_str().unwrap()).as_deref(), Ok("pw\n"));
        assert_eq!(surroundings.file("/no/such/file"), Err("no such file or directory".into()));
    }
}
