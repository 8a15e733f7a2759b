use super::*;

fn place(n: u64) -> Position {
    Position::from_json(&format!("{{\"at\":{n}}}"))
}

fn event(n: u8) -> EventId {
    EventId([n; 16])
}

fn held(at: u64, last: u8) -> Held {
    Held { position: place(at), event: event(last), inside: false }
}

fn inside(at: u64, last: u8) -> Held {
    Held { inside: true, ..held(at, last) }
}

fn again(ends: &[Option<u64>]) -> impl Iterator<Item = Waiting> {
    ends.iter().map(|end| Waiting { end: end.map(place) })
}

/// A lane that started at 1 and had the batch up to 2 acknowledged, whose last event is 20.
fn going() -> Standing {
    let mut standing = Standing::new(place(1), None);
    assert!(matches!(standing.compare(None, again(&[])), Verdict::GoOn(0)));
    standing.acknowledged(Some(&place(2)), Some(event(20)));
    standing
}

#[track_caller]
fn code(verdict: &Verdict) -> (&'static str, Class) {
    match verdict {
        Verdict::GoOn(n) => panic!("goes on after {n}"),
        Verdict::BeginAgain(fault) | Verdict::Stop(fault) => (fault.code(), fault.class()),
    }
}

#[test]
fn the_start_is_where_the_target_stands() {
    let mut standing = Standing::new(place(5), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(6)])), Verdict::GoOn(0)));
    assert!(standing.skips().is_none());
}

#[test]
fn the_start_is_behind_the_target() {
    let mut standing = Standing::new(place(3), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(4)])), Verdict::GoOn(0)));
    assert_eq!(standing.skips(), Some((event(50), &place(5))));
    standing.skipped();
    assert!(standing.skips().is_none());
}

#[test]
fn the_target_moved_since_the_start_was_chosen() {
    for (first, then) in [(None, Some(held(5, 50))), (Some(held(5, 50)), Some(held(6, 60)))] {
        let mut standing = Standing::new(place(5), first);
        let verdict = standing.compare(then.as_ref(), again(&[Some(6)]));
        assert_eq!(code(&verdict), ("sink.position_moved", Class::Retry));
        assert!(matches!(verdict, Verdict::BeginAgain(_)));
    }
}

#[test]
fn a_target_without_transactions_is_found_inside_a_batch() {
    let mut standing = Standing::new(place(5), Some(inside(5, 53)));
    assert!(matches!(standing.compare(Some(&inside(5, 53)), again(&[Some(6)])), Verdict::GoOn(0)));
    assert_eq!(standing.skips(), Some((event(53), &place(5))));
}

#[test]
fn nothing_arrived() {
    let mut standing = going();
    assert!(matches!(standing.compare(Some(&held(2, 20)), again(&[Some(3)])), Verdict::GoOn(0)));
    assert!(standing.skips().is_none());
}

#[test]
fn the_answer_was_lost() {
    let mut standing = going();
    assert!(matches!(standing.compare(Some(&held(3, 30)), again(&[None, Some(3), Some(4)])), Verdict::GoOn(2)));
    assert!(standing.skips().is_none());
}

#[test]
fn a_part_of_the_batch_arrived() {
    let mut standing = going();
    assert!(matches!(standing.compare(Some(&inside(2, 21)), again(&[Some(3)])), Verdict::GoOn(0)));
    assert_eq!(standing.skips(), Some((event(21), &place(2))));
    let mut standing = going();
    assert!(matches!(standing.compare(Some(&inside(3, 31)), again(&[Some(3), Some(4)])), Verdict::GoOn(1)));
    assert_eq!(standing.skips(), Some((event(31), &place(3))));
}

#[test]
fn acknowledged_parts_are_there_for_good_or_lost() {
    let mut standing = going();
    standing.acknowledged(None, Some(event(25)));
    let verdict = standing.compare(Some(&held(2, 20)), again(&[Some(3)]));
    assert_eq!(code(&verdict), ("sink.transaction_lost", Class::Retry));
    assert!(matches!(standing.compare(Some(&held(3, 30)), again(&[Some(3)])), Verdict::GoOn(1)));
    // Without transactions the acknowledged part is there: nothing to skip, or a piece of the next part.
    assert!(matches!(standing.compare(Some(&inside(2, 25)), again(&[Some(3)])), Verdict::GoOn(0)));
    assert!(standing.skips().is_none());
    assert!(matches!(standing.compare(Some(&inside(2, 27)), again(&[Some(3)])), Verdict::GoOn(0)));
    assert_eq!(standing.skips(), Some((event(27), &place(2))));
}

#[test]
fn a_stranger_wrote() {
    let verdict = going().compare(Some(&held(9, 90)), again(&[Some(3), Some(4)]));
    assert_eq!(code(&verdict), ("sink.position_moved", Class::Fenced));
}

#[test]
fn the_position_is_gone() {
    let verdict = going().compare(None, again(&[Some(3)]));
    assert_eq!(code(&verdict), ("sink.position_lost", Class::Lost));
    let mut nothing_yet = Standing::new(place(1), None);
    for _ in 0..2 {
        assert!(matches!(nothing_yet.compare(None, again(&[Some(2)])), Verdict::GoOn(0)));
    }
}
