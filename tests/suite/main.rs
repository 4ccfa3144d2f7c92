//! The end-to-end suite: one binary, one module per theme. `cargo test -p leaktrace-tests --test suite -- NAME`.
//!
//! Run as root for all of it; what cannot run here is listed as ignored with its reason. `LEAKTRACE_BIN` names the
//! binary to test.

mod allocators;
mod attaching;
mod becoming;
mod calls;
mod churn;
mod endings;
mod errors;
mod frames;
mod golang_heap;
mod golang_rate;
mod golang_service;
mod goroutines;
mod inspect;
mod launching;
mod limits;
mod mixing;
mod oracles;
mod outputs;
mod pending;
mod processes;
mod programs;
mod serve;
mod serve_go;
mod stacks;
mod surviving;
mod symbols;
mod verdicts;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // Traces disturb each other's timing, and one program's output should be read beside its own test's name.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let trials: Vec<Trial> = [
        calls::trials(),
        allocators::trials(),
        attaching::trials(),
        launching::trials(),
        endings::trials(),
        becoming::trials(),
        processes::trials(),
        stacks::trials(),
        pending::trials(),
        mixing::trials(),
        symbols::trials(),
        frames::trials(),
        churn::trials(),
        surviving::trials(),
        verdicts::trials(),
        limits::trials(),
        outputs::trials(),
        errors::trials(),
        goroutines::trials(),
        inspect::trials(),
        serve::trials(),
        serve_go::trials(),
        golang_heap::trials(),
        golang_rate::trials(),
        golang_service::trials(),
        programs::trials(),
        oracles::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list {
        for (reason, count) in leaktrace_tests::trial::skipped(&trials) {
            eprintln!("{count} of {} tests {reason}", trials.len());
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
