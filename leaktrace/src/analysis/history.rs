//! A site's live bytes over time, in bounded memory. Pure.

use super::growth::{Point, theil_sen};

/// Most points kept, the newest not counted.
const MOST_KEPT: usize = 63;

/// A series of points, oldest first, thinned evenly as it grows: it always spans everything ever pushed.
#[derive(Clone, Debug, Default)]
pub struct History {
    kept: Vec<Point>,
    /// The newest point, when it is not among the kept ones.
    newest: Option<Point>,
    /// Kept points are this power of two pushes apart.
    doublings: u32,
    pushes: u64,
}

impl History {
    /// Adds that `bytes` were live at `at_ns`. A point that is not later than the last one is left out.
    pub fn push(&mut self, at_ns: u64, bytes: u64) {
        if self.last().is_some_and(|last| at_ns <= last.at_ns) {
            return;
        }
        let due = self.pushes.trailing_zeros() >= self.doublings || self.pushes == 0;
        self.pushes += 1;
        let point = Point { at_ns, bytes };
        self.newest = (!due).then_some(point);
        if due {
            self.keep(point);
        }
    }

    /// The points, oldest first, the newest always among them.
    pub fn points(&self) -> Vec<Point> {
        self.kept.iter().chain(&self.newest).copied().collect()
    }

    /// How many points there are: at most 64.
    pub fn len(&self) -> usize {
        self.kept.len() + usize::from(self.newest.is_some())
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Growth in bytes per second, the whole series considered; 0 as long as there are not two points.
    pub fn slope_per_s(&self) -> f64 {
        let mut bytes = self.kept.iter().chain(&self.newest).map(|point| point.bytes);
        let first = bytes.next();
        // Most sites of a big program never change: no pairs to compare.
        if bytes.all(|other| Some(other) == first) {
            return 0.0;
        }
        theil_sen(&self.points()).map_or(0.0, |slope| slope.per_s)
    }

    fn last(&self) -> Option<Point> {
        self.newest.or(self.kept.last().copied())
    }

    fn keep(&mut self, point: Point) {
        self.kept.push(point);
        if self.kept.len() > MOST_KEPT {
            // The pushes kept are multiples of the stride, so that every second one is a multiple of its double.
            let mut index = 0;
            self.kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.doublings += 1;
            self.newest = (self.kept.last() != Some(&point)).then_some(point);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_bounded_even_and_complete() {
        let mut history = History::default();
        for second in 0..10_000_u64 {
            history.push(second * 1_000_000_000, second * 100);
            assert!(history.len() <= 64);
            assert_eq!(history.points().last().map(|point| point.bytes), Some(second * 100));
            assert_eq!(history.points().first().map(|point| point.at_ns), Some(0));
        }
        let points = history.points();
        let gaps: Vec<u64> = points.windows(2).map(|pair| pair[1].at_ns - pair[0].at_ns).collect();
        let (newest, even) = gaps.split_last().expect("many points");
        assert!(even.iter().all(|gap| *gap == even[0]), "{gaps:?}");
        assert!(*newest <= even[0]);
        assert!(history.len() > MOST_KEPT / 2, "thinned too far: {}", history.len());
        assert!((history.slope_per_s() - 100.0).abs() < 1e-6);
    }

    #[test]
    fn points_out_of_order_are_left_out() {
        let mut history = History::default();
        history.push(5, 1);
        history.push(5, 2);
        history.push(4, 3);
        assert_eq!(history.points(), [Point { at_ns: 5, bytes: 1 }]);
    }

    #[test]
    fn an_unchanged_series_does_not_grow() {
        let mut history = History::default();
        assert!(history.is_empty());
        (0..100).for_each(|second| history.push(second, 4096));
        assert!(history.slope_per_s().abs() < f64::EPSILON);
    }
}
