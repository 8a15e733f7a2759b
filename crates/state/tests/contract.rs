//! What every state store does: one suite over memory, files and SQLite.
#![allow(clippy::unwrap_used, reason = "a test, its helper functions included, fails by panicking")]

mod common;

use common::{Store, checkpoint, fails, letter, position, record, store_tests};
use deltaforge_core::checkpoint::{Checkpoint, SinkProgress};
use deltaforge_core::dead_letter::{Appended, DeadLetter, DeadLetterQuery, NewDeadLetter, Room, Which};
use deltaforge_core::schema::SchemaRecord;
use deltaforge_core::task::spawn;
use deltaforge_core::{Class, Epoch, Position};

store_tests! {
    an_empty_store_knows_nothing,
    a_save_is_loaded_as_it_was_saved,
    a_save_needs_the_last_owners_epoch,
    a_key_is_one_pipelines,
    removing_forgets_everything_but_the_epoch,
    of_many_owners_only_the_last_goes_on,
    positions_are_objects_without_our_names,
    versions_are_kept_and_rolled_back,
    the_list_is_by_source_id,
    schemas_are_appended_once,
    wrong_schema_numbers_are_refused,
    a_fenced_owner_registers_nothing,
    documents_are_kept_as_written,
    everything_survives_a_restart,
    concurrent_saves_of_many_keys_all_land,
    dead_letters_are_kept_as_stored,
    dead_letters_are_listed_in_parts,
    a_letter_stored_again_is_the_same_letter,
    a_full_queue_refuses_or_drops_the_oldest,
    numbers_of_letters_are_never_given_twice,
    letters_need_the_owner_and_go_with_the_key,
    old_letters_are_trimmed_and_attempts_counted,
}

async fn an_empty_store_knows_nothing(store: Store) {
    assert_eq!(store.load("s").await.unwrap(), None);
    assert_eq!(store.versions("s").await.unwrap(), []);
    assert_eq!(store.rollback("s", 1).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.size_bytes("s").await.unwrap(), 0);
    assert_eq!(store.schemas("s").await.unwrap(), []);
    assert_eq!(store.documents().await.unwrap(), []);
    store.remove("s").await.unwrap();
    store.remove_document("p").await.unwrap();
    let lease = store.acquire("s", "p").await.unwrap();
    assert_eq!((lease.epoch, lease.checkpoint), (Epoch(1), None));
    assert_eq!(store.load("s").await.unwrap(), None, "owned is not saved");
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.size_bytes("s").await.unwrap(), 0);
}

async fn a_save_is_loaded_as_it_was_saved(mut store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let sink = |sink: &str, n| SinkProgress {
        sink: sink.into(),
        position: position(n),
        delivered_ms: 1_736_951_521_840,
    };
    let mut saved = Checkpoint {
        position: Position::from_json(
            r#"{"lsn":"0/16B6C50","tx_id":755,"server":{"id":"ü\"\\","list":[1,null,true,-3]},"big":18446744073709551615}"#,
        ),
        events_done: 42,
        version: 999,
        sinks: vec![sink("zz", 7), sink("aa", 9)],
        ..checkpoint("s", 1)
    };
    assert_eq!(store.save(&saved, epoch).await.unwrap(), 1);
    saved.version = 1;
    assert_eq!(store.load("s").await.unwrap().as_ref(), Some(&saved));
    store.reopen();
    assert_eq!(store.load("s").await.unwrap().as_ref(), Some(&saved), "members and sinks keep their order");
    let size = store.size_bytes("s").await.unwrap();
    assert!((200..800).contains(&size), "{size}");

    assert_eq!(store.save(&checkpoint("s", 2), epoch).await.unwrap(), 2, "the epoch holds across a restart");
    let second = store.load("s").await.unwrap().unwrap();
    assert_eq!(second, Checkpoint { version: 2, ..checkpoint("s", 2) }, "nothing of the first is left");
}

async fn a_save_needs_the_last_owners_epoch(mut store: Store) {
    fails(store.save(&checkpoint("s", 1), Epoch(0)).await, Class::Fenced, "state.fenced");
    fails(store.save(&checkpoint("s", 1), Epoch(1)).await, Class::Fenced, "state.fenced");
    let first = store.acquire("s", "p").await.unwrap();
    store.save(&checkpoint("s", 1), first.epoch).await.unwrap();
    store.reopen();
    let second = store.acquire("s", "p").await.unwrap();
    assert!(second.epoch > first.epoch, "the epoch survives a restart");
    assert_eq!(second.checkpoint, Some(Checkpoint { version: 1, ..checkpoint("s", 1) }));
    let fault = fails(store.save(&checkpoint("s", 2), first.epoch).await, Class::Fenced, "state.fenced");
    assert!(fault.message().contains("`s`") && fault.hint_text().is_some(), "{fault}");
    fails(store.save(&checkpoint("s", 2), Epoch(second.epoch.0 + 1)).await, Class::Fenced, "state.fenced");
    assert_eq!(store.load("s").await.unwrap().unwrap().version, 1, "a refused save changes nothing");
    assert_eq!(store.save(&checkpoint("s", 3), second.epoch).await.unwrap(), 2);
    // Another key is another matter.
    fails(store.save(&checkpoint("t", 1), second.epoch).await, Class::Fenced, "state.fenced");
}

async fn a_key_is_one_pipelines(mut store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let fault = fails(store.acquire("s", "q").await, Class::Config, "state.key_conflict");
    let text = fault.to_string();
    assert!(["`s`", "`p`", "`q`"].iter().all(|part| text.contains(part)), "{text}");
    store.reopen();
    fails(store.acquire("s", "q").await, Class::Config, "state.key_conflict");
    store.save(&checkpoint("s", 1), epoch).await.unwrap();
    let misnamed = Checkpoint { pipeline: "q".into(), ..checkpoint("s", 2) };
    store.save(&misnamed, epoch).await.unwrap();
    assert_eq!(store.load("s").await.unwrap().unwrap().pipeline, "p");
    store.remove("s").await.unwrap();
    store.acquire("s", "q").await.unwrap();
}

async fn removing_forgets_everything_but_the_epoch(mut store: Store) {
    let old = store.acquire("s", "p").await.unwrap().epoch;
    store.append_schemas("s", &[record(1, "t", 5)], old).await.unwrap();
    store.save(&checkpoint("s", 1), old).await.unwrap();
    store.remove("s").await.unwrap();
    fails(store.save(&checkpoint("s", 2), old).await, Class::Fenced, "state.fenced");
    store.reopen();
    assert_eq!(store.load("s").await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.versions("s").await.unwrap(), []);
    assert_eq!(store.schemas("s").await.unwrap(), []);
    // The epoch that the removal counted up to belongs to nobody.
    fails(store.save(&checkpoint("s", 2), Epoch(old.0 + 1)).await, Class::Fenced, "state.fenced");
    let new = store.acquire("s", "p").await.unwrap();
    assert_eq!(new.checkpoint, None);
    assert!(new.epoch > old, "{:?} would let the owner of {old:?} in again", new.epoch);
    fails(store.save(&checkpoint("s", 2), old).await, Class::Fenced, "state.fenced");
    assert_eq!(store.save(&checkpoint("s", 3), new.epoch).await.unwrap(), 1);
}

async fn of_many_owners_only_the_last_goes_on(store: Store) {
    let owners: Vec<_> = (0..8)
        .map(|_| {
            let store = store.shared();
            spawn("owner", async move { store.acquire("s", "p").await.unwrap().epoch })
        })
        .collect();
    let mut epochs = Vec::new();
    for owner in owners {
        epochs.push(owner.await.unwrap());
    }
    let mut winners = 0;
    for epoch in &epochs {
        winners += u32::from(store.save(&checkpoint("s", 1), *epoch).await.is_ok());
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!((epochs.len(), winners), (8, 1));
}

async fn positions_are_objects_without_our_names(store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    for wrong in ["{}", "{\"lsn\":", "{\"checkpoint\":1}", "{\"lsn\":1,\"events_done\":1}"] {
        let saved = Checkpoint { position: Position::from_json(wrong), ..checkpoint("s", 1) };
        fails(store.save(&saved, epoch).await, Class::Bug, "state.bad_position");
    }
    // A sink's database may give the position back in its own spelling.
    let spaced = Checkpoint { position: Position::from_json("{ \"n\" : 1 }"), ..checkpoint("s", 1) };
    store.save(&spaced, epoch).await.unwrap();
    assert_eq!(store.load("s").await.unwrap().unwrap().position.as_json(), r#"{"n":1}"#);
}

async fn versions_are_kept_and_rolled_back(mut store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    for n in 1..=120 {
        if n == 60 {
            store.append_schemas("s", &[record(1, "t", 5)], epoch).await.unwrap();
        }
        if n == 110 {
            store.append_schemas("s", &[record(2, "t", 9), record(3, "u", 9)], epoch).await.unwrap();
        }
        assert_eq!(store.save(&checkpoint("s", n), epoch).await.unwrap(), n);
    }
    store.reopen();
    let versions = store.versions("s").await.unwrap();
    if !store.has_versions() {
        assert_eq!(versions, []);
        assert_eq!(store.rollback("s", 119).await.unwrap(), None);
        store.save(&checkpoint("s", 121), epoch).await.unwrap();
        return;
    }
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), (21..=120).rev().collect::<Vec<_>>());
    let oldest = versions.last().unwrap();
    assert_eq!((oldest.position.clone(), oldest.saved_ms), (position(21), checkpoint("s", 21).saved_ms));
    assert!(oldest.size_bytes > 50);
    assert_eq!(store.rollback("s", 20).await.unwrap(), None);
    assert_eq!(store.rollback("s", 121).await.unwrap(), None);
    assert_eq!(store.rollback("s", u64::MAX).await.unwrap(), None);
    store.save(&checkpoint("s", 121), epoch).await.unwrap();

    let back = store.rollback("s", 100).await.unwrap().unwrap();
    assert_eq!((back.version, back.position.clone()), (122, position(100)));
    assert!(back.saved_ms > checkpoint("s", 121).saved_ms, "it is saved now");
    fails(store.save(&checkpoint("s", 122), epoch).await, Class::Fenced, "state.fenced");
    let sequences: Vec<_> = store.schemas("s").await.unwrap().iter().map(|r| r.sequence).collect();
    assert_eq!(sequences, [1], "schemas go back with it");
    store.reopen();
    assert_eq!(store.load("s").await.unwrap(), Some(back.clone()));
    let lease = store.acquire("s", "p").await.unwrap();
    assert_eq!(lease.checkpoint, Some(back));
    assert_eq!(store.save(&checkpoint("s", 101), lease.epoch).await.unwrap(), 123);
    assert_eq!(store.versions("s").await.unwrap().len(), 100);
}

async fn the_list_is_by_source_id(store: Store) {
    for id in ["b", "a", "c"] {
        let epoch = store.acquire(id, "p").await.unwrap().epoch;
        store.save(&checkpoint(id, 1), epoch).await.unwrap();
        store.save(&checkpoint(id, 2), epoch).await.unwrap();
    }
    let list = store.list().await.unwrap();
    assert_eq!(
        list.iter().map(|c| (c.source_id.as_str(), c.version)).collect::<Vec<_>>(),
        [("a", 2), ("b", 2), ("c", 2)]
    );
    assert_eq!(list[0], store.load("a").await.unwrap().unwrap());
}

async fn schemas_are_appended_once(mut store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let mut records = [record(1, "public.t", 5), record(2, "public.u", u128::MAX), record(3, "public.t", 9)];
    records[1].detail = Some(r#"{"columns":[{"name":"ü","type":"enum('a')"}], "z": 1.0}"#.into());
    store.append_schemas("s", &records[..2], epoch).await.unwrap();
    store.append_schemas("s", &records, epoch).await.unwrap();
    store.append_schemas("s", &records, epoch).await.unwrap();
    store.append_schemas("s", &[], epoch).await.unwrap();
    assert_eq!(store.schemas("s").await.unwrap(), records);
    store.reopen();
    assert_eq!(store.schemas("s").await.unwrap(), records);
    assert_eq!(store.schemas("other").await.unwrap(), []);
}

async fn wrong_schema_numbers_are_refused(store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    store.append_schemas("s", &[record(1, "t", 5)], epoch).await.unwrap();
    let bad_shape = SchemaRecord { shape: "{".into(), ..record(2, "t", 6) };
    let detailed = |detail: &str, record| SchemaRecord { detail: Some(detail.into()), ..record };
    for wrong in [
        vec![record(1, "other", 5)],
        vec![record(1, "t", 6)],
        vec![record(3, "t", 6)],
        vec![record(2, "t", 6), record(2, "u", 6)],
        vec![record(2, "t", 6), record(4, "u", 6)],
        vec![record(0, "t", 5)],
        vec![bad_shape],
        vec![detailed("{", record(2, "t", 6))],
        vec![detailed("{}", record(1, "t", 5))],
    ] {
        fails(store.append_schemas("s", &wrong, epoch).await, Class::Bug, "state.schema_number");
    }
    assert_eq!(store.schemas("s").await.unwrap(), [record(1, "t", 5)], "none of a refused call is stored");
}

async fn a_fenced_owner_registers_nothing(store: Store) {
    fails(store.append_schemas("s", &[record(1, "t", 5)], Epoch(1)).await, Class::Fenced, "state.fenced");
    let old = store.acquire("s", "p").await.unwrap().epoch;
    let new = store.acquire("s", "p").await.unwrap().epoch;
    fails(store.append_schemas("s", &[record(1, "t", 5)], old).await, Class::Fenced, "state.fenced");
    assert_eq!(store.schemas("s").await.unwrap(), []);
    store.append_schemas("s", &[record(1, "u", 5)], new).await.unwrap();
}

async fn documents_are_kept_as_written(mut store: Store) {
    let odd = "{ \"b\": 1.0,\n \"a\": [\"${PASSWORD}\", \"ü\\u0041\"] }";
    store.put_document("orders", odd).await.unwrap();
    store.put_document("a", "{}").await.unwrap();
    store.put_document("gone", "{}").await.unwrap();
    store.put_document("a", "{\"x\":2}").await.unwrap();
    store.remove_document("gone").await.unwrap();
    fails(store.put_document("a", "{\"x\":").await, Class::Bug, "state.bad_document");
    store.reopen();
    let expected = [("a".to_owned(), "{\"x\":2}".to_owned()), ("orders".to_owned(), odd.to_owned())];
    assert_eq!(store.documents().await.unwrap(), expected);
}

async fn everything_survives_a_restart(mut store: Store) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    store.append_schemas("s", &[record(1, "t", 5)], epoch).await.unwrap();
    store.save(&checkpoint("s", 1), epoch).await.unwrap();
    store.put_document("p", "{}").await.unwrap();
    let gone = store.acquire("gone", "p").await.unwrap().epoch;
    for _ in 0..3 {
        store.reopen();
        assert_eq!(store.load("s").await.unwrap(), Some(Checkpoint { version: 1, ..checkpoint("s", 1) }));
        assert_eq!(store.schemas("s").await.unwrap().len(), 1);
        assert_eq!(store.documents().await.unwrap().len(), 1);
    }
    // A key that was only acquired counts on as well.
    assert!(store.acquire("gone", "p").await.unwrap().epoch > gone);
}

async fn concurrent_saves_of_many_keys_all_land(mut store: Store) {
    let saves: Vec<_> = (0..20)
        .map(|k| {
            let store = store.shared();
            spawn("pipeline", async move {
                let id = format!("s{k}");
                let epoch = store.acquire(&id, "p").await.unwrap().epoch;
                for n in 1..=5 {
                    assert_eq!(store.save(&checkpoint(&id, n), epoch).await.unwrap(), n);
                    assert_eq!(store.load(&id).await.unwrap().unwrap().version, n);
                }
            })
        })
        .collect();
    for save in saves {
        save.await.unwrap();
    }
    store.reopen();
    let list = store.list().await.unwrap();
    assert_eq!(list.len(), 20);
    assert!(list.iter().all(|c| c.version == 5 && c.position == position(5)));
}

const ROOM: Room = Room { max_entries: 1000, drop_oldest: false };

fn all() -> DeadLetterQuery {
    DeadLetterQuery { limit: 1000, ..DeadLetterQuery::default() }
}

/// Stores letters `1..=n` under `s`; gives their numbers and the owner's epoch.
async fn stored(store: &Store, n: u64) -> (Vec<u64>, Epoch) {
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let mut ids = Vec::new();
    for n in 1..=n {
        match store.append_dead_letter("s", letter(n), ROOM, epoch).await.unwrap() {
            Appended::Stored { id, dropped: 0 } => ids.push(id),
            other => unreachable!("{other:?}"),
        }
    }
    (ids, epoch)
}

async fn dead_letters_are_kept_as_stored(mut store: Store) {
    assert_eq!(store.dead_letters("s", &all()).await.unwrap().entries, []);
    let (ids, _) = stored(&store, 6).await;
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    for _ in 0..2 {
        let found = store.dead_letters("s", &all()).await.unwrap();
        let expected: Vec<_> =
            (1..).zip(&ids).map(|(n, id)| DeadLetter { id: *id, attempts: 1, entry: letter(n) }).collect();
        assert_eq!((found.entries, found.more, found.total), (expected.clone(), false, 6));
        let picked = store.dead_letters_by_id("s", &[ids[4], ids[1], u64::MAX, ids[1]]).await.unwrap();
        assert_eq!(picked, [expected[1].clone(), expected[4].clone()]);
        assert_eq!(store.count_dead_letters("s").await.unwrap(), 6);
        assert_eq!(store.count_dead_letters("other").await.unwrap(), 0);
        store.reopen();
    }
}

async fn dead_letters_are_listed_in_parts(store: Store) {
    let (ids, _) = stored(&store, 20).await;
    let query = DeadLetterQuery { limit: 3, after: ids[3], sink: Some("even".into()), ..all() };
    let page = store.dead_letters("s", &query).await.unwrap();
    let numbers = |page: &[DeadLetter]| page.iter().map(|e| e.entry.event_id.clone()).collect::<Vec<_>>();
    assert_eq!(numbers(&page.entries), ["event-6", "event-8", "event-10"]);
    assert_eq!((page.more, page.total), (true, 10), "the total is that of the filters alone");
    let query = DeadLetterQuery { kind: Some("route".into()), after: 0, ..query };
    let page = store.dead_letters("s", &query).await.unwrap();
    assert_eq!(numbers(&page.entries), ["event-6", "event-12", "event-18"]);
    assert_eq!((page.more, page.total), (false, 3));
    // For showing: without what is stored for delivering, and not above so many bytes.
    let bytes = |n: usize| (1..=n as u64).map(|n| letter(n).event.len()).sum::<usize>();
    for (most, shown, more) in [
        (bytes(4), 5, true),
        (bytes(5) - 1, 5, true),
        (0, 1, true),
        (bytes(20), 20, false),
        (bytes(19), 20, false),
    ] {
        let page =
            store.dead_letters("s", &DeadLetterQuery { shown_bytes: Some(most), ..all() }).await.unwrap();
        assert_eq!((page.entries.len(), page.more, page.total), (shown, more, 20), "{most}");
        let stripped = |n| NewDeadLetter { frozen: Vec::new(), ..letter(n) };
        assert!((1..).zip(&page.entries).all(|(n, found)| found.entry == stripped(n)));
    }
}

async fn a_letter_stored_again_is_the_same_letter(mut store: Store) {
    let (ids, epoch) = stored(&store, 3).await;
    store.reopen();
    let again = store.append_dead_letter("s", letter(2), ROOM, epoch).await.unwrap();
    assert_eq!(again, Appended::Stored { id: ids[1], dropped: 0 });
    // Also where there is no room for another one.
    let full = Room { max_entries: 1, drop_oldest: true };
    let again = store.append_dead_letter("s", letter(3), full, epoch).await.unwrap();
    assert_eq!(again, Appended::Stored { id: ids[2], dropped: 0 });
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 3);
    let other = deltaforge_core::dead_letter::NewDeadLetter { sink: "another".into(), ..letter(2) };
    store.append_dead_letter("s", other, ROOM, epoch).await.unwrap();
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 4, "of another sink it is another one");
}

async fn a_full_queue_refuses_or_drops_the_oldest(store: Store) {
    let (ids, epoch) = stored(&store, 3).await;
    let room = |drop_oldest| Room { max_entries: 3, drop_oldest };
    assert_eq!(store.append_dead_letter("s", letter(4), room(false), epoch).await.unwrap(), Appended::Full);
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 3);
    let dropped = store.append_dead_letter("s", letter(4), room(true), epoch).await.unwrap();
    assert!(matches!(dropped, Appended::Stored { id, dropped: 1 } if id > ids[2]), "{dropped:?}");
    let left = store.dead_letters("s", &all()).await.unwrap().entries;
    assert_eq!(
        left.iter().map(|e| &*e.entry.event_id).collect::<Vec<_>>(),
        ["event-2", "event-3", "event-4"]
    );
    // A limit that was lowered.
    let room = Room { max_entries: 2, drop_oldest: true };
    let dropped = store.append_dead_letter("s", letter(5), room, epoch).await.unwrap();
    assert!(matches!(dropped, Appended::Stored { dropped: 2, .. }), "{dropped:?}");
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 2);
}

async fn numbers_of_letters_are_never_given_twice(mut store: Store) {
    let (ids, epoch) = stored(&store, 3).await;
    assert_eq!(store.remove_dead_letters("s", &Which::Ids(vec![ids[2], 999])).await.unwrap(), 1);
    store.reopen();
    assert_eq!(store.remove_dead_letters("s", &Which::All).await.unwrap(), 2);
    assert_eq!(store.remove_dead_letters("s", &Which::All).await.unwrap(), 0);
    store.reopen();
    let next = store.append_dead_letter("s", letter(3), ROOM, epoch).await.unwrap();
    assert!(matches!(next, Appended::Stored { id, .. } if id > ids[2]), "{next:?} after {ids:?}");
}

async fn letters_need_the_owner_and_go_with_the_key(mut store: Store) {
    fails(store.append_dead_letter("s", letter(1), ROOM, Epoch(1)).await, Class::Fenced, "state.fenced");
    let (_, old) = stored(&store, 2).await;
    let new = store.acquire("s", "p").await.unwrap().epoch;
    fails(store.append_dead_letter("s", letter(3), ROOM, old).await, Class::Fenced, "state.fenced");
    for n in 1..3 {
        store.save(&checkpoint("s", n), new).await.unwrap();
    }
    if store.has_versions() {
        store.rollback("s", 1).await.unwrap().unwrap();
    }
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 2, "going back leaves them");
    let other = store.acquire("other", "q").await.unwrap().epoch;
    store.append_dead_letter("other", letter(1), ROOM, other).await.unwrap();
    store.remove("s").await.unwrap();
    store.reopen();
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 0);
    assert_eq!(store.count_dead_letters("other").await.unwrap(), 1);
}

async fn old_letters_are_trimmed_and_attempts_counted(mut store: Store) {
    let (ids, _) = stored(&store, 4).await;
    assert_eq!(store.trim_dead_letters("s", letter(3).stored_ms).await.unwrap(), 2);
    store.count_attempts("s", &[ids[3], ids[0]]).await.unwrap();
    store.reopen();
    let left = store.dead_letters("s", &all()).await.unwrap().entries;
    assert_eq!(left.iter().map(|e| (e.id, e.attempts)).collect::<Vec<_>>(), [(ids[2], 1), (ids[3], 2)]);
    assert_eq!(left[1].entry, letter(4));
}
