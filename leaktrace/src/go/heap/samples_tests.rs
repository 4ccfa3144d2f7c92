use super::*;

const SIZE: u64 = 64;

fn span(base: u64, free_index: u64, taken: u64) -> Span {
    Span {
        base,
        bytes: 8192,
        object_size: SIZE,
        class: 10,
        objects: 128,
        free_index,
        taken,
        sweep_generation: 8,
        alloc_bits: 0,
        mark_bits: 0,
    }
}

fn event(span: Span, bits: &[u64], site: u32) -> HandedOut<'_> {
    HandedOut {
        address: span.base.wrapping_add(0xdead_0000),
        span,
        bits,
        large: false,
        thread: 77,
        site,
        cohort: 3,
        generation: 8,
    }
}

fn addresses(samples: &Samples) -> Vec<u64> {
    samples.pending().map(|(address, _)| address).collect()
}

#[test]
fn the_first_free_place_is_the_sample_and_stands_for_all_until_the_span_is_given_back() {
    let mut samples = Samples::new(100);
    // Two places from the free index on are taken.
    samples.handed_out(&event(span(0x10000, 2, 4), &[0b1100, 0], 7));
    assert_eq!(addresses(&samples), [0x10000 + 4 * SIZE]);
    samples.uncached(0xdead_0000 + 0x10000, 104, 77);
    let sites = samples.sites();
    assert_eq!(
        (sites[&7].allocated.count(), sites[&7].allocated.bytes()),
        (100, 100 * SIZE)
    );
    assert_eq!((sites[&7].young.count(), sites[&7].live.count()), (100, 0));
    // What comes later of a span that nobody fills is none of ours.
    samples.uncached(0xdead_0000 + 0x10000, 128, 77);
    assert_eq!(samples.sites()[&7].allocated.count(), 100);
}

#[test]
fn a_span_that_is_being_filled_counts_up_to_now() {
    let mut samples = Samples::new(100);
    samples.handed_out(&event(span(0x10000, 0, 0), &[], 7));
    assert_eq!(samples.sites()[&7].allocated.count(), 1);
    for taken in [10, 30] {
        samples.set_taken(samples.filling()[0], taken);
        assert_eq!(samples.sites()[&7].allocated.count(), taken);
    }
}

#[test]
fn what_is_free_when_its_span_is_handed_out_anew_is_gone() {
    let mut samples = Samples::new(100);
    samples.handed_out(&event(span(0x10000, 0, 0), &[0, 0], 1));
    samples.handed_out(&event(span(0x10000, 5, 5), &[0b1_1111, 0], 2));
    assert_eq!(addresses(&samples), [0x10000, 0x10000 + 5 * SIZE]);
    // The first is not taken any more, and is taken anew at once; the other is.
    samples.handed_out(&event(span(0x10000, 0, 1), &[0b10_0000, 0], 3));
    let left: Vec<(u64, u32)> = samples.pending().map(|(address, one)| (address, one.site)).collect();
    assert_eq!(left, [(0x10000, 3), (0x10000 + 5 * SIZE, 2)]);
}

#[test]
fn pages_that_become_another_span_lose_all_samples() {
    let mut samples = Samples::new(100);
    samples.handed_out(&event(span(0x10000, 0, 0), &[], 1));
    samples.handed_out(&event(span(0x12000, 0, 0), &[], 2));
    samples.handed_out(&event(span(0x14000, 0, 0), &[], 3));
    let large = Span {
        bytes: 3 * 8192,
        object_size: 3 * 8192,
        objects: 1,
        ..span(0xe000, 0, 0)
    };
    samples.handed_out(&HandedOut {
        large: true,
        ..event(large, &[], 4)
    });
    assert_eq!(addresses(&samples), [0xe000, 0x14000]);
    // Every large object is seen: nothing is estimated.
    let sites = samples.sites();
    assert_eq!(
        (sites[&4].allocated.count(), sites[&4].allocated.error()),
        (1, Some(0.0))
    );
}

#[test]
fn verdicts_are_for_the_sample_they_were_made_for() {
    let mut samples = Samples::new(100);
    samples.handed_out(&event(span(0x10000, 0, 0), &[], 1));
    let first = samples.pending().next().map(|(_, one)| one.number).unwrap();
    samples.handed_out(&event(span(0x10000, 0, 0), &[], 2));
    samples.apply(&[(0x10000, first, Verdict::Dead)]);
    assert_eq!(addresses(&samples), [0x10000]);
    let second = samples.pending().next().map(|(_, one)| one.number).unwrap();
    samples.apply(&[(0x10000, second, Verdict::Young), (0x9999, 1, Verdict::Live)]);
    assert_eq!(samples.sites()[&2].young.count(), 1);
    samples.apply(&[(0x10000, second, Verdict::Live)]);
    assert_eq!(
        (samples.sites()[&2].live.count(), samples.live_objects(9)[&2].len()),
        (1, 1)
    );
    samples.apply(&[(0x10000, second, Verdict::Dead)]);
    assert_eq!(addresses(&samples), Vec::<u64>::new());
    // It was allocated all the same.
    assert_eq!(samples.sites()[&2].allocated.count(), 1);
}

#[test]
fn the_young_are_expected_to_survive_as_their_elders_did() {
    let mut samples = Samples::new(100);
    for index in 0..4 {
        samples.handed_out(&event(span(0x10000 + 0x2000 * index, 0, 0), &[], 1));
        samples.uncached(0xdead_0000 + 0x10000 + 0x2000 * index, 100, 77);
    }
    let known: Vec<(u64, u64)> = samples.pending().map(|(address, one)| (address, one.number)).collect();
    samples.apply(&[
        (known[0].0, known[0].1, Verdict::Live),
        (known[1].0, known[1].1, Verdict::Dead),
    ]);
    // Two of four are judged, one of them is live: of the two others one can be expected to be.
    let site = &samples.sites()[&1];
    assert_eq!(
        (site.live.count(), site.young.count(), site.allocated.count()),
        (200, 200, 400)
    );
    assert_eq!((site.live.samples, site.cohorts[&3].count()), (1, 200));
}

#[test]
fn the_first_after_a_collection_stands_for_itself_where_others_tell_more() {
    let mut samples = Samples::new(100);
    let mut hand_out = |number: u64, site, taken| {
        let base = 0x10000 + 0x2000 * number;
        samples.handed_out(&event(span(base, 0, 0), &[], site));
        samples.uncached(0xdead_0000 + base, taken, 77);
    };
    // Site 1 begins after a collection, and its span is filled; so are the four after it, all of site 2.
    hand_out(0, 1, 128);
    (1..5).for_each(|number| hand_out(number, 2, 128));
    // Given back before it is full: the next one comes after a collection again.
    hand_out(5, 2, 100);
    hand_out(6, 1, 28);
    let sites = samples.sites();
    assert_eq!(
        (sites[&1].allocated.count(), sites[&2].allocated.count()),
        (2, 128 + 4 * 128 + 100 + 28 - 2)
    );
}

#[test]
fn what_is_settled_stays_though_other_cohorts_follow() {
    let mut samples = Samples::new(100);
    samples.handed_out(&event(span(0x10000, 0, 0), &[], 1));
    samples.handed_out(&HandedOut {
        cohort: 50,
        ..event(span(0x20000, 0, 0), &[], 2)
    });
    // It is still being filled.
    samples.uncached(0xdead_0000 + 0x10000, 100, 77);
    let sites = samples.sites();
    assert_eq!((sites[&1].allocated.count(), sites[&1].young.count()), (100, 100));
}

#[test]
fn there_are_never_more_than_allowed_and_the_rest_is_counted() {
    let mut samples = Samples::new(2);
    for index in 0..5 {
        samples.handed_out(&event(span(0x10000 + 0x2000 * index, 0, 0), &[], 1));
    }
    assert_eq!((addresses(&samples).len(), samples.refused()), (2, 3));
    assert_eq!(samples.sites()[&1].allocated.count(), 5);
}

#[test]
fn contradictions_are_survived() {
    let mut samples = Samples::new(10);
    // All taken, though it is handed out; more bits than objects; fewer taken than before.
    samples.handed_out(&event(span(0x10000, 0, 128), &[u64::MAX, u64::MAX, u64::MAX], 1));
    samples.handed_out(&event(span(0x10000, 200, 128), &[], 1));
    assert_eq!(addresses(&samples), Vec::<u64>::new());
    samples.handed_out(&event(span((1 << 47) - 8192, 0, 100), &[], 1));
    samples.uncached(samples.filling()[0], 3, 77);
    assert_eq!(samples.sites()[&1].allocated.count(), 1);
}
