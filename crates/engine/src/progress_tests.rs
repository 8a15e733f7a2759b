use super::*;
use deltaforge_core::Position;

fn end(n: u64) -> End {
    End { position: Position::from_json(&format!("{{\"n\":{n}}}")), events_done: 0 }
}

fn progress(policy: CommitPolicy, required: &[bool]) -> Progress {
    Progress::new(policy, required.to_vec(), None)
}

/// Every order in which five batches can be acknowledged by one sink.
fn permutations(items: &[u64]) -> Vec<Vec<u64>> {
    match items {
        [] => vec![vec![]],
        _ => items
            .iter()
            .flat_map(|first| {
                let rest: Vec<u64> = items.iter().copied().filter(|i| i != first).collect();
                permutations(&rest).into_iter().map(move |mut tail| {
                    tail.insert(0, *first);
                    tail
                })
            })
            .collect(),
    }
}

#[test]
fn the_frontier_is_the_contiguous_prefix_in_every_order_of_acknowledgements() {
    for order in permutations(&[1, 2, 3, 4, 5]) {
        let mut p = progress(CommitPolicy::Required, &[true]);
        (1..=5).for_each(|n| assert_eq!(p.cut(10, 0, Some(end(n))), BatchSeq(n)));
        let mut acknowledged = std::collections::BTreeSet::new();
        for seq in &order {
            p.delivered(0, BatchSeq(*seq));
            acknowledged.insert(*seq);
            let prefix = (1..=5).take_while(|n| acknowledged.contains(n)).last();
            assert_eq!(p.safe().cloned(), prefix.map(end), "{order:?} after {seq}");
            assert_eq!(p.in_flight() as u64, 5 - prefix.unwrap_or(0));
        }
    }
}

#[test]
fn inside_a_transaction_nothing_may_be_saved() {
    let mut p = progress(CommitPolicy::Required, &[true]);
    p.cut(1, 0, Some(end(1)));
    p.cut(1, 0, None);
    p.cut(1, 0, Some(end(3)));
    p.delivered(0, BatchSeq(1));
    p.delivered(0, BatchSeq(2));
    assert_eq!(p.safe(), Some(&end(1)));
    p.delivered(0, BatchSeq(3));
    assert_eq!(p.safe(), Some(&end(3)));
}

/// Roles × outcomes × policies, exhaustively: two sinks, each required or not, each delivered, given up or pending.
#[test]
fn policies_name_the_sinks_they_wait_for() {
    use Outcome::{Delivered as D, GivenUp as G, Pending as P};
    let outcomes = [D, G, P];
    for required in [[true, true], [true, false], [false, true], [false, false]] {
        for a in outcomes {
            for b in outcomes {
                let settles = |policy| {
                    let mut p = progress(policy, &required);
                    let seq = p.cut(1, 0, Some(end(1)));
                    for (sink, outcome) in [a, b].into_iter().enumerate() {
                        match outcome {
                            D => drop(p.delivered(sink, seq)),
                            G => drop(p.given_up(sink, seq)),
                            P => {}
                        }
                    }
                    p.safe().is_some()
                };
                let both = a == D && b == D;
                assert_eq!(settles(CommitPolicy::All), both);
                assert_eq!(settles(CommitPolicy::Quorum(1)), a == D || b == D);
                assert_eq!(settles(CommitPolicy::Quorum(2)), both);
                let by_role = match required {
                    [true, true] => both,
                    [true, false] => a == D,
                    [false, true] => b == D,
                    [false, false] => a != P && b != P,
                };
                assert_eq!(settles(CommitPolicy::Required), by_role, "{required:?} {a:?} {b:?}");
            }
        }
    }
}

#[test]
fn an_advance_waits_for_what_is_in_flight() {
    let mut p = progress(CommitPolicy::Required, &[true]);
    p.advance(end(1));
    assert_eq!(p.safe(), Some(&end(1)));
    let seq = p.cut(1, 7, Some(end(2)));
    p.advance(end(3));
    assert_eq!(p.safe(), Some(&end(1)), "one undelivered row holds every later place back");
    assert_eq!(p.oldest_unsaved_us(), Some(7));
    p.delivered(0, seq);
    assert_eq!(p.safe(), Some(&end(3)));
}

#[test]
fn saving_takes_nothing_that_came_after() {
    let mut p = progress(CommitPolicy::Required, &[true]);
    let first = p.cut(4, 10, Some(end(1)));
    let second = p.cut(5, 20, Some(end(2)));
    p.delivered(0, first);
    let (taken, covered) = (p.unsaved().cloned().expect("something to save"), p.unsaved_events());
    p.delivered(0, second);
    p.saved(taken, covered);
    assert_eq!(p.last_saved(), Some(&end(1)));
    assert_eq!(p.unsaved(), Some(&end(2)));
    assert_eq!(p.unsaved_events(), 5);
}
