//! From bytes to text.

use super::document::{Budget, Container, Stored};
use super::{MAX_DEPTH, Malformed, Result, scalar};

/// Appends a document as JSON text without insignificant white space.
///
/// `document` is the value of a JSON column as the binlog has it, after its length. The text is UTF-8 if the strings in the
/// document are, which is for the caller to check (`CellWriter::json_with` does). At most `6 * document.len() + 4` bytes.
///
/// # Errors
/// Bytes that no server writes; part of the text may have been appended then.
pub fn write_text(document: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.reserve(document.len());
    let mut printer = Printer { out, budget: Budget::new(document.len()) };
    printer.value(Stored::root(document), 0)
}

/// Where the text goes, and what may still be read.
pub(super) struct Printer<'o> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) budget: Budget,
}

impl Printer<'_> {
    /// Appends a value that lies in `depth` containers.
    #[inline]
    pub(super) fn value(&mut self, value: Stored<'_>, depth: u32) -> Result<()> {
        match value {
            Stored::Inline(kind, data) => scalar::write(kind, data, self.out).map(drop),
            Stored::Apart(kind, data) => match Container::open(kind, data, &mut self.budget)? {
                Some(container) => self.container(&container, depth + 1),
                None => {
                    let used = scalar::write(kind, data, self.out)?;
                    self.budget.spend(used)
                }
            },
        }
    }

    fn container(&mut self, container: &Container<'_>, depth: u32) -> Result<()> {
        check_depth(depth)?;
        let mut keys = container.keys();
        self.out.push(if container.object { b'{' } else { b'[' });
        for (i, value) in container.values().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            if let Some(key) = keys.next() {
                let key = key?;
                self.budget.spend(key.len())?;
                self.key(key);
            }
            self.value(value?, depth)?;
        }
        self.out.push(if container.object { b'}' } else { b']' });
        Ok(())
    }

    #[inline]
    pub(super) fn key(&mut self, key: &[u8]) {
        scalar::quoted(key, self.out);
        self.out.push(b':');
    }
}

/// Refuses a container at this depth, the outermost being 1.
pub(super) fn check_depth(depth: u32) -> Result<()> {
    if depth > MAX_DEPTH { Err(Malformed("JSON: nested more than 100 deep")) } else { Ok(()) }
}
