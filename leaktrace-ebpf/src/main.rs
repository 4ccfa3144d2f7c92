//! The kernel side: what runs at every probed call.
//!
//! `programs` are the entry points; they read the call by its specification (`alloc`, `free`, `mapping`), find its
//! site (`stack`, `unwind`, `returns`) and keep the tables (`maps`, `totals`). Everything refused or lost is counted
//! (`counters`).
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic additions; see `atomic`")]

mod alloc;
mod atomic;
mod code;
mod counters;
mod free;
mod go;
mod inflight;
mod live;
mod mapping;
mod maps;
mod measure;
mod process;
mod programs;
mod regs;
mod returns;
mod stack;
mod totals;
mod unwind;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
