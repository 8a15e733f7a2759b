//! JSON columns: the binary form printed as the server prints it, and partial updates applied to it.
//!
//! ```text
//! document  = type:u8 value                      an empty document is the literal null
//! container = count size key-entry* value-entry* key* value*      count and size: u16 when small, u32 when large
//! key-entry = offset length:u16                  only of objects; offsets count from the container's first byte
//! value-entry = type:u8 (offset | the value itself where it fits)
//! string    = length value                       seven bits a byte, lowest first, the top bit says that more follow
//! opaque    = field-type:u8 length value
//! ```
//!
//! [`write_text`] goes from those bytes to text in one pass and builds no tree. [`apply_diffs`] unpacks only the
//! containers that the paths of a partial update lead through; the rest of the document is printed from its bytes.
//!
//! **What the text is.** `CAST(column AS CHAR)` without the spaces after commas and colons: members in stored order,
//! decimals with all their digits, dates and times as strings with six fraction digits, other values of SQL types as
//! `base64:typeN:…` with `\n` after every 76 characters, doubles as `number.rs` says.
//!
//! **What hostile bytes can do.** Nothing but an error. In a true document each byte belongs to one value, so the bytes
//! that are read are counted and may not exceed the document's length: offsets that overlap or point in circles end there.
//! The text is therefore no longer than six bytes for each byte of the document and four more (a control character
//! becomes `\u0001`), and time is proportional; each change of an update may besides move what follows in its container.
//! Containers nest at most 100 deep, as in the server. A container that an update unpacks takes some eight times its entries.
//!
//! Formats: MySQL's source, `sql-common/json_binary.h` and `sql-common/json_diff.h`; the text: `Json_wrapper::to_string` in
//! `sql-common/json_dom.cc` and `my_gcvt` in `strings/dtoa.cc`.

mod diff;
mod document;
mod number;
mod opaque;
mod path;
mod scalar;
mod text;

#[cfg(test)]
mod tests;

pub use diff::{Applied, apply_diffs};
pub use text::write_text;

use super::binlog::Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// The deepest nesting that the server stores.
const MAX_DEPTH: u32 = 100;
