//! The harness of the end-to-end suite: it compiles fixtures, runs them at their gates, traces them with the
//! leaktrace binary, and compares what leaktrace says with the truth that the fixture tells.
//!
//! ```text
//! fixture::Fixture ──start──▶ child::Child ◀──attach── tracer::Tracer ──▶ profile::Profile
//!                                  └──▶ truth::Truth ─────────── compare ──────┘
//! ```
//! It knows leaktrace only as its users do: by its command line, its exit codes and its JSON.

pub mod child;
pub mod compare;
pub mod estimate;
pub mod fixture;
pub mod foreign;
pub mod frames;
pub mod golang;
pub mod host;
pub mod http;
pub mod needs;
pub mod oracle;
pub mod pprof;
pub mod profile;
pub mod served;
pub mod symbols;
pub mod tracer;
pub mod trial;
pub mod truth;
