//! Asks the linker for the third version of the instruction set, which has atomics that return the old value.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=--cpu-features=+alu32");
}
