//! What begins and ends transactions.

use super::*;

#[test]
fn transactions_of_mysql_are_named_and_timed() {
    let log = log(MYSQL);
    let mut sizes = Vec::new();
    for (header, event) in &log {
        match event {
            Event::Gtid(gtid) => sizes.push((*gtid, u64::from(header.size))),
            Event::Rotate(_) => break,
            _ => {
                sizes.iter_mut().next_back().into_iter().for_each(|(_, size)| *size += u64::from(header.size))
            }
        }
    }
    assert_eq!(sizes.len(), 43);
    for (gtid, size) in &sizes {
        assert_eq!(gtid.length, Some(*size));
        assert!(gtid.committed_us.is_some_and(|us| us / 1_000_000 / 86_400 / 365 == 56), "2026");
        assert_eq!(gtid.committed_us, gtid.original_committed_us);
    }
    let ids: Vec<_> = sizes.iter().map(|(gtid, _)| gtid.id.unwrap()).collect();
    let (tagged, plain): (Vec<GtidParts<'_>>, Vec<_>) = ids.iter().partition(|id| !id.tag.is_empty());
    assert_eq!(plain.iter().map(|id| id.number).collect::<Vec<_>>(), (1..=42).collect::<Vec<_>>());
    assert_eq!(tagged.iter().map(|id| (id.tag, id.number)).collect::<Vec<_>>(), [(&b"blue"[..], 1)]);
    assert!(ids.iter().all(|id| id.uuid == ids[0].uuid && id.uuid[6] >> 4 == 1), "one UUID of version 1");
    let rows_only = sizes.iter().filter(|(gtid, _)| !gtid.may_hold_statements).count();
    assert!(rows_only > 10 && rows_only < sizes.len());
}

#[test]
fn an_anonymous_transaction_and_an_original_time_are_read() {
    let mut body = vec![0; 25];
    body.extend([2; 17]);
    body.extend([1, 0, 0, 0, 0, 0, 0x80, 2, 0, 0, 0, 0, 0, 0, 252, 0, 1]);
    let gtid = GtidEvent::parse(&body, true).unwrap();
    assert_eq!((gtid.id, gtid.committed_us, gtid.original_committed_us), (None, Some(1), Some(2)));
    assert_eq!(gtid.length, Some(256));
    assert!(GtidEvent::parse(&body, false).is_err(), "number 0");
    assert_eq!(GtidEvent::parse(&body[..25], true).unwrap().committed_us, None, "of MySQL 5.6");
    assert!(GtidEvent::parse(&body[..50], true).is_err());
}

#[test]
fn a_tagged_transaction_may_have_fields_that_need_not_be_known() {
    let uuid = [0; 16];
    let body = |last: u8, extra: &[u8]| {
        // Version 1, size, last field to know; flags, UUID, number 1, tag `a`.
        let mut body = vec![2, 0, last << 1, 0, 0, 2];
        body.extend(uuid);
        body.extend([4, 4, 6, 2, b'a']);
        body.extend(extra);
        body[1] = (body.len() as u8) << 1;
        body
    };
    let plain = body(12, &[]);
    let id = GtidEvent::tagged(&plain).unwrap().id.unwrap();
    assert_eq!((id.number, id.tag), (1, &b"a"[..]));
    assert!(GtidEvent::tagged(&body(12, &[12 << 1, 0xff, 0xff])).is_ok());
    assert!(GtidEvent::tagged(&body(13, &[])).is_err(), "a new field that must be known");
    assert!(GtidEvent::tagged(&body(12, &[6, 2, b'b'])).is_err(), "a field twice");
    for size in [plain.len() - 1, plain.len() + 1] {
        let mut lies = plain.clone();
        lies[1] = (size as u8) << 1;
        assert!(GtidEvent::tagged(&lies).is_err(), "another size than said");
    }
    for length in 0..plain.len() {
        assert!(GtidEvent::tagged(&plain[..length]).is_err(), "{length}");
    }
}

#[test]
fn transactions_of_mariadb_are_named_and_flagged() {
    type G<'a> = MariaGtidEvent<'a>;
    let gtids: Vec<_> = log(MARIADB)
        .into_iter()
        .filter_map(|(header, event)| match event {
            Event::MariaGtid(gtid) => Some((header.server_id, gtid)),
            _ => None,
        })
        .collect();
    let of = |domain| gtids.iter().filter(move |(server, gtid)| *server == 1 && gtid.domain == domain);
    assert_eq!(of(3).map(|(_, gtid)| gtid.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(of(7).map(|(_, gtid)| gtid.sequence).collect::<Vec<_>>(), (1..=32).collect::<Vec<_>>());
    let gtid = |sequence: u64| of(7).map(|(_, gtid)| *gtid).find(|gtid| gtid.sequence == sequence).unwrap();
    assert!(gtid(1).is(G::STANDALONE) && gtid(1).is(G::DDL) && !gtid(1).is(G::TRANSACTIONAL));
    assert!(gtid(3).is(G::TRANSACTIONAL) && !gtid(3).is(G::STANDALONE | G::DDL));
    let xid = Some(Xid { format: 7, gtrid: b"g1", bqual: b"b1" });
    assert!(gtid(12).is(G::PREPARED_XA) && gtid(12).xid == xid);
    assert!(gtid(13).is(G::COMPLETED_XA) && gtid(13).xid == xid);
    let alters = [gtid(21).alter, gtid(22).alter, gtid(23).alter];
    assert_eq!(alters, [None, Some(AlterPhase::Start), Some(AlterPhase::Commit(22))]);
    // A group commit, a rollback of an ALTER, and a connection.
    let mut body =
        [9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, G::GROUP_COMMIT_ID, 8, 0, 0, 0, 0, 0, 0, 0, 25, 1].to_vec();
    body.extend([7, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0]);
    let gtid = G::parse(&body).unwrap();
    assert_eq!((gtid.sequence, gtid.domain, gtid.commit_id), (9, 5, Some(8)));
    assert_eq!((gtid.alter, gtid.thread_id), (Some(AlterPhase::Rollback(7)), Some(6)));
    assert_eq!(G::parse(&body[..31]).unwrap().thread_id, None);
    assert!(G::parse(&body[..30]).is_err() && G::parse(&body[..12]).is_err());
}

#[test]
fn a_list_of_gtids_may_be_padded_when_empty() {
    let list = log(MARIADB).into_iter().find_map(|(_, event)| match event {
        Event::GtidList(list) => Some(list),
        _ => None,
    });
    assert_eq!(list.unwrap().entries().count(), 0);
    let body = [1, 0, 0, 0x10, 7, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0];
    let entries: Vec<_> = GtidList::parse(&body).unwrap().entries().collect();
    assert_eq!(entries, [GtidListEntry { domain: 7, server_id: 1, sequence: (1 << 32) + 4 }]);
    assert!(GtidList::parse(&body[..19]).is_err());
    assert!(GtidList::parse(&[1, 0, 0, 0]).is_err());
    assert!(GtidList::parse(&[0, 0, 0, 0, 1]).is_err());
}

#[test]
fn prepared_transactions_are_named() {
    let prepared: Vec<_> = log(MYSQL)
        .into_iter()
        .filter_map(|(_, event)| match event {
            Event::XaPrepare(prepare) => Some((prepare.one_phase, prepare.xid)),
            _ => None,
        })
        .collect();
    let xid = |format, gtrid, bqual| Xid { format, gtrid, bqual };
    let expected =
        [(false, xid(7, &b"g1"[..], &b"b1"[..])), (true, xid(1, b"g2", b"")), (false, xid(1, b"g3", b""))];
    assert_eq!(prepared, expected);
    let long = [0, 1, 0, 0, 0, 65, 0, 0, 0, 0, 0, 0, 0];
    assert!(XaPrepare::parse(&[&long[..], &[b'x'; 65]].concat()).is_err());
}
