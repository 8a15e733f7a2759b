//! Descriptions of tables.

use super::super::metadata::Metadata;
use super::*;

/// The description of `database.table` that comes `nth`.
fn table(file: &'static [u8], name: &str, nth: usize) -> TableMap<'static> {
    let maps = log(file).into_iter().filter_map(|(_, event)| match event {
        Event::TableMap(map) if map.table == name => Some(map),
        _ => None,
    });
    maps.into_iter().nth(nth).unwrap_or_else(|| panic!("no {name}"))
}

/// `name type:meta` of each column, `?` for nullable ones, and the collation's id.
fn described(map: &TableMap<'_>) -> String {
    let columns = map.columns().unwrap();
    let metadata = map.metadata(&columns).unwrap();
    let lines = columns.iter().zip(&metadata.columns).map(|(column, facts)| {
        let Column { ty, meta, nullable } = column;
        let mut line = format!("{} {ty:?}:{meta}", facts.name.as_deref().unwrap_or("-"));
        line.push_str(if *nullable { "?" } else { "" });
        line.push_str(match facts.unsigned {
            Some(true) => " unsigned",
            Some(false) => " signed",
            None => "",
        });
        facts.collation.iter().for_each(|id| line.push_str(&format!(" {id}")));
        facts.labels.iter().for_each(|labels| line.push_str(&format!(" {}", labels.len())));
        facts.geometry.iter().for_each(|kind| line.push_str(&format!(" geometry {kind}")));
        facts.dimensions.iter().for_each(|n| line.push_str(&format!(" of {n}")));
        line.push_str(if facts.visible == Some(false) { " invisible" } else { "" });
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn mysql_describes_every_type() {
    let map = table(MYSQL, "types", 0);
    let columns = "id Long:0 unsigned\nt Tiny:0? signed\ntu Tiny:0? unsigned\ny Year:0? unsigned\nb LongLong:0? unsigned\n\
        f Float:4? signed\ndd Double:8? signed\ndc NewDecimal:2562? signed\nv VarChar:300? 8\nc String:556? 255\nbn String:16? 63\n\
        e Enum:1? 8 3\ns Set:1? 255 2\nbt Bit:15?\ntx Blob:2? 255\nbl Blob:2? 63\njs Json:4?\nvc Vector:4? 63 of 3\n\
        g Geometry:4? geometry 0\npt Geometry:4? geometry 1\ndt DateTime2:3?\nts Timestamp2:6?\ntm Time2:2?\nda Date:0?\n\
        lt Blob:4? 54\ninv Long:0? signed invisible\ne2 Enum:1? 255 1";
    assert_eq!(described(&map), columns);
    assert_eq!((map.database, map.table, map.width()), ("d", "types", 27));
    let metadata = map.metadata(&map.columns().unwrap()).unwrap();
    assert!(metadata.is_full());
    assert_eq!(metadata.primary_key, [KeyPart { column: 0, prefix: 0 }]);
    let labels = metadata.columns[11].labels.as_ref().unwrap();
    assert_eq!(
        labels.iter().map(|label| &label[..]).collect::<Vec<_>>(),
        [&b"a"[..], b"b", b"\xfc"],
        "in latin1"
    );
    let again = table(MYSQL, "types", 1);
    assert_eq!((map.table_id, map.definition), (again.table_id, again.definition));
}

#[test]
fn mariadb_describes_every_type() {
    let map = table(MARIADB, "types", 0);
    let columns = "id Long:0 unsigned\nt Tiny:0? signed\ny Year:0? unsigned\ntu Tiny:0? unsigned\nf Float:4? unsigned\n\
        dc NewDecimal:9766? signed\nv VarChar:300? 8\nu String:16? 63\ni4 String:4? 63\ni6 String:16? 63\ng Geometry:4? 63 geometry 0\n\
        pt Geometry:4? 63 geometry 1\nc String:556? 45\ne Enum:1? 8 3\nbn String:16? 63\ns Set:1? 8 2\nbt Bit:15?\njs Blob:4? 46\n\
        vc VarCharCompressed:401? 8\nvb VarCharCompressed:401? 63\ntc BlobCompressed:2? 35\nbc BlobCompressed:4? 63\ntx Blob:2? 2304\n\
        dt DateTime2:3?\nts Timestamp2:6?\ntm Time2:2?\nda Date:0?\ninv Long:0? signed\nk Long:0? unsigned";
    assert_eq!(described(&map), columns);
    assert_eq!(map.metadata(&map.columns().unwrap()).unwrap().columns[1].visible, None);
    let columns = map.columns().unwrap();
    let as_mysql = Metadata::parse(&[2, 1, 8], &columns, false).unwrap();
    assert_eq!(as_mysql.columns[10].collation, None, "MySQL has no collation for a geometry");
    assert_eq!(
        described(&table(MARIADB, "sv", 0)),
        "a Long:0? signed\nrow_start Timestamp2:6\nrow_end Timestamp2:6"
    );
}

#[test]
fn a_key_may_be_of_prefixes_or_not_there() {
    let key = |name| {
        let map = table(MYSQL, name, 0);
        map.metadata(&map.columns().unwrap()).unwrap().primary_key
    };
    assert_eq!(key("pk"), [KeyPart { column: 1, prefix: 0 }, KeyPart { column: 0, prefix: 10 }]);
    assert_eq!(key("nopk"), []);
}

#[test]
fn metadata_must_fit_the_columns() {
    let ty = |ty| Column { ty, meta: 0, nullable: false };
    let columns = [ty(ColumnType::VarChar), ty(ColumnType::Enum), ty(ColumnType::Long), ty(ColumnType::Blob)];
    let parse = |optional: &[u8]| Metadata::parse(optional, &columns, false);
    let collations = |metadata: Metadata| metadata.columns.iter().map(|c| c.collation).collect::<Vec<_>>();
    assert_eq!(
        parse(&[]).unwrap(),
        Metadata { columns: vec![ColumnMetadata::default(); 4], primary_key: vec![] }
    );
    assert_eq!(parse(&[2, 3, 8, 1, 45]).map(collations), Ok(vec![Some(8), None, None, Some(45)]));
    assert_eq!(parse(&[3, 4, 8, 252, 255, 0]).map(collations), Ok(vec![Some(8), None, None, Some(255)]));
    assert_eq!(parse(&[10, 1, 8]).map(collations), Ok(vec![None, Some(8), None, None]));
    assert_eq!(
        parse(&[99, 2, 1, 2, 1, 1, 0x80]).unwrap().columns[2].unsigned,
        Some(true),
        "behind an unknown field"
    );
    for (optional, why) in [
        (&[2, 3, 8, 2, 45][..], "a column beyond the last"),
        (&[2, 5, 8, 1, 45, 0, 33], "columns out of order"),
        (&[3, 1, 8], "a collation is missing"),
        (&[3, 3, 8, 8, 8], "a collation too many"),
        (&[1, 2, 0x80, 0], "a byte of signs too many"),
        (&[1, 0], "signs are missing"),
        (&[4, 8, 1, b'a', 1, b'b', 1, b'c', 2, b'd'], "a length that lies"),
        (&[6, 3, 200, 1, b'a'], "labels are missing"),
        (&[8, 1, 4], "a key of no column"),
        (&[9, 1, 0], "a key without its length"),
        (&[2, 1, 8, 2, 1, 8], "a field twice"),
        (&[3, 253], "a length that is cut off"),
    ] {
        assert!(parse(optional).is_err(), "{why}");
    }
}

#[test]
fn a_description_of_another_shape_is_refused() {
    let format = Format { checksum: Checksum::None, mariadb: false };
    let body = |database: &[u8], columns: usize, meta: &[u8]| {
        let mut out = vec![1, 2, 0, 0, 0, 0, 1, 0, database.len() as u8 - 1];
        out.extend(database);
        out.extend(b"\x01t\0");
        out.extend([&[252][..], &(columns as u16).to_le_bytes(), &vec![3; columns]].concat());
        out.push(meta.len() as u8);
        out.extend(meta);
        out.extend(vec![0xff; columns.div_ceil(8)]);
        out
    };
    let columns = |body: &[u8]| TableMap::parse(body, format)?.columns();
    let map = body(b"d\0", 1, &[]);
    let map = TableMap::parse(&map, format).unwrap();
    assert_eq!((map.table_id, map.flags, map.database), (0x201, 1, "d"));
    assert_eq!(map.columns(), Ok(vec![Column { ty: ColumnType::Long, meta: 0, nullable: true }]));
    assert_eq!(columns(&body(b"d\0", MAX_COLUMNS, &[])).map(|columns| columns.len()), Ok(MAX_COLUMNS));
    assert!(columns(&body(b"d\0", MAX_COLUMNS + 1, &[])).is_err());
    assert!(columns(&body(b"d\0", 1, &[1])).is_err(), "metadata of no column");
    assert!(columns(&body(b"dx", 1, &[])).is_err(), "no zero behind the name");
    assert!(columns(&body(b"\xff\0", 1, &[])).is_err(), "a name that is not UTF-8");
}
