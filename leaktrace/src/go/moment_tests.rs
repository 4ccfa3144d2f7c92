use proptest::prelude::*;

use super::super::test_programs::Toolchain;
use super::super::test_told::{MODES, TOLD, Told};
use super::*;

/// What is read is what the program has read of itself, to the byte, while nothing happens in between.
#[test]
fn what_is_read_is_what_the_program_says_of_itself() {
    for go in Toolchain::all_there() {
        for mode in MODES {
            let mut told = Told::of(&go, mode);
            let (_, runtime) = told.runtime();
            let first = Moment::read(&runtime).unwrap();
            told.ask("aactfccact");
            let (answer, moment) = told.while_quiet(|| Moment::read(&runtime).unwrap());
            let context = format!("{go:?} {mode:?}");
            assert_eq!(
                [moment.collections, moment.pause_ns],
                answer.of("collections"),
                "{context}"
            );
            assert_eq!([moment.heap_goal; 2], answer.of("goal"), "{context}");
            assert_eq!([moment.allocated_bytes], answer.of("allocated"), "{context}");
            let heap = answer.of("heap");
            assert_eq!(moment.allocated_bytes - moment.freed_bytes, heap[0], "{context}");
            assert_eq!([moment.heap_in_use, moment.heap_free], heap[1..3], "{context}");
            assert!(moment.collections >= first.collections + 4, "{context}");
            assert!(
                moment.heap_live >= heap[0] && moment.heap_live < heap[0] + (16 << 20),
                "{context}: {moment:?} {heap:?}"
            );
            let pauses: Vec<Pause> = moment.pauses_since(first.collections).collect();
            assert_eq!(pauses.len() as u64, moment.collections - first.collections, "{context}");
            for pause in &pauses {
                let index = (pause.collection - 1) as usize % 256;
                let said = (answer.of("pauses")[index], answer.of("ends")[index]);
                assert_eq!((pause.pause_ns, pause.ended_unix_ns), said, "{context}");
            }
            let since: u64 = pauses.iter().map(|pause| pause.pause_ns).sum();
            assert_eq!(since, moment.pause_ns - first.pause_ns, "{context}");
        }
    }
}

#[test]
fn the_goal_is_that_of_a_memory_limit_where_it_is_lower() {
    for go in Toolchain::all_there() {
        let program = go.build(MODES[0], TOLD);
        let (mut lowest, mut off) = (Vec::new(), Vec::new());
        for limit in ["1", "12", "40", "4000"] {
            let mut told = Told::start(&program, &[limit], &[]);
            let (_, runtime) = told.runtime();
            told.ask("acct");
            let (answer, moment) = told.while_quiet(|| Moment::read(&runtime).unwrap());
            assert_eq!(moment.heap_goal, answer.of("goal")[0], "{go:?} {limit}");
            lowest.push(moment.heap_goal);
        }
        assert!(lowest[0] < lowest[3], "{go:?}: the limit decides: {lowest:?}");
        for limit in [&["4000"][..], &[]] {
            let mut told = Told::start(&program, limit, &[("GOGC", "off")]);
            let (_, runtime) = told.runtime();
            told.ask("at");
            let (answer, moment) = told.while_quiet(|| Moment::read(&runtime).unwrap());
            assert_eq!(moment.heap_goal, answer.of("goal")[0], "{go:?} {limit:?}");
            off.push(moment.heap_goal);
        }
        assert!(off[0] < 4000 << 20 && off[1] > MOST, "{go:?}: {off:?}");
    }
}

proptest! {
    #[test]
    fn any_numbers_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..6000), cut in 0..6000_usize, minor in 18..29_u32) {
        let (layout, _) = Layout::of(Some(minor)).unwrap();
        let (stats, controller) = bytes.split_at(cut.min(bytes.len()));
        if let Some(moment) = parse(7, stats, controller, layout) {
            prop_assert!(moment.pauses_since(0).count() == 7);
        }
    }
}
