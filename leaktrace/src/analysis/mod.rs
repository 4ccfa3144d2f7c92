//! What the numbers mean: growth, its trend, and a verdict for each site.
//!
//! Pure: no I/O, no clock, no randomness; the caller hands in what was measured and when.

pub mod growth;
pub mod history;
pub mod trend;
pub mod verdict;

pub use self::growth::{Point, Slope, theil_sen};
pub use self::history::History;
pub use self::trend::{Trend, trend};
pub use self::verdict::{Cohort, Evidence, judge};
