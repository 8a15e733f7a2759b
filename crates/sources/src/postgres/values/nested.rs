//! Arrays, composites and `hstore`: texts with other values inside, quoted in three different ways.

use super::{Codec, MAX_DEPTH, Read, Unreadable, build, literal, raw};
use deltaforge_core::row::{CellWriter, ListWriter};
use deltaforge_core::value::Value;

/// Leaves out `[1:3][0:1]=`, the bounds of an array that does not begin at 1.
fn skip_bounds(text: &[u8]) -> Read<&[u8]> {
    if text.first() != Some(&b'[') {
        return Ok(text);
    }
    let at = text.iter().position(|b| *b == b'=').ok_or(Unreadable)?;
    Ok(&text[at + 1..])
}

/// An array with all that is around it.
pub(super) fn whole_array(
    text: &[u8],
    element: &Codec,
    delimiter: u8,
    cell: &mut CellWriter<'_>,
    depth: u32,
) -> Read<bool> {
    let mut scan = Scan { rest: skip_bounds(text)?, delimiter };
    let clean = array(&mut scan, element, cell, depth)?;
    if scan.rest.is_empty() { Ok(clean) } else { Err(Unreadable) }
}

struct Scan<'a> {
    rest: &'a [u8],
    delimiter: u8,
}

/// `{1,NULL,"a \"b\"",{…}}`.
fn array(scan: &mut Scan<'_>, element: &Codec, cell: &mut CellWriter<'_>, depth: u32) -> Read<bool> {
    if depth > MAX_DEPTH {
        return Err(Unreadable);
    }
    literal(&mut scan.rest, b'{')?;
    let mut clean = true;
    cell.list(|list| {
        if scan.rest.first() == Some(&b'}') {
            scan.rest = &scan.rest[1..];
            return Ok(());
        }
        loop {
            clean &= array_element(scan, element, list, depth)?;
            let (next, rest) = scan.rest.split_first().ok_or(Unreadable)?;
            scan.rest = rest;
            match next {
                b'}' => return Ok(()),
                c if *c == scan.delimiter => {}
                _ => return Err(Unreadable),
            }
        }
    })?;
    Ok(clean)
}

fn array_element(scan: &mut Scan<'_>, element: &Codec, list: &mut ListWriter<'_>, depth: u32) -> Read<bool> {
    let mut clean = true;
    match scan.rest.first().ok_or(Unreadable)? {
        b'{' => list.element(|cell| {
            clean = array(scan, element, cell, depth + 1)?;
            Ok(())
        })?,
        b'"' => {
            let (text, rest) = unquote(scan.rest, false)?;
            scan.rest = rest;
            list.element(|cell| {
                clean = build(element, &text, cell, depth + 1)?;
                Ok(())
            })?;
        }
        _ => {
            let end = scan.rest.iter().position(|b| *b == scan.delimiter || *b == b'}').ok_or(Unreadable)?;
            let (text, rest) = scan.rest.split_at(end);
            scan.rest = rest;
            list.element(|cell| {
                if text.eq_ignore_ascii_case(b"NULL") {
                    cell.put(Value::Null);
                } else {
                    clean = build(element, text, cell, depth + 1)?;
                }
                Ok(())
            })?;
        }
    }
    Ok(clean)
}

/// Takes a quoted text off the front: backslashes escape, and with `doubled` so do doubled quotes.
fn unquote(text: &[u8], doubled: bool) -> Read<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut rest = text.get(1..).ok_or(Unreadable)?;
    loop {
        let special = rest.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or(Unreadable)?;
        out.extend_from_slice(&rest[..special]);
        let next = rest.get(special + 1);
        match (rest[special], next) {
            (b'\\', Some(escaped)) => out.push(*escaped),
            (b'"', Some(b'"')) if doubled => out.push(b'"'),
            (b'"', _) => return Ok((out, &rest[special + 1..])),
            _ => return Err(Unreadable),
        }
        rest = &rest[special + 2..];
    }
}

/// `(1,"a ""b""",)`; nothing between two commas is NULL. One that is shorter than its type is not clean: the type may be out of
/// date.
pub(super) fn composite(
    text: &[u8],
    members: &[(String, Codec)],
    only_grew: bool,
    cell: &mut CellWriter<'_>,
    depth: u32,
) -> Read<bool> {
    let mut rest = text;
    literal(&mut rest, b'(')?;
    let mut clean = true;
    cell.record(|record| {
        for (i, (name, codec)) in members.iter().enumerate() {
            if i > 0 {
                if only_grew && rest == b")" {
                    clean = false;
                    break;
                }
                literal(&mut rest, b',')?;
            }
            let value = composite_field(&mut rest)?;
            record.member(name, |cell| {
                match &value {
                    None => cell.put(Value::Null),
                    Some(text) => clean &= build(codec, text, cell, depth + 1)?,
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    literal(&mut rest, b')')?;
    if rest.is_empty() { Ok(clean) } else { Err(Unreadable) }
}

/// One field: quoted runs and bare runs may follow each other.
fn composite_field(rest: &mut &[u8]) -> Read<Option<Vec<u8>>> {
    let mut out: Option<Vec<u8>> = None;
    loop {
        match rest.first().ok_or(Unreadable)? {
            b',' | b')' => return Ok(out),
            b'"' => {
                let (text, after) = unquote(rest, true)?;
                out.get_or_insert_default().extend(text);
                *rest = after;
            }
            b'\\' => {
                out.get_or_insert_default().push(*rest.get(1).ok_or(Unreadable)?);
                *rest = &rest[2..];
            }
            other => {
                out.get_or_insert_default().push(*other);
                *rest = &rest[1..];
            }
        }
    }
}

/// `"a"=>"1", "b"=>NULL`.
pub(super) fn hstore(text: &[u8], cell: &mut CellWriter<'_>) -> Read {
    let mut rest = text;
    cell.record(|record| {
        while !rest.is_empty() {
            if rest.first() != Some(&b'"') {
                return Err(Unreadable);
            }
            let (key, after) = unquote(rest, false)?;
            rest = after.strip_prefix(b"=>").ok_or(Unreadable)?;
            let key = String::from_utf8(key).map_err(|_| Unreadable)?;
            if rest.first() == Some(&b'"') {
                let (value, after) = unquote(rest, false)?;
                rest = after;
                record.member(&key, |cell| {
                    cell.put(raw(&value));
                    Ok(())
                })?;
            } else {
                rest = rest.strip_prefix(b"NULL").ok_or(Unreadable)?;
                record.member(&key, |cell| {
                    cell.put(Value::Null);
                    Ok(())
                })?;
            }
            rest = match rest {
                [] => rest,
                _ => rest.strip_prefix(b", ").ok_or(Unreadable)?,
            };
        }
        Ok(())
    })
}
