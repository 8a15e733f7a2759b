//! Partial updates: `binlog_row_value_options=PARTIAL_JSON`.
//!
//! The after image of a column then holds what to do to its before image:
//!
//! ```text
//! diffs = (operation:u8 path-length path [value-length value])*      lengths as in the protocol; no value with REMOVE
//! ```
//!
//! `apply_json_diffs` in MySQL's `sql-common/json_diff.cc`. Paths name what is there: the server has wrapped scalars into
//! arrays, where a statement does that, before it writes a diff.

use super::document::{Budget, Container, Stored};
use super::path::{Leg, Legs};
use super::text::{Printer, check_depth};
use super::{Malformed, Result};
use crate::mysql::binlog::reader::Bytes;
use std::borrow::Cow;

const REPLACE: u8 = 0;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;

const REJECTED: Malformed = Malformed("JSON: a partial update that does not fit the old value");

/// What became of a partial update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The new document has been appended.
    Written,
    /// The log does not have the old document (`binlog_row_image=MINIMAL`), so the new one is not known. Nothing has been
    /// appended; the value is `Absent`.
    NoBefore,
}

/// Appends the document that a partial update leads to, as [`write_text`](super::write_text) would print it.
///
/// `before` is the column's value in the before image of the same row, `None` where that image lacks the column; `diffs`
/// the column's value in the after image, after its length. No diffs at all leave the document as it is. At most
/// `6 * (before.len() + diffs.len()) + 4` bytes are appended.
///
/// # Errors
/// Bytes that no server writes, and diffs that do not fit the old document; part of the text may have been appended then.
pub fn apply_diffs(before: Option<&[u8]>, diffs: &[u8], out: &mut Vec<u8>) -> Result<Applied> {
    let Some(before) = before else { return Ok(Applied::NoBefore) };
    let mut budget = Budget::new(before.len().saturating_add(diffs.len()));
    let mut root = Node::Stored(Stored::root(before));
    let mut diffs = Bytes::new(diffs);
    while !diffs.is_empty() {
        let left = diffs.len();
        let operation = diffs.u8(OPERATION)?;
        let path = diffs.lenenc_bytes("JSON: the path of a partial update")?;
        let value = match operation {
            REPLACE | INSERT => Some(diffs.lenenc_bytes("JSON: the value of a partial update")?),
            REMOVE => None,
            _ => return Err(Malformed(OPERATION)),
        };
        // What lies around the value is paid for here, the value when it is printed or taken apart.
        budget.spend(left - diffs.len() - value.map_or(0, <[u8]>::len))?;
        let value = value.map(|value| Node::Stored(Stored::root(value)));
        root.change(path, operation == REPLACE, value, &mut budget)?;
    }
    out.reserve(before.len());
    root.print(&mut Printer { out, budget }, 0)?;
    Ok(Applied::Written)
}

const OPERATION: &str = "JSON: the operation of a partial update";

/// A value of the document that is being changed. Only what a path leads through is taken apart.
enum Node<'a> {
    Stored(Stored<'a>),
    /// Members in the server's order.
    Object(Vec<(Cow<'a, [u8]>, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

/// Where a member is, or would be: shorter names come first, then it is their bytes that count.
fn find(members: &[(Cow<'_, [u8]>, Node<'_>)], name: &[u8]) -> std::result::Result<usize, usize> {
    members.binary_search_by(|(key, _)| key.len().cmp(&name.len()).then_with(|| (**key).cmp(name)))
}

impl<'a> Node<'a> {
    /// Replaces or inserts `value` at the end of a path, or removes what is there.
    fn change(
        &mut self,
        path: &'a [u8],
        replace: bool,
        value: Option<Node<'a>>,
        budget: &mut Budget,
    ) -> Result<()> {
        let mut legs = Legs::new(path)?;
        let mut leg = legs.next()?.ok_or(REJECTED)?;
        let mut parent = self;
        let mut depth = 1;
        while let Some(next) = legs.next()? {
            depth += 1;
            // As deep as the tree becomes, so that nothing that walks it runs out of stack.
            check_depth(depth)?;
            parent = parent.child(&leg, budget)?;
            leg = next;
        }
        match value {
            Some(value) if replace => *parent.child(&leg, budget)? = value,
            Some(value) => parent.insert(leg, value, budget)?,
            None => parent.remove(&leg, budget)?,
        }
        Ok(())
    }

    /// Takes a container apart, which each byte of the document pays for once.
    fn unpack(&mut self, budget: &mut Budget) -> Result<()> {
        let Node::Stored(Stored::Apart(kind, data)) = *self else { return Ok(()) };
        let Some(container) = Container::open(kind, data, budget)? else { return Ok(()) };
        let values = container.values().map(|value| value.map(Node::Stored));
        *self = if container.object {
            let mut members = Vec::with_capacity(container.len());
            for (key, value) in container.keys().zip(values) {
                let key = key?;
                budget.spend(key.len())?;
                members.push((Cow::Borrowed(key), value?));
            }
            Node::Object(members)
        } else {
            Node::Array(values.collect::<Result<_>>()?)
        };
        Ok(())
    }

    fn child(&mut self, leg: &Leg<'_>, budget: &mut Budget) -> Result<&mut Node<'a>> {
        self.unpack(budget)?;
        let child = match (self, leg) {
            (Node::Object(members), Leg::Member(name)) => {
                find(members, name).ok().and_then(|at| members.get_mut(at)).map(|(_, value)| value)
            }
            (Node::Array(elements), Leg::Cell(cell)) => {
                cell.of(elements.len()).and_then(|at| elements.get_mut(at))
            }
            _ => None,
        };
        child.ok_or(REJECTED)
    }

    fn insert(&mut self, leg: Leg<'a>, value: Node<'a>, budget: &mut Budget) -> Result<()> {
        self.unpack(budget)?;
        match (self, leg) {
            (Node::Object(members), Leg::Member(name)) => {
                let Err(at) = find(members, &name) else { return Err(REJECTED) };
                members.insert(at, (name, value));
            }
            (Node::Array(elements), Leg::Cell(cell)) => {
                elements.insert(cell.insert_at(elements.len()), value)
            }
            _ => return Err(REJECTED),
        }
        Ok(())
    }

    fn remove(&mut self, leg: &Leg<'_>, budget: &mut Budget) -> Result<()> {
        self.unpack(budget)?;
        match (self, leg) {
            (Node::Object(members), Leg::Member(name)) => {
                members.remove(find(members, name).map_err(|_| REJECTED)?);
            }
            (Node::Array(elements), Leg::Cell(cell)) => {
                elements.remove(cell.of(elements.len()).ok_or(REJECTED)?);
            }
            _ => return Err(REJECTED),
        }
        Ok(())
    }

    /// Only what a path led through is taken apart, so `print` itself goes no deeper than paths do.
    fn print(&self, printer: &mut Printer<'_>, depth: u32) -> Result<()> {
        match self {
            Node::Stored(value) => return printer.value(*value, depth),
            Node::Object(members) => {
                printer.out.push(b'{');
                for (i, (key, value)) in members.iter().enumerate() {
                    if i > 0 {
                        printer.out.push(b',');
                    }
                    printer.key(key);
                    value.print(printer, depth + 1)?;
                }
                printer.out.push(b'}');
            }
            Node::Array(elements) => {
                printer.out.push(b'[');
                for (i, value) in elements.iter().enumerate() {
                    if i > 0 {
                        printer.out.push(b',');
                    }
                    value.print(printer, depth + 1)?;
                }
                printer.out.push(b']');
            }
        }
        Ok(())
    }
}
