use super::super::own_profile::Sampled;
use super::super::test_programs::Toolchain;
use super::super::test_told::{MODES, TOLD, Told};
use super::*;

/// How many objects were sampled of all, and where the rate stands, as the program itself says.
fn sampled(told: &mut Told) -> (u64, u64) {
    let answer = told.ask("t");
    let samples = answer.all("record").iter().filter_map(|record| record.first());
    (samples.sum(), answer.of("rate")[0])
}

#[test]
fn the_program_samples_at_the_rate_that_was_set_until_it_is_put_back() {
    for go in Toolchain::all_there() {
        for mode in MODES {
            let mut told = Told::of(&go, mode);
            let (_, runtime) = told.runtime();
            told.ask("aact");
            let (before, usual) = sampled(&mut told);
            let context = format!("{go:?} {mode:?}");
            let rate = Rate::set(&runtime, 4096).unwrap();
            assert_eq!(rate.before(), usual, "{context}");
            // The first samples are still as far apart as before.
            told.ask("aaaact");
            let (while_set, now) = sampled(&mut told);
            assert_eq!(now, 4096, "{context}");
            assert!(while_set > before + 1000, "{context}: {before} {while_set}");
            assert_eq!(Sampled::read(&runtime).unwrap().unwrap().rate, 4096, "{context}");
            drop(rate);
            told.ask("aaaact");
            let (after, now) = sampled(&mut told);
            assert_eq!(now, usual, "{context}");
            assert!(after - while_set < 1000, "{context}: {while_set} {after}");
        }
    }
}

#[test]
fn a_rate_that_the_program_has_set_itself_meanwhile_is_left_alone() {
    let [_, newest] = Toolchain::oldest_and_newest();
    let mut told = Told::of(&newest, MODES[0]);
    let (_, runtime) = told.runtime();
    let first = Rate::set(&runtime, 4096).unwrap();
    let second = Rate::set(&runtime, 8192).unwrap();
    drop(first);
    assert_eq!(sampled(&mut told).1, 8192);
    drop(second);
    assert_eq!(sampled(&mut told).1, 4096);
}

#[test]
fn nothing_is_written_where_the_linker_has_switched_the_profile_off() {
    let unused = TOLD.replace("runtime.MemProfile(records, true)", "0, 0");
    for go in Toolchain::all_there() {
        let mut told = Told::start(&go.build(MODES[2], &unused), &[], &[]);
        let (_, runtime) = told.runtime();
        assert!(matches!(Rate::set(&runtime, 4096), Err(RateError::Off)), "{go:?}");
        assert_eq!(sampled(&mut told).1, 0, "{go:?}");
    }
}
