use super::*;

fn place(n: u64) -> Position {
    Position::from_json(&format!("{{\"at\":{n}}}"))
}

fn event(n: u8) -> EventId {
    EventId([n; 16])
}

fn held(at: u64, last: u8) -> Held {
    Held { position: place(at), event: event(last), inside: 0 }
}

fn inside(at: u64, last: u8, inside: u64) -> Held {
    Held { inside, ..held(at, last) }
}

/// What is skipped of a batch of `events`, in which the event searched for stands at `at`, and whose end lies behind 5 or not.
fn skip(
    standing: &mut Standing,
    events: u64,
    at: Option<usize>,
    beyond: bool,
) -> Result<Skipped, &'static str> {
    standing.skip(events, |_| at, |_| beyond).map_err(|fault| fault.code())
}

fn again(ends: &[Option<u64>]) -> impl Iterator<Item = Waiting> {
    ends.iter().map(|end| Waiting { end: end.map(place) })
}

fn by_number(a: &Position, b: &Position) -> Option<Ordering> {
    let number =
        |p: &Position| p.as_json().trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap();
    Some(number(a).cmp(&number(b)))
}

/// A lane that started at 1 and had the batch up to 2 acknowledged, whose last event is 20.
fn going() -> Standing {
    let mut standing = Standing::new(place(1), None);
    assert!(matches!(standing.compare(None, again(&[]), by_number), Verdict::GoOn(0)));
    standing.acknowledged(Some(&place(2)), 10, true);
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
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(6)]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
}

#[test]
fn the_start_is_behind_the_target() {
    let mut standing = Standing::new(place(3), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(4)]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, None, false), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 10, Some(3), true), Ok(Skipped::Through(event(50))));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
    // The batch ends with what is held: nothing is to be stored.
    let mut standing = Standing::new(place(3), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(5)]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, Some(9), false), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
}

#[test]
fn the_target_is_still_ahead_when_a_delivery_failed() {
    let mut standing = Standing::new(place(3), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(7)]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, Some(3), true), Ok(Skipped::Through(event(50))));
    // Nothing of the rest arrived, or, without transactions, some of it.
    for (target, last) in [(held(5, 50), 50), (inside(5, 52, 2), 52)] {
        assert!(matches!(standing.compare(Some(&target), again(&[Some(7)]), by_number), Verdict::GoOn(0)));
        assert_eq!(skip(&mut standing, 10, Some(5), true), Ok(Skipped::Through(event(last))));
    }
    let verdict = standing.compare(Some(&held(6, 60)), again(&[Some(7)]), by_number);
    assert_eq!(code(&verdict), ("sink.position_moved", Class::Fenced));
}

#[test]
fn the_start_is_beyond_the_target_and_nothing_lies_between() {
    let mut standing = Standing::new(place(7), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(8)]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[Some(8)]), by_number), Verdict::GoOn(0)));
    // A chain may have begun the transaction that follows.
    let mut standing = Standing::new(place(7), Some(inside(5, 53, 3)));
    assert!(matches!(
        standing.compare(Some(&inside(5, 53, 3)), again(&[Some(8)]), by_number),
        Verdict::GoOn(0)
    ));
    assert_eq!(skip(&mut standing, 10, Some(2), true), Ok(Skipped::Through(event(53))));
}

/// The position was that of an idle place behind the event's transaction; read again, the batch ends in front of it.
#[test]
fn a_position_does_not_go_back() {
    let mut standing = Standing::new(place(3), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, Some(9), false), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
}

#[test]
fn an_event_that_does_not_come_again_is_not_waited_for() {
    let mut standing = Standing::new(place(3), Some(held(5, 50)));
    assert!(matches!(standing.compare(Some(&held(5, 50)), again(&[]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, None, false), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 10, None, true), Err("sink.event_not_met"));
    // Behind the position so many events are held: the one searched for is the last of them.
    let mut standing = Standing::new(place(3), Some(inside(5, 50, 7)));
    assert!(matches!(standing.compare(Some(&inside(5, 50, 7)), again(&[]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, None, false), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 6, None, true), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 1, None, true), Err("sink.event_not_met"));
}

#[test]
fn the_target_moved_since_the_start_was_chosen() {
    for (first, then) in [(None, Some(held(5, 50))), (Some(held(5, 50)), Some(held(6, 60)))] {
        let mut standing = Standing::new(place(5), first);
        let verdict = standing.compare(then.as_ref(), again(&[Some(6)]), by_number);
        assert_eq!(code(&verdict), ("sink.position_moved", Class::Retry));
        assert!(matches!(verdict, Verdict::BeginAgain(_)));
    }
}

#[test]
fn a_target_without_transactions_is_found_inside_a_batch() {
    let mut standing = Standing::new(place(5), Some(inside(5, 53, 3)));
    assert!(matches!(
        standing.compare(Some(&inside(5, 53, 3)), again(&[Some(6)]), by_number),
        Verdict::GoOn(0)
    ));
    assert_eq!(skip(&mut standing, 2, None, true), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 2, Some(0), true), Ok(Skipped::Through(event(53))));
}

#[test]
fn dead_letters_come_again_and_are_not_held() {
    let standing = |with_letters| {
        let mut standing = Standing::new(place(5), Some(inside(5, 53, 10))).with_letters(with_letters);
        let verdict = standing.compare(Some(&inside(5, 53, 10)), again(&[Some(6)]), by_number);
        assert!(matches!(verdict, Verdict::GoOn(0)));
        standing
    };
    // A part of ten, of which nine are held: the tenth that is held stands in the next part.
    assert_eq!(skip(&mut standing(false), 10, None, false), Err("sink.event_not_met"));
    let mut with = standing(true);
    assert!(!with.is_between());
    assert_eq!(skip(&mut with, 10, None, false), Ok(Skipped::Whole));
    assert_eq!(skip(&mut with, 10, Some(0), true), Ok(Skipped::Through(event(53))));
    assert!(with.is_between());
    // The transaction's end came by without it.
    assert_eq!(skip(&mut standing(true), 10, None, true), Err("sink.event_not_met"));
}

#[test]
fn nothing_arrived() {
    let mut standing = going();
    assert!(matches!(standing.compare(Some(&held(2, 20)), again(&[Some(3)]), by_number), Verdict::GoOn(0)));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
}

#[test]
fn the_answer_was_lost() {
    let mut standing = going();
    assert!(matches!(
        standing.compare(Some(&held(3, 30)), again(&[None, Some(3), Some(4)]), by_number),
        Verdict::GoOn(2)
    ));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
}

#[test]
fn a_part_of_the_batch_arrived() {
    let mut standing = going();
    assert!(matches!(
        standing.compare(Some(&inside(2, 21, 1)), again(&[Some(3)]), by_number),
        Verdict::GoOn(0)
    ));
    assert_eq!(skip(&mut standing, 10, Some(0), true), Ok(Skipped::Through(event(21))));
    let mut standing = going();
    assert!(matches!(
        standing.compare(Some(&inside(3, 31, 2)), again(&[Some(3), Some(4)]), by_number),
        Verdict::GoOn(1)
    ));
    assert_eq!(skip(&mut standing, 10, Some(1), true), Ok(Skipped::Through(event(31))));
}

#[test]
fn acknowledged_parts_are_there_for_good_or_lost() {
    let mut standing = going();
    standing.acknowledged(None, 5, true);
    let verdict = standing.compare(Some(&held(2, 20)), again(&[Some(3)]), by_number);
    assert_eq!(code(&verdict), ("sink.transaction_lost", Class::Retry));
    assert!(matches!(standing.compare(Some(&held(3, 30)), again(&[Some(3)]), by_number), Verdict::GoOn(1)));
    // Without transactions the acknowledged part is there: nothing to skip, or a piece of the next part, or it was lost.
    assert!(matches!(
        standing.compare(Some(&inside(2, 25, 5)), again(&[Some(3)]), by_number),
        Verdict::GoOn(0)
    ));
    assert_eq!(skip(&mut standing, 10, None, true), Ok(Skipped::Nothing));
    assert!(matches!(
        standing.compare(Some(&inside(2, 27, 7)), again(&[Some(3)]), by_number),
        Verdict::GoOn(0)
    ));
    assert_eq!(skip(&mut standing, 1, None, true), Ok(Skipped::Whole));
    assert_eq!(skip(&mut standing, 1, Some(0), true), Ok(Skipped::Through(event(27))));
    let verdict = standing.compare(Some(&inside(2, 23, 3)), again(&[Some(3)]), by_number);
    assert_eq!(code(&verdict), ("sink.transaction_lost", Class::Retry));
}

#[test]
fn a_stranger_wrote() {
    let verdict = going().compare(Some(&held(9, 90)), again(&[Some(3), Some(4)]), by_number);
    assert_eq!(code(&verdict), ("sink.position_moved", Class::Fenced));
}

#[test]
fn the_position_is_gone() {
    let verdict = going().compare(None, again(&[Some(3)]), by_number);
    assert_eq!(code(&verdict), ("sink.position_lost", Class::Lost));
    let mut nothing_yet = Standing::new(place(1), None);
    for _ in 0..2 {
        assert!(matches!(nothing_yet.compare(None, again(&[Some(2)]), by_number), Verdict::GoOn(0)));
    }
}

#[test]
fn the_first_transaction_was_given_up_in_parts() {
    let mut standing = Standing::new(place(1), None);
    assert!(matches!(standing.compare(None, again(&[]), by_number), Verdict::GoOn(0)));
    standing.acknowledged(None, 5, true);
    let verdict = standing.compare(None, again(&[Some(2)]), by_number);
    assert_eq!(code(&verdict), ("sink.transaction_lost", Class::Retry));
}

#[test]
fn the_target_went_back() {
    let verdict = going().compare(Some(&held(1, 10)), again(&[Some(3)]), by_number);
    assert_eq!(code(&verdict), ("sink.target_lost", Class::Retry));
    assert!(matches!(verdict, Verdict::BeginAgain(_)));
}
